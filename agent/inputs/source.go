package inputs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// rateSpan is over how many items the rate is measured.
const rateSpan = 16

// source is one camera or microphone at work.
type source struct {
	cfg  Source
	run  pipeline
	reel reel // used by the goroutine of Run only

	mu       sync.Mutex // guards all below
	items    uint64
	failures uint64
	err      error
	recent   []time.Time // starts of the last items that succeeded
}

func newSource(cfg Source, opts Options) (*source, error) {
	if cfg.Name == "" || cfg.Path == "" {
		return nil, fmt.Errorf("input %q at %q: name and path are required", cfg.Name, cfg.Path)
	}
	if cfg.Interval < 0 {
		return nil, fmt.Errorf("input %s: interval %v is negative", cfg.Name, cfg.Interval)
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	run, exts, err := pipelineFor(cfg, opts)
	if err != nil {
		return nil, err
	}
	return &source{cfg: cfg, run: run, reel: reel{path: cfg.Path, exts: exts}}, nil
}

// work takes the next item through the pipeline.
func (s *source) work(ctx context.Context) (runnerapi.Result, error) {
	path, err := s.reel.advance()
	if err != nil {
		return runnerapi.Result{}, err
	}
	item := filepath.Base(path)
	data, err := readBounded(path, maxFileBytes)
	if err != nil {
		return runnerapi.Result{}, fmt.Errorf("read item: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, itemTimeout)
	defer cancel()
	got, err := s.run(ctx, data)
	if err != nil {
		return runnerapi.Result{}, fmt.Errorf("item %s: %w", item, err)
	}
	return runnerapi.Result{
		Input: s.cfg.Name, Pipeline: s.cfg.Pipeline, Item: item,
		Text: got.text, Want: s.reel.want(path), Score: got.score, Models: got.models,
	}, nil
}

// note counts an item that started at start. It reports true when trouble has
// just begun, so that it is logged once and not per item.
func (s *source) note(start time.Time, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	begun := err != nil && s.err == nil
	s.err = err
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
	return begun
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
