package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// An entry says who may use a route, where, and what the audit log calls it.
type entry struct {
	public bool
	verb   authz.Verb
	// site finds the site of what the path names; nil: it names nothing of a site.
	site func(ctx context.Context, a *API, r *http.Request) (string, error)
	// fleet says that the route concerns all sites at once. Without it and
	// without site the answer is filtered by the sites of the caller.
	fleet bool
	// does is what the audit log says of a success; empty: nothing, it only reads.
	does string
}

func open() entry                    { return entry{public: true} }
func filtered(v authz.Verb) entry    { return entry{verb: v} }
func ofFleet(v authz.Verb) entry     { return entry{verb: v, fleet: true} }
func (e entry) do(what string) entry { e.does = what; return e }

func ofBox(v authz.Verb) entry {
	return entry{verb: v, site: func(ctx context.Context, a *API, r *http.Request) (string, error) {
		return a.opts.Store.SiteOf(ctx, identity.ID(r.PathValue("id")))
	}}
}

func ofSite(v authz.Verb) entry {
	return entry{verb: v, site: func(_ context.Context, _ *API, r *http.Request) (string, error) {
		return r.PathValue("site"), nil
	}}
}

func ofTicket(v authz.Verb) entry {
	return entry{verb: v, site: func(ctx context.Context, a *API, r *http.Request) (string, error) {
		t, err := a.getTicket(ctx, &ticketInput{r.PathValue("id")})
		return t.Site, err
	}}
}

func ofVisit(v authz.Verb) entry {
	return entry{verb: v, site: func(ctx context.Context, a *API, r *http.Request) (string, error) {
		t, err := a.getVisit(ctx, &visitInput{r.PathValue("id")})
		return t.Site, err
	}}
}

func ofRMA(v authz.Verb) entry {
	return entry{verb: v, site: func(ctx context.Context, a *API, r *http.Request) (site string, err error) {
		err = a.opts.Store.CareView(ctx, func(c *store.CareTx) error {
			rma, err := c.RMA(ctx, r.PathValue("id"))
			site = rma.Site
			return err
		})
		return site, err
	}}
}

// access names every route of the operators' side. A route that is not here is
// refused to everyone.
var access = map[string]entry{
	"/":                                  open(), // the pages hold no data; they ask the API
	"/api/":                              open(), // says that there is no such route
	"GET /login":                         open(),
	"GET /login/oidc":                    open(),
	"GET /login/oidc/callback":           open().do("login"),
	"GET /api/v1/sign-in":                open(),
	"POST /api/v1/sessions":              open().do("login"),
	"POST /api/v1/passwords":             open().do("user.password"),
	"POST /api/v1/passwords:check":       open(),
	"GET /metrics":                       ofFleet(authz.See),
	"GET /api/v1/openapi.json":           filtered(authz.Self),
	"GET /api/v1/session":                filtered(authz.Self),
	"POST /api/v1/logout":                filtered(authz.Self).do("logout"),
	"POST /api/v1/sessions/login-url":    ofFleet(authz.People).do("login.url"),
	"GET /api/v1/users":                  ofFleet(authz.People),
	"POST /api/v1/users":                 ofFleet(authz.People).do("user.add"),
	"POST /api/v1/users/{name}/actions":  ofFleet(authz.People).do("user.change"),
	"GET /api/v1/tokens":                 ofFleet(authz.People),
	"POST /api/v1/tokens":                ofFleet(authz.People).do("token.create"),
	"DELETE /api/v1/tokens/{id}":         ofFleet(authz.People).do("token.revoke"),
	"GET /api/v1/audit":                  filtered(authz.Audit),
	"GET /api/v1/audit:verify":           ofFleet(authz.AuditAll),
	"GET /api/v1/audit:export":           ofFleet(authz.Export).do("audit.export"),
	"GET /api/v1/summary":                filtered(authz.See),
	"GET /api/v1/boxes":                  filtered(authz.See),
	"GET /api/v1/boxes/{id}":             ofBox(authz.See),
	"GET /api/v1/boxes/{id}/series":      ofBox(authz.See),
	"GET /api/v1/boxes/{id}/events":      ofBox(authz.See),
	"GET /api/v1/boxes/{id}/results":     ofBox(authz.See),
	"GET /api/v1/boxes/{id}/faults":      ofBox(authz.See),
	"GET /api/v1/models":                 filtered(authz.See),
	"GET /api/v1/models/{name}":          filtered(authz.See),
	"GET /api/v1/models/{name}/drift":    filtered(authz.See),
	"GET /api/v1/models/{name}/diff":     filtered(authz.See),
	"POST /api/v1/models":                ofFleet(authz.Push).do("model.push"),
	"POST /api/v1/models/{name}/verify":  ofFleet(authz.Push).do("model.verify"),
	"POST /api/v1/models/{name}/retire":  ofFleet(authz.Push).do("model.retire"),
	"POST /api/v1/models/{name}/pin":     ofFleet(authz.Push).do("model.pin"),
	"GET /api/v1/releases":               filtered(authz.See),
	"POST /api/v1/releases":              ofFleet(authz.Push).do("release.push"),
	"GET /api/v1/trust":                  filtered(authz.See),
	"GET /api/v1/trust/roles":            filtered(authz.See),
	"POST /api/v1/trust/documents":       ofFleet(authz.Push).do("trust.submit"), // what counts is the signature
	"POST /api/v1/blobs:missing":         ofFleet(authz.Push),
	"PUT /api/v1/blobs/{hex}":            ofFleet(authz.Push).do("blob.put"),
	"GET /api/v1/blobs/{hex}":            ofFleet(authz.Push),
	"GET /api/v1/bundles:export":         ofFleet(authz.Push).do("bundle.export"),
	"POST /api/v1/bundles:check":         ofFleet(authz.Push),
	"GET /api/v1/rollouts":               filtered(authz.See),
	"GET /api/v1/rollouts/{id}":          filtered(authz.See),
	"POST /api/v1/rollouts":              ofFleet(authz.Roll).do("rollout.plan"),
	"POST /api/v1/rollouts/{id}/actions": ofFleet(authz.Halt).do("rollout.act"), // all but pause and cancel need Roll
	"GET /api/v1/rollouts/{id}/events":   ofFleet(authz.See),
	"POST /api/v1/rollouts/{id}/replay":  ofFleet(authz.See),
	"GET /api/v1/rollout-locks":          ofFleet(authz.See),
	"POST /api/v1/rollout-locks":         ofFleet(authz.Roll).do("rollout.lock"),
	"DELETE /api/v1/rollout-locks/{id}":  ofFleet(authz.Roll).do("rollout.unlock"),
	"GET /api/v1/restores":               ofFleet(authz.See),
	"POST /api/v1/restores":              ofFleet(authz.Roll).do("restore.choose"),
	"GET /api/v1/sites":                  filtered(authz.See),
	"GET /api/v1/sites/{site}":           ofSite(authz.See),
	"POST /api/v1/sites/{site}/settings": ofSite(authz.Set).do("site.set"),
	"POST /api/v1/site-defaults":         ofFleet(authz.Set).do("site.set"),
	"GET /api/v1/events":                 filtered(authz.See),
	"GET /api/v1/tickets":                filtered(authz.See),
	"GET /api/v1/tickets:counts":         filtered(authz.See),
	"GET /api/v1/tickets/{id}":           ofTicket(authz.See),
	"POST /api/v1/tickets":               filtered(authz.Tend).do("ticket.open"),
	"POST /api/v1/tickets/{id}/actions":  ofTicket(authz.Tend).do("ticket.act"),
	"GET /api/v1/visits":                 filtered(authz.See),
	"GET /api/v1/visits/{id}":            ofVisit(authz.See),
	"POST /api/v1/visits":                filtered(authz.Tend).do("visit.add"),
	"POST /api/v1/visits:plan":           filtered(authz.Tend).do("visit.plan"),
	"POST /api/v1/visits/{id}/actions":   ofVisit(authz.Tend).do("visit.act"),
	"GET /api/v1/rmas":                   filtered(authz.See),
	"POST /api/v1/rmas":                  filtered(authz.Tend).do("rma.open"),
	"POST /api/v1/rmas/{id}/actions":     ofRMA(authz.Tend).do("rma.act"),
	"GET /api/v1/care":                   filtered(authz.See),
	"GET /api/v1/care/sites":             filtered(authz.See),
	"GET /api/v1/boxes/{id}/care":        ofBox(authz.See),
	"POST /api/v1/boxes/{id}/care":       ofBox(authz.Tend).do("box.care"),
	"GET /api/v1/resets":                 filtered(authz.See),
	// The sites of tokens and machines are found, and asked about, in the routes.
	"GET /api/v1/enrolment/tokens":                      filtered(authz.Enrol),
	"POST /api/v1/enrolment/tokens":                     filtered(authz.Enrol).do("enrol.token"),
	"GET /api/v1/enrolment/tokens/{token}":              filtered(authz.Enrol),
	"DELETE /api/v1/enrolment/tokens/{token}":           filtered(authz.Enrol).do("enrol.revoke"),
	"POST /api/v1/claims":                               filtered(authz.Approve).do("enrol.claim"),
	"GET /api/v1/claims/{claim}":                        filtered(authz.Approve),
	"GET /api/v1/boxes/{id}/photo":                      ofBox(authz.See),
	"GET /api/v1/enrolment/requests":                    filtered(authz.Approve),
	"POST /api/v1/enrolment/requests/{request}/actions": filtered(authz.Approve).do("enrol.decide"),
	"POST /api/v1/enrolment/files":                      filtered(authz.Approve).do("enrol.sign"),
	"GET /api/v1/boxes/{id}/identity":                   ofBox(authz.See),
	"POST /api/v1/boxes/{id}/identity/actions":          ofBox(authz.Enrol).do("box.identity"),
	"GET /api/v1/boxes/{id}/acceptance":                 ofBox(authz.See),
	"GET /api/v1/boxes/{id}/acceptance/{report}":        ofBox(authz.See),
	"GET /api/v1/boxes/{id}/acceptance/{report}/html":   ofBox(authz.See),
	"GET /api/v1/boxes/{id}/acceptance/{report}/pdf":    ofBox(authz.See),
	"POST /api/v1/boxes/{id}/acceptance":                ofBox(authz.Tend).do("box.accept"),
	"GET /api/v1/boxes/{id}/secrets":                    ofBox(authz.Secrets),
	"GET /api/v1/boxes/{id}/config":                     ofBox(authz.See),
	"POST /api/v1/boxes/{id}/labels":                    ofFleet(authz.Set).do("box.label"), // a label decides about secrets and settings
	"GET /api/v1/configs":                               filtered(authz.See),
	"GET /api/v1/configs/{name}":                        filtered(authz.See),
	"POST /api/v1/configs:diff":                         filtered(authz.See),
	"POST /api/v1/configs":                              ofFleet(authz.Roll).do("config.apply"),
	"GET /api/v1/secrets":                               filtered(authz.Secrets),
	"GET /api/v1/secrets:boxes":                         filtered(authz.Secrets),
	"POST /api/v1/secrets":                              filtered(authz.Secrets).do("secret.set"),
	"POST /api/v1/secrets:remove":                       filtered(authz.Secrets).do("secret.remove"),
	"POST /api/v1/notify:test":                          ofFleet(authz.Set).do("notify.test"),
}

// allow asks the gate whether the caller of a request may use the route.
func (a *API) allow(ctx context.Context, e entry, r *http.Request) error {
	c := who(ctx)
	switch {
	case e.fleet:
		return refused(authz.Allow(c.Subject, e.verb, authz.Fleet()))
	case e.site == nil || c.Everywhere(): // who sees all sites is told by the route itself what does not exist
		return refused(authz.Allow(c.Subject, e.verb, authz.Somewhere()))
	}
	site, err := e.site(ctx, a, r)
	if errors.Is(err, store.ErrNotFound) {
		return refused(authz.ErrForeign) // told as what is foreign is
	}
	if err != nil {
		return err
	}
	return refused(authz.Allow(c.Subject, e.verb, authz.At(site)))
}

// refused is what a caller is told by the gate.
func refused(err error) error {
	var d *authz.Denied
	switch {
	case errors.Is(err, authz.ErrForeign):
		return fleetapi.Problem(http.StatusNotFound, "not found, or of a site that you do not see", "")
	case errors.As(err, &d):
		return fleetapi.Problem(http.StatusForbidden, d.Why, d.Hint)
	}
	return err
}

// mayAt asks the gate about a site that a request's body names.
func mayAt(ctx context.Context, v authz.Verb, site string) error {
	return refused(authz.Allow(who(ctx).Subject, v, authz.At(site)))
}

// router is the mux of the operators' side. It remembers its patterns, so that
// a test can walk them, and puts the guard before every handler.
type router struct {
	mux      *http.ServeMux
	guard    func(pattern string, next http.HandlerFunc) http.HandlerFunc
	patterns []string // complete after New
}

func (r *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	r.patterns = append(r.patterns, pattern)
	r.mux.HandleFunc(pattern, r.guard(pattern, h))
}

func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// guard lets a request pass whose caller may use the route, and has what it did
// recorded.
func (a *API) guard(pattern string, next http.HandlerFunc) http.HandlerFunc {
	e, listed := access[pattern]
	return func(w http.ResponseWriter, r *http.Request) {
		if !listed {
			a.fail(w, r, fleetapi.Problem(http.StatusForbidden, "this route is open to nobody", ""))
			return
		}
		d := &audit.Draft{Source: source(r), Verb: e.does, Object: r.URL.Path, Actor: "nobody"}
		if !e.public {
			c, err := a.caller(r, a.opts.People.Caller)
			if err == nil {
				d.Actor, d.Role = c.Name, string(c.Role)
				r = r.WithContext(context.WithValue(r.Context(), whoKey{}, c))
				err = a.allow(r.Context(), e, r)
			}
			if err != nil {
				a.fail(w, r, err)
				return
			}
		}
		if e.does == "" {
			next(w, r)
			return
		}
		rec := &status{ResponseWriter: w}
		r = r.WithContext(audit.With(r.Context(), d))
		next(rec, r)
		if rec.code >= 400 || rec.Header().Get(replayed) != "" {
			return // nothing was done, or nothing new
		}
		// What was done to the database is recorded with it; the rest is now.
		if err := a.opts.Store.RecordAudit(context.WithoutCancel(r.Context())); err != nil {
			a.log.Error("not recorded in the audit log", "verb", d.Verb, "topic", d.Object, "by", d.Actor, "err", err)
		}
	}
}

// status remembers how a request was answered.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// nothing is the input of a route without parameters.
type nothing struct{}

// reply is an answer whose body is T.
type reply[T any] struct {
	Status int
	Body   T
}

// route registers a JSON route. Status 0 means 200, or 201 where made says so.
func route[I, O any](a *API, op huma.Operation, f func(context.Context, *I) (O, error)) {
	op.MaxBodyBytes = maxJSONBytes
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	what := op.Method + " " + op.Path
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*reply[O], error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, what, err)
		}
		return &reply[O]{Status: max(op.DefaultStatus, http.StatusOK), Body: out}, nil
	})
}

// get describes a GET route.
func get(path, id, summary, tag string) huma.Operation {
	return huma.Operation{Method: http.MethodGet, Path: "/api/v1" + path, OperationID: id, Summary: summary, Tags: []string{tag}}
}

// post describes a POST route.
func post(path, id, summary, tag string) huma.Operation {
	op := get(path, id, summary, tag)
	op.Method = http.MethodPost
	return op
}
