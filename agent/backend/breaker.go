package backend

import (
	"sync"
	"time"
)

// A Breaker opens after breakAfter failures in a row: for a while nobody asks,
// then one caller tries. The while doubles with each try that fails.
const (
	breakAfter = 3
	breakMin   = 5 * time.Second
	breakMax   = 2 * time.Minute
)

// Breaker is ready for use as it is.
type Breaker struct {
	mu     sync.Mutex // guards all below
	failed int
	pause  time.Duration
	until  time.Time
	trying bool
}

// Allow says whether a caller may ask now; it then has to tell by Record.
func (b *Breaker) Allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed < breakAfter {
		return true
	}
	if b.trying || time.Now().Before(b.until) {
		return false
	}
	b.trying = true
	return true
}

// Record tells how it went: whether the endpoint did its work.
func (b *Breaker) Record(ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	if ok {
		b.failed, b.pause = 0, 0
		return
	}
	if b.failed++; b.failed >= breakAfter {
		b.pause = min(max(2*b.pause, breakMin), breakMax)
		b.until = time.Now().Add(b.pause)
	}
}

// Open says that nobody may ask now.
func (b *Breaker) Open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed >= breakAfter && time.Now().Before(b.until)
}
