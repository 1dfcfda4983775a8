package inputs

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// pace is the permitted share of the full rate, for all sources.
type pace struct {
	mu      sync.Mutex // guards all below
	ratio   float64    // 0 to 1; 0 = nothing at all
	expires time.Time  // from here on the ratio is 1
	changed chan struct{}
}

func newPace() *pace { return &pace{ratio: 1, changed: make(chan struct{})} }

func (p *pace) set(d runnerapi.Duty) {
	ratio := d.MaxRateRatio
	if d.Level == "paused" || math.IsNaN(ratio) {
		ratio = 0
	}
	valid := d.ValidSeconds
	if !(valid > 0) {
		valid = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ratio = min(max(ratio, 0), 1)
	// A day bounds what a wrong agent can stop, and keeps the sum in range.
	p.expires = time.Now().Add(time.Duration(min(valid, 86400) * float64(time.Second)))
	close(p.changed)
	p.changed = make(chan struct{})
}

// due tells when an item may start if the last one started at last, whether it
// may at all, and until when that holds: until changed is closed or the timer.
func (p *pace) due(last time.Time, interval time.Duration) (wait time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	ratio, valid := p.ratio, p.expires.Sub(now)
	if valid <= 0 {
		return last.Add(interval).Sub(now), p.changed
	}
	if ratio == 0 {
		return valid, p.changed
	}
	// Beyond the expiry the full rate holds again.
	slow := time.Duration(min(float64(interval)/ratio, math.MaxInt64/4))
	return min(last.Add(slow).Sub(now), max(valid, last.Add(interval).Sub(now))), p.changed
}

// wait blocks until an item may start; false means that ctx has ended.
func (p *pace) wait(ctx context.Context, last time.Time, interval time.Duration) bool {
	for {
		wait, changed := p.due(last, interval)
		if wait <= 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		case <-time.After(wait):
		}
	}
}
