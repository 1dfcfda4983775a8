package fleettest

import (
	"context"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func (f *Fleet) setDefaults(change fleetapi.SiteChange) {
	f.T.Helper()
	if _, err := f.API.ChangeSiteDefaults(context.Background(), change); err != nil {
		f.T.Fatal(err)
	}
}

// measured is when the newest stored temperature of the first box was taken.
func (f *Fleet) measured() time.Time {
	f.T.Helper()
	return f.boxes()[0].Latest["temp_die_celsius"].Time
}

// events counts the events of the first box that are stored.
func (f *Fleet) events() int {
	f.T.Helper()
	list, err := f.API.Events(context.Background(), f.Boxes[0].ID, 1000)
	if err != nil {
		f.T.Fatal(err)
	}
	return len(list.Items)
}

// TestQuietTimesHoldBackTelemetryButNoAlarms: from the moment that a person
// sets them until they end, whatever connects and restarts meanwhile.
func TestQuietTimesHoldBackTelemetryButNoAlarms(t *testing.T) {
	story(t, 1, func(f *Fleet) {
		settled(f)
		if f.measured().IsZero() {
			t.Fatal("nothing measured arrives at all")
		}
		now := time.Now().UTC()
		until := now.Add(3 * time.Hour).Truncate(time.Hour)
		f.setDefaults(fleetapi.SiteChange{Set: fleetapi.SiteSettings{Quiet: &[]string{"00:00-" + until.Format("15:04")}}})
		pass(time.Minute)
		last, known := f.measured(), f.events()
		pass(30 * time.Minute)
		// A restart is an event, and a new connection, which must not be louder.
		if err := f.Boxes[0].StopAgent(); err != nil {
			t.Fatal(err)
		}
		f.Boxes[0].StartAgent()
		f.Until("the event of the restart", time.Minute, func() bool { return f.events() > known })
		pass(30 * time.Minute)
		if got := f.measured(); !got.Equal(last) {
			t.Errorf("measured at %s arrived in the quiet time, after %s", got, last)
		}
		pass(time.Until(until))
		f.Until("all that was measured in the quiet time", 10*time.Minute, func() bool { return time.Since(f.measured()) < 3*time.Minute })
		if b := f.boxes()[0].Buffer; b.DroppedBlocks != 0 {
			t.Errorf("%+v", b)
		}
	})
}

// TestQuietEndsWhenItIsTakenBack, at once.
func TestQuietEndsWhenItIsTakenBack(t *testing.T) {
	story(t, 1, func(f *Fleet) {
		f.setDefaults(fleetapi.SiteChange{Set: fleetapi.SiteSettings{Quiet: &[]string{"00:00-24:00"}}})
		pass(20 * time.Minute)
		last := f.measured()
		f.setDefaults(fleetapi.SiteChange{Unset: []string{"quiet"}})
		f.Until("what was measured", 3*time.Minute, func() bool { return f.measured().Sub(last) > 15*time.Minute })
	})
}
