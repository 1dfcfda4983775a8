package serve

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// Why a request goes to another server than this box.
const (
	WhenHot     = "hot"     // the agent permits half the work or less
	WhenBusy    = "busy"    // the answer would be 503
	WhenMissing = "missing" // the box does not have the model
)

// Route lets requests for a model overflow to other servers. They are tried
// once each, in their order, and never two at a time.
type Route struct {
	// Model is its name here.
	Model string `yaml:"model"`
	// When are the reasons; default all.
	When []string `yaml:"when"`
	// LeavesSite speaks for a model that the box does not have, whose manifest
	// cannot: never, the default, or allowed.
	LeavesSite string `yaml:"leaves_site"`
	// Overflow are the servers.
	Overflow []Overflow `yaml:"overflow"`
}

// Overflow is another server that has a model.
type Overflow struct {
	// Name is for answers and metrics.
	Name string `yaml:"name"`
	// Model and Version are what it is called there; default the same name, and
	// the version that the server chooses.
	Model   string `yaml:"model"`
	Version string `yaml:"version"`
	// Endpoint has a place: site or central.
	backend.Endpoint `yaml:",inline"`
}

// Check names the first fault.
func (r Route) Check() error {
	if r.Model == "" || len(r.Overflow) == 0 {
		return errors.New("a route has a model and, under overflow, at least one server")
	}
	for _, w := range r.When {
		if w != WhenHot && w != WhenBusy && w != WhenMissing {
			return fmt.Errorf("route of %s: when names %q, want %s, %s or %s", r.Model, w, WhenHot, WhenBusy, WhenMissing)
		}
	}
	if r.LeavesSite != "" && r.LeavesSite != models.StaysOnSite && r.LeavesSite != models.MayLeaveSite {
		return fmt.Errorf("route of %s: leaves_site is %q, want %s or %s", r.Model, r.LeavesSite, models.StaysOnSite, models.MayLeaveSite)
	}
	for i, o := range r.Overflow {
		if o.Name == "" || slices.ContainsFunc(r.Overflow[:i], func(p Overflow) bool { return p.Name == o.Name }) {
			return fmt.Errorf("route of %s: a server has no name, or two are called %q", r.Model, o.Name)
		}
		if o.Place == "" {
			return fmt.Errorf("route of %s: server %s: place is %s or %s: it decides whose inputs may go there", r.Model, o.Name, backend.PlaceSite, backend.PlaceCentral)
		}
		if err := o.Endpoint.Check(); err != nil {
			return fmt.Errorf("route of %s: server %s: %w", r.Model, o.Name, err)
		}
	}
	return nil
}

// route is a Route at work.
type route struct {
	Route
	places []*place
	// absent stands in for a model that the box does not have.
	absent *version
}

// place is one server of a route.
type place struct {
	Overflow
	remote  string // its name of the model
	client  *backend.Client
	breaker backend.Breaker

	mu   sync.Mutex // guards all below
	went map[outcome]uint64
	took time.Duration // of those that were answered
}

// outcome of a request that went to a place.
type outcome struct {
	why string
	ok  bool
}

// servedHere is a box's own answer, by a worker or by a program of its own.
const servedHere = "local"

// headerServedBy tells where an answer was computed, where that may be in
// doubt: models with a backend or a route.
const headerServedBy = "Edgeherd-Served-By"

// label is how answers and metrics call it.
func (p *place) label() string { return p.Place + ":" + p.Name }

// SetRoutes takes the place of the routes of before. A route that stays as it was
// keeps what is known of its servers. Requests that are on their way end where
// they began.
func (s *Server) SetRoutes(routes []Route) (err error) {
	was, ways := s.routesNow(), map[string]*route{}
	defer func() {
		if err != nil {
			for name, way := range ways {
				if was[name] != way {
					way.close() // nobody has seen it
				}
			}
		}
	}()
	for _, r := range routes {
		if err := r.Check(); err != nil {
			return err
		}
		if ways[r.Model] != nil {
			return fmt.Errorf("model %s has two routes", r.Model)
		}
		if old := was[r.Model]; old != nil && reflect.DeepEqual(old.Route, r) {
			ways[r.Model] = old
			continue
		}
		way := &route{Route: r, absent: &version{ref: models.Ref{Name: r.Model}, log: s.log.With("model", r.Model), said: rate.Sometimes{Interval: time.Minute}}}
		way.absent.standsIn = way
		ways[r.Model] = way
		for _, o := range r.Overflow {
			c, err := backend.Dial(o.Endpoint, cmp.Or(o.Model, r.Model), o.Version)
			if err != nil {
				return fmt.Errorf("route of %s: server %s: %w", r.Model, o.Name, err)
			}
			way.places = append(way.places, &place{Overflow: o, remote: cmp.Or(o.Model, r.Model), client: c, went: map[outcome]uint64{}})
		}
	}
	s.ways.Store(&ways)
	for name, old := range was {
		if ways[name] != old {
			time.AfterFunc(2*s.opts.messageTime(), old.close) // a body and its answer: what is on its way has ended
		}
	}
	return nil
}

func (r *route) close() {
	for _, p := range r.places {
		p.client.Close()
	}
}

// routesNow are the routes at work, by model; nobody changes them.
func (s *Server) routesNow() map[string]*route {
	if ways := s.ways.Load(); ways != nil {
		return *ways
	}
	return nil
}

func (r *route) goes(when string) bool {
	return r != nil && (len(r.When) == 0 || slices.Contains(r.When, when))
}

// take returns what answers for a model: its version, or the stand-in of its
// route. The caller calls release.
func (s *Server) take(name, number string, forwarded bool) (v *version, release func(), err error) {
	v, err = s.acquire(name, number)
	if err == nil {
		return v, v.release, nil
	}
	if r := s.routesNow()[name]; r.goes(WhenMissing) && !forwarded && statusOf(err) == http.StatusNotFound {
		return r.absent, func() {}, nil
	}
	return nil, nil, err
}

// enter admits a request for a model, or, where there is no room, one that can
// be passed on; those have a room of their own.
func (s *Server) enter(n int64, elsewhere bool) (t *ticket, away bool, err error) {
	if t, err = s.gate.enter(n); err == nil || !elsewhere {
		return t, false, err
	}
	t, err = s.spill.enter(n)
	return t, true, err
}

// overflows says that requests for a model may go away when there is no room.
func (s *Server) overflows(name string, forwarded bool) bool {
	return !forwarded && s.routesNow()[name].goes(WhenBusy)
}

// heat remembers the last duty, which ends by itself when the agent is silent.
// Wall clock, nanoseconds: hot until, and spared (any less than the full rate) until.
type heat struct{ until, sparedUntil atomic.Int64 }

// hotRatio of the full rate, and less, counts as hot.
const hotRatio = 0.5

func (h *heat) set(d runnerapi.Duty, now time.Time) {
	end := now.Add(seconds(d.ValidSeconds)).UnixNano()
	var hot, spared int64
	if d.MaxRateRatio <= hotRatio {
		hot = end
	}
	if d.MaxRateRatio < 1 {
		spared = end
	}
	h.until.Store(hot)
	h.sparedUntil.Store(spared)
}

func (h *heat) hot(now time.Time) bool { return now.UnixNano() < h.until.Load() }

// spared says that the box shall do nothing that can be left.
func (h *heat) spared(now time.Time) bool { return now.UnixNano() < h.sparedUntil.Load() }

// run answers a call here or where its route leads.
func (s *Server) run(ctx context.Context, v *version, c *call) ([]worker.Tensor, error) {
	r := s.routesNow()[v.ref.Name]
	if v.standsIn != nil {
		r = v.standsIn // the routes may have changed since it was taken
	}
	if r == nil || c.forwarded {
		if c.away {
			return nil, overload()
		}
		return v.infer(ctx, c)
	}
	ctx, cancel := within(ctx, c.until)
	defer cancel()
	here := v != r.absent && !c.away // it can be answered here
	why := ""
	switch {
	case v == r.absent:
		why = WhenMissing
	case c.away && !r.goes(WhenBusy):
		return nil, overload()
	case c.away:
		why = WhenBusy
	case r.goes(WhenHot) && s.heat.hot(s.opts.WallClock()):
		why = WhenHot
	}
	var refused error
	if why == "" {
		outs, err := v.infer(ctx, c)
		if err == nil || statusOf(err) != http.StatusServiceUnavailable || !r.goes(WhenBusy) {
			c.served = cmp.Or(c.served, servedHere)
			return outs, err
		}
		why, refused, here = WhenBusy, err, false
	}
	outs, err := r.elsewhere(ctx, v, c, trip{why, here})
	if err == nil {
		return outs, nil
	}
	if here && ctx.Err() == nil { // hot, but nobody else does it
		outs, err = v.infer(ctx, c)
		c.served = cmp.Or(c.served, servedHere)
		return outs, err
	}
	if refused != nil && statusOf(err) == http.StatusServiceUnavailable {
		return nil, refused
	}
	c.elsewhere = true
	return nil, err
}

// trip is why a request goes away, and whether it can come back.
type trip struct {
	why  string
	here bool
}

// elsewhere asks the servers of the route, one after the other.
func (r *route) elsewhere(ctx context.Context, v *version, c *call, t trip) ([]worker.Tensor, error) {
	mayLeave := v.mayLeave
	if v == r.absent {
		mayLeave = r.LeavesSite == models.MayLeaveSite
	}
	nobody := "its inputs may not leave the site"
	err := error(nil)
	for _, p := range r.places {
		if p.Place == backend.PlaceCentral && !mayLeave {
			continue
		}
		if !p.breaker.Allow() {
			nobody = "the other servers failed lately and are left alone for a while"
			continue
		}
		var outs []worker.Tensor
		outs, err = p.ask(ctx, c, t)
		if err == nil {
			c.served, c.elsewhere = p.label(), true
			return outs, nil
		}
		if status := statusOf(err); ctx.Err() != nil || status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge {
			c.elsewhere = true
			return nil, err // the request's own fault, or its time is over
		}
		v.logElsewhere(err, "place", p.label())
		v.log.Debug("request was not answered elsewhere", "place", p.label(), "err", err)
	}
	if err == nil {
		err = faultf(http.StatusServiceUnavailable, "model %s cannot be served here (%s), and nobody else was asked: %s", r.Model, t.why, nobody)
	}
	return nil, err
}

func (p *place) ask(ctx context.Context, c *call, t trip) ([]worker.Tensor, error) {
	if until, ok := ctx.Deadline(); ok && t.here {
		// Time is left to do it here after all.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(until)/2)
		defer cancel()
	}
	began := time.Now()
	outs, err := peer{p.client, p.remote, cmp.Or(p.Version, c.exact)}.infer(ctx, c)
	var lacks *backend.Failure // the very version of a pipeline, perhaps
	lacking := c.exact != "" && errors.As(err, &lacks) && lacks.Status == http.StatusNotFound
	// What says that the request is wrong has done its work.
	well := err == nil || lacking || statusOf(err) < http.StatusInternalServerError && statusOf(err) != statusClientGone
	p.breaker.Record(well || errors.Is(context.Cause(ctx), context.Canceled))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.went[outcome{t.why, err == nil}]++
	if err == nil {
		p.took += time.Since(began)
	}
	return outs, err
}

// placeMetrics are those of routes, in Prometheus' text format.
func (s *Server) placeMetrics(b *bytes.Buffer) {
	ways := s.routesNow()
	if len(ways) == 0 {
		return
	}
	var seconds, open strings.Builder
	b.WriteString("# HELP edgeherd_runner_overflow_requests_total Requests passed on to another server.\n# TYPE edgeherd_runner_overflow_requests_total counter\n")
	seconds.WriteString("# HELP edgeherd_runner_overflow_seconds_total Time of requests that another server answered.\n# TYPE edgeherd_runner_overflow_seconds_total counter\n")
	open.WriteString("# HELP edgeherd_runner_overflow_open Whether a server is left alone for a while since it failed.\n# TYPE edgeherd_runner_overflow_open gauge\n")
	for _, name := range slices.Sorted(maps.Keys(ways)) {
		for _, p := range ways[name].places {
			label := fmt.Sprintf("model=%q,place=%q", name, p.label())
			p.mu.Lock()
			for _, why := range []string{WhenHot, WhenBusy, WhenMissing} {
				for _, ok := range []bool{true, false} {
					fmt.Fprintf(b, "edgeherd_runner_overflow_requests_total{%s,why=%q,answered=\"%t\"} %d\n", label, why, ok, p.went[outcome{why, ok}])
				}
			}
			fmt.Fprintf(&seconds, "edgeherd_runner_overflow_seconds_total{%s} %g\n", label, p.took.Seconds())
			p.mu.Unlock()
			state := 0
			if p.breaker.Open() {
				state = 1
			}
			fmt.Fprintf(&open, "edgeherd_runner_overflow_open{%s} %d\n", label, state)
		}
	}
	b.WriteString(seconds.String() + open.String())
}
