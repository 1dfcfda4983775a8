package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/results"
	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// openInputs attaches cameras, pipelines and outbox to the server, and what
// hands results to programs on the box.
func openInputs(c config, s *serve.Server, log *slog.Logger) {
	s.Attach(newCameras(c, s, log))
}

// open makes inputs of a configuration. A camera with a wrong path or a disk
// that cannot be written must not stop the models: the fault is logged, and the
// status of every input tells it.
func open(c config, s *serve.Server, log *slog.Logger) (serve.Inputs, error) {
	err := os.MkdirAll(c.State, 0o755)
	if err == nil {
		hub := openResults(c, log)
		opts := inputs.Options{
			Sources: c.Inputs, Infer: s.Infer, Secrets: c.Secrets, Catalog: newShelf(c, s), Outbox: filepath.Join(c.State, "outbox.db"),
		}
		if hub != nil {
			opts.Deliver = func(d inputs.Delivery) {
				if body, err := json.Marshal(d); err == nil { // numbers and texts: it never fails
					hub.Publish(d.Input, body)
				}
			}
		}
		var in *inputs.Inputs
		in, err = inputs.New(opts, log)
		if err == nil {
			return attached{in, hub, log}, nil
		}
		if hub != nil {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			err = errors.Join(err, hub.Run(ended)) // closes what it opened
		}
	}
	return absent{c.Inputs, err}, err
}

// openResults returns nil where nobody is to get results, or cannot.
func openResults(c config, log *slog.Logger) *results.Hub {
	if c.Results.HTTP == "" && len(c.Results.Targets) == 0 {
		return nil
	}
	var names []string
	for _, s := range c.Inputs {
		names = append(names, s.Name)
	}
	hub, err := results.New(results.Options{Config: c.Results, Dir: c.State, Secrets: c.Secrets, Inputs: names}, log)
	if err != nil {
		log.Error("programs on this box get no results", "err", err)
		return nil
	}
	return hub
}

// attached are inputs with the hub that hands their results on.
type attached struct {
	*inputs.Inputs
	hub *results.Hub // nil: none
	log *slog.Logger
}

// Run ends when both have ended: what the inputs still finish is handed on.
func (a attached) Run(ctx context.Context) error {
	if a.hub == nil {
		return a.Inputs.Run(ctx)
	}
	done := make(chan struct{})
	hubCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(done)
		if err := a.hub.Run(hubCtx); err != nil {
			a.log.Error("programs on this box get no more results", "err", err)
		}
	}()
	err := a.Inputs.Run(ctx)
	stop()
	<-done
	return err
}

// absent stands for inputs that could not be opened.
type absent struct {
	sources []inputs.Source
	err     error
}

func (a absent) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (a absent) Status() []runnerapi.InputStatus {
	var all []runnerapi.InputStatus
	for _, src := range a.sources {
		all = append(all, runnerapi.InputStatus{Name: src.Name, Pipeline: src.Pipeline, Err: a.err.Error()})
	}
	return all
}

func (a absent) Results(uint64, int) (runnerapi.Results, error) {
	return runnerapi.Results{}, fmt.Errorf("read results: inputs are off: %w", a.err)
}

func (a absent) Ack(string, uint64) error {
	return fmt.Errorf("acknowledge results: inputs are off: %w", a.err)
}

func (a absent) SetDuty(runnerapi.Duty)           {}
func (a absent) Counts() (records, dropped int64) { return 0, 0 }
