package people

import (
	"cmp"
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

// ProviderOptions say who vouches for people. Issuer, ClientID, Redirect and at
// least one grant are required.
type ProviderOptions struct {
	// Name is for the button; default the host of Issuer.
	Name     string
	Issuer   string
	ClientID string
	// Secret of this controller at the provider; empty for a public client.
	Secret string
	// Redirect is the address that the provider sends people back to.
	Redirect string
	// UserClaim names people, GroupsClaim lists their groups. Defaults:
	// preferred_username, groups.
	UserClaim, GroupsClaim string
	Scopes                 []string // default openid profile email
	// Grants turn groups into roles; the first that matches gives the role, and
	// those of the same role add their sites.
	Grants []Grant
	Guard  outbound.Guard
	// WallClock judges tokens; nil means time.Now.
	WallClock func() time.Time
}

// Grant gives the members of a group a role.
type Grant struct {
	Group string
	Role  authz.Role
	Sites []string
}

// Provider vouches for people by OpenID Connect. Safe for concurrent use.
type Provider struct {
	opts ProviderOptions
	http *http.Client

	mu    sync.Mutex // guards found
	found *oidc.Provider
}

// signatures that are taken: none that anybody can make who reads the public
// key or no key at all.
var signatures = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// NewProvider checks the options. Nothing is asked before somebody signs in, so
// that the controller starts without its provider.
func NewProvider(opts ProviderOptions) (*Provider, error) {
	issuer, err := url.Parse(opts.Issuer)
	if err != nil || issuer.Scheme != "https" || issuer.Host == "" {
		return nil, fmt.Errorf("issuer %q: want an https address such as https://login.example.com", opts.Issuer)
	}
	if opts.ClientID == "" || opts.Redirect == "" || len(opts.Grants) == 0 {
		return nil, errors.New("client_id and at least one of grants are needed")
	}
	opts.Grants = slices.Clone(opts.Grants)
	for i, g := range opts.Grants {
		g.Sites = authz.SitesFor(g.Role, g.Sites)
		if err := authz.Check(g.Role, g.Sites, nil); err != nil || g.Group == "" {
			return nil, errors.Join(fmt.Errorf("grant %d: it needs a group and a role", i+1), err)
		}
		opts.Grants[i] = g
	}
	opts.Name = cmp.Or(opts.Name, issuer.Host)
	opts.UserClaim = cmp.Or(opts.UserClaim, "preferred_username")
	opts.GroupsClaim = cmp.Or(opts.GroupsClaim, "groups")
	if len(opts.Scopes) == 0 {
		opts.Scopes = []string{"profile", "email"}
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	client, err := opts.Guard.Client(opts.Issuer)
	if err != nil {
		return nil, err
	}
	return &Provider{opts: opts, http: client}, nil
}

// Roots reads authorities of a provider that no public one vouches for.
func Roots(pem []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("it holds no certificate")
	}
	return pool, nil
}

// discover asks the provider where things are, until it has answered once. The
// library compares the issuer exactly.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil {
		return p.found, nil
	}
	// The context stays with the provider's keys: its end must not end them.
	found, err := oidc.NewProvider(p.with(context.WithoutCancel(ctx)), p.opts.Issuer)
	if err != nil {
		return nil, fmt.Errorf("ask %s about itself: %w", p.opts.Issuer, err)
	}
	end := found.Endpoint()
	var more struct {
		Keys string `json:"jwks_uri"`
	}
	if err := found.Claims(&more); err != nil {
		return nil, fmt.Errorf("read what %s says of itself: %w", p.opts.Issuer, err)
	}
	for _, address := range []string{end.AuthURL, end.TokenURL, more.Keys} {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" {
			return nil, fmt.Errorf("%s names %q, which is no https address", p.opts.Issuer, address)
		}
	}
	p.found = found
	return found, nil
}

func (p *Provider) with(ctx context.Context) context.Context { return oidc.ClientContext(ctx, p.http) }

func (p *Provider) config(found *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.opts.ClientID, ClientSecret: p.opts.Secret, Endpoint: found.Endpoint(), RedirectURL: p.opts.Redirect,
		Scopes: append([]string{oidc.ScopeOpenID}, p.opts.Scopes...),
	}
}

// Trip is what a browser keeps while it is at the provider, in a cookie of its
// own: nobody else's answer fits it.
type Trip struct{ State, Nonce, Verifier string }

// String is the trip as the value of a cookie.
func (t Trip) String() string { return t.State + "." + t.Nonce + "." + t.Verifier }

// ParseTrip reads String.
func ParseTrip(text string) (Trip, error) {
	part := strings.Split(text, ".")
	if len(part) != 3 || slices.Contains(part, "") {
		return Trip{}, errors.New("the sign-in was begun in another browser, or too long ago")
	}
	return Trip{part[0], part[1], part[2]}, nil
}

// Start begins a trip and returns where to send the browser.
func (p *Provider) Start(ctx context.Context) (string, Trip, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", Trip{}, err
	}
	t := Trip{newSecret(), newSecret(), oauth2.GenerateVerifier()}
	return p.config(found).AuthCodeURL(t.State, oidc.Nonce(t.Nonce), oauth2.S256ChallengeOption(t.Verifier)), t, nil
}

// identityOf is what a provider says of a person.
type identityOf struct {
	subject, name string
	groups        []string
}

// finish turns the provider's answer into what it says of the person.
func (p *Provider) finish(ctx context.Context, t Trip, state, code string) (identityOf, error) {
	if subtle.ConstantTimeCompare([]byte(t.State), []byte(state)) != 1 {
		return identityOf{}, errors.New("the answer belongs to another sign-in")
	}
	found, err := p.discover(ctx)
	if err != nil {
		return identityOf{}, err
	}
	ctx = p.with(ctx)
	tok, err := p.config(found).Exchange(ctx, code, oauth2.VerifierOption(t.Verifier))
	if err != nil {
		return identityOf{}, fmt.Errorf("exchange the code: %w", err)
	}
	raw, ok := tok.Extra("id_token").(string)
	if !ok {
		return identityOf{}, errors.New("the answer has no ID token")
	}
	id, err := found.Verifier(&oidc.Config{ClientID: p.opts.ClientID, SupportedSigningAlgs: signatures, Now: p.opts.WallClock}).Verify(ctx, raw)
	if err != nil {
		return identityOf{}, fmt.Errorf("check the ID token: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(id.Nonce)) != 1 {
		return identityOf{}, errors.New("the ID token belongs to another sign-in")
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return identityOf{}, fmt.Errorf("read the ID token: %w", err)
	}
	out := identityOf{subject: id.Subject}
	if out.subject == "" {
		return identityOf{}, errors.New("the ID token has no subject")
	}
	if out.name, ok = claims[p.opts.UserClaim].(string); !ok {
		return identityOf{}, fmt.Errorf("the ID token has no claim %q; set oidc.user_claim", p.opts.UserClaim)
	}
	switch groups := claims[p.opts.GroupsClaim].(type) {
	case string:
		out.groups = []string{groups}
	case []any:
		for _, g := range groups {
			if text, ok := g.(string); ok {
				out.groups = append(out.groups, text)
			}
		}
	}
	return out, nil
}

// grant is the role of somebody with these groups.
func (p *Provider) grant(groups []string) (role authz.Role, sites []string) {
	for _, g := range p.opts.Grants {
		if !slices.Contains(groups, g.Group) || role != "" && g.Role != role {
			continue
		}
		role = g.Role
		for _, s := range g.Sites {
			if !slices.Contains(sites, s) {
				sites = append(sites, s)
			}
		}
	}
	if slices.Contains(sites, authz.AllSites) {
		sites = []string{authz.AllSites}
	}
	return role, sites
}

// Provider tells who vouches for people; nil: nobody.
func (p *People) Provider() *Provider { return p.opts.OIDC }

// Name is for the button.
func (p *Provider) Name() string { return p.opts.Name }

// Return is an answer of the provider that a browser brings back.
type Return struct {
	Trip        Trip
	State, Code string
}

// Finish makes a session for a person whom the provider vouches for. The groups
// decide about the role at every sign-in.
func (p *People) Finish(ctx context.Context, r Return) (Session, error) {
	o := p.opts.OIDC
	id, err := o.finish(ctx, r.Trip, r.State, r.Code)
	if err != nil {
		p.log.Warn("sign-in by the provider refused", "err", err)
		return Session{}, turned("unvouched", "Try again; the controller's log says why.", "%s could not vouch for you", o.opts.Name)
	}
	role, sites := o.grant(id.groups)
	d := audit.Of(ctx)
	if role == "" {
		p.log.Warn("sign-in refused: no group has a role", "user", id.name)
		return Session{}, p.turnedAway(ctx, id.name, "no group has a role",
			turned("group", "Ask an admin to give one of your groups a role: oidc.grants in server.yaml.", "none of your groups may use this controller"))
	}
	a, err := p.opts.Store.AccountOf(ctx, o.opts.Issuer, id.subject)
	if errors.Is(err, store.ErrNotFound) {
		if err := checkName(id.name); err != nil {
			return Session{}, turned("claim", "An admin can name another claim: oidc.user_claim in server.yaml.", "%s", err)
		}
		a = store.Account{Name: id.name, Role: string(role), Sites: sites, Issuer: o.opts.Issuer, Subject: id.subject}
		d.Verb, d.Actor, d.Object, d.Note = "user.add", id.name, id.name, standing(a.Role, sites, false)
		if err = p.opts.Store.AddAccount(ctx, a); errors.Is(err, store.ErrConflict) {
			return Session{}, turned("taken", "Ask an admin: one of the two needs another name.", "there is another user %s already", id.name)
		}
		d.Again("")
	}
	if err != nil {
		return Session{}, err
	}
	if a.Disabled {
		return Session{}, p.turnedAway(ctx, a.Name, "disabled", turned("disabled", "Ask an admin.", "%s is disabled here", a.Name))
	}
	if a.Role != string(role) || !slices.Equal(a.Sites, sites) {
		d.Verb, d.Actor = "user.role", a.Name
		if err := p.SetRole(ctx, a.Name, role, sites); err != nil {
			return Session{}, err
		}
		d.Again("")
	}
	d.Verb = "login"
	return p.beginAs(ctx, a.Name)
}

// turnedAway records that the provider vouched for somebody who may not come in.
func (p *People) turnedAway(ctx context.Context, name, why string, told error) error {
	d := audit.Of(ctx)
	d.Verb, d.Actor, d.Note = "login.failed", name, why
	if checkName(name) != nil {
		d.Actor = "nobody"
	}
	return errors.Join(told, p.opts.Store.RecordAudit(ctx))
}

// turned is faulty for somebody whom the provider vouches for, or does not.
func turned(code, hint, format string, args ...any) error {
	return &Faulty{Why: fmt.Sprintf(format, args...), Hint: hint, Code: code}
}
