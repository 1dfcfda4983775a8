package loadgen

import (
	"math"
	"math/bits"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// steps is the resolution of a histogram: bars of 1/steps of a power of two,
// so that a quantile is 1.6 % off at most.
const steps = 64

// histogram counts durations from 1 µs to days.
type histogram struct {
	bars [40 * steps]uint32
	n    int
	max  time.Duration
}

func (h *histogram) add(d time.Duration) {
	us := uint64(max(1, d.Microseconds()))
	power := bits.Len64(us) - 1
	var within uint64
	if power >= 6 {
		within = us>>(power-6) - steps
	} else {
		within = us<<(6-power) - steps
	}
	h.bars[min(power*steps+int(within), len(h.bars)-1)]++
	h.n++
	h.max = max(h.max, d)
}

// quantile returns the duration that a share q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	left := int(math.Ceil(q * float64(h.n)))
	for bar, n := range h.bars {
		if left -= int(n); left <= 0 && n > 0 {
			power, within := bar/steps, float64(bar%steps)
			us := (1 + (within+0.5)/steps) * float64(uint64(1)<<power)
			return min(time.Duration(us*float64(time.Microsecond)), h.max)
		}
	}
	return h.max
}

// stats is what the shards count. The counters are of the whole run.
type stats struct {
	made, sent, resent, acked, refused  atomic.Int64
	waiting                             atomic.Int64 // blocks that devices hold
	skipped                             atomic.Int64 // blocks not made: the device holds too many
	connects, failures, lost, welcomed  atomic.Int64 // welcomed is how many are so now
	drops, dups, cuts, restarts, clocks atomic.Int64 // faults that were fired

	mu      sync.Mutex // guards the fields below
	latency *histogram // publish to ACK, of the present phase
	faults  map[string]int
}

func newStats() *stats { return &stats{latency: &histogram{}, faults: map[string]int{}} }

func (s *stats) took(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency.add(d)
}

// phase begins a new histogram and returns the one before.
func (s *stats) phase() *histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.latency
	s.latency = &histogram{}
	return old
}

// blame counts an error by its kind, which is its text without what names one
// connection.
func (s *stats) blame(err error) {
	words := strings.Fields(err.Error())
	for i, w := range words {
		if strings.ContainsAny(w, "0123456789") {
			words[i] = "…"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[strings.Join(words, " ")]++
}

// Blame is a kind of error and how often it came.
type Blame struct {
	Error string `json:"error"`
	Times int    `json:"times"`
}

func (s *stats) blames() []Blame {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Blame{}
	for text, n := range s.faults {
		out = append(out, Blame{text, n})
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Times > out[j].Times || out[i].Times == out[j].Times && out[i].Error < out[j].Error
	})
	return out
}
