package store_test

import (
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
)

func cursors(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	for _, c := range []struct {
		name     string
		set, now uint64
	}{{"a", 5, 5}, {"a", 9, 9}, {"a", 3, 9}, {"b?'", 1, 1}} {
		check(t, s.SetCursor(ctx, c.name, c.set))
		if got, err := s.Cursor(ctx, c.name); err != nil || got != c.now {
			t.Errorf("cursor %s after %d: %d, %v; want %d", c.name, c.set, got, err, c.now)
		}
	}
	if got, err := s.Cursor(ctx, "never set"); err != nil || got != 0 {
		t.Errorf("a cursor that was never set: %d, %v", got, err)
	}
}

func measured(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	c := ingest(t, s, samples(boxA, 1, 1, epoch, 40))
	z, err := s.Size(ctx)
	if err != nil || z.LSN != c.LSN || z.Bytes < 4096 || z.Sessions != 0 {
		t.Errorf("size %+v after commit %d, %v", z, c.LSN, err)
	}
	places, err := s.Places(ctx)
	if err != nil || len(places) != 2 || places[0].ID != boxA || places[0].Connected || places[0].Name == "" || places[0].Site == "" {
		t.Errorf("places %+v, %v", places, err)
	}
}
