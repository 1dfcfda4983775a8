package people

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxSources bounds the addresses that are remembered.
const maxSources = 10_000

// limiter bounds the attempts of one address. It forgets at a restart; the
// locks of names do not.
type limiter struct {
	mu      sync.Mutex // guards all below
	sources map[string]*rate.Limiter
	ghosts  *rate.Limiter // records of names that nobody has
	silent  int           // how many had no record since the last
}

// record says whether a failure of a name that nobody has is to be recorded.
func (l *limiter) record(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ghosts == nil {
		l.ghosts = rate.NewLimiter(rate.Limit(float64(ghostsMinute)/60), ghostsBurst)
	}
	ok := l.ghosts.AllowN(now, 1)
	if !ok {
		l.silent++
	}
	return ok
}

// unlisted tells of the failures that had no record; it begins to count anew.
func (l *limiter) unlisted() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.silent
	if l.silent = 0; n == 0 {
		return ""
	}
	return fmt.Sprintf("%d more failed under names that nobody has", n)
}

// ask returns how long an address has to wait, 0 for not.
func (l *limiter) ask(source string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := network(source)
	lim := l.sources[key]
	if lim == nil {
		l.makeRoom(now)
		lim = rate.NewLimiter(rate.Limit(float64(attemptsMinute)/60), attemptsBurst)
		l.sources[key] = lim
	}
	r := lim.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// makeRoom forgets addresses that have all their attempts again, and all of
// them when that is not enough.
func (l *limiter) makeRoom(now time.Time) {
	if l.sources != nil && len(l.sources) < maxSources {
		return
	}
	kept := map[string]*rate.Limiter{}
	for key, lim := range l.sources {
		if lim.TokensAt(now) < attemptsBurst {
			kept[key] = lim
		}
	}
	if len(kept) >= maxSources {
		clear(kept)
	}
	l.sources = kept
}

// network is what one customer of a provider has: an IPv4 address or the first
// half of an IPv6 address.
func network(source string) string {
	ip, err := netip.ParseAddr(source)
	if err != nil {
		return source
	}
	if ip = ip.Unmap(); ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
