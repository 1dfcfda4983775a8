package people

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const good = "four small green boats"

// house is People over a real store, at a time that the test sets.
type house struct {
	*People
	t     *testing.T
	store *store.Store

	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (h *house) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *house) wait(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, now: start}
	var err error
	h.store, err = store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: h.clock})
	must(t, err)
	t.Cleanup(func() { h.store.Close() })
	h.People = New(Options{Store: h.store, WallClock: h.clock}, slog.New(slog.DiscardHandler))
	h.cheap()
	return h
}

// cheap makes passwords cost little: the race detector makes memory dear.
func (h *house) cheap() {
	h.cost = cost{memory: 64, time: 1, threads: 1}
	h.dummy = dummyHash(h.cost)
}

func TestAPasswordIsStoredAtItsUsualCost(t *testing.T) {
	p := New(Options{}, slog.New(slog.DiscardHandler))
	hash, err := p.hash(t.Context(), good)
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=47104,t=1,p=1$") || !strings.HasPrefix(p.dummy, "$argon2id$v=19$m=47104,t=1,p=1$") {
		t.Fatalf("stored as %q, dummy %q, %v", hash, p.dummy, err)
	}
	for password, want := range map[string]bool{good: true, good + " ": false, "": false} {
		if fits, err := p.matches(t.Context(), hash, password); err != nil || fits != want {
			t.Errorf("%q: %v, %v", password, fits, err)
		}
	}
	for _, bad := range []string{"", "x", "$argon2i$v=19$m=1,t=1,p=1$AAAA$AAAA", strings.Replace(hash, "v=19", "v=16", 1), strings.Replace(hash, "m=47104", "m=999999999", 1), strings.Replace(hash, "t=1", "t=0", 1), hash[:len(hash)-2]} {
		if fits, err := p.matches(t.Context(), bad, good); err == nil || fits {
			t.Errorf("%q is taken for a hash", bad)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// person adds somebody with the password good.
func (h *house) person(name string, role authz.Role, sites ...string) {
	h.t.Helper()
	ctx := h.t.Context()
	must(h.t, h.Add(ctx, name, role, sites))
	secret, _, err := h.Invite(ctx, name)
	must(h.t, err)
	_, err = h.SetPassword(ctx, Redeeming{Secret: secret, Password: good})
	must(h.t, err)
}

func (h *house) in(s Session) error {
	_, err := h.Look(h.t.Context(), store.TokenSession, s.Secret)
	return err
}

func TestTheFirstAdminComesByOneAddressOnce(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	if ok, err := h.Settled(ctx); err != nil || ok {
		t.Errorf("settled %v, %v", ok, err)
	}
	secret, err := h.SetupSecret(ctx)
	must(t, err)
	older, err := h.SetupSecret(ctx) // the controller was restarted in between
	must(t, err)
	if name, role, err := h.Invited(ctx, secret); err != nil || name != "" || role != "admin" {
		t.Errorf("invited %q as %q, %v", name, role, err)
	}
	for _, bad := range []string{"", "short", "aaaaaaaaaaaaaaa", "anna-is-my-name", "edgeherd-edgeherd", "my password is long", strings.Repeat("ab1_9", 60)} {
		var f *Faulty
		if _, err := h.SetPassword(ctx, Redeeming{Secret: secret, Name: "anna", Password: bad}); !errors.As(err, &f) {
			t.Errorf("password %q: %v", bad, err)
		}
	}
	must(t, h.Add(ctx, "tom", authz.Viewer, []string{"a"})) // by the owner
	var f *Faulty
	if _, err := h.SetPassword(ctx, Redeeming{Secret: secret, Name: "tom", Password: good}); !errors.As(err, &f) {
		t.Errorf("the name of another: %v", err)
	}
	s, err := h.SetPassword(ctx, Redeeming{Secret: secret, Name: "anna", Password: good})
	if err != nil || s.Caller.Role != authz.Admin || s.Caller.Name != "anna" || h.in(s) != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, s := range []string{secret, older} {
		if _, err := h.SetPassword(ctx, Redeeming{Secret: s, Name: "eve", Password: good}); !errors.Is(err, ErrUnknown) {
			t.Errorf("a second first admin: %v", err)
		}
	}
	if ok, err := h.Settled(ctx); err != nil || !ok {
		t.Errorf("settled %v, %v", ok, err)
	}
	if a, err := h.store.Account(ctx, "anna"); err != nil || !strings.HasPrefix(a.Password, "$argon2id$v=19$m=64,t=1,p=1$") || strings.Contains(a.Password, good) {
		t.Errorf("stored as %q, %v", a.Password, err)
	}
}

func TestSessionsIdleOutEndAndAreNewAtEachSignIn(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	h.person("anna", authz.Admin)
	first, err := h.SignIn(ctx, "anna", good, "192.0.2.1")
	must(t, err)
	second, err := h.SignIn(ctx, "anna", good, "192.0.2.1")
	must(t, err)
	if first.Secret == second.Secret || len(first.Secret) != 43 {
		t.Errorf("secrets %q and %q", first.Secret, second.Secret)
	}
	for range 23 * 2 { // in use, until the day's work is over
		h.wait(15 * time.Minute)
		if _, err := h.Caller(ctx, store.TokenSession, first.Secret); err != nil {
			t.Fatalf("a session in use ended after %s", h.clock().Sub(start))
		}
	}
	if h.in(second) == nil {
		t.Error("a session that nobody used did not idle out")
	}
	h.wait(time.Hour)
	if h.in(first) == nil {
		t.Error("a session outlives its end")
	}
	third, err := h.SignIn(ctx, "anna", good, "192.0.2.1")
	must(t, err)
	must(t, h.End(ctx, third.Secret))
	must(t, h.End(ctx, third.Secret))
	if h.in(third) == nil {
		t.Error("a session that was ended goes on")
	}
}

// T31: somebody tries passwords.
func TestT31TenFailuresLockANameWhetherSomebodyHasItOrNot(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	h.person("anna", authz.Admin)
	var told [2][]string
	for i, name := range []string{"anna", "ghost"} {
		for n := range lockAfter + 1 {
			_, err := h.SignIn(ctx, name, "wrong", "192.0.2.7")
			var l *Locked
			if locked := errors.As(err, &l); locked != (n == lockAfter) || !locked && !errors.Is(err, ErrWrong) {
				t.Errorf("%s, attempt %d: %v", name, n+1, err)
			}
			told[i] = append(told[i], err.Error())
		}
		h.wait(time.Second)
	}
	if strings.Join(told[0], "\n") != strings.Join(told[1], "\n") {
		t.Errorf("the answers tell who exists:\n%v\n%v", told[0], told[1])
	}
	var l *Locked
	if _, err := h.SignIn(ctx, "anna", good, "192.0.2.8"); !errors.As(err, &l) {
		t.Errorf("the right password opens a locked name: %v", err)
	}
	if _, _, err := h.Invite(ctx, "anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SignIn(ctx, "anna", good, "192.0.2.8"); err != nil {
		t.Errorf("an admin has unlocked the name: %v", err)
	}
	h.wait(lockFor)
	if _, err := h.SignIn(ctx, "ghost", "x", "192.0.2.8"); !errors.Is(err, ErrWrong) {
		t.Errorf("the lock does not end: %v", err)
	}
}

func TestT31OneAddressTriesOnlySoOften(t *testing.T) {
	var l limiter
	wait := func(source string, now time.Time) time.Duration { return l.ask(source, now) }
	for range attemptsBurst {
		if wait("2001:db8::1", start) != 0 {
			t.Fatal("refused within the burst")
		}
	}
	if wait("2001:db8::2", start) == 0 {
		t.Error("another address of the same network goes on")
	}
	if wait("2001:db8:0:1::1", start) != 0 || wait("192.0.2.1", start) != 0 {
		t.Error("another network is held up")
	}
	if wait("2001:db8::1", start.Add(time.Minute)) != 0 {
		t.Error("the wait does not end")
	}
	for i := range maxSources + 10 {
		wait(time.Duration(i).String(), start)
	}
	if len(l.sources) > maxSources {
		t.Errorf("%d addresses are remembered", len(l.sources))
	}
}

// Comparing times would be a bet on the machine; what costs the time is done in
// all cases alike.
func TestT31FailingCostsAHashInEveryCase(t *testing.T) {
	h := newHouse(t)
	h.person("anna", authz.Admin)
	must(t, h.Add(t.Context(), "waits", authz.Ops, nil))
	h.person("gone", authz.Ops)
	must(t, h.Disable(t.Context(), "gone", true))
	for _, name := range []string{"anna", "nobody", "waits", "gone"} {
		// With all places taken, an attempt that hashes waits until its context ends.
		h.work <- struct{}{}
		h.work <- struct{}{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := h.SignIn(ctx, name, "wrong", "192.0.2.1")
			ended <- err
		}()
		select {
		case err := <-ended:
			t.Errorf("%s was answered without a hash: %v", name, err)
		case <-time.After(50 * time.Millisecond):
			cancel()
			<-ended
		}
		cancel()
		<-h.work
		<-h.work
	}
	if _, err := h.SignIn(t.Context(), "gone", good, "192.0.2.1"); !errors.Is(err, ErrWrong) {
		t.Errorf("a disabled user: %v", err)
	}
}

func TestWhoIsDisabledIsOutAtOnce(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	h.person("anna", authz.Admin)
	h.person("tom", authz.Tech, "a")
	s, err := h.SignIn(ctx, "tom", good, "192.0.2.1")
	must(t, err)
	must(t, h.SetRole(ctx, "tom", authz.Tech, []string{"b"}))
	if c, err := h.Look(ctx, store.TokenSession, s.Secret); err != nil || c.Sees("a") || !c.Sees("b") {
		t.Errorf("another site does not count at once: %+v, %v", c, err)
	}
	login, _, err := h.LoginSecret(ctx, s.Caller, time.Hour)
	must(t, err)
	must(t, h.Disable(ctx, "tom", true))
	if _, err := h.Redeem(ctx, login); h.in(s) == nil || !errors.Is(err, ErrUnknown) {
		t.Errorf("who is disabled is still in: %v", err)
	}
	var f *Faulty
	if err := h.Disable(ctx, "anna", true); !errors.As(err, &f) {
		t.Errorf("the last admin is out: %v", err)
	}
	if err := h.Disable(ctx, "nobody", true); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

func TestTokensAreKnownByTheirForm(t *testing.T) {
	h := newHouse(t)
	secret, tok, err := h.AddToken(t.Context(), NewToken{Name: "ci", Role: authz.Ops, Verbs: []authz.Verb{authz.Push}, By: "anna"})
	must(t, err)
	if id, err := TokenID(secret); err != nil || id != tok.ID || len(secret) != 63 || tok.Expires != start.Add(TokenLife) {
		t.Errorf("token %q with id %q, %+v, %v", secret, id, tok, err)
	}
	if c, err := h.Caller(t.Context(), store.TokenAPI, secret); err != nil || c.Name != "ci" || authz.Allow(c.Subject, authz.Roll, authz.Fleet()) == nil {
		t.Errorf("%+v, %v", c, err)
	}
	for i := range secret {
		bad := []byte(secret)
		if bad[i]++; wellFormed(string(bad)) {
			t.Errorf("a slip at %d is not seen: %s", i, bad)
		}
	}
	for _, bad := range []string{"", "eht_", secret[1:], secret + "x", strings.Replace(secret, "eht_", "xxx_", 1)} {
		if wellFormed(bad) {
			t.Errorf("%q is taken for a token", bad)
		}
	}
	for _, n := range []NewToken{
		{Name: "x", Role: authz.Owner}, {Name: "x", Role: authz.Tech}, {Name: "a b", Role: authz.Ops}, {Name: "x", Role: authz.Ops, Life: TokenMostLife + 1},
		{Name: "x", Role: authz.Tech, Sites: []string{"a"}, Verbs: []authz.Verb{authz.Push}},
	} {
		var f *Faulty
		if _, _, err := h.AddToken(t.Context(), n); !errors.As(err, &f) {
			t.Errorf("%+v: %v", n, err)
		}
	}
	must(t, h.Revoke(t.Context(), tok.ID))
	if _, err := h.Caller(t.Context(), store.TokenAPI, secret); !errors.Is(err, ErrUnknown) {
		t.Errorf("a revoked token: %v", err)
	}
}

// TestPeopleLeaveRecordsWithoutSecrets goes through what people do and reads the
// audit log.
func TestPeopleLeaveRecordsWithoutSecrets(t *testing.T) {
	h := newHouse(t)
	as := func(verb string) context.Context {
		return audit.With(t.Context(), &audit.Draft{Actor: "anna", Source: "192.0.2.1", Verb: verb})
	}
	must(t, h.Add(as("user.add"), "tom", authz.Tech, []string{"a"}))
	secret, _, err := h.Invite(as("user.reset"), "tom")
	must(t, err)
	s, err := h.SetPassword(as("user.password"), Redeeming{Secret: secret, Password: good})
	must(t, err)
	_, err = h.SignIn(as("login"), "tom", good, "192.0.2.1")
	must(t, err)
	if _, err := h.SignIn(as("login"), "tom", "hunter2 hunter2", "192.0.2.1"); !errors.Is(err, ErrWrong) {
		t.Fatal(err)
	}
	if _, err := h.SignIn(as("login"), good, "x", "192.0.2.1"); !errors.Is(err, ErrWrong) {
		t.Fatal(err)
	}
	must(t, h.SetRole(as("user.role"), "tom", authz.Ops, nil))
	token, _, err := h.AddToken(as("token.create"), NewToken{Name: "ci", Role: authz.Viewer, Sites: []string{"a"}})
	must(t, err)
	var got, all []string
	_, err = h.store.AuditLines(t.Context(), 0, 0, func(line []byte) error {
		r, err := audit.Parse(line)
		got, all = append(got, r.Actor+" "+r.Verb+" "+r.Object+" "+r.Note), append(all, string(line))
		return err
	})
	must(t, err)
	want := "anna user.add tom tech of a|anna user.reset  |tom user.password tom password set|tom login tom |tom login tom |tom login.failed  |nobody login.failed  |anna user.role tom tech of a → ops of *"
	if text := strings.Join(got, "|"); !strings.HasPrefix(text, want+"|anna token.create ") {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	for _, word := range []string{secret, s.Secret, token, good, "hunter2"} {
		if strings.Contains(strings.Join(all, ""), word) {
			t.Errorf("the log holds the secret %q", word)
		}
	}
}
