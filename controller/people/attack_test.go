package people

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
)

// Two addresses of two starts, opened at once: both have passed the question
// whether there is an admin.
func TestOfTwoAddressesOfAFirstAdminOneIsUsed(t *testing.T) {
	h := newHouse(t)
	var got [2]error
	var secrets [2]string
	for i := range secrets {
		var err error
		secrets[i], err = h.SetupSecret(t.Context())
		must(t, err)
	}
	var wait sync.WaitGroup
	for i, secret := range secrets {
		wait.Go(func() { _, got[i] = h.store.UseToken(t.Context(), secret, store.TokenPassword) })
	}
	wait.Wait()
	if (got[0] == nil) == (got[1] == nil) || !errors.Is(errors.Join(got[:]...), store.ErrNotFound) {
		t.Errorf("%v, %v", got[0], got[1])
	}
}

func TestANewInvitationEndsTheOneBefore(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	must(t, h.Add(ctx, "anna", authz.Ops, nil))
	leaked, _, err := h.Invite(ctx, "anna")
	must(t, err)
	secret, _, err := h.Invite(ctx, "anna")
	must(t, err)
	if _, _, err := h.Invited(ctx, leaked); !errors.Is(err, ErrUnknown) {
		t.Errorf("the address of before: %v", err)
	}
	if name, _, err := h.Invited(ctx, secret); err != nil || name != "anna" {
		t.Errorf("the new address: %q, %v", name, err)
	}
}

func TestALoginMadeWithATokenEndsWithIt(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	login := func(life time.Duration) (id string, s Session) {
		token, made, err := h.AddToken(ctx, NewToken{Name: "ci", Role: authz.Admin, Life: life})
		must(t, err)
		who, err := h.Look(ctx, store.TokenAPI, token)
		must(t, err)
		for range 2 { // an address that is made in the session comes from the token as well
			secret, _, err := h.LoginSecret(ctx, who, time.Minute)
			must(t, err)
			s, err = h.Redeem(ctx, secret)
			must(t, err)
			who = s.Caller
		}
		return made.ID, s
	}
	id, s := login(0)
	must(t, h.in(s))
	must(t, h.Revoke(ctx, id))
	if err := h.in(s); !errors.Is(err, ErrUnknown) {
		t.Errorf("after its token was revoked: %v", err)
	}
	_, s = login(10 * time.Minute)
	h.wait(9 * time.Minute)
	must(t, h.in(s))
	h.wait(2 * time.Minute)
	if err := h.in(s); !errors.Is(err, ErrUnknown) {
		t.Errorf("after the end of its token: %v", err)
	}
}

// Guesses that came before a name was locked, and wait for their turn.
func TestT31WhatWaitsWhileANameIsLockedIsNotToldThatItWasRight(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	h.person("anna", authz.Admin)
	for range cap(h.work) {
		h.work <- struct{}{}
	}
	told := make(chan error)
	go func() {
		_, err := h.SignIn(ctx, "anna", good, "192.0.2.1")
		told <- err
	}()
	for range lockAfter {
		_, err := h.store.FailLogin(ctx, "anna", lockAfter, lockFor)
		must(t, err)
	}
	for range cap(h.work) {
		<-h.work
	}
	var l *Locked
	if err := <-told; !errors.As(err, &l) {
		t.Errorf("told %v", err)
	}
}

// Made-up names do not fill the disk with records, and hide nobody's.
func TestT31RecordsOfNamesThatNobodyHasAreBounded(t *testing.T) {
	h := newHouse(t)
	h.person("anna", authz.Admin)
	for range ghostsBurst {
		h.limit.record(start)
	}
	records := func(name string) string {
		ctx := audit.With(t.Context(), &audit.Draft{Verb: "login"})
		if _, err := h.SignIn(ctx, name, "wrong", "192.0.2.1"); !errors.Is(err, ErrWrong) {
			t.Fatal(err)
		}
		lines, err := h.store.AuditNewest(t.Context(), store.AuditQuery{Limit: 1})
		must(t, err)
		if len(lines) == 0 {
			return ""
		}
		r, err := audit.Parse(lines[0])
		must(t, err)
		return r.Actor + " " + r.Note
	}
	for _, c := range []struct{ name, newest string }{{"ghost-1", ""}, {"ghost-2", ""}, {"anna", "anna "}} {
		if got := records(c.name); got != c.newest {
			t.Errorf("%s: the newest record is of %q", c.name, got)
		}
	}
	h.wait(time.Minute)
	if got := records("ghost-3"); got != "ghost-3 2 more failed under names that nobody has" {
		t.Errorf("the newest record is %q", got)
	}
}

func TestT31TextsThatAreNoNameFailAsOthersDo(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"", "\x00", "\xff", strings.Repeat("a", 1<<16)} {
		if _, err := h.SignIn(t.Context(), name, good, "192.0.2.1"); !errors.Is(err, ErrWrong) {
			t.Errorf("%.8q: %v", name, err)
		}
	}
}
