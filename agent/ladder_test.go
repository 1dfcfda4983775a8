package agent

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// stove is a runner that says where it stands and keeps what it is told.
type stove struct {
	t      *testing.T
	status runnerapi.Status
	duty   runnerapi.Duty
}

func (s *stove) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	switch r.URL.Path {
	case "/edge/v1/status":
		if err := json.NewEncoder(rec).Encode(s.status); err != nil {
			s.t.Error(err)
		}
	case "/edge/v1/duty":
		s.duty = runnerapi.Duty{}
		if err := json.NewDecoder(r.Body).Decode(&s.duty); err != nil {
			s.t.Error(err)
		}
	}
	return rec.Result(), nil
}

// TestHotBoxGoesDownTheLadderBeforeItsDutyIsCut: and an agent that starts on a
// hot box goes on from the rung that the runner stands on.
func TestHotBoxGoesDownTheLadderBeforeItsDutyIsCut(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	synctest.Test(t, func(t *testing.T) {
		runner := &stove{t: t, status: runnerapi.Status{Version: "1", Rung: 1, Models: []runnerapi.ModelStatus{
			{Variants: []runnerapi.VariantStatus{{Name: "fp32"}, {Name: "fp16", Skipped: "dearer"}, {Name: "int8"}, {Name: "tiny"}}}, {}}}}
		a.opts.Runner = runnerapi.NewClient(runner)
		sensed := func(celsius float64) string {
			time.Sleep(10 * time.Second)
			a.govern(t.Context(), []sense.Reading{{Metric: string(sense.TempDie), Value: celsius}})
			if runner.duty.Rung == nil {
				return runner.duty.Level + ", as before"
			}
			return runner.duty.Level + []string{", best", ", one down", ", two down"}[*runner.duty.Rung]
		}
		if got := sensed(80); got != "full, as before" {
			t.Errorf("before the runner has answered: %s", got)
		}
		if s, err := a.askRunner(t.Context()); err == nil {
			a.noteServing(s)
		}
		// The limit is 90 °C: 80 °C asks for cheaper variants, and for full duty.
		for i, want := range []string{"full, one down", "full, one down", "full, two down", "full, two down"} {
			if got := sensed(80); got != want {
				t.Errorf("reading %d: %s, want %s", i, got, want)
			}
		}
		got := ""
		for range 31 {
			got = sensed(60)
		}
		if got != "full, one down" {
			t.Errorf("cool for five minutes: %s", got)
		}
		for range 31 {
			got = sensed(60)
		}
		if got != "full, best" {
			t.Errorf("cool for ten minutes: %s", got)
		}
		for range 8 { // requests are refused all the time
			runner.status.Shed += 3
			_, _ = a.askRunner(t.Context())
			got = sensed(60)
		}
		if got != "full, one down" {
			t.Errorf("overloaded for a minute: %s", got)
		}
	})
}
