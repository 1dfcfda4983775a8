package store_test

import (
	"errors"
	"math"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestABoxThatIsAheadWaitsForAPerson: a box refuses generations below the one
// it follows, so nothing is signed for it until somebody has chosen, and that
// is above.
func TestABoxThatIsAheadWaitsForAPerson(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	for _, c := range []struct {
		follows uint64 // by the box's HELLO
		version string
		settle  bool
		want    uint64
		err     error
	}{
		{0, "1", false, 1, nil},
		{1, "1", false, 1, nil},              // nothing new
		{1, "2", true, 1, store.ErrConflict}, // nothing to choose
		{1, "2", false, 2, nil},              // the usual way
		{40, "3", false, 2, store.ErrAhead},
		{40, "2", true, 41, nil}, // the same, above what the box follows
		{41, "2", false, 41, nil},
		{41, "3", false, 42, nil},
		{math.MaxUint64, "3", false, 42, nil}, // nonsense
		{math.MaxUint64, "4", false, 43, nil},
	} {
		if err := s.Hello(ctx, boxA, wire.Hello{Running: wire.Running{Generation: c.follows}}); err != nil {
			t.Fatal(err)
		}
		told, err := s.DesiredEnvelope(ctx, boxA)
		if err != nil || (c.follows == 40) != (told == nil) && c.follows > 0 {
			t.Errorf("a box that follows %d is told %q, %v", c.follows, told, err)
		}
		if c.settle {
			_, err = s.SettleAhead(ctx, boxA, func(d *wire.Desired, _ wire.Running) error { return want(c.version)(d) }, sign)
		} else {
			_, err = s.SetDesired(ctx, boxA, want(c.version), sign)
		}
		if got := box(t, s, boxA).Desired.Generation; got != c.want || !errors.Is(err, c.err) {
			t.Errorf("box follows %d, version %s: generation %d, want %d; %v", c.follows, c.version, got, c.want, err)
		}
	}
}

// TestARestoredDatabaseCommandsNobodyBeforeItHeardHim: until the HELLO of each.
func TestARestoredDatabaseCommandsNobodyBeforeItHeardHim(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	for range 2 { // every time
		before, err := s.Restored(ctx)
		check(t, err)
		check(t, s.ComeBack(ctx))
		r, err := s.Restored(ctx)
		if err != nil || !r.Unread || r.At.IsZero() || r.Times != before.Times+1 {
			t.Fatalf("restored: %+v, %v", r, err)
		}
		check(t, s.RestoreRead(ctx))
		if r, err := s.Restored(ctx); err != nil || r.Unread {
			t.Errorf("read: %+v, %v", r, err)
		}
		check(t, s.Hello(ctx, boxA, wire.Hello{}))
		if box(t, s, boxA).Awaits || !box(t, s, boxB).Awaits {
			t.Error("the box that was heard is awaited, or the other is not")
		}
		if _, err := s.SetDesired(ctx, boxA, want("1"), sign); err != nil {
			t.Error(err)
		}
		if _, err := s.SetDesired(ctx, boxB, want("1"), sign); !errors.Is(err, store.ErrAwaits) {
			t.Errorf("a box that was not heard is commanded: %v", err)
		}
	}
	check(t, s.AddBox(ctx, "d-ccccccccccccc", "new", "x"))
	if box(t, s, "d-ccccccccccccc").Awaits {
		t.Error("a box that came later is awaited")
	}
}
