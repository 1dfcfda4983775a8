package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestADiskThatTakesNothingIsSaidOnceAndWhatWaitsIsStoredLater: a box with a
// full disk goes on looking after itself, and says so without filling its log.
func TestADiskThatTakesNothingIsSaidOnceAndWhatWaitsIsStoredLater(t *testing.T) {
	open := func() *spool.Spool {
		s, err := spool.Open(spool.Options{Path: filepath.Join(t.TempDir(), "spool.db"), NoSync: true}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	var said bytes.Buffer
	a := &Agent{log: slog.New(slog.NewTextHandler(&said, nil))}
	told := 0
	a.disk.log, a.disk.changed = a.log, func() { told++ }
	bad, good := open(), open()
	bad.Close()
	draft := spool.Draft{Lane: wire.LaneEvents, Kind: wire.KindEvents, Count: 1, Payload: []byte{1}}
	for range maxWaiting + 20 {
		err := a.disk.store(bad, draft)
		if !errors.Is(err, errWaits) || a.disk.last() == nil {
			t.Fatalf("store: %v, last %v", err, a.disk.last())
		}
		a.must(err)
	}
	if n := strings.Count(said.String(), "\n"); n != 1 || !strings.Contains(said.String(), "takes no writes") {
		t.Errorf("%d lines: %s", n, said.String())
	}
	if err := a.disk.store(good); err != nil || a.disk.last() != nil {
		t.Errorf("store: %v, last %v", err, a.disk.last())
	}
	if got := good.Buffer().Blocks; got != maxWaiting {
		t.Errorf("%d events were kept, want %d", got, maxWaiting)
	}
	if told != 2 {
		t.Errorf("the controller was told %d times, want of the beginning and of the end", told)
	}
	if n := strings.Count(said.String(), "\n"); n != 2 || !strings.Contains(said.String(), "takes writes again") {
		t.Errorf("%d lines: %s", n, said.String())
	}
}

// TestAnEventThatCannotTravelKeepsNoOtherBack: one that the wire refuses is
// dropped, what came with it is stored.
func TestAnEventThatCannotTravelKeepsNoOtherBack(t *testing.T) {
	s, err := spool.Open(spool.Options{Path: filepath.Join(t.TempDir(), "spool.db"), NoSync: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var said bytes.Buffer
	a := &Agent{log: slog.New(slog.NewTextHandler(&said, nil)), spool: s, clock: newClock(Options{Uptime: sinceBoot}, "boot")}
	a.disk.log, a.disk.changed = a.log, func() {}
	good := wire.Event{Type: wire.EventHours, Body: []byte(`{"hours":[]}`)}
	if err := a.appendEvents("health", []byte("cursor"), []wire.Event{good, {Type: wire.EventFinding, Body: make([]byte, 40<<10)}, good, good}); err != nil {
		t.Fatal(err)
	}
	if n := s.Buffer().Blocks; n != 2 || strings.Count(said.String(), "event dropped") != 1 {
		t.Errorf("%d blocks stored, want one of the first and one of the last two; said %s", n, said.String())
	}
	if cursor, err := s.Cursor("health"); err != nil || string(cursor) != "cursor" {
		t.Errorf("cursor %q, %v", cursor, err)
	}
}
