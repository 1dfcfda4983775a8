package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func TestAcceptanceReportsAreKeptOnceAndTheNewestStay(t *testing.T) {
	moving(t, func(t *testing.T, s *store.Store, now *time.Time) {
		keep := func(i int, content string) (bool, error) {
			return s.KeepAcceptance(ctx, boxA, store.Acceptance{
				Summary: fleetapi.Acceptance{ID: fmt.Sprintf("%016x", i), Verdict: acceptance.Passed, Received: now.Add(time.Duration(i) * time.Second).UTC(), Levels: []acceptance.Level{acceptance.Load}},
				Digest:  []byte(content), Sealed: []byte("sealed " + content),
			})
		}
		for i := range 60 {
			if added, err := keep(i, "x"); err != nil || !added {
				t.Fatalf("report %d: %t, %v", i, added, err)
			}
		}
		if added, err := keep(59, "x"); err != nil || added {
			t.Errorf("the same report again: %t, %v", added, err)
		}
		if _, err := keep(59, "y"); !errors.Is(err, store.ErrConflict) {
			t.Errorf("another report of the same id: %v", err)
		}
		list, err := s.Acceptances(ctx, boxA)
		check(t, err)
		if len(list) != 50 || list[0].ID != fmt.Sprintf("%016x", 59) || list[49].ID != fmt.Sprintf("%016x", 10) || list[0].Levels[0] != acceptance.Load {
			t.Errorf("%d reports, %+v", len(list), list[0])
		}
		if list, err := s.Acceptances(ctx, boxB); err != nil || len(list) != 0 {
			t.Errorf("of the other box %v, %v", list, err)
		}
		a, err := s.Acceptance(ctx, boxA, list[3].ID)
		check(t, err)
		if string(a.Sealed) != "sealed x" || !a.Summary.Received.Equal(list[3].Received) {
			t.Errorf("%+v", a)
		}
		if _, err := s.Acceptance(ctx, boxB, list[3].ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the report of another box: %v", err)
		}
	})
}
