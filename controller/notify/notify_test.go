package notify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

var start = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const key = "a secret of sufficient length"

// receiver is a server that takes webhooks and may refuse them.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	heads  []http.Header
	bodies [][]byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusNoContent}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		w.WriteHeader(r.status)
		if r.status < 300 {
			r.heads, r.bodies = append(r.heads, req.Header), append(r.bodies, body)
		} else {
			fmt.Fprint(w, "not now")
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) got() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.bodies)
}

type world struct {
	t     *testing.T
	now   time.Time
	path  string
	store *store.Store
	log   bytes.Buffer
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: start, path: filepath.Join(t.TempDir(), "store.db")}
	w.reopen()
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// reopen is a crash: nothing but the file is left.
func (w *world) reopen() {
	w.t.Helper()
	if w.store != nil {
		w.check(w.store.Close())
	}
	var err error
	w.store, err = store.Open(w.t.Context(), store.Options{Path: w.path, WallClock: func() time.Time { return w.now }})
	w.check(err)
}

func (w *world) sender(endpoints ...notify.Endpoint) *notify.Sender {
	w.t.Helper()
	s, err := notify.New(notify.Options{Endpoints: endpoints, Store: w.store, URL: func() string { return "https://fleet.example" }, WallClock: func() time.Time { return w.now }},
		slog.New(slog.NewTextHandler(&w.log, nil)))
	w.check(err)
	return s
}

func (w *world) file(text string) string {
	w.t.Helper()
	name := filepath.Join(w.t.TempDir(), "secret")
	w.check(os.WriteFile(name, []byte(text+"\n"), 0o600))
	return name
}

func ticket(state fleetapi.TicketState) fleetapi.Ticket {
	return fleetapi.Ticket{ID: "T-1", State: state, Level: fleetapi.HealthTicket, Cause: "airflow", Box: "d-aaaaaaaaaaaaa", BoxName: "till-1", Site: "shop-7",
		Why: "+9 % against the clean box", Do: "clean the filter", Confidence: 0.82, Opened: start, Evidence: []fleetapi.Evidence{}, Families: []string{"resistance"},
		Timeline: []fleetapi.TicketStep{{Time: start, What: "opened", State: state}}}
}

// queue has endpoints told of n tickets.
func (w *world) queue(endpoint string, n int) {
	w.t.Helper()
	w.check(w.store.Care(w.t.Context(), func(c *store.CareTx) error {
		for i := range n {
			t := ticket(fleetapi.TicketOpen)
			t.ID = fmt.Sprint("T-", i+1)
			for _, notice := range care.Notices(nil, t, w.now, nil) {
				body, err := json.Marshal(notice)
				if err != nil {
					return err
				}
				if err := c.Notify(w.t.Context(), store.Notice{Endpoint: endpoint, Key: notice.Key, DueMs: w.now.UnixMilli(), Body: body}); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

func TestANoticeSurvivesAnOutageAndACrash(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	hook := notify.Endpoint{Name: "cmms", Webhook: r.URL + "/in?token=hush-hush", SecretFile: w.file(key)}
	r.answer(http.StatusServiceUnavailable)
	w.queue("cmms", 2)
	w.check(w.sender(hook).Flush(t.Context()))
	w.check(w.sender(hook).Flush(t.Context())) // it is not its time yet
	w.reopen()
	r.answer(http.StatusOK)
	s := w.sender(hook)
	w.check(s.Flush(t.Context()))
	if n := r.got(); n != 0 {
		t.Fatalf("%d notices before their next attempt", n)
	}
	w.now = w.now.Add(time.Minute)
	w.check(s.Flush(t.Context()))
	w.check(s.Flush(t.Context()))
	if n := r.got(); n != 2 {
		t.Fatalf("%d notices after the outage, want 2", n)
	}
	if said := strings.Count(w.log.String(), "endpoint not told"); said != 1 || strings.Contains(w.log.String(), "hush") {
		t.Errorf("the log says %d times that it fails: %s", said, w.log.String())
	}
	states, err := s.States(t.Context())
	if err != nil || states["cmms"].Waiting != 0 || states["cmms"].LastOK == nil || states["cmms"].LastErr != "" {
		t.Errorf("states %+v, %v", states, err)
	}
}

func TestWebhooksAreSignedAndBearTheirKey(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	w.queue("cmms", 1)
	w.check(w.sender(notify.Endpoint{Name: "cmms", Webhook: r.URL, SecretFile: w.file(key)}).Flush(t.Context()))
	if r.got() != 1 {
		t.Fatal("nothing came")
	}
	h, body := r.heads[0], r.bodies[0]
	at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || at != w.now.Unix() || h.Get("Webhook-Signature") != notify.Sign([]byte(key), h.Get("Webhook-Id"), at, body) {
		t.Errorf("head %v", h)
	}
	if h.Get("Webhook-Signature") == notify.Sign([]byte(key), h.Get("Webhook-Id"), at, append(body, ' ')) {
		t.Error("the signature does not depend on the body")
	}
	var got struct {
		Schema, Key, Kind, Link string
		Ticket                  care.Told
	}
	w.check(json.Unmarshal(body, &got))
	if got.Schema != "edgeherd.notice/v1" || got.Key != h.Get("Webhook-Id") || got.Kind != "opened" || got.Ticket.BoxName != "till-1" || got.Link != "https://fleet.example/tickets/T-1" {
		t.Errorf("body %s", body)
	}
}

func TestSignatureIsThatOfStandardWebhooks(t *testing.T) {
	// The test vector of the reference libraries of that specification.
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := notify.Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestADeadEndpointHoldsUpNoOther(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	nobody, err := freeport.Address()
	w.check(err)
	w.queue("dead", 3)
	w.queue("cmms", 1)
	w.queue("gone", 1)
	s := w.sender(notify.Endpoint{Name: "dead", Webhook: "http://" + nobody, SecretFile: w.file(key)},
		notify.Endpoint{Name: "cmms", Webhook: r.URL, SecretFile: w.file(key)})
	w.check(s.Flush(t.Context()))
	states, err := s.States(t.Context())
	if err != nil || r.got() != 1 || states["dead"].Waiting != 3 || states["dead"].LastErr == "" {
		t.Errorf("%d came, states %+v, %v", r.got(), states, err)
	}
	w.now = w.now.Add(8 * 24 * time.Hour)
	w.check(s.Flush(t.Context()))
	if states, err = s.States(t.Context()); err != nil || states["dead"].Failed != 3 {
		t.Errorf("after a week: %+v, %v", states, err)
	}
}

// TestARefusedNoticeHoldsUpNoOther: an endpoint that dislikes one notice still
// hears of the others, and what it answers shows no secret.
func TestARefusedNoticeHoldsUpNoOther(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	got := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		mu.Lock()
		defer mu.Unlock()
		if bytes.Contains(body, []byte(`"id":"T-1"`)) {
			got["refused"]++
			rw.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(rw, "cannot\x1b[31m POST\n%s", req.URL.Path)
			return
		}
		got["told"]++
	}))
	t.Cleanup(server.Close)
	w.queue("cmms", 4)
	s := w.sender(notify.Endpoint{Name: "cmms", Webhook: server.URL + "/services/hush-hush", SecretFile: w.file(key)})
	for range 10 {
		w.check(s.Flush(t.Context()))
		w.now = w.now.Add(35 * time.Second)
	}
	if got["told"] != 3 || got["refused"] < 3 || got["refused"] > 5 {
		t.Errorf("in six minutes %v, want 3 told and the other tried ever more rarely", got)
	}
	last, err := w.store.LastNotices(t.Context(), 10)
	w.check(err)
	for _, n := range last {
		if strings.Contains(n.Err+w.log.String(), "hush") || strings.ContainsAny(n.Err, "\x1b\n") {
			t.Errorf("kept of the answer: %q; log %s", n.Err, w.log.String())
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	server := httptest.NewServer(http.RedirectHandler(r.URL+"/internal", http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	w.queue("cmms", 1)
	w.check(w.sender(notify.Endpoint{Name: "cmms", Webhook: server.URL, SecretFile: w.file(key)}).Flush(t.Context()))
	if last, err := w.store.LastNotices(t.Context(), 10); err != nil || r.got() != 0 || !strings.Contains(last[0].Err, "307") {
		t.Errorf("%d came to where it was redirected; %+v, %v", r.got(), last, err)
	}
}

func TestAlertmanagerHearsNothingThatMayBeOver(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	w.queue("am", 1)
	w.now = w.now.Add(time.Hour) // of an outage
	s := w.sender(notify.Endpoint{Name: "am", Alertmanager: r.URL})
	w.check(s.Flush(t.Context()))
	states, err := s.States(t.Context())
	if err != nil || r.got() != 0 || states["am"].Waiting != 0 {
		t.Errorf("%d alerts of an hour ago; %+v, %v", r.got(), states, err)
	}
}

func TestEndpointsThatCannotWorkAreNamed(t *testing.T) {
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, e := range map[string]notify.Endpoint{
		"has no name":                    {Webhook: "https://x.example"},
		"exactly one of `url`":           {Name: "a"},
		"needs `secret_file`":            {Name: "a", Webhook: "https://x.example"},
		"shorter than 16":                {Name: "a", Webhook: "https://x.example", SecretFile: short},
		"not an address such as":         {Name: "a", Alertmanager: "alertmanager:9093"},
		"a token does not travel in the": {Name: "a", Alertmanager: "http://am.example", TokenFile: short},
		"take `quiet` away":              {Name: "a", Alertmanager: "http://am.example", Quiet: []string{"22:00-06:00"}},
		"want watch, ticket or urgent":   {Name: "a", Alertmanager: "http://am.example", Least: "loud"},
		"want one of en, de, pl, zh":     {Name: "a", Alertmanager: "http://am.example", Language: "tlh"},
		"rollouts. and one of started":   {Name: "a", Alertmanager: "http://am.example", About: []string{"rollouts.moon"}},
		"not one of shoutrrr":            {Name: "a", Shoutrrr: "carrier-pigeon://hush-hush@coop"},
		"no such file":                   {Name: "a", ShoutrrrFile: "/nonexistent/url"},
	} {
		_, err := notify.New(notify.Options{Endpoints: []notify.Endpoint{e}}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%+v: %v, want %q", e, err, want)
		}
	}
	e := notify.Endpoint{Name: "a", Alertmanager: "http://am.example"}
	if _, err := notify.New(notify.Options{Endpoints: []notify.Endpoint{e, e}}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "two endpoints") {
		t.Errorf("two of a name: %v", err)
	}
}

func TestShoutrrrIsToldAndKeepsItsSecret(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	address := "generic+" + r.URL + "/hook/hush-hush?template=json"
	s := w.sender(notify.Endpoint{Name: "chat", ShoutrrrFile: w.file(address)})
	w.queue("chat", 1)
	w.check(s.Flush(t.Context()))
	if r.got() != 1 || !bytes.Contains(r.bodies[0], []byte("till-1 at shop-7: airflow likely (82 %), opened")) || !bytes.Contains(r.bodies[0], []byte("https://fleet.example/tickets/T-1")) {
		t.Fatalf("got %d: %s", r.got(), r.bodies)
	}
	r.answer(http.StatusForbidden)
	got, err := s.Test(t.Context(), "chat")
	if err != nil || len(got) != 1 || got[0].OK || got[0].Error == "" || strings.Contains(got[0].Error+w.log.String(), "hush") {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := s.Test(t.Context(), "mail"); err == nil || !strings.Contains(err.Error(), "there are chat") {
		t.Errorf("an unknown endpoint: %v", err)
	}
}

// TestAnEndpointIsToldInItsLanguage: see care for what tickets say.
func TestAnEndpointIsToldInItsLanguage(t *testing.T) {
	w, r := newWorld(t), newReceiver(t)
	secret := w.file(key)
	s := w.sender(notify.Endpoint{Name: "de", Webhook: r.URL, SecretFile: secret, Language: "de"}, notify.Endpoint{Name: "en", Webhook: r.URL, SecretFile: secret})
	for name, want := range map[string]string{"de": "Test des Endpunkts de", "en": "test of the endpoint en"} {
		was := r.got()
		if _, err := s.Test(t.Context(), name); err != nil || r.got() != was+1 || !bytes.Contains(r.bodies[was], []byte(want)) {
			t.Errorf("%s: %v, want %q in %q", name, err, want, r.bodies)
		}
	}
	states, err := s.States(t.Context())
	if err != nil || states["de"].Language != "de" || states["en"].Language != "en" {
		t.Errorf("states %+v, %v", states, err)
	}
}

// wait polls a real process.
func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(5 * time.Minute) // a loaded machine is slow
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("no sign of %s", what)
		}
	}
}
