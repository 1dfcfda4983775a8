package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func ptr[T any](v T) *T { return &v }

func TestSitesShowWhatHolds(t *testing.T) {
	w := newWorld(t) // Sunday 2026-03-01 12:00 UTC
	w.box("a", "berlin-1", "amd64")
	w.box("b", "berlin-1", "amd64")
	w.box("c", "berlin-1", "")
	w.box("d", "łódź 2/back", "")
	c := w.client("ops")
	_, err := c.ChangeSiteDefaults(t.Context(), fleetapi.SiteChange{Set: fleetapi.SiteSettings{Quiet: &[]string{"20:00-22:00"}, TimeZone: ptr("Europe/Berlin")}})
	must(t, err)
	got, err := c.ChangeSite(t.Context(), "berlin-1", fleetapi.SiteChange{Set: fleetapi.SiteSettings{BacklogBytesPerSecond: ptr(int64(9000)), Quiet: &[]string{"11:00-14:00 SUN"}}})
	must(t, err)
	if got.Boxes != 3 || got.Connected != 2 || got.BacklogPerBox != 4500 || !got.QuietNow || !got.QuietUntil.Equal(testStart.Add(time.Hour)) || got.QuietNext != nil {
		t.Errorf("%+v", got)
	}
	if got.ChangedBy != "ops" || !got.Changed.Equal(testStart) || (*got.Settings.Quiet)[0] != "11:00-14:00 sun" {
		t.Errorf("changed by %q at %v: %v", got.ChangedBy, got.Changed, got.Settings.Quiet)
	}
	list, err := w.client("viewer").Sites(t.Context())
	must(t, err)
	if len(list.Items) != 2 || list.Items[1].Name != "łódź 2/back" || list.Defaults.Effect.TimeZone != "Europe/Berlin" {
		t.Fatalf("%+v", list)
	}
	if far := list.Items[1]; far.QuietNow || !far.QuietNext.Equal(testStart.Add(7*time.Hour)) {
		t.Errorf("%+v", far)
	}
	// The name goes through the address as it is.
	one, err := c.ChangeSite(t.Context(), "łódź 2/back", fleetapi.SiteChange{Set: fleetapi.SiteSettings{Quiet: &[]string{}}})
	must(t, err)
	if one.QuietNext != nil || one.Settings.Quiet == nil {
		t.Errorf("without quiet times: %+v", one)
	}
	if one, err = c.ChangeSite(t.Context(), "łódź 2/back", fleetapi.SiteChange{Unset: []string{"quiet"}}); err != nil || one.QuietNext == nil {
		t.Errorf("taken back: %+v, %v", one, err)
	}
}

func TestBadSiteSettingsChangeNothing(t *testing.T) {
	w := newWorld(t)
	w.box("a", "berlin-1", "")
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/api/v1/sites/berlin-1/settings", `{"set":{"time_zone":"Mars/Base"},"unset":[]}`, http.StatusUnprocessableEntity, `time_zone \"Mars/Base\" is not an IANA time zone`},
		{"/api/v1/sites/berlin-1/settings", `{"set":{"quiet":["25:00-26:00"]},"unset":[]}`, http.StatusUnprocessableEntity, "is not a time of day"},
		{"/api/v1/sites/berlin-1/settings", `{"set":{"backlog_bytes_per_second":-1},"unset":[]}`, http.StatusUnprocessableEntity, "backlog_bytes_per_second"},
		{"/api/v1/sites/berlin-1/settings", `{"set":{"speed":1},"unset":[]}`, http.StatusUnprocessableEntity, "speed"},
		{"/api/v1/sites/berlin-1/settings", `{"set":{},"unset":["speed"]}`, http.StatusUnprocessableEntity, "unset"},
		{"/api/v1/sites/berlin-2/settings", `{"set":{"quiet":[]},"unset":[]}`, http.StatusNotFound, "there is no site"},
		{"/api/v1/site-defaults", `{"set":{"time_zone":"Local"},"unset":[]}`, http.StatusUnprocessableEntity, "time_zone"},
	} {
		got := w.ask("ops", "POST", c.path, c.body)
		if got.status != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: %d %s", c.path, c.body, got.status, got.body)
		}
	}
	list, err := w.client("ops").Sites(t.Context())
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].Changed != nil || list.Defaults.Changed != nil {
		t.Errorf("%+v", list)
	}
}
