package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// watch opens a stream and returns its lines, and what ends it.
func (w *world) watch(header ...string) (lines <-chan string, end func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", w.server.URL+"/api/v1/events", nil)
	must(w.t, err)
	req.Header.Set("Authorization", "Bearer "+w.tokens["viewer"])
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	must(w.t, err)
	if ct, buffering := res.Header.Get("Content-Type"), res.Header.Get("X-Accel-Buffering"); ct != "text/event-stream" || buffering != "no" {
		w.t.Errorf("stream has type %q, buffering %q", ct, buffering)
	}
	out := make(chan string, 100) // more lines than a test looks at
	go func() {
		defer close(out)
		defer res.Body.Close()
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			out <- s.Text()
		}
	}()
	w.t.Cleanup(cancel)
	return out, cancel
}

// change reads lines up to the next change.
func change(t *testing.T, lines <-chan string) fleetapi.Change {
	t.Helper()
	deadline := time.After(5 * time.Minute)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatal("the stream ended")
			}
			if data, is := strings.CutPrefix(line, "data: "); is {
				var c fleetapi.Change
				must(t, json.Unmarshal([]byte(data), &c))
				return c
			}
		case <-deadline:
			t.Fatal("no change came")
		}
	}
}

func TestChangesReachOpenStreams(t *testing.T) {
	w := newWorld(t)
	if w.hub.Watching() {
		t.Error("somebody watches before anybody came")
	}
	lines, end := w.watch()
	if first := <-lines; first != "retry: 3000" {
		t.Errorf("first line %q", first)
	}
	if !w.hub.Watching() {
		t.Error("nobody watches while a stream is open")
	}
	w.push("vad", "1.0.0", "x", "y", 2)
	if c := change(t, lines); c != (fleetapi.Change{Topic: "models", ID: "vad"}) {
		t.Errorf("change %+v", c)
	}
	w.hub.Publish(fleetapi.Change{Topic: "live", ID: "b", Live: &fleetapi.LiveSample{Values: map[string]float64{"a": 1, "nan": math.NaN(), "inf": math.Inf(1)}}})
	if c := change(t, lines); c.Live == nil || len(c.Live.Values) != 1 || c.Live.Values["a"] != 1 {
		t.Errorf("live %+v", c.Live)
	}
	end()
	for range lines { // until the client has noticed
	}
	poll(t, func() error {
		if w.hub.Watching() {
			return fmt.Errorf("a closed stream still counts")
		}
		return nil
	})
}

// poll asks until there is no error, for minutes.
func poll(t *testing.T, ask func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); ; <-tick.C {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestReopenedStreamSaysThatAllMayHaveChanged(t *testing.T) {
	w := newWorld(t)
	lines, _ := w.watch("Last-Event-ID", "1")
	for _, want := range topics {
		if c := change(t, lines); c.Topic != want || c.ID != "" {
			t.Errorf("change %+v, want all %s", c, want)
		}
	}
}

func TestSlowStreamLosesDetailButNoTopic(t *testing.T) {
	h := NewHub()
	s := h.open("")
	for i := range 3 * maxQueue {
		h.Publish(fleetapi.Change{Topic: "boxes", ID: fmt.Sprint(i)})
	}
	got := h.take(s)
	if len(got) > maxQueue+len(topics) {
		t.Errorf("%d changes wait", len(got))
	}
	whole := map[string]bool{}
	for _, c := range got {
		if c.ID == "" {
			whole[c.Topic] = true
		}
	}
	for _, topic := range topics {
		if !whole[topic] {
			t.Errorf("the stream is not told that %s changed", topic)
		}
	}
}

func TestRepeatedChangesWaitOnce(t *testing.T) {
	h := NewHub()
	s := h.open("")
	for i := range 10 {
		h.Publish(fleetapi.Change{Topic: "boxes", ID: "a"})
		h.Publish(fleetapi.Change{Topic: "live", ID: "a", Live: &fleetapi.LiveSample{UnixMs: int64(i)}})
	}
	if got := h.take(s); len(got) != 2 || got[1].Live.UnixMs != 9 {
		t.Errorf("%d changes wait, want the box and its newest sample", len(got))
	}
}

func TestStreamsAreBounded(t *testing.T) {
	w := newWorld(t)
	for range ownStreams {
		w.hub.open("user anna")
	}
	if w.hub.open("user anna") != nil || w.hub.open("user tom") == nil {
		t.Error("one keeps the others out")
	}
	for i := range maxStreams {
		w.hub.open(fmt.Sprint(i))
	}
	if got := w.ask("viewer", "GET", "/api/v1/events", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("one more stream: %d", got.status)
	}
}
