package results

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs a hub until the test or the returned function ends it.
func start(t *testing.T, opts Options) (*Hub, func()) {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	opts.RetryFirst, opts.RetryLast = 10*time.Millisecond, 50*time.Millisecond
	h, err := New(opts, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	ended := false
	stop := func() {
		cancel()
		if !ended {
			ended = true
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return h, stop
}

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func publish(h *Hub, input string, n int) {
	h.Publish(input, json.RawMessage(fmt.Sprintf(`{"input":%q,"n":%d}`, input, n)))
}

// count is how many results the hub has taken.
func (h *Hub) count() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// sse reads events of a subscription.
type sse struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Scanner
}

type sseEvent struct{ id, kind, data string }

func ask(t *testing.T, h *Hub, query, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.listen.Addr().String()+"/edge/v1/results"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func subscribe(t *testing.T, h *Hub, query string) *sse {
	t.Helper()
	resp := ask(t, h, query, "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("subscribe: %s %v", resp.Status, resp.Header)
	}
	s := &sse{t, resp, bufio.NewScanner(resp.Body)}
	s.in.Buffer(nil, 1<<20)
	return s
}

// next returns the next event, or one of kind "end".
func (s *sse) next() (e sseEvent) {
	s.t.Helper()
	for s.in.Scan() {
		key, value, _ := strings.Cut(s.in.Text(), ": ")
		switch key {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "":
			if value == "" && e.kind != "" {
				return e
			}
		}
	}
	return sseEvent{kind: "end"}
}

func (s *sse) want(input string, n int) sseEvent {
	s.t.Helper()
	e := s.next()
	if want := fmt.Sprintf(`{"input":%q,"n":%d}`, input, n); e.kind != "result" || e.data != want {
		s.t.Fatalf("event %+v, want %s", e, want)
	}
	return e
}

func TestSubscriberGoesOnWhereItWas(t *testing.T) {
	h, _ := start(t, Options{Config: Config{HTTP: "127.0.0.1:0"}, KeepResults: 5})
	for i := range 3 {
		publish(h, "dock", i)
	}
	within(t, "three results are taken", func() bool { return h.count() == 3 })
	all := subscribe(t, h, "?since=0")
	all.want("dock", 0)
	id := all.want("dock", 1).id
	all.want("dock", 2)
	newest := subscribe(t, h, "?input=gate&input=yard") // asks for what comes from now on
	newest.in.Scan()                                    // the greeting: it is at its place
	publish(h, "dock", 3)
	publish(h, "gate", 4)
	all.want("dock", 3)
	all.want("gate", 4)
	newest.want("gate", 4)
	again := subscribe(t, h, "?since="+id)
	again.want("dock", 2)
	again.want("dock", 3)
	for i := range 4 {
		publish(h, "yard", i+10)
	}
	within(t, "nine results are taken", func() bool { return h.count() == 9 })
	late := subscribe(t, h, "?since="+id)
	if e := late.next(); e.kind != "gap" || !strings.Contains(e.data, `"lost":2`) {
		t.Errorf("after results that are no longer kept: %+v", e)
	}
	late.want("gate", 4)
	other := subscribe(t, h, "?since=deadbeef-7")
	if e := other.next(); e.kind != "gap" || !strings.Contains(e.data, "started anew") {
		t.Errorf("with the id of another life: %+v", e)
	}
	if resp := ask(t, h, "?since=x", ""); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("nonsense: %s", resp.Status)
	}
}

// TestSlowSubscriberIsDroppedWithAWord and holds up nobody.
func TestSlowSubscriberIsDroppedWithAWord(t *testing.T) {
	h, _ := start(t, Options{Config: Config{HTTP: "127.0.0.1:0"}, KeepResults: 100})
	slow := subscribe(t, h, "")
	slow.in.Scan()
	body := json.RawMessage(`{"input":"dock","pad":"` + strings.Repeat("x", 100_000) + `"}`)
	// More than the sockets between us hold.
	for n := 0; n < 400; {
		before := h.count()
		h.Publish("dock", body)
		within(t, "the result is taken", func() bool { return h.count() > before })
		n++
	}
	results := 0
	for {
		e := slow.next()
		if e.kind == "result" {
			results++
			continue
		}
		if e.kind != "dropped" || !strings.Contains(e.data, "too slow") {
			t.Errorf("after %d results: %.100v, want to be told", results, e)
		}
		break
	}
	if e := slow.next(); e.kind != "end" || results >= 400 {
		t.Errorf("after it: %.100v, with %d results", e, results)
	}
	within(t, "its place is free", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.guests == 0 })
}

func TestResultsAreNotShownToStrangers(t *testing.T) {
	token := secretFile(t, "open sesame")
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:8002", "[::]:0", ":0", "8002"} {
		h, err := New(Options{Config: Config{HTTP: addr}}, slog.New(slog.DiscardHandler))
		if err == nil || h != nil {
			t.Errorf("%s without a token: accepted", addr)
		}
	}
	h, _ := start(t, Options{Config: Config{HTTP: "0.0.0.0:0", TokenFile: token}})
	for shown, want := range map[string]int{"": 401, "wrong": 401, "open sesame": 200} {
		if resp := ask(t, h, "", shown); resp.StatusCode != want {
			t.Errorf("token %q: %s, want %d", shown, resp.Status, want)
		}
	}
	// A page of a stranger's, opened in a browser on the box, comes by name.
	local, _ := start(t, Options{Config: Config{HTTP: "127.0.0.1:0"}, Subscribers: 1, Inputs: []string{"gate"}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+local.listen.Addr().String()+"/edge/v1/results", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("by another name: %v, %v", resp, err)
	}
	silent, err := net.Dial("tcp", local.listen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_ = silent.SetReadDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(silent, "GET /edge/v1/results HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(silent), nil); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a body that never comes: %v, %v", resp, err)
	}
	if resp := ask(t, local, "?input=gate&input=gaet", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("an input that nobody has: %s", resp.Status)
	}
	first := subscribe(t, local, "?input=gate")
	first.in.Scan()
	if resp := ask(t, local, "", ""); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one subscriber too many: %s", resp.Status)
	}
}
