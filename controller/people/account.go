package people

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
)

// Faulty is what is wrong with what somebody asked for, with a way out.
type Faulty struct {
	Why, Hint string
	Taken     bool // by what is there already
	// Code names what is wrong with a sign-in at the provider, for the page that
	// says it in the language of whoever reads it: group, claim, taken, disabled,
	// unvouched, refused, again; "": it is none.
	Code string
}

func (f *Faulty) Error() string { return f.Why }

func faulty(hint, format string, args ...any) error {
	return &Faulty{Why: fmt.Sprintf(format, args...), Hint: hint}
}

// Locked says that a name or an address has failed too often.
type Locked struct{ For time.Duration }

func (l *Locked) Error() string {
	return fmt.Sprintf("too many failed attempts; try again in %s", l.For.Round(time.Second))
}

// ErrWrong is all that is told about a name and a password that do not fit.
var ErrWrong = errors.New("the name or the password is wrong")

// noName stands for all texts that are no name.
const noName = "-"

// SignIn makes a session for a name and its password. source is the address of
// the asking machine.
func (p *People) SignIn(ctx context.Context, name, password, source string) (Session, error) {
	now := p.opts.WallClock()
	if wait := p.limit.ask(source, now); wait > 0 {
		return Session{}, &Locked{wait}
	}
	if checkName(name) != nil {
		name = noName // nobody has it: it fails as any other does, and no such text reaches the database
	}
	until, err := p.opts.Store.LoginLocked(ctx, name)
	if err != nil {
		return Session{}, err
	}
	if !until.IsZero() {
		return Session{}, &Locked{until.Sub(now)}
	}
	a, err := p.opts.Store.Account(ctx, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Session{}, err
	}
	have := a.Password
	if have == "" {
		have = p.dummy // it takes as long, and nothing matches it
	}
	fits, err := p.matches(ctx, have, password)
	if err != nil {
		return Session{}, err
	}
	if !fits || a.Password == "" || a.Disabled {
		return Session{}, p.failed(ctx, name, a.Name != "")
	}
	// Of many attempts at once, those that waited while the name was locked are
	// not told that they were right.
	if until, err = p.opts.Store.LoginLocked(ctx, name); err != nil {
		return Session{}, err
	}
	if !until.IsZero() {
		return Session{}, &Locked{until.Sub(now)}
	}
	if err := p.opts.Store.ForgetFailures(withoutAudit(ctx), name); err != nil {
		return Session{}, err
	}
	return p.beginAs(ctx, name)
}

// withoutAudit is for writes that are not the change a request is about.
func withoutAudit(ctx context.Context) context.Context {
	d := &audit.Draft{}
	d.Drop()
	return audit.With(ctx, d)
}

func (p *People) failed(ctx context.Context, name string, known bool) error {
	d := audit.Of(ctx)
	d.Verb, d.Actor = "login.failed", name
	if checkName(name) != nil {
		d.Actor = "nobody" // some type the password into the field of the name
	}
	// The log is kept for ever: names that somebody makes up must not fill the
	// disk. Those of people are bounded by their locks.
	if !known && !p.limit.record(p.opts.WallClock()) {
		d.Drop()
	} else if !known {
		d.Note = p.limit.unlisted()
	}
	if _, err := p.opts.Store.FailLogin(ctx, name, lockAfter, lockFor); err != nil {
		return err
	}
	p.log.Warn("login failed", "user", d.Actor, "from", d.Source)
	return ErrWrong
}

// Invited tells whom an invitation is for; the first admin has no name yet.
func (p *People) Invited(ctx context.Context, secret string) (name, role string, err error) {
	t, err := p.invitation(ctx, secret)
	return t.Account, t.Role, err
}

// invitation looks a secret up. One for the first admin opens nothing once
// there is an admin: each start of the controller has printed another.
func (p *People) invitation(ctx context.Context, secret string) (store.Token, error) {
	t, err := p.opts.Store.Token(ctx, secret, store.TokenPassword)
	if err == nil && t.Account == "" {
		var settled bool
		if settled, err = p.Settled(ctx); err == nil && settled {
			err = store.ErrNotFound
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		return store.Token{}, ErrUnknown
	}
	return t, err
}

// Redeeming is what somebody with an invitation asks for.
type Redeeming struct {
	Secret, Name, Password string
}

// SetPassword sets the password of an invitation's account, or makes the first
// admin, and begins a session.
func (p *People) SetPassword(ctx context.Context, r Redeeming) (Session, error) {
	t, err := p.invitation(ctx, r.Secret)
	if err != nil {
		return Session{}, err
	}
	name := t.Account
	if name == "" {
		name = r.Name
	}
	if err := errors.Join(checkName(name), checkPassword(name, r.Password)); err != nil {
		return Session{}, faulty("", "%s", err)
	}
	hash, err := p.hash(ctx, r.Password)
	if err != nil {
		return Session{}, err
	}
	if t.Account == "" { // the address is not used up by a name that is taken
		if _, err := p.opts.Store.Account(ctx, name); err == nil {
			return Session{}, nameTaken(name)
		}
	}
	if _, err := p.opts.Store.UseToken(withoutAudit(ctx), r.Secret, store.TokenPassword); errors.Is(err, store.ErrNotFound) {
		return Session{}, ErrUnknown // another was faster
	} else if err != nil {
		return Session{}, err
	}
	d := audit.Of(ctx)
	d.Actor, d.Object, d.Note = name, name, "password set"
	if t.Account == "" {
		d.Note = "first admin"
		err = p.opts.Store.AddAccount(ctx, store.Account{Name: name, Role: t.Role, Sites: t.Sites, Password: hash})
	} else {
		err = p.opts.Store.ChangeAccount(ctx, name, true, func(a *store.Account) error {
			a.Password = hash
			return nil
		})
	}
	if errors.Is(err, store.ErrConflict) {
		return Session{}, nameTaken(name)
	}
	if err != nil {
		return Session{}, err
	}
	if err := p.opts.Store.ForgetFailures(ctx, name); err != nil {
		return Session{}, err
	}
	d.Again(name)
	d.Verb = "login"
	return p.beginAs(ctx, name)
}

func nameTaken(name string) error {
	return faulty("Take another name.", "there is a user %s already", name)
}

// Add makes a user who can sign in once the invitation was used.
func (p *People) Add(ctx context.Context, name string, role authz.Role, sites []string) error {
	sites = authz.SitesFor(role, sites)
	if err := errors.Join(checkName(name), authz.Check(role, sites, nil)); err != nil {
		return faulty("", "%s", err)
	}
	d := audit.Of(ctx)
	d.Object, d.After, d.Note = name, audit.Digest(standing(string(role), sites, false)), standing(string(role), sites, false)
	err := p.opts.Store.AddAccount(ctx, store.Account{Name: name, Role: string(role), Sites: sites})
	if errors.Is(err, store.ErrConflict) {
		return &Faulty{fmt.Sprintf("there is a user %s already", name), "Change the role with `edgeherd user role`, the password with `edgeherd user reset`.", true, ""}
	}
	return err
}

// standing is what an account is, for people and for digests.
func standing(role string, sites []string, disabled bool) string {
	text := role + " of " + strings.Join(sites, ", ")
	if disabled {
		text += ", disabled"
	}
	return text
}

// Invite makes the secret under which a local user sets a password. The old one
// holds until then; secrets of before end.
func (p *People) Invite(ctx context.Context, name string) (string, time.Time, error) {
	a, err := p.opts.Store.Account(ctx, name)
	if err != nil {
		return "", time.Time{}, err
	}
	if a.Subject != "" {
		return "", time.Time{}, faulty("Change the password there.", "%s signs in by %s", name, a.Issuer)
	}
	secret, end := newSecret(), p.opts.WallClock().Add(InviteLife)
	t := store.Token{Kind: store.TokenPassword, Name: name, Account: name, Expires: end}
	if err := p.opts.Store.AddToken(ctx, secret, t); err != nil {
		return "", end, err
	}
	return secret, end, p.opts.Store.ForgetFailures(withoutAudit(ctx), name)
}

// SetRole gives a person another role, at once.
func (p *People) SetRole(ctx context.Context, name string, role authz.Role, sites []string) error {
	sites = authz.SitesFor(role, sites)
	if err := authz.Check(role, sites, nil); err != nil {
		return faulty("", "%s", err)
	}
	return p.change(ctx, name, false, func(a *store.Account) { a.Role, a.Sites = string(role), sites })
}

// Disable keeps a person out, or lets one in again. It ends all sessions.
func (p *People) Disable(ctx context.Context, name string, disabled bool) error {
	return p.change(ctx, name, true, func(a *store.Account) { a.Disabled = disabled })
}

// SignOut ends all sessions of a person.
func (p *People) SignOut(ctx context.Context, name string) error {
	return p.change(ctx, name, true, func(*store.Account) {})
}

func (p *People) change(ctx context.Context, name string, out bool, f func(*store.Account)) error {
	d := audit.Of(ctx)
	err := p.opts.Store.ChangeAccount(ctx, name, out, func(a *store.Account) error {
		before := standing(a.Role, a.Sites, a.Disabled)
		f(a)
		after := standing(a.Role, a.Sites, a.Disabled)
		d.Object, d.Before, d.After, d.Note = name, audit.Digest(before), audit.Digest(after), before+" → "+after
		return nil
	})
	if errors.Is(err, store.ErrLastAdmin) {
		return faulty("Make somebody else admin first: `edgeherd user add NAME --role admin`.", "%s is the last admin", name)
	}
	return err
}

// Users are all accounts; with how many sessions each has.
func (p *People) Users(ctx context.Context) ([]store.Account, map[string]int, error) {
	all, err := p.opts.Store.Accounts(ctx)
	if err != nil {
		return nil, nil, err
	}
	open, err := p.opts.Store.Tokens(ctx, store.TokenSession)
	sessions := map[string]int{}
	now := p.opts.WallClock()
	for _, t := range open {
		if t.Account != "" && now.Sub(t.Used) <= SessionIdle {
			sessions[t.Account]++
		}
	}
	return all, sessions, err
}

// NewToken is what a token is to be.
type NewToken struct {
	Name  string
	Role  authz.Role
	Sites []string
	Verbs []authz.Verb
	Life  time.Duration // default TokenLife
	By    string
}

// AddToken makes a token of a program. The secret is shown once.
func (p *People) AddToken(ctx context.Context, n NewToken) (string, store.Token, error) {
	n.Sites = authz.SitesFor(n.Role, n.Sites)
	if n.Life == 0 {
		n.Life = TokenLife
	}
	if err := errors.Join(checkName(n.Name), authz.Check(n.Role, n.Sites, n.Verbs)); err != nil {
		return "", store.Token{}, faulty("", "%s", err)
	}
	if n.Life < 0 || n.Life > TokenMostLife {
		return "", store.Token{}, faulty("", "a token lasts a year at most, not %s", n.Life)
	}
	return p.GiveToken(ctx, n)
}

// GiveToken makes a token without asking what it is: for the controller's own
// machine and for tests.
func (p *People) GiveToken(ctx context.Context, n NewToken) (string, store.Token, error) {
	secret, id := newToken()
	t := store.Token{
		ID: id, Kind: store.TokenAPI, Name: n.Name, Role: string(n.Role), Sites: slices.Clone(n.Sites), MadeBy: n.By,
		Created: p.opts.WallClock(), Expires: p.opts.WallClock().Add(n.Life),
	}
	for _, v := range n.Verbs {
		t.Verbs = append(t.Verbs, string(v))
	}
	d := audit.Of(ctx)
	d.Object, d.Note = id, fmt.Sprintf("%s: %s until %s", n.Name, standing(t.Role, t.Sites, false), t.Expires.UTC().Format(time.DateOnly))
	d.After = audit.Digest(d.Note)
	return secret, t, p.opts.Store.AddToken(ctx, secret, t)
}

// Tokens are those of programs.
func (p *People) Tokens(ctx context.Context) ([]store.Token, error) {
	return p.opts.Store.Tokens(ctx, store.TokenAPI)
}

// Revoke ends a token of a program.
func (p *People) Revoke(ctx context.Context, id string) error {
	audit.Of(ctx).Object = id
	return p.opts.Store.RevokeToken(ctx, store.TokenAPI, id)
}
