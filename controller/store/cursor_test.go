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
