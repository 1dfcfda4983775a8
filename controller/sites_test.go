package controller

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func set(t *testing.T, s *store.Store, site string, rate int64, quiet ...string) {
	t.Helper()
	err := s.ChangeSite(t.Context(), site, "test", func(v *fleetapi.SiteSettings) error {
		v.BacklogBytesPerSecond, v.Quiet = &rate, &quiet
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTheRateOfASiteIsShared by the boxes of it that are connected, and the
// others are told when that changes.
func TestTheRateOfASiteIsShared(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	boxes := make([]identity.ID, 4)
	for i := range boxes {
		boxes[i] = identity.NewID()
		if err := c.store.AddBox(ctx, boxes[i], fmt.Sprintf("box-%d", i), []string{"berlin", "berlin", "berlin", "krakow"}[i]); err != nil {
			t.Fatal(err)
		}
	}
	set(t, c.store, "berlin", 9000)
	hello := func(i int) (int64, []wire.Quiet) {
		t.Helper()
		if err := c.store.Hello(ctx, boxes[i], wire.Hello{SID: wire.SID{byte(i + 1)}, Conn: 1}); err != nil {
			t.Fatal(err)
		}
		c.pacer.read = time.Time{} // as if five seconds had gone by
		rate, quiet, err := c.pace(ctx, boxes[i])
		if err != nil {
			t.Fatal(err)
		}
		return rate, quiet
	}
	stale := func() []identity.ID {
		t.Helper()
		ids, err := c.pacer.stale(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	for i, want := range []int64{9000, 4500, 3000, 0} {
		if rate, quiet := hello(i); rate != want || len(quiet) != 0 {
			t.Errorf("box %d: %d, %v, want %d", i, rate, quiet, want)
		}
	}
	if ids := stale(); len(ids) != 0 {
		t.Errorf("asked %v at once: boxes that come back together would be asked all the time", ids)
	}
	for id, was := range c.pacer.told {
		was.at = was.at.Add(-paceRepeat)
		c.pacer.told[id] = was
	}
	if ids := stale(); len(ids) != 2 {
		t.Errorf("after a minute %d boxes were asked, want the first two of Berlin", len(ids))
	}
	set(t, c.store, "krakow", 0, "00:00-24:00")
	if ids := stale(); len(ids) != 3 { // Krakow at once; the first two again, for the message may be lost
		t.Errorf("%d boxes were asked", len(ids))
	}
	rate, quiet := hello(3)
	if rate != 0 || len(quiet) != 1 || quiet[0].InMs != 0 || quiet[0].ForMs != (48*time.Hour).Milliseconds() {
		t.Errorf("Krakow: %d, %v", rate, quiet)
	}
}

// TestABoxThatIsAwayIsNotAskedForEver.
func TestABoxThatIsAwayIsNotAskedForEver(t *testing.T) {
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	c.pacer.told[identity.NewID()] = told{site: "berlin", effect: "other"}
	for i := range 2 * paceAsks {
		ids, err := c.pacer.stale(t.Context())
		if err != nil || (len(ids) == 1) != (i < paceAsks) {
			t.Errorf("asked the %d. time: %v, %v", i+1, ids, err)
		}
	}
}

// TestSettingsThatCannotBeReadKeepNoTelemetryAway: a zone may be given up.
func TestSettingsThatCannotBeReadKeepNoTelemetryAway(t *testing.T) {
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	id := identity.NewID()
	if err := c.store.AddBox(t.Context(), id, "box", "berlin"); err != nil {
		t.Fatal(err)
	}
	zone := "Europe/Atlantis"
	err := c.store.ChangeSite(t.Context(), "berlin", "test", func(v *fleetapi.SiteSettings) error {
		v.TimeZone, v.Quiet = &zone, &[]string{"00:00-24:00"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if rate, quiet, err := c.pace(t.Context(), id); err != nil || rate != 0 || len(quiet) != 0 {
		t.Errorf("%d, %v, %v", rate, quiet, err)
	}
	if err := c.store.ChangeSite(t.Context(), "berlln", "test", nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a mistyped site: %v", err)
	}
}
