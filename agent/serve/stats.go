package serve

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
)

// latencyWindow is how many of the last requests the quantiles are taken from:
// about 20 behind the 95th percentile, 4 KB per version.
const latencyWindow = 512

// span of time that happened count times.
type tally struct {
	count uint64
	took  time.Duration
}

func (t *tally) add(d time.Duration) { t.count++; t.took += d }

// parts of a request or a run, by the names of Triton's statistics.
type parts struct{ queue, input, infer, output tally }

// batchTally are the runs of one size.
type batchTally struct {
	items uint64
	parts
}

// counts is what one version did since it was loaded.
type counts struct {
	success, failure tally  // failures are those that speak against the model
	refused          uint64 // the request was at fault, or one of too many
	parts
	items      uint64        // inferences: items of all batches
	executions uint64        // runs of the model
	runtimeCPU time.Duration // of ONNX Runtime
	last       time.Time     // of the last request, wall clock
	batches    []batchTally  // by size
	p50, p95   time.Duration
}

// stats collects counts.
type stats struct {
	mu     sync.Mutex // guards all below
	counts            // without p50 and p95
	window [latencyWindow]time.Duration
	next   int
}

// record counts a request that has been answered; now is the wall clock.
func (s *stats) record(took time.Duration, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	switch {
	case err == nil:
		s.success.add(took)
		s.window[s.next%latencyWindow] = took
		s.next++
	case countsAgainst(err):
		s.failure.add(took)
	default:
		s.refused++
	}
}

// parts counts where the time of one request went; the wait for its turn is
// what the run does not explain.
func (s *stats) parts(took time.Duration, c worker.Cost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.queue.add(max(took-c.Input-c.Run-c.Output, 0))
	s.input.add(c.Input)
	s.infer.add(c.Run)
	s.output.add(c.Output)
}

// executed counts a run of the model with so many items.
func (s *stats) executed(items int64, c worker.Cost, err error) {
	if err != nil {
		return
	}
	n := uint64(min(max(items, 1), 1<<31)) // an empty tensor may claim any number
	size := n
	if n > maxItems { // requests that are larger than any batch: few sizes, whatever clients send
		size = 1 << (bits.Len64(n) - 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.executions++
	s.items += n
	s.runtimeCPU += c.CPU
	at, found := slices.BinarySearchFunc(s.batches, size, func(b batchTally, n uint64) int { return cmp.Compare(b.items, n) })
	if !found {
		s.batches = slices.Insert(s.batches, at, batchTally{items: size})
	}
	b := &s.batches[at]
	b.input.add(c.Input)
	b.infer.add(c.Run)
	b.output.add(c.Output)
}

func (s *stats) read() counts {
	s.mu.Lock()
	c := s.counts
	c.batches = slices.Clone(s.batches)
	recent := slices.Clone(s.window[:min(s.next, latencyWindow)])
	s.mu.Unlock()
	if n := len(recent); n > 0 {
		slices.Sort(recent)
		c.p50, c.p95 = recent[n/2], recent[n*95/100]
	}
	return c
}
