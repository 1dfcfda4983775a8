package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func tokensFollowAccounts(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	until := time.UnixMilli(epoch).Add(time.Hour)
	check(t, s.AddAccount(ctx, store.Account{Name: "anna", Role: "tech", Sites: []string{"a"}, Password: "p"}))
	check(t, s.AddToken(ctx, "cookie", store.Token{Kind: store.TokenSession, Name: "anna", Account: "anna", Expires: until}))
	check(t, s.AddToken(ctx, "invite", store.Token{Kind: store.TokenPassword, Name: "anna", Account: "anna", Expires: until}))
	check(t, s.AddToken(ctx, "ci", store.Token{ID: "abc", Kind: store.TokenAPI, Name: "ci", Role: "ops", Sites: []string{"*"}, Verbs: []string{"artefact.push"}, MadeBy: "anna", Expires: until}))
	want := func(secret string, kind store.TokenKind, role string, sites ...string) {
		t.Helper()
		got, err := s.Token(ctx, secret, kind)
		if role == "" {
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %+v, %v", secret, got, err)
			}
			return
		}
		if err != nil || got.Role != role || !slices.Equal(got.Sites, sites) {
			t.Errorf("%s: %+v, %v", secret, got, err)
		}
	}
	want("cookie", store.TokenSession, "tech", "a")
	want("ci", store.TokenAPI, "ops", "*")
	check(t, s.ChangeAccount(ctx, "anna", false, func(a *store.Account) error { a.Role, a.Sites = "ops", []string{"*"}; return nil }))
	want("cookie", store.TokenSession, "ops", "*")
	check(t, s.ChangeAccount(ctx, "anna", false, func(a *store.Account) error { a.Disabled = true; return nil }))
	want("cookie", store.TokenSession, "")
	check(t, s.ChangeAccount(ctx, "anna", true, func(a *store.Account) error { a.Disabled = false; return nil }))
	want("cookie", store.TokenSession, "") // it has ended for good
	want("invite", store.TokenPassword, "")
	want("ci", store.TokenAPI, "ops", "*")
	if err := s.AddToken(ctx, "other", store.Token{ID: "abc", Kind: store.TokenAPI, Expires: until}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an ID twice: %v", err)
	}
	if all, err := s.Tokens(ctx, store.TokenAPI); err != nil || len(all) != 1 || all[0].ID != "abc" || all[0].MadeBy != "anna" || !slices.Equal(all[0].Verbs, []string{"artefact.push"}) {
		t.Errorf("tokens %+v, %v", all, err)
	}
	check(t, s.TouchToken(ctx, "abc"))
	if err := s.RevokeToken(ctx, store.TokenSession, "abc"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("revoked as another kind: %v", err)
	}
	check(t, s.RevokeToken(ctx, store.TokenAPI, "abc"))
	want("ci", store.TokenAPI, "")
}

func accountsAreKept(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	check(t, s.AddAccount(ctx, store.Account{Name: "anna", Role: "admin", Sites: []string{"*"}, Password: "p"}))
	check(t, s.AddAccount(ctx, store.Account{Name: "bert", Role: "ops", Sites: []string{"*"}, Issuer: "https://i", Subject: "7"}))
	check(t, s.AddAccount(ctx, store.Account{Name: "carl", Role: "admin", Sites: []string{"*"}})) // invited, no password yet
	for _, a := range []store.Account{{Name: "anna"}, {Name: "x", Issuer: "https://i", Subject: "7"}} {
		if err := s.AddAccount(ctx, a); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if a, err := s.AccountOf(ctx, "https://i", "7"); err != nil || a.Name != "bert" {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := s.AccountOf(ctx, "", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no subject is anna's: %v", err)
	}
	for name, f := range map[string]func(*store.Account) error{
		"demoted":  func(a *store.Account) error { a.Role = "ops"; return nil },
		"disabled": func(a *store.Account) error { a.Disabled = true; return nil },
	} {
		if err := s.ChangeAccount(ctx, "anna", false, f); !errors.Is(err, store.ErrLastAdmin) {
			t.Errorf("the last admin is %s: %v", name, err)
		}
	}
	check(t, s.ChangeAccount(ctx, "carl", false, func(a *store.Account) error { a.Password = "q"; return nil }))
	check(t, s.ChangeAccount(ctx, "anna", false, func(a *store.Account) error { a.Disabled, a.Login = true, time.UnixMilli(7); return nil }))
	all, err := s.Accounts(ctx)
	if err != nil || len(all) != 3 || !all[0].Disabled || all[0].Login.UnixMilli() != 7 || !all[1].Login.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.ChangeAccount(ctx, "nobody", false, nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nobody was changed: %v", err)
	}
	check(t, s.AddAccount(ctx, store.Account{Name: "dora", Role: "admin", Sites: []string{"*"}, Password: "p"}))
	var ended [2]error // two admins disable each other at once
	var wait sync.WaitGroup
	for i, name := range []string{"carl", "dora"} {
		wait.Go(func() {
			ended[i] = s.ChangeAccount(ctx, name, true, func(a *store.Account) error { a.Disabled = true; return nil })
		})
	}
	wait.Wait()
	if (ended[0] == nil) == (ended[1] == nil) || !errors.Is(errors.Join(ended[:]...), store.ErrLastAdmin) {
		t.Errorf("nobody is admin any more: %v, %v", ended[0], ended[1])
	}
}

func namesAreLocked(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	for i := range 3 {
		until, err := s.FailLogin(ctx, "ghost", 3, time.Minute)
		if check(t, err); until.IsZero() != (i < 2) {
			t.Errorf("failure %d: locked until %v", i+1, until)
		}
	}
	if until, err := s.LoginLocked(ctx, "ghost"); err != nil || until.UnixMilli() != epoch+60_000 {
		t.Errorf("locked until %v, %v", until, err)
	}
	if until, err := s.LoginLocked(ctx, "anna"); err != nil || !until.IsZero() {
		t.Errorf("another name: %v, %v", until, err)
	}
	check(t, s.ForgetFailures(ctx, "ghost"))
	if until, err := s.LoginLocked(ctx, "ghost"); err != nil || !until.IsZero() {
		t.Errorf("forgotten: %v, %v", until, err)
	}
	check(t, s.AddAccount(ctx, store.Account{Name: "anna", Role: "admin", Password: "x"}))
	_, err := s.FailLogin(ctx, "anna", 2, time.Hour)
	check(t, err)
	check(t, s.Put(ctx, fmt.Sprintf(`INSERT INTO login_failure (name, failures, last_ms, until_ms)
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) SELECT 'ghost-' || i, 1, %d, 0 FROM n`, epoch)))
	if until, err := s.FailLogin(ctx, "anna", 2, time.Hour); err != nil || until.IsZero() {
		t.Errorf("somebody tried thousands of names, and anna is not locked: %v", err)
	}
	for i := range 2 {
		if until, err := s.FailLogin(ctx, "another", 2, time.Hour); err != nil || until.IsZero() != (i < 1) {
			t.Errorf("a name without an account: locked until %v, %v", until, err)
		}
	}
}

func changesAreRecorded(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	change := func(i int, fails error) error {
		d := &audit.Draft{Actor: "anna", Source: "test", Verb: "site.set", Object: fmt.Sprint(i)}
		err := s.ChangeSite(audit.With(ctx, d), store.SiteDefaults, "anna", func(*fleetapi.SiteSettings) error {
			d.Note = "in the transaction"
			return fails
		})
		if d.Pending() != (fails != nil) {
			t.Errorf("change %d with %v: pending %v", i, fails, d.Pending())
		}
		return err
	}
	if head, err := s.AuditHead(ctx); err != nil || head != audit.Empty() {
		t.Errorf("an empty log has the head %+v, %v", head, err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := change(i, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	broken := errors.New("broken")
	if err := change(9, broken); !errors.Is(err, broken) {
		t.Error(err)
	}
	none := &audit.Draft{Actor: "anna"}
	none.Drop()
	check(t, s.RecordAudit(audit.With(ctx, none)))
	check(t, s.RecordAudit(ctx))
	check(t, s.RecordAudit(audit.With(ctx, &audit.Draft{Actor: "bert"})))
	var v audit.Verifier
	head, err := s.AuditLines(ctx, 0, 0, v.Add)
	check(t, err)
	check(t, v.End(head))
	if head.Seq != 9 {
		t.Errorf("%d records, want 9", head.Seq)
	}
	lines, err := s.AuditNewest(ctx, store.AuditQuery{Actor: "anna", Before: 9, Limit: 2})
	check(t, err)
	for i, line := range lines {
		if r, err := audit.Parse(line); err != nil || r.Seq != int64(8-i) || r.Note != "in the transaction" {
			t.Errorf("%s, %v", line, err)
		}
	}
	if len(lines) != 2 {
		t.Errorf("%d lines", len(lines))
	}
	seal := store.Seal{Seq: 9, Time: time.UnixMilli(epoch), Envelope: []byte("x")}
	check(t, s.PutSeal(ctx, seal))
	check(t, s.PutSeal(ctx, seal))
	if all, err := s.Seals(ctx); err != nil || len(all) != 1 || all[0].Seq != 9 || string(all[0].Envelope) != "x" {
		t.Errorf("%+v, %v", all, err)
	}
}
