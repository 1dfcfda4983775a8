package store_test

import (
	"errors"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
)

func packsAreWantedOnce(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	target, base := blob.Sum([]byte("new")), blob.Sum([]byte("old"))
	if _, err := s.NextPack(ctx); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an empty queue has a next pack: %v", err)
	}
	for range 2 {
		check(t, s.WantPacks(ctx, []store.Pack{{Target: target, Base: base}, {Target: target}}))
	}
	next, err := s.NextPack(ctx)
	check(t, err)
	if next.Target != target || !next.Base.IsZero() {
		t.Errorf("next is %+v, want the cold pack: deltas are measured against it", next)
	}
	next.State, next.Digest, next.SizeBytes, next.Index, next.IndexBytes = store.PackReady, blob.Sum([]byte("pack")), 1<<40, blob.Sum([]byte("index")), 80
	check(t, s.PutPack(ctx, next))
	// Whoever asks again must not have it made again.
	check(t, s.WantPacks(ctx, []store.Pack{{Target: target}}))
	delta, err := s.NextPack(ctx)
	check(t, err)
	if delta.Base != base {
		t.Errorf("next is %+v, want the delta", delta)
	}
	delta.State, delta.Why = store.PackUnfit, "it saves too little"
	check(t, s.PutPack(ctx, delta))
	all, err := s.Packs(ctx, target)
	check(t, err)
	if len(all) != 2 || all[0] != next || all[1] != delta {
		t.Errorf("packs are %+v, want %+v and %+v", all, next, delta)
	}
}
