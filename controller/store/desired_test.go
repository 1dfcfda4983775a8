package store

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestABackupDoesNotLeaveABoxDeaf: a box refuses generations below the one it
// follows, so what is signed for it must be above that.
func TestABackupDoesNotLeaveABoxDeaf(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, Options{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := identity.ID("d-aaaaaaaaaaaaa")
	if err := s.AddBox(ctx, id, "box", "site"); err != nil {
		t.Fatal(err)
	}
	set := func(version string) uint64 {
		_, err := s.SetDesired(ctx, id, func(d *wire.Desired) error {
			d.Models = []wire.DesiredModel{{Name: "vad", Version: version}}
			return nil
		}, func(p []byte) ([]byte, error) { return p, nil })
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Box(ctx, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		return b.Desired.Generation
	}
	for _, c := range []struct {
		follows uint64 // by the box's HELLO
		version string
		want    uint64
	}{
		{0, "1", 1},
		{1, "1", 1},   // nothing new
		{1, "2", 2},   // the usual way
		{40, "2", 41}, // the database is older than the box
		{41, "2", 41},
		{41, "3", 42},
		{math.MaxUint64, "3", 42}, // nonsense
		{math.MaxUint64, "4", 43},
	} {
		if err := s.Hello(ctx, id, wire.Hello{Running: wire.Running{Generation: c.follows}}); err != nil {
			t.Fatal(err)
		}
		if got := set(c.version); got != c.want {
			t.Errorf("box follows %d, version %s: generation %d, want %d", c.follows, c.version, got, c.want)
		}
	}
}
