package sense

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sample is what one probe said. Most probes fill only a.
type sample struct {
	a, b float64
	at   time.Time // when the read returned; rates are computed from it
}

// probe is one file (or system call) that is read every period.
type probe struct {
	path  string
	get   func(buf []byte) (sample, error)
	track *track
}

// track is what the Sampler remembers about one path beyond one plan.
type track struct {
	busy     atomic.Bool  // a read has not come back yet
	fails    atomic.Int32 // failed reads since the last good one
	positive atomic.Bool  // has ever been above zero: a fan has turned
	ends     atomic.Bool  // has ever ended with a new line
	// late is what came after its Read was over.
	late atomic.Pointer[result]
}

// trackSet hands out one track per path. A discovery may run beside a Read.
type trackSet struct {
	mu     sync.Mutex
	byPath map[string]*track
}

func newTrackSet() *trackSet { return &trackSet{byPath: map[string]*track{}} }

func (t *trackSet) get(path string) *track {
	t.mu.Lock()
	defer t.mu.Unlock()
	tr := t.byPath[path]
	if tr == nil {
		tr = &track{}
		t.byPath[path] = tr
	}
	return tr
}

type result struct {
	sample
	err error
}

var (
	errDeadline = errors.New("no answer within the time limit")
	errHung     = errors.New("an earlier read has not come back")
	// errNoValue marks a reading that is a driver's way to say "nothing here".
	errNoValue = errors.New("no plausible value")
	errFormat  = errors.New("not in the expected format")
	errHalf    = errors.New("the end of the line is missing")
)

// isQuiet tells a sensor that is off, absent or not connected from a fault.
// EAGAIN: offline zone of a Jetson; ENODATA, ENXIO: radio or device asleep;
// EINVAL: cooling devices without a state; ENOENT, ENODEV: unplugged.
func isQuiet(err error) bool {
	for _, quiet := range []error{errNoValue, syscall.EAGAIN, syscall.ENODATA, syscall.ENXIO,
		syscall.EINVAL, syscall.EOPNOTSUPP} {
		if errors.Is(err, quiet) {
			return true
		}
	}
	return isGone(err)
}

func isGone(err error) bool {
	return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENOENT)
}

// bufBytes holds any sysfs attribute (one page) and the first lines of the
// proc files, which are all that is used of them.
const bufBytes = 4096

// rawRead reads the start of a file without Go's poller. O_NONBLOCK keeps a
// file that supports it from blocking at all.
func rawRead(path string, buf []byte) (int, error) {
	fd, err := retry(func() (int, error) {
		return syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	})
	if err != nil {
		return 0, err
	}
	defer syscall.Close(fd)
	n, err := retry(func() (int, error) { return syscall.Read(fd, buf) })
	if err != nil {
		return 0, err
	}
	if n <= 0 {
		return 0, errNoValue
	}
	return n, nil
}

// retry repeats a call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// lateFor is how old a late answer may be: from one Read to the next, which is
// 10 s, and some. Two thermometers on one 1-wire bus take turns, 0.75 s each: the
// second is late at every Read, and of use.
const lateFor = 20 * time.Second

// lateAnswers fills in what was asked for by an earlier Read and came after it.
func lateAnswers(probes []*probe, results []result) {
	for i := range results {
		if late := probes[i].track.late.Swap(nil); results[i].err == errDeadline && late != nil && time.Since(late.at) < lateFor {
			results[i] = *late
		}
	}
}

// collect reads all probes. One goroutine reads them in turn, which is cheapest;
// whenever nothing came back for a tenth of the timeout, the number of readers
// is doubled, so that files that hang cannot keep the others from being read
// in time. Readers that hang are left behind and end when their call returns.
func collect(ctx context.Context, probes []*probe, timeout time.Duration) []result {
	results := make([]result, len(probes))
	for i := range results {
		results[i].err = errDeadline
	}
	type answer struct {
		i int
		result
	}
	answers := make(chan answer, len(probes)) // room for all: a late reader never blocks on it
	var next atomic.Int64
	var over atomic.Bool
	reader := func() {
		buf := make([]byte, bufBytes)
		for !over.Load() {
			i := int(next.Add(1)) - 1
			if i >= len(probes) {
				return
			}
			s, err := probes[i].read(buf)
			answers <- answer{i, result{s, err}}
			if over.Load() && err != errHung {
				probes[i].track.late.Store(&result{s, err})
			}
		}
	}
	defer over.Store(true)
	go reader()
	patience := time.NewTicker(max(timeout/10, time.Millisecond))
	defer patience.Stop()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for got, before, readers := 0, 0, 1; got < len(probes); {
		select {
		case a := <-answers:
			results[a.i] = a.result
			got++
		case <-patience.C:
			if got == before && readers < len(probes) {
				for range readers {
					go reader()
				}
				readers *= 2
			}
			before = got
		case <-deadline.C:
			lateAnswers(probes, results)
			return results
		case <-ctx.Done():
			return results
		}
	}
	return results
}

func (p *probe) read(buf []byte) (sample, error) {
	if !p.track.busy.CompareAndSwap(false, true) {
		return sample{}, errHung
	}
	defer p.track.busy.Store(false)
	s, err := p.get(buf)
	s.at = time.Now()
	return s, err
}
