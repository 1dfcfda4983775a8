package enrol

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits bounds how often machines may ask, all together and by address: a site
// behind one address enrols some tens at a time.
type limits struct {
	perSource rate.Limit
	all       *rate.Limiter

	mu      sync.Mutex // guards sources
	sources map[netip.Addr]*source
}

type source struct {
	limiter *rate.Limiter
	used    time.Time
}

// Addresses that are remembered, and for how long.
const (
	maxSources = 4096
	sourceLife = 10 * time.Minute
	burstOf    = 10 // seconds' worth
)

func newLimits(perSecond float64) *limits {
	return &limits{
		perSource: rate.Limit(perSecond / 5), sources: map[netip.Addr]*source{},
		all: rate.NewLimiter(rate.Limit(perSecond), int(perSecond)*burstOf),
	}
}

// allow takes one request of an address, or says no.
func (l *limits) allow(from netip.Addr) bool {
	now := time.Now()
	l.mu.Lock()
	s := l.sources[from]
	if s == nil {
		if len(l.sources) >= maxSources {
			l.forget(now)
		}
		s = &source{limiter: rate.NewLimiter(l.perSource, max(1, int(l.perSource)*burstOf))}
		l.sources[from] = s
	}
	s.used = now
	l.mu.Unlock()
	return s.limiter.AllowN(now, 1) && l.all.AllowN(now, 1)
}

// forget drops addresses that were quiet, or all when that frees nothing.
// Called with mu held.
func (l *limits) forget(now time.Time) {
	for a, s := range l.sources {
		if now.Sub(s.used) > sourceLife {
			delete(l.sources, a)
		}
	}
	if len(l.sources) >= maxSources {
		clear(l.sources)
	}
}
