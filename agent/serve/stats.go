package serve

import (
	"slices"
	"sync"
	"time"
)

// latencyWindow is how many of the last requests the quantiles are taken from:
// about 20 behind the 95th percentile, 4 KB per version.
const latencyWindow = 512

// stats counts what one version did since it was loaded.
type stats struct {
	mu        sync.Mutex // guards all below
	successes uint64
	failures  uint64 // that speak against the model
	refused   uint64 // the request was at fault, or one of too many
	took      time.Duration
	window    [latencyWindow]time.Duration
	next      int
}

// counts is a copy of the counters of stats.
type counts struct {
	successes, failures, refused uint64
	took                         time.Duration
	p50, p95                     time.Duration
}

func (s *stats) record(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.successes++
		s.took += took
		s.window[s.next%latencyWindow] = took
		s.next++
	case countsAgainst(err):
		s.failures++
	default:
		s.refused++
	}
}

func (s *stats) read() counts {
	s.mu.Lock()
	c := counts{successes: s.successes, failures: s.failures, refused: s.refused, took: s.took}
	recent := slices.Clone(s.window[:min(s.next, latencyWindow)])
	s.mu.Unlock()
	if n := len(recent); n > 0 {
		slices.Sort(recent)
		c.p50, c.p95 = recent[n/2], recent[n*95/100]
	}
	return c
}
