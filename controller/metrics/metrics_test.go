package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// full is a Set in which everything has happened.
func full() *Set {
	s := New(Options{Version: "1.2.3", State: func(context.Context) (State, error) {
		return State{
			Boxes:          map[BoxState]int{{"live", "ok", "current"}: 4, {"never", "unknown", "unknown"}: 2},
			BufferedBlocks: 7, Rollouts: map[string]int{"running": 1},
			RolloutBoxes: map[RolloutBox]int{{"r-1", "done"}: 3},
			Sessions:     4, EventStreams: 1, QueuedBatches: 2, StoreBytes: 1 << 20, WALBytes: 4096, LSN: 100,
		}, nil
	}}, slog.New(slog.DiscardHandler))
	s.Ingest.Message("up/data", "ok")
	s.Ingest.Acked(20 * time.Millisecond)
	s.Ingest.Committed(10, 8, 5*time.Millisecond, nil)
	s.Ingest.Committed(3, 0, time.Millisecond, errors.New("disk full"))
	s.Ingest.Refused(1)
	for _, e := range []*Export{s.RemoteWrite, s.Sparkplug} {
		e.On()
		e.Up(true)
		e.Sent("ok")
		e.Samples(60)
		e.Dropped("refused", 2)
		e.Replayed()
	}
	s.RemoteWrite.At(90, false)
	s.Sparkplug.At(10, true)
	return s
}

func scrape(t *testing.T, s *Set) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	must(t, err)
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, body)
	}
	return string(body)
}

func TestScrapesTellWhatHappened(t *testing.T) {
	got := scrape(t, full())
	for _, line := range []string{
		`edgeherd_build_info{version="1.2.3"} 1`,
		`edgeherd_boxes{health="ok",link="live",update="current"} 4`,
		`edgeherd_boxes{health="unknown",link="never",update="unknown"} 2`,
		`edgeherd_buffered_blocks 7`,
		`edgeherd_rollouts{state="running"} 1`,
		`edgeherd_rollout_boxes{rollout="r-1",state="done"} 3`,
		`edgeherd_sessions 4`,
		`edgeherd_event_streams 1`,
		`edgeherd_ingest_queue_length 2`,
		`edgeherd_messages_total{outcome="ok",topic="up/data"} 1`,
		`edgeherd_blocks_total{outcome="stored"} 8`,
		`edgeherd_blocks_total{outcome="duplicate"} 2`,
		`edgeherd_blocks_total{outcome="refused"} 1`,
		`edgeherd_commit_blocks_sum 10`,
		`edgeherd_commit_duration_seconds_count{outcome="ok"} 1`,
		`edgeherd_commit_duration_seconds_count{outcome="failed"} 1`,
		`edgeherd_ack_duration_seconds_count 1`,
		`edgeherd_store_bytes 1.048576e+06`,
		`edgeherd_store_wal_bytes 4096`,
		`edgeherd_store_commits_total 100`,
		`edgeherd_export_lag_commits{export="remote_write"} 10`,
		`edgeherd_export_lag_commits{export="sparkplug"} 0`,
		`edgeherd_export_samples_total{export="remote_write"} 60`,
		`edgeherd_export_dropped_samples_total{export="sparkplug",reason="refused"} 2`,
		`edgeherd_export_up{export="remote_write"} 1`,
		`edgeherd_database_up 1`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, family := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(got, "\n"+family+" ") {
			t.Errorf("no family %s", family)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	problems, err := testutil.GatherAndLint(full().Gatherer())
	must(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestADatabaseThatIsAwayDoesNotHideTheRest: the scrape that tells of it must
// not fail with it.
func TestADatabaseThatIsAwayDoesNotHideTheRest(t *testing.T) {
	s := New(Options{State: func(context.Context) (State, error) { return State{}, errors.New("away") }}, slog.New(slog.DiscardHandler))
	s.Ingest.Refused(3)
	got := scrape(t, s)
	for _, line := range []string{"edgeherd_database_up 0", `edgeherd_blocks_total{outcome="refused"} 3`} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, got)
		}
	}
	if strings.Contains(got, "edgeherd_boxes{") {
		t.Error("boxes are told without a database")
	}
}

func TestWhatIsOffIsNotShown(t *testing.T) {
	got := scrape(t, New(Options{}, slog.New(slog.DiscardHandler)))
	if strings.Contains(got, "edgeherd_export_") || strings.Contains(got, "edgeherd_boxes") {
		t.Errorf("shown although it is off:\n%s", got)
	}
}

func TestNilCountsNothing(t *testing.T) {
	var i *Ingest
	i.Message("up/data", "ok")
	i.Acked(1)
	i.Committed(1, 1, 1, nil)
	i.Refused(1)
	var e *Export
	e.On()
	e.At(1, true)
	e.Up(true)
	e.Sent("ok")
	e.Samples(1)
	e.Dropped("old", 1)
	e.Replayed()
}
