package serve

import (
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// rung is how many variants all models go down from their best, and why, as the
// agent said last.
type rung struct {
	clock func() time.Time // never changes

	mu     sync.Mutex // guards the fields below
	at     int
	cause  govern.Cause
	reason string
	climbs time.Time // when it may rise by one at the soonest
}

func (r *rung) down() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// set takes what the agent says, and reports whether the rung is another one.
func (r *rung) set(d runnerapi.Duty) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.at
	r.at, r.cause, r.reason = *d.Rung, govern.Cause(d.RungCause), d.RungReason
	r.climbs = r.clock().Add(seconds(d.RungSeconds))
	return r.at != was
}

func (r *rung) said() (at int, cause govern.Cause, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, r.cause, r.reason
}

// why says in words what keeps a model from a variant that is so many rungs up,
// and when it may be there at the soonest.
func (r *rung) why(up int) (words string, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch r.cause {
	case govern.CauseHot:
		words = "the box is too hot for it"
	case govern.CausePower:
		words = "the box is to draw less power"
	case govern.CauseLoad:
		words = "the box has more requests than it can answer with it"
	default:
		words = "the box serves cheaper variants"
	}
	if r.reason != "" {
		words += " (" + r.reason + ")"
	}
	wait = min(max(r.climbs.Sub(r.clock()), time.Second), govern.ClimbDwell)
	return words, (wait + time.Duration(max(up-1, 0))*govern.ClimbDwell).Round(time.Second)
}

// seconds is a duration of the wire; nonsense is none.
func seconds(s float64) time.Duration {
	if !(s > 0 && s < 1e6) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

// setRung goes so many rungs down with every model.
func (s *Server) setRung(d runnerapi.Duty) {
	if !s.rung.set(d) {
		return
	}
	for _, v := range s.known() {
		v.look()
	}
}

// causeLocked is why the variant that serves does.
func (l *ladder) causeLocked() string {
	if len(l.rungs) == 0 || l.probing {
		return ""
	}
	at, cause, _ := l.wanted.said()
	switch {
	case l.at > 0:
		return string(cause)
	case at > 0:
		return runnerapi.VariantOnly
	}
	return runnerapi.VariantCool
}
