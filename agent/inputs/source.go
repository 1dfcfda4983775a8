package inputs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// rateSpan is over how many items the rate is measured.
const rateSpan = 16

// shot is one frame or clip.
type shot struct {
	name  string
	want  string // the text that is really on it, if that is known
	frame pipeline.Frame
	clip  []float32
}

// errBelow: the item was worked through, and what was found scores less than
// the input's threshold.
var errBelow = errors.New("below the threshold")

// errNothingNew: the source has no other item than the last one.
var errNothingNew = errors.New("nothing new")

// source is one camera or microphone at work.
type source struct {
	cfg  Source
	run  *pipeline.Runner
	next func(ctx context.Context) (shot, error) // used by the goroutine of follow only
	// forget, if set, makes the item that next returned last count as new again.
	forget func()
	// background, if set, runs beside follow.
	background func(ctx context.Context)

	mu       sync.Mutex // guards all below
	items    uint64
	failures uint64
	err      error
	told     bool        // err has been logged
	began    time.Time   // of the first item
	recent   []time.Time // starts of the last items that succeeded
}

// loadTime is how long models may load after a start before the log says that
// an input waits for one.
const loadTime = 30 * time.Second

func newSource(cfg Source, opts Options, log *slog.Logger) (*source, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	for key, file := range map[string]*string{"password_file": &cfg.PasswordFile, "token_file": &cfg.TokenFile} {
		if *file, _, err = secrets.Path(opts.Secrets, *file); err != nil {
			return nil, fmt.Errorf("input %s: %s: %w", cfg.Name, key, err)
		}
	}
	s := &source{cfg: cfg, run: pipeline.New(cfg.Pipeline, opts.Infer, opts.Catalog)}
	switch cfg.Kind {
	case "http":
		snap, err := newSnapshot(cfg)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", cfg.Name, err)
		}
		s.next, s.forget = snap.next, snap.forget
	case "stream":
		// A runner of its own, since runners are not shared between goroutines.
		st := newStream(cfg, pipeline.New(cfg.Pipeline, opts.Infer, opts.Catalog), opts.WallClock, log)
		s.next, s.background = st.next, st.run
	default:
		s.next = newReel(cfg).item
	}
	return s, nil
}

// work takes the next item through the pipeline.
func (s *source) work(ctx context.Context, in *Inputs) (Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, itemTimeout)
	defer cancel()
	// First, so that no picture is used up while models load.
	if _, err := s.run.Pipeline(); err != nil {
		return Delivery{}, err
	}
	it, err := s.next(ctx)
	if err != nil {
		return Delivery{}, err
	}
	var got pipeline.Reading
	if s.cfg.Kind == "audio" {
		got, err = s.run.Clip(ctx, it.clip)
	} else {
		got, err = s.run.Image(ctx, it.frame)
	}
	if err != nil {
		if s.forget != nil {
			s.forget()
		}
		return Delivery{}, fmt.Errorf("item %s: %w", it.name, err)
	}
	if in.driftEvery > 0 {
		frame := &it.frame
		if s.cfg.Kind == "audio" {
			frame = nil
		}
		in.sketches.look(in.now(), s.cfg.Name, frame, got)
	}
	if got.Score < s.cfg.MinScore {
		return Delivery{}, errBelow
	}
	return Delivery{
		Result: runnerapi.Result{
			Input: s.cfg.Name, Pipeline: s.cfg.Pipeline, Item: it.name,
			Text: got.Text, Want: it.want, Score: got.Score, Models: got.Models, Elsewhere: got.Elsewhere,
		},
		Findings: append([]pipeline.Finding{}, got.Findings...), // [] rather than null in JSON
	}, nil
}

// note counts an item that started at start. It reports when trouble has just
// begun and when it is over, so that each is logged once and not per item.
func (s *source) note(start time.Time, err error) (begun, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.told
	if errors.Is(err, errNothingNew) {
		s.err, s.told = nil, false
		return false, told
	}
	if errors.Is(err, errBelow) {
		err = nil
	}
	if s.began.IsZero() {
		s.began = start
	}
	loading := errors.Is(err, ErrNoModel) && start.Sub(s.began) < loadTime
	begun = err != nil && !s.told && !loading
	s.err, s.told = err, err != nil && (s.told || begun)
	switch {
	case errors.Is(err, ErrNoModel):
	case err != nil:
		s.failures++
	default:
		s.items++
		if len(s.recent) == rateSpan {
			s.recent = append(s.recent[:0], s.recent[1:]...)
		}
		s.recent = append(s.recent, start)
	}
	return begun, told && err == nil
}

func (s *source) status(now time.Time) runnerapi.InputStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := runnerapi.InputStatus{
		Name: s.cfg.Name, Pipeline: s.cfg.Pipeline, Items: s.items, Failures: s.failures,
		RateHz: rate(s.recent, now),
	}
	if s.err != nil {
		st.Err = s.err.Error()
	}
	return st
}

// rate is how often things happen that happened at times, seen from now. It
// falls as soon as the next one is late.
func rate(times []time.Time, now time.Time) float64 {
	n := len(times)
	if n < 2 {
		return 0
	}
	mean := times[n-1].Sub(times[0]) / time.Duration(n-1)
	if silence := now.Sub(times[n-1]); silence > 2*mean {
		mean = silence
	}
	if mean <= 0 {
		return 0
	}
	return 1 / mean.Seconds()
}
