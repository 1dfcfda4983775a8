package accept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// enrolled is a box with its key.
func enrolled(t *testing.T) *identity.Identity {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), nil)
	must(t, err)
	dir := t.TempDir()
	must(t, identity.Enrol(dir, ca, identity.Box{ID: identity.NewID(), Name: "till-3", HTTPS: "ctl:8444"}))
	id, err := identity.Load(dir)
	must(t, err)
	return id
}

func reportOf(id *identity.Identity, n int) acceptance.Report {
	at := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	return acceptance.Report{ID: fmt.Sprintf("%016x", n), Box: id.ID, Started: at, Ended: at, Levels: acceptance.Levels()}
}

// taker is a controller that keeps reports, and answers as it is told.
type taker struct {
	mu     sync.Mutex      // guards what follows
	kept   map[string]bool // by their bytes
	asked  int
	answer int // 0: the connection ends after the report was kept
}

func (c *taker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != acceptance.PathReport {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked++; c.answer/100 == 2 || c.answer == 0 {
		c.kept[string(data)] = true
	}
	if c.answer == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(c.answer)
}

// say is what it answers from now on.
func (c *taker) say(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = status
}

func (c *taker) seen() (kept map[string]bool, asked int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.kept), c.asked
}

// way leads to the taker; the TLS of the real one is that of agent/dial.
func (c *taker) way(t *testing.T) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	c.kept = map[string]bool{}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}
}

func waiting(t *testing.T, state string, want int) []string {
	t.Helper()
	paths, err := Waiting(state)
	must(t, err)
	if len(paths) != want {
		t.Errorf("%d reports wait, want %d", len(paths), want)
	}
	return paths
}

func TestAReportIsOnTheDiskBeforeItIsSentAndArrivesOnce(t *testing.T) {
	state, id, c, log := t.TempDir(), enrolled(t), &taker{}, slog.New(slog.DiscardHandler)
	way := c.way(t)
	path, err := Keep(state, id, reportOf(id, 1))
	must(t, err)
	data, err := os.ReadFile(path)
	must(t, err)
	if s, err := acceptance.Open(data); err != nil || s.Report.ID != reportOf(id, 1).ID {
		t.Fatalf("what was kept is no signed report: %v", err)
	}
	noWay := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no way") }
	if err := Send(t.Context(), state, id, noWay, log); err == nil {
		t.Error("without a way it was sent")
	}
	if got := waiting(t, state, 1); len(got) == 1 && got[0] != path {
		t.Errorf("waits in %s, was kept in %s", got[0], path)
	}
	for range 2 { // the controller has it, and the box does not hear so
		if err := Send(t.Context(), state, id, way, log); err == nil {
			t.Error("no answer came, and it was taken for sent")
		}
		waiting(t, state, 1)
	}
	c.say(http.StatusServiceUnavailable)
	if err := Send(t.Context(), state, id, way, log); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a controller that cannot: %v", err)
	}
	waiting(t, state, 1)
	c.say(http.StatusNoContent)
	must(t, Send(t.Context(), state, id, way, log))
	waiting(t, state, 0)
	_, asked := c.seen()
	must(t, Send(t.Context(), state, id, way, log))
	if kept, now := c.seen(); len(kept) != 1 || !kept[string(data)] || now != asked {
		t.Errorf("the controller has %d reports, the right one %t; asked %d times more", len(kept), kept[string(data)], now-asked)
	}
}

func TestARefusedReportStaysOnTheBoxAndHoldsUpNoOther(t *testing.T) {
	state, id, c := t.TempDir(), enrolled(t), &taker{answer: http.StatusBadRequest}
	way := c.way(t)
	path, err := Keep(state, id, reportOf(id, 1))
	must(t, err)
	// The note of the last order lies beside the reports, and is none.
	must(t, os.WriteFile(filepath.Join(Dir(state), "order.json"), []byte("{}"), 0o600))
	for range 2 {
		must(t, Send(t.Context(), state, id, way, slog.New(slog.DiscardHandler)))
	}
	if _, err := os.Stat(strings.TrimSuffix(path, waits) + sent); err != nil {
		t.Error(err)
	}
	if _, asked := c.seen(); asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
	for i := range maxWaiting + 1 {
		_, err := Keep(state, id, reportOf(id, 2+i))
		must(t, err)
	}
	waiting(t, state, maxWaiting)
	c.say(http.StatusNoContent)
	must(t, Send(t.Context(), state, id, way, slog.New(slog.DiscardHandler)))
	waiting(t, state, 0)
	if got, err := list(state, true); err != nil || len(got) != keepSent {
		t.Errorf("%d sent reports stay, want %d: %v", len(got), keepSent, err)
	}
}

func TestOneTestRunsOnABoxAtATime(t *testing.T) {
	state := t.TempDir()
	first, err := Lock(state)
	must(t, err)
	if _, err := Lock(state); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second test beside it: %v", err)
	}
	must(t, first.Close())
	again, err := Lock(state)
	must(t, err)
	must(t, again.Close())
}
