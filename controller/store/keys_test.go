package store_test

import (
	"errors"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
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
