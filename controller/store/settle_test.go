package store

import (
	"context"
	"path/filepath"
	"testing"
)

// replaced is an engine whose database is replaced between settle and the
// reads after it, a few times.
type replaced struct {
	engine
	left, settles int
}

func (r *replaced) settle(ctx context.Context) error {
	r.settles++
	return r.engine.settle(ctx)
}

func (r *replaced) settled(ctx context.Context, t *tx) (bool, error) {
	if r.left--; r.left >= 0 {
		return false, nil
	}
	return r.engine.settled(ctx, t)
}

// TestNoRunIsToldThatIsOver: a box must not be welcomed to a run that ended
// with the database that was replaced.
func TestNoRunIsToldThatIsOver(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := &replaced{engine: s.engine, left: 2}
	s.engine = r
	l, err := s.Lineage(t.Context(), nil)
	if err != nil || r.settles != 3 {
		t.Fatalf("settled %d times, want 3: %v", r.settles, err)
	}
	if again, err := s.Lineage(t.Context(), nil); err != nil || again.Run != l.Run {
		t.Fatalf("run %s, then %s: %v", l.Run, again.Run, err)
	}
}
