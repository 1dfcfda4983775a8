package api

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

const (
	loginLife = 15 * time.Minute // of a login URL made over the API
	tripLife  = 10 * time.Minute // of a sign-in at the provider
	signInTip = "Sign in at /sign-in, or run `edgeherd login --url` where the controller or your token is."
)

// whoKey is the key of the caller in a request's context.
type whoKey struct{}

// who is the caller; the guard has put it there.
func who(ctx context.Context) people.Caller {
	c, ok := ctx.Value(whoKey{}).(people.Caller)
	if !ok {
		panic("api: the guard lets nobody in without a caller")
	}
	return c
}

// sees says whether the caller may know of something at a site.
func sees(ctx context.Context, site string) bool { return who(ctx).Sees(site) }

// source is the address that a request comes from.
func source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr // the in-memory network of a test
	}
	return host
}

// cookieName has the prefix that binds the cookie to this host and to TLS,
// where there is TLS (RFC 6265bis §4.1.3).
func (a *API) cookieName() string {
	if a.opts.SecureCookies {
		return "__Host-edgeherd"
	}
	return "edgeherd"
}

// caller finds out who asks, by token or by cookie.
func (a *API) caller(r *http.Request, ask func(context.Context, store.TokenKind, string) (people.Caller, error)) (people.Caller, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		secret, ok := strings.CutPrefix(h, "Bearer ")
		if !ok {
			return people.Caller{}, unauthorized("the Authorization header is not \"Bearer TOKEN\"", "")
		}
		c, err := ask(r.Context(), store.TokenAPI, secret)
		if errors.Is(err, people.ErrUnknown) {
			return c, unauthorized("the token is unknown or has expired", "Ask an admin for a new one: `edgeherd token create`.")
		}
		return c, err
	}
	cookie, err := r.Cookie(a.cookieName())
	if err != nil {
		return people.Caller{}, unauthorized("nobody is logged in", signInTip)
	}
	c, err := ask(r.Context(), store.TokenSession, cookie.Value)
	if errors.Is(err, people.ErrUnknown) {
		return c, unauthorized("the session has expired", signInTip)
	}
	return c, err
}

// stillIn says whether whoever opened a stream may go on reading it as the same.
func (a *API) stillIn(r *http.Request) bool {
	was := who(r.Context())
	is, err := a.caller(r, a.opts.People.Look)
	return err == nil && is.Role == was.Role && slices.Equal(is.Sites, was.Sites)
}

func unauthorized(detail, hint string) error {
	return fleetapi.Problem(http.StatusUnauthorized, detail, hint)
}

func (a *API) registerSessions() {
	route(a, get("/session", "session", "Who is logged in", "people"), a.session)
	route(a, get("/sign-in", "signInWays", "How somebody can sign in", "people"), a.signInWays)
	begins(a, post("/sessions", "signIn", "Sign in with a name and a password", "people"), a.signIn)
	begins(a, post("/passwords", "setPassword", "Set a password by an invitation, and sign in", "people"), a.setPassword)
	route(a, post("/passwords:check", "checkInvitation", "Whom an invitation is for", "people"), a.checkInvitation)
	made := post("/sessions/login-url", "loginUrl", "Make a URL that logs its first visitor in", "people")
	made.DefaultStatus = http.StatusCreated
	route(a, made, a.loginURL)
	out := post("/logout", "logout", "End this session", "people")
	a.describe(out, http.StatusNoContent, nil)
	a.routes.HandleFunc(out.Method+" "+out.Path, a.logout)
	a.routes.HandleFunc("GET /login", a.login)
	a.routes.HandleFunc("GET /login/oidc", a.startTrip)
	a.routes.HandleFunc("GET /login/oidc/callback", a.endTrip)
}

func sessionOf(c people.Caller) fleetapi.Session {
	s := fleetapi.Session{User: c.Name, Role: string(c.Role), Sites: append([]string{}, c.Sites...), Can: []string{}, Person: c.Account != ""}
	for _, v := range c.Can() {
		s.Can = append(s.Can, string(v))
	}
	return s
}

func (a *API) session(ctx context.Context, _ *nothing) (fleetapi.Session, error) {
	return sessionOf(who(ctx)), nil
}

func (a *API) signInWays(ctx context.Context, _ *nothing) (fleetapi.SignInWays, error) {
	settled, err := a.opts.People.Settled(ctx)
	out := fleetapi.SignInWays{Setup: !settled}
	if p := a.opts.People.Provider(); p != nil {
		out.Provider = p.Name()
	}
	return out, err
}

// begun is the answer that begins a session.
type begun struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      fleetapi.Session
}

// begins registers a route that anybody may use and that begins a session. The
// one that the browser had ends: its secret may have been known to somebody.
func begins[I any](a *API, op huma.Operation, f func(context.Context, *I) (people.Session, error)) {
	op.MaxBodyBytes = maxJSONBytes
	op.Security = []map[string][]string{}
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusTooManyRequests)
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
		old, _ := huma.ReadCookie(ctx, a.cookieName())
		next(ctx)
		if old != nil && ctx.Status() < 300 {
			if err := a.opts.People.End(context.WithoutCancel(ctx.Context()), old.Value); err != nil {
				a.log.Warn("the session before a login was not ended", "err", err)
			}
		}
	})
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*begun, error) {
		s, err := f(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, op.OperationID, peopleProblem(err))
		}
		a.log.Info("logged in", "user", s.Caller.Name, "role", s.Caller.Role)
		return &begun{*a.cookie(s.Secret, int(people.SessionLife.Seconds())), sessionOf(s.Caller)}, nil
	})
}

// peopleProblem is what callers are told of errors of package people.
func peopleProblem(err error) error {
	var f *people.Faulty
	var l *people.Locked
	switch {
	case errors.Is(err, people.ErrWrong):
		return unauthorized(err.Error(), "After ten failures a name is locked for 15 minutes. An admin can help: `edgeherd user reset NAME`.")
	case errors.Is(err, people.ErrUnknown):
		return unauthorized("the address was used already or has expired", "Ask an admin for a new one: `edgeherd user reset NAME`.")
	case errors.As(err, &l):
		return huma.ErrorWithHeaders(fleetapi.Problem(http.StatusTooManyRequests, err.Error(), "An admin can help: `edgeherd user reset NAME`."),
			http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(l.For.Seconds())))}})
	case errors.As(err, &f) && f.Taken:
		return conflict(f.Hint, "%s", f.Why)
	case errors.As(err, &f):
		return refuse(f.Hint, "%s", f.Why)
	}
	return err
}

type signInInput struct{ Body fleetapi.SignIn }

func (a *API) signIn(ctx context.Context, in *signInInput) (people.Session, error) {
	s, err := a.opts.People.SignIn(ctx, in.Body.Name, in.Body.Password, audit.Of(ctx).Source)
	return s, err
}

type setPasswordInput struct{ Body fleetapi.NewPassword }

func (a *API) setPassword(ctx context.Context, in *setPasswordInput) (people.Session, error) {
	return a.opts.People.SetPassword(ctx, people.Redeeming{Secret: in.Body.Secret, Name: in.Body.Name, Password: in.Body.Password})
}

type invitationInput struct{ Body fleetapi.Invitation }

func (a *API) checkInvitation(ctx context.Context, in *invitationInput) (fleetapi.Invited, error) {
	user, role, err := a.opts.People.Invited(ctx, in.Body.Secret)
	return fleetapi.Invited{User: user, Role: role}, peopleProblem(err)
}

// loginURL hands the caller's own role on, never more.
func (a *API) loginURL(ctx context.Context, _ *nothing) (fleetapi.LoginURL, error) {
	secret, end, err := a.opts.People.LoginSecret(ctx, who(ctx), loginLife)
	return fleetapi.LoginURL{Path: "/login?token=" + url.QueryEscape(secret), Expires: end.UTC()}, err
}

// login turns a one-use token into a session.
func (a *API) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet || strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") {
		w.WriteHeader(http.StatusNoContent) // a program that only looks does not use the address up
		return
	}
	secret := r.URL.Query().Get("token")
	if secret == "" {
		http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
		return
	}
	d := &audit.Draft{Source: source(r), Verb: "login", Actor: "login address"}
	s, err := a.opts.People.Redeem(audit.With(r.Context(), d), secret)
	if errors.Is(err, people.ErrUnknown) {
		turnedAway(w, http.StatusUnauthorized, "link", "This login URL has been used or has expired.",
			"Each works once. For a new one, run this where the controller or your token is: edgeherd login --url")
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.enter(w, r, s)
}

// enter sends a browser to the dashboard with its new session.
func (a *API) enter(w http.ResponseWriter, r *http.Request, s people.Session) {
	if old, err := r.Cookie(a.cookieName()); err == nil {
		if err := a.opts.People.End(r.Context(), old.Value); err != nil {
			a.log.Warn("the session before a login was not ended", "err", err)
		}
	}
	http.SetCookie(w, a.cookie(s.Secret, int(people.SessionLife.Seconds())))
	a.log.Info("logged in", "user", s.Caller.Name, "role", s.Caller.Role)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *API) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: a.cookieName(), Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: a.opts.SecureCookies, SameSite: http.SameSiteLaxMode,
	}
}

// logout ends a browser's session; a token of a command line stays.
func (a *API) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(a.cookieName()); err == nil {
		if err := a.opts.People.End(r.Context(), c.Value); err != nil {
			a.fail(w, r, err)
			return
		}
	}
	http.SetCookie(w, a.cookie("", -1))
	w.WriteHeader(http.StatusNoContent)
}

// tripCookie holds what only this browser may finish.
func (a *API) tripCookie(value string, maxAge int) *http.Cookie {
	c := a.cookie(value, maxAge)
	c.Name += "-oidc"
	return c
}

// startTrip sends a browser to the provider. It changes nothing here.
func (a *API) startTrip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	p := a.opts.People.Provider()
	if p == nil {
		a.fail(w, r, fleetapi.Problem(http.StatusNotFound, "nobody else vouches for people here", "Set the key oidc of server.yaml."))
		return
	}
	address, trip, err := p.Start(r.Context())
	if err != nil {
		a.log.Error("the OIDC provider cannot be asked", "err", err)
		turnedAway(w, http.StatusBadGateway, "unreachable", p.Name()+" cannot be reached.", "The controller's log says why. Try again later, or sign in with a password:")
		return
	}
	http.SetCookie(w, a.tripCookie(trip.String(), int(tripLife.Seconds())))
	http.Redirect(w, r, address, http.StatusSeeOther)
}

// endTrip is where the provider sends the browser back to.
func (a *API) endTrip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	http.SetCookie(w, a.tripCookie("", -1))
	s, err := a.finishTrip(r)
	var f *people.Faulty
	if errors.As(err, &f) {
		turnedAway(w, http.StatusUnauthorized, f.Code, f.Why, f.Hint)
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.enter(w, r, s)
}

func (a *API) finishTrip(r *http.Request) (people.Session, error) {
	if a.opts.People.Provider() == nil {
		return people.Session{}, fleetapi.Problem(http.StatusNotFound, "nobody else vouches for people here", "")
	}
	q, value := r.URL.Query(), ""
	if c, err := r.Cookie(a.tripCookie("", 0).Name); err == nil {
		value = c.Value
	}
	trip, err := people.ParseTrip(value)
	if err != nil {
		return people.Session{}, &people.Faulty{Why: "This sign-in cannot be finished: " + err.Error() + ".", Hint: "Begin again:", Code: "again"}
	}
	if said := q.Get("error"); said != "" {
		a.log.Warn("the OIDC provider refused a sign-in", "err", said+": "+q.Get("error_description"))
		return people.Session{}, &people.Faulty{Why: a.opts.People.Provider().Name() + " refused the sign-in.", Hint: "The controller's log says why. Begin again:", Code: "refused"}
	}
	return a.opts.People.Finish(r.Context(), people.Return{Trip: trip, State: q.Get("state"), Code: q.Get("code")})
}
