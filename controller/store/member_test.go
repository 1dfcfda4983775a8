package store_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// aTokenIsUsedOnce: whoever decides sees what others have decided.
func aTokenIsUsedOnce(t *testing.T, empty func(*testing.T) *store.Store) {
	s := empty(t)
	row := store.EnrolToken{ID: "TTTTTTTT", Hash: [32]byte{1}, Expires: clock().Add(time.Hour), UsesLeft: 1,
		TokenTerms: store.TokenTerms{Site: "berlin", Uses: 1, Approve: "auto", Labels: map[string]string{"line": "a"}}}
	check(t, s.AddEnrolToken(ctx, row))
	got, err := s.EnrolToken(ctx, row.ID)
	if err != nil || got.Hash != row.Hash || got.Site != "berlin" || got.Labels["line"] != "a" || got.UsesLeft != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		all.Go(func() {
			key, took := fmt.Sprintf("key%d", i), false
			err := s.Enrol(ctx, key, row.ID, []string{"board:sn" + key}, func(f store.EnrolFacts) (store.EnrolDecision, error) {
				if took = f.Token.UsesLeft > 0; !took {
					return store.EnrolDecision{Refuse: true}, nil
				}
				cert := store.Cert{Serial: key, Box: boxA, Key: key, Ends: clock().Add(time.Hour), PEM: "pem"}
				return store.EnrolDecision{Take: true, Request: &store.EnrolRequest{Key: key, Token: row.ID, State: store.EnrolIssued, Box: boxA, EnrolAsked: store.EnrolAsked{Serial: key}},
					Issue: &store.EnrolIssue{Cert: cert, Name: "box-a", Site: "berlin", Marks: []string{"board:sn" + key}, Member: store.Membership{Box: boxA, State: store.StateEnrolled, Since: clock(), Generation: 1}}}, nil
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if took {
				won++
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("%d machines used it", won)
	}
	if got, err = s.EnrolToken(ctx, row.ID); err != nil || got.UsesLeft != 0 || got.Refused != 7 || got.Off != "" {
		t.Errorf("after it: %+v, %v", got, err)
	}
	list, err := s.EnrolRequests(ctx, store.EnrolIssued)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	// The machine is known again, and its request with its certificate.
	check(t, s.Enrol(ctx, list[0].Key, row.ID, []string{"board:sn" + list[0].Key}, func(f store.EnrolFacts) (store.EnrolDecision, error) {
		if f.Request == nil || f.Cert == nil || f.Cert.PEM != "pem" || f.Holder != boxA || len(f.Known) != 1 || f.Known[0].Name != "box-a" || f.User == nil {
			t.Errorf("facts %+v", f)
		}
		if taken, err := f.Names("box-a"); err != nil || !taken {
			t.Errorf("its name is free: %v", err)
		}
		return store.EnrolDecision{}, nil
	}))
	check(t, s.EndEnrolToken(ctx, row.ID, "over"))
	if err := s.EndEnrolToken(ctx, "none", "over"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown token: %v", err)
	}
}

// certificatesTakeTurns: the next one ends the one before, and what comes back
// after that puts the box in quarantine.
func certificatesTakeTurns(t *testing.T, empty func(*testing.T) *store.Store) {
	s := empty(t)
	enrolTwo(t, s)
	contact := func(serial string) (store.State, error) {
		m, _, err := s.Contact(ctx, boxA, serial, "192.0.2.1")
		return m.State, err
	}
	if st, err := contact("unrecorded"); err != nil || st != store.StateActive {
		t.Fatalf("a box of which nothing is recorded: %s, %v", st, err)
	}
	dead := func(want ...string) {
		t.Helper()
		list, err := s.DeadCerts(ctx)
		check(t, err)
		var got []string
		for _, c := range list {
			if got = append(got, c.Serial); c.Box != boxA || !c.Changed.Equal(clock()) {
				t.Errorf("a dead certificate %+v", c)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("dead are %v, want %v", got, want)
		}
	}
	check(t, s.AddCert(ctx, store.Cert{Serial: "0", Box: boxA, Key: "k0", Ends: clock().Add(-time.Hour), PEM: "pem"})) // has ended: no list needs it
	check(t, s.AddCert(ctx, store.Cert{Serial: "9", Box: boxB, Key: "k9", Ends: clock().Add(time.Hour), PEM: "pem"}))
	for _, serial := range []string{"1", "2"} {
		check(t, s.AddCert(ctx, store.Cert{Serial: serial, Box: boxA, Key: "k" + serial, Ends: clock().Add(time.Hour), PEM: "pem"}))
		if st, err := contact(serial); err != nil || st != store.StateActive {
			t.Fatalf("certificate %s: %s, %v", serial, st, err)
		}
	}
	// The clock of these tests stands still: within the grace.
	if st, err := contact("1"); err != nil || st != store.StateActive {
		t.Errorf("at once: %s, %v", st, err)
	}
	if st, err := contact("unrecorded"); err != nil || st != store.StateQuarantined {
		t.Errorf("one from before: %s, %v", st, err)
	}
	check(t, s.AddCert(ctx, store.Cert{Serial: "3", Box: boxA, Key: "k3", Ends: clock().Add(time.Hour)}))
	dead()
	m, err := s.ChangeStanding(ctx, store.Change{Box: boxA, From: []store.State{store.StateQuarantined}, To: store.StateActive, Why: "looked at it", By: "olga"})
	if err != nil || m.State != store.StateActive {
		t.Fatalf("release: %+v, %v", m, err)
	}
	for serial, want := range map[string]error{"1": store.ErrRefused, "2": nil, "3": store.ErrRefused} {
		if _, err := contact(serial); !errors.Is(err, want) {
			t.Errorf("certificate %s after release: %v, want %v", serial, err, want)
		}
	}
	dead("1", "3")
	if _, err := s.ChangeStanding(ctx, store.Change{Box: boxA, From: []store.State{store.StateQuarantined}, To: store.StateRetired}); !errors.Is(err, store.ErrState) {
		t.Errorf("a change from another state: %v", err)
	}
	check2 := func(m store.Membership, err error) { check(t, err) }
	check2(s.ChangeStanding(ctx, store.Change{Box: boxA, To: store.StateRevoked, Why: "stolen", By: "olga"}))
	if st, err := contact("2"); !errors.Is(err, store.ErrRefused) || st != store.StateRevoked {
		t.Errorf("revoked: %s, %v", st, err)
	}
	dead("1", "2", "3")
	if _, _, err := s.Contact(ctx, "d-ccccccccccccc", "1", ""); !errors.Is(err, store.ErrRefused) {
		t.Errorf("a stranger: %v", err)
	}
	events, err := s.IdentityEvents(ctx, boxA)
	if err != nil || len(events) != 3 || events[0].Text != "stolen" {
		t.Errorf("events %+v, %v", events, err)
	}
}

// aMachineIsClaimedOnce: of two people one claims it, and what was said of it is
// the box's when it becomes one.
func aMachineIsClaimedOnce(t *testing.T, empty func(*testing.T) *store.Store) {
	s := empty(t)
	check(t, s.AddEnrolToken(ctx, store.EnrolToken{ID: "TTTTTTTT", Expires: clock().Add(time.Hour), UsesLeft: 2, TokenTerms: store.TokenTerms{Site: "berlin", Uses: 2, Approve: "manual"}}))
	ask := func(state store.EnrolState, box identity.ID, issue *store.EnrolIssue) {
		check(t, s.Enrol(ctx, "key", "TTTTTTTT", nil, func(f store.EnrolFacts) (store.EnrolDecision, error) {
			r := store.EnrolRequest{Key: "key", Token: "TTTTTTTT", State: state, Box: box, EnrolAsked: store.EnrolAsked{ShortCode: "111-111"}}
			if f.Request != nil {
				r.EnrolAsked = f.Request.EnrolAsked
			}
			return store.EnrolDecision{Request: &r, Issue: issue}, nil
		}))
	}
	ask(store.EnrolPending, "", nil)
	var all sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for i := range 8 {
		all.Go(func() {
			id := fmt.Sprintf("claim%d", i%4) // each is sent twice
			c, err := s.ClaimMachine(ctx, store.EnrolClaim{ID: id, Token: "TTTTTTTT", Code: "111-111", By: id, Where: "wall " + id, Name: "till", Photo: []byte("picture")})
			mu.Lock()
			defer mu.Unlock()
			var no *store.ClaimError
			if err == nil && c.By == id && c.HasPhoto {
				won[id]++
			} else if !errors.As(err, &no) {
				t.Errorf("%s: %+v, %v", id, c, err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 {
		t.Fatalf("claimed by %v", won)
	}
	ask(store.EnrolIssued, boxA, &store.EnrolIssue{Cert: store.Cert{Serial: "1", Box: boxA, Key: "key", Ends: clock().Add(time.Hour), PEM: "pem"}, Name: "till", Site: "berlin",
		Member: store.Membership{Box: boxA, State: store.StateEnrolled, Since: clock(), Generation: 1}})
	for id, n := range won {
		c, err := s.Claimed(ctx, id)
		if err != nil || n != 2 || c.Request.Box != boxA || c.Request.NameHint != "till" || c.Request.By != id {
			t.Errorf("%d times, %+v, %v", n, c, err)
		}
		check(t, s.CareView(ctx, func(v *store.CareTx) error {
			if u, err := v.Upkeep(ctx, boxA); err != nil || u.Place != "wall "+id {
				t.Errorf("place %+v, %v", u, err)
			}
			return nil
		}))
	}
	data, made, err := s.Photo(ctx, boxA)
	if at, err2 := s.PhotoMade(ctx, boxA); err != nil || err2 != nil || string(data) != "picture" || !made.Equal(clock()) || !at.Equal(made) {
		t.Errorf("photo %q of %s, %v, %v", data, made, err, err2)
	}
	if _, _, err := s.Photo(ctx, boxB); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the photo of another box: %v", err)
	}
}
