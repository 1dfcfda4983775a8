package store_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestNoBoxMakesARowOfKeysGrowWithoutEnd: a hostile box can make any number of
// blocks with one number; what it stored before stays.
func TestNoBoxMakesARowOfKeysGrowWithoutEnd(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	const most = 64 * 64
	forks := make([]store.Delivery, most)
	for i := range forks {
		forks[i] = samples(boxA, 1, 7, epoch+int64(i), 50)
	}
	ingest(t, s, forks...)
	if _, err := s.Ingest(ctx, []store.Delivery{samples(boxA, 1, 7, epoch-1, 50)}, effects); !errors.Is(err, store.ErrForked) {
		t.Errorf("one more block: %v", err)
	}
	if c := ingest(t, s, forks[0], samples(boxA, 1, 64, epoch, 50), samples(boxB, 1, 7, epoch-1, 50)); c.New != 2 {
		t.Errorf("%d of others are new, want 2", c.New)
	}
	if n := len(keysOf(t, s, boxA)); n != most+1 {
		t.Errorf("%d keys, want %d", n, most+1)
	}
}

// TestAStreamThatEndedIsNotRewrittenWithEveryMessage, and its keys are known
// as before.
func TestAStreamThatEndedIsNotRewrittenWithEveryMessage(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	old, born := samples(boxA, 1, 7, epoch, 50), samples(boxA, 2, 1, epoch+60, 50)
	ingest(t, s, old, samples(boxA, 1, 8, epoch+30, 50))
	ingest(t, s, born)
	var n int
	const head, key = 8 + 1 + 8 + 1, 9 // bytes
	if check(t, s.Ask(ctx, `SELECT length(open_keys) FROM newest WHERE box = ?`, []any{string(boxA)}, &n)); n != head+key {
		t.Errorf("%d bytes of keys are rewritten with every message, want those of one block, %d", n, head+key)
	}
	if c := ingest(t, s, old, born); c.New != 0 {
		t.Errorf("%d blocks are new once more", c.New)
	}
}

// keysStayKnown: the keys of a box are known wherever they lie by then, in its
// row of newest or in rows of their own, and the former stays small.
func keysStayKnown(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	var sent []store.Delivery
	next := map[byte]uint64{}
	for range 60 { // commits
		var ds []store.Delivery
		for range 1 + rng.IntN(20) {
			life := byte(1 + rng.IntN(3)*rng.IntN(3)) // clones and lives, some seldom
			next[life] += 1 + rng.Uint64N(2)*rng.Uint64N(90)
			d := samples(boxA, life, next[life], epoch+int64(len(sent)+len(ds)), 50)
			if rng.IntN(3) == 0 {
				d = seal(d, life, wire.LaneEvents, next[life]/3)
			}
			ds = append(ds, d)
		}
		if c := ingest(t, s, ds...); c.New != len(ds) {
			t.Fatalf("seed %d: %d of %d blocks are new", seed, c.New, len(ds))
		}
		sent = append(sent, ds...)
		var again []store.Delivery
		for range 10 {
			again = append(again, sent[rng.IntN(len(sent))])
		}
		if c := ingest(t, s, again...); c.New != 0 {
			t.Fatalf("seed %d: %d of %d blocks are new once more", seed, c.New, len(again))
		}
		var n int
		if check(t, s.Ask(ctx, `SELECT max(length(open_keys)) FROM newest`, nil, &n)); n > 1<<10 {
			t.Fatalf("seed %d: %d bytes of keys are rewritten with every message", seed, n)
		}
	}
	if c := ingest(t, s, sent...); c.New != 0 {
		t.Errorf("seed %d: %d blocks are new in the end", seed, c.New)
	}
	want := map[wire.Key]int{}
	for _, d := range sent {
		want[d.Block.Key] = 1
	}
	if got := keysOf(t, s, boxA); !maps.Equal(got, want) {
		t.Errorf("seed %d: %d keys, want %d", seed, len(got), len(want))
	}
}
