// Package up runs a whole demo fleet on one machine: a controller and a few
// boxes, each an agent and a runner in processes of their own, on simulated
// boards. It plays systemd for them: it starts what dies and ends all it
// started. Everything it writes lies in one folder:
//
//	DATA/lock               held while a fleet runs here
//	DATA/up.json            ports and token, so that a restart finds them again
//	DATA/context.json       address and token for the operator's commands
//	DATA/server/            state of the controller, server.yaml
//	DATA/boxes/NAME/        root/ (sysfs-like files), launcher/, agent/, runner/, frames/
//	DATA/boxes/NAME/*.yaml  configuration; a restart keeps what was changed there
//	DATA/log/               output of the processes
//
// The one rule a caller can break: one fleet per DATA; a second is refused.
package up

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

// Options of a fleet. Bin and Assets are required.
type Options struct {
	Data string // folder for everything; default edgeherd-data
	// Ephemeral puts Data below the temporary directory and removes it at the end.
	Ephemeral bool
	Boxes     int    // default 3
	Bin       string // directory of the four programs
	Assets    string // directory with onnxruntime/ and models/
	Version   string
	// TimeScale makes heat and dust of the boards run faster; default 1.
	TimeScale float64
	Out       io.Writer // words for people; default nowhere
}

func (o Options) withDefaults() Options {
	if o.Data == "" {
		o.Data = "edgeherd-data"
	}
	if o.Boxes <= 0 {
		o.Boxes = 3
	}
	if o.TimeScale <= 0 {
		o.TimeScale = 1
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	return o
}

// Fleet is a prepared demo fleet.
type Fleet struct {
	opts  Options
	log   *slog.Logger
	plan  plan
	boxes []box
	// login opens the page once.
	login string
	token string
	lock  *durable.Lock // DATA/lock
	// leavings are folders to remove at the end.
	leavings []string
}

// box is one simulated box.
type box struct {
	name, site, profile string
	seed                uint64
	dir                 string // absolute
	secrets             string // opened ones
	socket              string // of its runner; short, since a unix address has 107 bytes
}

// Run prepares the fleet, starts it and waits until ctx is done. It returns
// after the last process it started has ended.
func Run(ctx context.Context, opts Options, log *slog.Logger) (err error) {
	began := time.Now()
	f, err := prepare(ctx, opts, log)
	if err != nil {
		return quiet(ctx, err)
	}
	defer f.close()
	g, ctx := errgroup.WithContext(ctx)
	sup := supervisor{log: log, dir: filepath.Join(f.opts.Data, "log")}
	g.Go(func() error { return sup.keep(ctx, f.controller()) })
	// Frames take seconds to draw, so the page does not wait for the boxes.
	for _, b := range f.boxes {
		g.Go(func() error {
			if err := f.furnishBox(ctx, b); err != nil {
				return quiet(ctx, fmt.Errorf("prepare %s: %w", b.name, err))
			}
			board := f.board(b, log)
			// The agent reads what board it is on once, at its start.
			board.Step(time.Now())
			g.Go(func() error { return board.Run(ctx) })
			g.Go(func() error { return sup.keep(ctx, f.runner(b)) })
			g.Go(func() error { return sup.keep(ctx, f.agent(b)) })
			return nil
		})
	}
	g.Go(func() error { return f.furnish(ctx, began) })
	return g.Wait()
}

// board is the simulated hardware of b; its heat comes from the CPU time that
// the runner really used.
func (f *Fleet) board(b box, log *slog.Logger) *simboard.Board {
	client := runnerapi.Dial(b.socket)
	var used time.Duration
	return simboard.New(simboard.Options{
		Root: filepath.Join(b.dir, "root"), Profile: b.profile, Name: b.name, Seed: b.seed,
		DustPerDay: 0.02, TimeScale: f.opts.TimeScale, FullCPU: 0.5,
		CPU: func() time.Duration {
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			// A runner that is starting has not heated anything yet.
			if s, err := client.Status(ctx); err == nil {
				used = time.Duration(s.CPUSeconds * float64(time.Second))
			}
			return used
		},
	}, log.With("box", b.name))
}

// program is one process to keep alive.
type program struct {
	name string // of its log file
	path string
	args []string
	env  []string
}

func (f *Fleet) controller() program {
	return program{name: "controller", path: f.bin("edgeherd"),
		args: []string{"server", "run", "--config", filepath.Join(f.opts.Data, "server", "server.yaml")}}
}

func (f *Fleet) agent(b box) program {
	return program{name: b.name + "-agent", path: f.bin("edgeherd-launcher"),
		args: []string{"run", "--state", filepath.Join(b.dir, "launcher"), "--", "run", "--config", filepath.Join(b.dir, "agent.yaml")}}
}

func (f *Fleet) runner(b box) program {
	return program{name: b.name + "-runner", path: f.bin("edgeherd-runner"),
		args: []string{"run", "--config", filepath.Join(b.dir, "runner.yaml")}}
}

func (f *Fleet) bin(name string) string { return filepath.Join(f.opts.Bin, name) }

func (f *Fleet) say(format string, args ...any) { fmt.Fprintf(f.opts.Out, format+"\n", args...) }

// checkFiles names what is missing before anything is started.
func checkFiles(opts Options) error {
	for _, name := range []string{"edgeherd", "edgeherd-agent", "edgeherd-runner", "edgeherd-launcher"} {
		if _, err := os.Stat(filepath.Join(opts.Bin, name)); err != nil {
			return fmt.Errorf("program %s is not in %s; run make build", name, opts.Bin)
		}
	}
	if _, err := os.Stat(filepath.Join(opts.Assets, "models")); err != nil {
		return fmt.Errorf("no demo models in %s; run make assets, or name the folder with --assets", opts.Assets)
	}
	return nil
}
