package inputs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// Infer runs the active version of a model; see pipeline.Infer.
type Infer = pipeline.Infer

// By is what answered an Infer.
type By = pipeline.By

// ErrNoModel is wrapped by an Infer whose model is not active yet. The item is
// then not counted as a failure; the source says so in its status and goes on
// trying.
var ErrNoModel = pipeline.ErrNoModel

// Delivery is one result with what programs on the box want to know of it.
type Delivery struct {
	runnerapi.Result
	// Cursor hides the result's in JSON: it is known after a commit only, and is
	// between runner and agent.
	Cursor   *struct{}          `json:"cursor,omitempty"`
	Findings []pipeline.Finding `json:"findings"`
}

// Options of New. All but the marked fields are required.
type Options struct {
	// Sources may be empty: then only the outbox is served.
	Sources []Source
	Infer   Infer
	Catalog pipeline.Catalog
	// Secrets is the directory of what secret:NAME means in place of the path of a
	// file with a password or token; required for such.
	Secrets string
	// Outbox is the path of the bbolt file; its directory exists.
	Outbox string
	// OutboxMaxBytes bounds the results in the outbox; the file itself stays
	// below about 1.5 times that. Default 16 MiB.
	OutboxMaxBytes int64
	// Deliver, if set, gets each result as well, after it was queued for the
	// outbox. It must not block.
	Deliver func(Delivery)
	// DriftEvery is how often sketches of what was seen become results of the
	// pipeline "drift"; default 15 min, negative: never.
	DriftEvery time.Duration
	// WallClock stamps results and the names of damaged files; default time.Now.
	WallClock func() time.Time
}

// itemTimeout ends work on one item; a slow box needs seconds for a frame.
const itemTimeout = 60 * time.Second

// Inputs runs all sources of a box.
type Inputs struct {
	log     *slog.Logger
	now     func() time.Time
	pace    *pace
	sources []*source
	outbox  *outbox
	deliver func(Delivery)

	sketches   sketches
	driftEvery time.Duration
}

// New checks the sources and opens the outbox. Run closes it.
func New(opts Options, log *slog.Logger) (*Inputs, error) {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if opts.OutboxMaxBytes == 0 {
		opts.OutboxMaxBytes = 16 << 20
	}
	if opts.Outbox == "" || len(opts.Sources) > 0 && (opts.Infer == nil || opts.Catalog == nil) {
		return nil, errors.New("open inputs: Outbox, Infer and Catalog are required")
	}
	if opts.DriftEvery == 0 {
		opts.DriftEvery = 15 * time.Minute
	}
	if opts.Deliver == nil {
		opts.Deliver = func(Delivery) {}
	}
	in := &Inputs{log: log, now: opts.WallClock, pace: newPace(), deliver: opts.Deliver, driftEvery: opts.DriftEvery}
	seen := map[string]bool{}
	for _, cfg := range opts.Sources {
		s, err := newSource(cfg, opts, log)
		if err != nil {
			return nil, fmt.Errorf("open inputs: %w", err)
		}
		if seen[cfg.Name] {
			return nil, fmt.Errorf("open inputs: two sources are called %q", cfg.Name)
		}
		seen[cfg.Name] = true
		in.sources = append(in.sources, s)
	}
	var err error
	if in.outbox, err = openOutbox(opts.Outbox, opts.OutboxMaxBytes, opts.WallClock, log); err != nil {
		return nil, err
	}
	return in, nil
}

// Run works through all sources until ctx ends, then commits the last results
// and closes the outbox. Trouble with a source or the disk is reported by
// Status and the log; it never ends Run.
func (in *Inputs) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, s := range in.sources {
		g.Go(func() error {
			in.follow(ctx, s)
			return nil
		})
		if s.background != nil {
			g.Go(func() error {
				s.background(ctx)
				return nil
			})
		}
	}
	g.Go(func() error {
		in.commitNowAndThen(ctx)
		return nil
	})
	_ = g.Wait() // none of them fails
	in.sendSketches()
	if err := in.outbox.close(); err != nil {
		return fmt.Errorf("close outbox: %w", err)
	}
	return nil
}

// follow works through one source.
func (in *Inputs) follow(ctx context.Context, s *source) {
	last := time.Now().Add(-s.cfg.Interval)
	for in.pace.wait(ctx, last, s.cfg.Interval) {
		last = time.Now()
		d, err := s.work(ctx, in)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			d.UnixMs = in.now().UnixMilli()
			d.LatencyMs = float64(time.Since(last)) / float64(time.Millisecond)
			if cerr := in.outbox.add(d.Result); cerr != nil {
				in.log.Debug("result not committed yet", "input", s.cfg.Name, "err", cerr)
			}
			in.deliver(d)
		}
		switch begun, over := s.note(last, err); {
		case begun:
			in.log.Warn("input fails", "input", s.cfg.Name, "err", err)
		case over:
			in.log.Info("input works again", "input", s.cfg.Name)
		}
	}
}

// commitNowAndThen bounds the time that a result is in memory only.
func (in *Inputs) commitNowAndThen(ctx context.Context) {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	failing := false
	sent := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if in.driftEvery > 0 && time.Since(sent) >= in.driftEvery {
			in.sendSketches()
			sent = time.Now()
		}
		err := in.outbox.commit()
		if err != nil && !failing {
			in.log.Error("results cannot be stored", "err", err)
		}
		failing = err != nil
	}
}

// sendSketches queues what was sketched. The agent passes it on as any result.
func (in *Inputs) sendSketches() {
	for _, r := range in.sketches.take(in.now()) {
		if err := in.outbox.add(r); err != nil {
			in.log.Debug("sketch not committed yet", "input", r.Input, "err", err)
		}
	}
}

// Status tells how each source is doing.
func (in *Inputs) Status() []runnerapi.InputStatus {
	out := make([]runnerapi.InputStatus, 0, len(in.sources))
	for _, s := range in.sources {
		out = append(out, s.status(time.Now()))
	}
	return out
}

// Results returns at most max committed results after a cursor, oldest first.
func (in *Inputs) Results(after uint64, max int) (runnerapi.Results, error) {
	return in.outbox.results(after, max)
}

// Ack frees all results up to cursor. It is ErrOtherOutbox for another file's
// id and ErrCursor for a cursor that was never issued.
func (in *Inputs) Ack(outbox string, cursor uint64) error { return in.outbox.ack(outbox, cursor) }

// SetDuty sets how hard the sources may work until d expires.
func (in *Inputs) SetDuty(d runnerapi.Duty) { in.pace.set(d) }

// Counts returns how many results wait, and how many were lost to the bound
// since the outbox was created.
func (in *Inputs) Counts() (records, dropped int64) { return in.outbox.counts() }
