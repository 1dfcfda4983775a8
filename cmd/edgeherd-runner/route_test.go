package main

import (
	"bufio"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// headquarters is a TLS server in front of a runner; it lets in who has the token.
func headquarters(t *testing.T, far *site, token string) (srv *httptest.Server, ca string, reached *atomic.Int64) {
	target, err := url.Parse("http://" + far.http)
	if err != nil {
		t.Fatal(err)
	}
	reached = new(atomic.Int64)
	proxy := httputil.NewSingleHostReverseProxy(target)
	srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		if r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("Edgeherd-Forwarded") == "" {
			http.Error(w, "who are you", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv, ca, reached
}

// TestRequestsOverflowWhereTheyMay: local first; hot, overloaded or without the
// model another server answers, and the answer says so. What must not leave the
// site does not, what was passed on once is not passed on again, and a server
// that fails costs no answer that the box can give itself.
func TestRequestsOverflowWhereTheyMay(t *testing.T) {
	far, s := newSite(t, "silero-vad-5.0.0"), newSite(t, "silero-vad-5.0.0")
	peer := far.start()
	far.status()
	hq, ca, reached := headquarters(t, far, "open sesame")
	token := filepath.Join(s.dir, "token")
	s.must(os.WriteFile(token, []byte("open sesame\n"), 0o600))
	s.configure(`max_in_flight: 1
routes:
  - model: silero-vad
    overflow:
      - {name: hq, place: central, url: %[1]q, ca: %[2]q, credential: %[3]q}
      - {name: neighbour, place: site, url: "http://%[4]s"}
  - model: big
    leaves_site: allowed
    overflow: [{name: hq, place: central, url: %[1]q, ca: %[2]q, credential: %[3]q, model: silero-vad}]
  - model: shy
    overflow: [{name: hq, place: central, url: %[1]q, ca: %[2]q, credential: %[3]q, model: silero-vad}]
`, hq.URL, ca, token, far.http)
	s.start()
	s.status()
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	served := func(model, where string, headers ...string) string {
		t.Helper()
		status, text, header := s.ask(model, headers...)
		if status != http.StatusOK || header.Get("Edgeherd-Served-By") != where || where != "" && !strings.Contains(text, `"served_by":"`+where+`"`) {
			t.Fatalf("%s: %d from %q, want 200 from %q: %s", model, status, header.Get("Edgeherd-Served-By"), where, text)
		}
		return text[strings.Index(text, `"outputs"`):]
	}
	duty := func(level string, ratio float64) {
		s.must(edge.SetDuty(t.Context(), runnerapi.Duty{Level: level, MaxRateRatio: ratio, ValidSeconds: 600}))
	}
	right := served("silero-vad", "local")
	duty("minimal", 0.25)
	if got := served("silero-vad", "site:neighbour"); got != right {
		t.Errorf("the neighbour answers %s, want %s", got, right)
	}
	served("silero-vad", "", "Edgeherd-Forwarded", "1")
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests left the site", n)
	}
	if got := served("big", "central:hq"); got != right || reached.Load() != 1 {
		t.Errorf("the headquarters answer %s in %d requests, want %s", got, reached.Load(), right)
	}
	if status, text, _ := s.ask("shy"); status != http.StatusServiceUnavailable || reached.Load() != 1 {
		t.Errorf("shy: %d %s; %d requests left the site", status, text, reached.Load())
	}
	duty("full", 1)
	served("silero-vad", "local")

	// A request that does not come to its end holds the only place; that its body
	// is asked for says that it has it.
	conn, err := net.Dial("tcp", s.http)
	s.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "POST /v2/models/silero-vad/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
	s.must(err)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("the request that waits for its body is answered by %q, %v", line, err)
	}
	served("silero-vad", "site:neighbour")
	if status, text, _ := s.ask("silero-vad", "Edgeherd-Forwarded", "1"); status != http.StatusServiceUnavailable {
		t.Errorf("passed on twice: %d %s", status, text)
	}
	conn.Close()
	s.eventually("the place is free", func() bool {
		status, _, header := s.ask("silero-vad")
		return status == http.StatusOK && header.Get("Edgeherd-Served-By") == "local"
	})
	duty("paused", 0)
	s.must(peer.Process.Kill())
	<-peer.done
	for range 4 {
		if got := served("silero-vad", "local"); got != right {
			t.Errorf("without the neighbour: %s, want %s", got, right)
		}
	}
	resp, err := http.Get("http://" + s.http + "/metrics")
	s.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	s.must(err)
	for _, want := range []string{
		`edgeherd_runner_overflow_requests_total{model="silero-vad",place="site:neighbour",why="hot",answered="true"} 1`,
		`edgeherd_runner_overflow_requests_total{model="silero-vad",place="site:neighbour",why="hot",answered="false"} 3`,
		`edgeherd_runner_overflow_requests_total{model="big",place="central:hq",why="missing",answered="true"} 1`,
		`edgeherd_runner_overflow_open{model="silero-vad",place="site:neighbour"} 1`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
