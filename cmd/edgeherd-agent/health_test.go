package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/condition"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestHealthIsToldWithoutAgentAndController, from the file on the box.
func TestHealthIsToldWithoutAgentAndController(t *testing.T) {
	state := t.TempDir()
	tell := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"health", "--state", state}, args...), &out, new(bytes.Buffer))
		return out.String(), err
	}
	if _, err := tell(); err == nil || !strings.Contains(err.Error(), "at the end of the first full hour") {
		t.Errorf("no file: %v", err)
	}
	if _, err := tell("-o", "yaml"); !errors.Is(err, errUsage) {
		t.Errorf("-o yaml: %v", err)
	}
	var cursor []byte
	c := condition.Open(condition.Options{
		Path: filepath.Join(state, "health.json"), Box: "till-3", Site: "berlin-1", SKU: "ACME X1", Boot: "b",
		Deliver: func(now []byte, _ []wire.Event) error { cursor = now; return nil },
		Cursor:  func() ([]byte, error) { return cursor, nil },
	}, slog.New(slog.DiscardHandler))
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range 13 {
		v := health.Blank()
		v[health.Die] = 60
		if err := c.Observe(condition.Reading{At: condition.Moment{Wall: at.Add(time.Duration(i) * 10 * time.Minute), Mono: time.Duration(i) * 10 * time.Minute, Synced: true}, V: v}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := tell()
	for _, want := range []string{"till-3  site berlin-1  ACME X1", "health     not known yet", "until 2026-03-01T02:00:00Z", "a first baseline needs a week"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s%v, want %q", out, err, want)
		}
	}
	out, err = tell("-o", "json")
	var r condition.Report
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Box != "till-3" || r.Findings == nil {
		t.Errorf("%s%v", out, err)
	}
	var text bytes.Buffer
	printFinding(&text, health.Finding{
		Cause: health.CauseAirflow, Level: health.Ticket, Confidence: 0.82, Since: health.Unix(at.Unix()),
		Evidence: []health.Evidence{{Text: "7 % more heat"}}, Forecast: &health.Forecast{Day: 20513, Low: 10, Mid: 21, High: 40, TripC: 95},
	})
	for _, want := range []string{"airflow is restricted: clean or change the filter (82 % likely, ticket since 2026-03-01)", "- 7 % more heat", "95 °C, which is assumed) in 10 to 40 days, most likely 21, as of 2026-03-01"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%s, want %q", text.String(), want)
		}
	}
}
