package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
)

// metadataIsKept: a version is written once; of root all stay, of other roles the
// last few; what is staged is one a role, is not served, and goes when it is told.
func metadataIsKept(t *testing.T, empty func(*testing.T) *store.Store) {
	s := empty(t)
	put := func(docs ...store.TrustDocument) error {
		return s.ChangeTrust(ctx, func([]store.TrustDocument) ([]store.TrustDocument, error) { return docs, nil })
	}
	if _, err := s.TrustDocument(ctx, "timestamp", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of an empty database: %v", err)
	}
	for v := int64(1); v <= 7; v++ {
		body := fmt.Appendf(nil, "%d\x00\xff", v)
		check(t, put(store.TrustDocument{Role: "root", Version: v, Body: body}, store.TrustDocument{Role: "targets", Version: v, Body: body}))
	}
	again := store.TrustDocument{Role: "targets", Version: 7, Body: []byte("other")}
	if err := put(store.TrustDocument{Role: "root", Version: 8, Body: []byte("8")}, again); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a version is written twice: %v", err)
	}
	for _, c := range []struct {
		role    string
		version int64
		want    string
	}{{"root", 1, "1\x00\xff"}, {"root", 0, "7\x00\xff"}, {"root", 8, ""}, {"targets", 0, "7\x00\xff"}, {"targets", 3, "3\x00\xff"}, {"targets", 2, ""}, {"snapshot", 0, ""}} {
		got, err := s.TrustDocument(ctx, c.role, c.version)
		if string(got) != c.want || (c.want == "") != errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s version %d: %q, %v", c.role, c.version, got, err)
		}
	}
	for _, body := range []string{"first", "second"} {
		check(t, put(store.TrustDocument{Role: "targets", Version: 9, Staged: true, Body: []byte(body)}))
	}
	if got, err := s.TrustDocument(ctx, "targets", 9); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what is staged is served: %q, %v", got, err)
	}
	held := func(want ...string) {
		t.Helper()
		all, err := s.TrustDocuments(ctx)
		check(t, err)
		var got []string
		for _, d := range all {
			got = append(got, fmt.Sprintf("%s %d %t %s", d.Role, d.Version, d.Staged, d.Body[:1]))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	held("root 7 false 7", "targets 7 false 7", "targets 9 true s")
	check(t, put(store.TrustDocument{Role: "targets", Staged: true}))
	held("root 7 false 7", "targets 7 false 7")
	oneOfTwoWrites(t, s)
	whatWasToldIsKept(t, s)
}

// whatWasToldIsKept: what was told of ends is there the next time, with the notices
// queued in the same transaction; a failure leaves both as they were.
func whatWasToldIsKept(t *testing.T, s *store.Store) {
	t.Helper()
	tell := func(want, next []store.TrustTold, with error) {
		t.Helper()
		err := s.TellTrust(ctx, func(docs []store.TrustDocument, told []store.TrustTold) ([]store.TrustTold, []store.Notice, error) {
			if fmt.Sprint(told) != fmt.Sprint(want) || len(docs) != 3 {
				t.Errorf("told %v of %d documents, want %v", told, len(docs), want)
			}
			return next, []store.Notice{{Endpoint: "a", Key: fmt.Sprint("ends", len(next)), Body: []byte("{}")}}, with
		})
		if !errors.Is(err, with) {
			t.Error(err)
		}
	}
	one, two := store.TrustTold{Endpoint: "a", Role: "targets", Stage: 1}, store.TrustTold{Endpoint: "b", Role: "root", Stage: 3}
	tell(nil, []store.TrustTold{two, one}, nil)
	tell([]store.TrustTold{one, two}, nil, store.ErrConflict)
	tell([]store.TrustTold{one, two}, []store.TrustTold{one}, nil)
	tell([]store.TrustTold{one}, []store.TrustTold{one}, nil)
	if all, err := s.LastNotices(ctx, 10); err != nil || len(all) != 2 {
		t.Errorf("queued %d notices (%v), want 2", len(all), err)
	}
}

// oneOfTwoWrites: of two changes that saw the same, one is told so.
func oneOfTwoWrites(t *testing.T, s *store.Store) {
	done := make(chan error, 2)
	for range 2 {
		go func() {
			done <- s.ChangeTrust(context.WithoutCancel(ctx), func(have []store.TrustDocument) ([]store.TrustDocument, error) {
				return []store.TrustDocument{{Role: "late", Version: int64(len(have)), Body: []byte("x")}}, nil
			})
		}()
	}
	won := 0
	for range 2 {
		if err := <-done; err == nil {
			won++
		} else if !errors.Is(err, store.ErrConflict) {
			t.Errorf("the other of two changes: %v", err)
		}
	}
	if all, err := s.TrustDocuments(ctx); err != nil || won == 0 || len(all) != 3 {
		t.Errorf("%d of two changes were written: %v, %v", won, all, err)
	}
}
