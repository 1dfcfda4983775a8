package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

const (
	sessionLife  = 12 * time.Hour
	loginLife    = 15 * time.Minute // of a login URL made over the API
	tokenLife    = 90 * 24 * time.Hour
	loginCommand = "Run `edgeherd login --url` for a new login URL."
)

// whoKey is the key of the caller's token in a request's context.
type whoKey struct{}

// who is the caller; the guard has put it there.
func who(ctx context.Context) store.Token {
	t, ok := ctx.Value(whoKey{}).(store.Token)
	if !ok {
		panic("api: the guard lets nobody in without a token")
	}
	return t
}

// cookieName has the prefix that binds the cookie to this host and to TLS,
// where there is TLS (RFC 6265bis §4.1.3).
func (a *API) cookieName() string {
	if a.opts.SecureCookies {
		return "__Host-edgeherd"
	}
	return "edgeherd"
}

// guard lets a request pass whose caller has the role that the route needs.
func (a *API) guard(pattern string, next http.HandlerFunc) http.HandlerFunc {
	need, listed := access[pattern]
	return func(w http.ResponseWriter, r *http.Request) {
		if !listed {
			a.fail(w, r, fleetapi.Problem(http.StatusForbidden, "this route is open to nobody", ""))
			return
		}
		if need == public {
			next(w, r)
			return
		}
		t, err := a.caller(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if roleNames[t.Role] < need {
			a.fail(w, r, fleetapi.Problem(http.StatusForbidden, fmt.Sprintf("%s has the role %q; this needs %q", t.Name, t.Role, need), "Ask an admin for a token with that role: `edgeherd server token create`."))
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, t)))
	}
}

// caller finds out who asks, by token or by cookie.
func (a *API) caller(r *http.Request) (store.Token, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		secret, ok := strings.CutPrefix(h, "Bearer ")
		if !ok {
			return store.Token{}, unauthorized("the Authorization header is not \"Bearer TOKEN\"", "")
		}
		t, err := a.opts.Store.Token(r.Context(), secret, store.TokenAPI)
		if errors.Is(err, store.ErrNotFound) {
			return store.Token{}, unauthorized("the token is unknown or has expired", "Ask an admin for a new one: `edgeherd server token create`.")
		}
		return t, err
	}
	c, err := r.Cookie(a.cookieName())
	if err != nil {
		return store.Token{}, unauthorized("nobody is logged in", loginCommand)
	}
	t, err := a.opts.Store.Token(r.Context(), c.Value, store.TokenSession)
	if errors.Is(err, store.ErrNotFound) {
		return store.Token{}, unauthorized("the session has expired", loginCommand)
	}
	return t, err
}

func unauthorized(detail, hint string) error {
	return fleetapi.Problem(http.StatusUnauthorized, detail, hint)
}

// newSecret is 256 random bits in 43 letters.
func newSecret() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func (a *API) registerPeople() {
	route(a, get("/session", "session", "Who is logged in", "people"), a.session)
	made := post("/sessions/login-url", "loginUrl", "Make a URL that logs its first visitor in", "people")
	made.DefaultStatus = http.StatusCreated
	route(a, made, a.loginURL)
	token := post("/tokens", "createToken", "Make a token for a command line", "people")
	token.DefaultStatus = http.StatusCreated
	route(a, token, a.newToken)
	out := post("/logout", "logout", "End this session", "people")
	a.describe(out, http.StatusNoContent, nil)
	a.routes.HandleFunc(out.Method+" "+out.Path, a.logout)
	a.routes.HandleFunc("GET /login", a.login)
}

func (a *API) session(ctx context.Context, _ *nothing) (fleetapi.Session, error) {
	t := who(ctx)
	return fleetapi.Session{User: t.Name, Role: t.Role}, nil
}

// loginURL hands the caller's own role on, never more.
func (a *API) loginURL(ctx context.Context, _ *nothing) (fleetapi.LoginURL, error) {
	t, secret := who(ctx), newSecret()
	expires := a.opts.WallClock().Add(loginLife).UTC()
	err := a.opts.Store.AddToken(ctx, secret, store.Token{Name: t.Name, Role: t.Role, Kind: store.TokenLogin, Expires: expires})
	return fleetapi.LoginURL{Path: "/login?token=" + url.QueryEscape(secret), Expires: expires}, err
}

type newTokenInput struct{ Body fleetapi.NewToken }

func (a *API) newToken(ctx context.Context, in *newTokenInput) (fleetapi.Token, error) {
	life := tokenLife
	if s := in.Body.TTLSeconds; s > 0 {
		life = time.Duration(s * float64(time.Second))
	}
	out := fleetapi.Token{Secret: "eht_" + newSecret(), Name: in.Body.Name, Role: in.Body.Role, Expires: a.opts.WallClock().Add(life).UTC()}
	err := a.opts.Store.AddToken(ctx, out.Secret, store.Token{Name: out.Name, Role: out.Role, Kind: store.TokenAPI, Expires: out.Expires})
	if err != nil {
		return fleetapi.Token{}, err
	}
	a.log.Info("token made", "for", out.Name, "role", out.Role, "by", who(ctx).Name)
	return out, nil
}

// login turns a one-use token into a session.
func (a *API) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	t, err := a.opts.Store.UseToken(r.Context(), r.URL.Query().Get("token"))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		a.fail(w, r, err)
		return
	}
	if err != nil {
		plainPage(w, http.StatusUnauthorized, "This login URL has been used or has expired.",
			"Each works once. For a new one, run this where the controller or your token is:", "edgeherd login --url")
		return
	}
	secret := newSecret()
	s := store.Token{Name: t.Name, Role: t.Role, Kind: store.TokenSession, Expires: a.opts.WallClock().Add(sessionLife)}
	if err := a.opts.Store.AddToken(r.Context(), secret, s); err != nil {
		a.fail(w, r, err)
		return
	}
	http.SetCookie(w, a.cookie(secret, int(sessionLife.Seconds())))
	a.log.Info("logged in", "user", t.Name, "role", t.Role)
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
		if err := a.opts.Store.DropToken(r.Context(), c.Value); err != nil && !errors.Is(err, store.ErrNotFound) {
			a.fail(w, r, err)
			return
		}
	}
	http.SetCookie(w, a.cookie("", -1))
	w.WriteHeader(http.StatusNoContent)
}

// describe adds a route to the specification that the framework does not serve.
func (a *API) describe(op huma.Operation, status int, content map[string]*huma.MediaType) {
	problem := a.huma.OpenAPI().Components.Schemas.Schema(errorType, true, "Error")
	op.Responses = map[string]*huma.Response{
		fmt.Sprint(status): {Description: http.StatusText(status), Content: content},
		"default":          {Description: "Error", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}},
	}
	a.huma.OpenAPI().AddOperation(&op)
}
