// Package people knows who uses a controller: local users, people that a
// provider of OpenID Connect vouches for, their sessions, and the tokens of
// programs.
//
// Vocabulary: an account is a person with one role and its sites. A session is
// a browser's cookie; its account decides at every request what it may do, so
// that a person who is disabled is out at once. A token is a program's, with a
// role, sites, a scope and an end of its own. An invitation is a one-use address
// under which a person sets the password that nobody else ever knows; the first
// admin comes by one that the controller prints while nobody can sign in. A
// login address is one that makes a session without a password; the person at
// the machine of the controller gets it.
//
// Secrets are 256 random bits and stored as SHA-256. Passwords are stored by
// argon2id. Failing takes as long for a name that nobody has, and after too many
// failures a name is locked, whether somebody has it or not.
//
// The one rule a caller can break: show a secret once, to the person it is for.
package people

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
)

// How long things last.
const (
	SessionLife    = 12 * time.Hour // whatever happens
	SessionIdle    = 30 * time.Minute
	InviteLife     = 72 * time.Hour
	TokenLife      = 90 * 24 * time.Hour // default
	TokenMostLife  = 365 * 24 * time.Hour
	touchedEvery   = time.Minute      // sessions; well below SessionIdle
	touchedSeldom  = 10 * time.Minute // tokens, of which only people want to know
	lockAfter      = 10               // failures
	lockFor        = 15 * time.Minute
	attemptsBurst  = 30   // logins of one address at once; a proxy is one address
	attemptsMinute = 10   // and then
	ghostsBurst    = 1000 // records of failures under names that nobody has; half a megabyte
	ghostsMinute   = 60   // and then; 43 MB a day
)

// Options of People. Store is required.
type Options struct {
	Store *store.Store
	// OIDC is the provider that vouches for people; nil: there is none.
	OIDC *Provider
	// WallClock tells when things end; nil means time.Now.
	WallClock func() time.Time
}

// People answers who somebody is. Safe for concurrent use.
type People struct {
	opts  Options
	log   *slog.Logger
	limit limiter
	work  chan struct{} // buffer: passwords that are hashed at once, 46 MB each
	cost  cost          // of new passwords
	dummy string        // hash for names that nobody has
}

// New makes People.
func New(opts Options, log *slog.Logger) *People {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	return &People{opts: opts, log: log, work: make(chan struct{}, 2), cost: usual, dummy: dummyHash(usual)}
}

// Caller is who asks.
type Caller struct {
	authz.Subject
	ID      string // of the session or token
	Kind    store.TokenKind
	Account string // empty for a program

	used time.Time
	by   string // ID of the token that a session without an account comes from
}

// Key tells callers apart: a person has the same in every session.
func (c Caller) Key() string {
	if c.Account != "" {
		return "user " + c.Account
	}
	return string(c.Kind) + " " + c.ID
}

// ErrUnknown says that a secret opens nothing: never did, or does no more.
var ErrUnknown = errors.New("unknown or expired")

// Caller finds out whose a secret is, and notes that it was used.
func (p *People) Caller(ctx context.Context, kind store.TokenKind, secret string) (Caller, error) {
	c, err := p.Look(ctx, kind, secret)
	if err != nil {
		return Caller{}, err
	}
	every := touchedSeldom
	if kind == store.TokenSession {
		every = touchedEvery
	}
	if p.opts.WallClock().Sub(c.used).Abs() > every {
		// The answer is worth more than the stamp: a full disk stops no reading.
		if err := p.opts.Store.TouchToken(context.WithoutCancel(ctx), c.ID); err != nil {
			p.log.Warn("use of a token not noted", "err", err)
		}
	}
	return c, nil
}

// Look finds out whose a secret is, without counting as use.
func (p *People) Look(ctx context.Context, kind store.TokenKind, secret string) (Caller, error) {
	if kind == store.TokenAPI && !wellFormed(secret) {
		return Caller{}, ErrUnknown
	}
	t, err := p.opts.Store.Token(ctx, secret, kind)
	if errors.Is(err, store.ErrNotFound) || err == nil && kind == store.TokenSession && p.opts.WallClock().Sub(t.Used) > SessionIdle {
		return Caller{}, ErrUnknown
	}
	if err != nil {
		return Caller{}, err
	}
	c := Caller{used: t.Used, by: t.MadeBy, Subject: authz.Subject{Name: t.Name, Role: authz.Role(t.Role), Sites: t.Sites}, ID: t.ID, Kind: kind, Account: t.Account}
	for _, v := range t.Verbs {
		c.Verbs = append(c.Verbs, authz.Verb(v))
	}
	return c, nil
}

// Session is a new session; the secret is for the cookie.
type Session struct {
	Secret string
	Caller Caller
}

// newSecret is 256 random bits in 43 letters.
func newSecret() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// begin makes a session. Every sign-in has a new secret.
func (p *People) begin(ctx context.Context, t store.Token) (Session, error) {
	s := Session{Secret: newSecret()}
	t.ID, t.Kind, t.Expires = "", store.TokenSession, p.opts.WallClock().Add(SessionLife)
	if t.Account == "" {
		if err := p.bound(ctx, &t); err != nil {
			return Session{}, err
		}
	}
	if err := p.opts.Store.AddToken(ctx, s.Secret, t); err != nil {
		return Session{}, err
	}
	var err error
	s.Caller, err = p.Caller(ctx, store.TokenSession, s.Secret)
	return s, err
}

// bound ends what comes from a token of a program no later than that token.
func (p *People) bound(ctx context.Context, t *store.Token) error {
	all, err := p.Tokens(ctx)
	for _, from := range all {
		if from.ID == t.MadeBy && from.Expires.Before(t.Expires) {
			t.Expires = from.Expires
		}
	}
	return err
}

// beginAs makes the session of a person who has proved to be it.
func (p *People) beginAs(ctx context.Context, name string) (Session, error) {
	d := audit.Of(ctx)
	d.Actor, d.Object = name, name
	s, err := p.begin(ctx, store.Token{Name: name, Account: name})
	if err != nil {
		return Session{}, err
	}
	now := p.opts.WallClock()
	return s, p.opts.Store.ChangeAccount(ctx, name, false, func(a *store.Account) error {
		a.Login = now
		return nil
	})
}

// End ends a session; one that has ended already is no error.
func (p *People) End(ctx context.Context, secret string) error {
	if err := p.opts.Store.DropToken(ctx, secret); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// LoginSecret makes a secret that becomes the session of a subject once. What
// comes from a token of a program ends with that token.
func (p *People) LoginSecret(ctx context.Context, who Caller, life time.Duration) (string, time.Time, error) {
	secret, end := newSecret(), p.opts.WallClock().Add(life)
	t := store.Token{Kind: store.TokenLogin, Name: who.Name, Account: who.Account, Role: string(who.Role), Sites: who.Sites, MadeBy: cmp.Or(who.by, who.Name), Expires: end}
	if who.Kind == store.TokenAPI {
		t.MadeBy = who.ID
	}
	for _, v := range who.Verbs {
		t.Verbs = append(t.Verbs, string(v))
	}
	return secret, end, p.opts.Store.AddToken(ctx, secret, t)
}

// Redeem turns a login secret into a session.
func (p *People) Redeem(ctx context.Context, secret string) (Session, error) {
	t, err := p.opts.Store.Token(ctx, secret, store.TokenLogin)
	if err == nil {
		d := audit.Of(ctx)
		d.Actor, d.Role, d.Object, d.Note = t.Name, t.Role, t.Name, "by a login address"
		_, err = p.opts.Store.UseToken(ctx, secret, store.TokenLogin)
	}
	if errors.Is(err, store.ErrNotFound) {
		return Session{}, ErrUnknown
	}
	if err != nil {
		return Session{}, err
	}
	return p.begin(ctx, t)
}

// Settled reports whether somebody can sign in: pages may be shown to others
// than this machine then.
func (p *People) Settled(ctx context.Context) (bool, error) {
	if p.opts.OIDC != nil {
		return true, nil
	}
	all, err := p.opts.Store.Accounts(ctx)
	return slices.ContainsFunc(all, func(a store.Account) bool { return a.Role == string(authz.Admin) && a.Password != "" && !a.Disabled }), err
}

// SetupSecret makes the invitation of the first admin.
func (p *People) SetupSecret(ctx context.Context) (string, error) {
	secret := newSecret()
	t := store.Token{Kind: store.TokenPassword, Name: "setup", Role: string(authz.Admin), Sites: []string{authz.AllSites}, MadeBy: "controller", Expires: p.opts.WallClock().Add(InviteLife)}
	return secret, p.opts.Store.AddToken(ctx, secret, t)
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$`)

// checkName says what is wrong with a name.
func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("name %q: want letters, digits and . _ @ -, at most 63, a letter or digit first", name)
	}
	if slices.Contains([]string{"nobody", "controller", "owner", "local"}, strings.ToLower(name)) {
		return fmt.Errorf("the name %s stands for something else in the audit log", name)
	}
	return nil
}
