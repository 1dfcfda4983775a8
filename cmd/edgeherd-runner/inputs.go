package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// openInputs attaches cameras, pipelines and outbox to the server. A camera
// with a wrong path or a disk that cannot be written must not stop the models:
// the fault is logged, and the status of every input tells it.
func openInputs(c config, s *serve.Server, log *slog.Logger) {
	err := os.MkdirAll(c.State, 0o755)
	if err == nil {
		var in *inputs.Inputs
		in, err = inputs.New(inputs.Options{
			Sources: c.Inputs, Infer: s.Infer, Catalog: newShelf(c, s),
			Outbox: filepath.Join(c.State, "outbox.db"),
		}, log)
		if err == nil {
			s.Attach(in)
			return
		}
	}
	log.Error("inputs stay off, models serve without them", "err", err)
	s.Attach(absent{c.Inputs, err})
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
