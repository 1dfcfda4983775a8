package results

import (
	"crypto/hmac"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// receiver is a webhook's other end.
type receiver struct {
	t *testing.T

	mu      sync.Mutex // guards all below
	answers []int      // what to say to the next batches; then 200
	got     []int      // the n of each result, in order
	names   []string   // of the batches
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	stamp, _, _ := strings.Cut(strings.TrimPrefix(req.Header.Get(SignatureHeader), "t="), ",")
	at, err := strconv.ParseInt(stamp, 10, 64)
	if want := Sign("key", time.Unix(at, 0), body); err != nil || !hmac.Equal([]byte(want), []byte(req.Header.Get(SignatureHeader))) {
		r.t.Errorf("signature %q, want %q", req.Header.Get(SignatureHeader), want)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, req.Header.Get(DeliveryHeader))
	if len(r.answers) > 0 {
		code := r.answers[0]
		r.answers = r.answers[1:]
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(code)
		return
	}
	var in struct {
		Results []struct{ N int }
	}
	if err := json.Unmarshal(body, &in); err != nil {
		r.t.Error(err)
	}
	for _, one := range in.Results {
		r.got = append(r.got, one.N)
	}
}

func (r *receiver) numbers() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// TestWebhookGetsEveryResultInOrder over refusals, restarts of the runner and
// while another target is down.
func TestWebhookGetsEveryResultInOrder(t *testing.T) {
	r := &receiver{t: t, answers: []int{500, 302, 429, 404}}
	srv := httptest.NewServer(r)
	defer srv.Close()
	dir := t.TempDir()
	cfg := Config{Targets: []Target{
		{Name: "till", Kind: "webhook", URL: srv.URL, SecretFile: secretFile(t, "key"), Inputs: []string{"dock"}},
		{Name: "gone", Kind: "webhook", URL: "http://127.0.0.1:1/", SecretFile: secretFile(t, "key")},
	}}
	h, stop := start(t, Options{Config: cfg, Dir: dir})
	for i := range 60 {
		publish(h, "dock", i)
		publish(h, "gate", 1000+i)
	}
	within(t, "all are taken", func() bool { return h.count() == 120 })
	within(t, "all that it asked for", func() bool { return len(r.numbers()) == 60 })
	if got := r.numbers(); !slices.Equal(got, upTo(60)) {
		t.Errorf("got %v", got)
	}
	if r.names[0] == "" || r.names[0] != r.names[4] {
		t.Errorf("a batch sent again is called %q, before %q", r.names[4], r.names[0])
	}
	within(t, "it is written down that all have come", func() bool { return h.Targets()[0].Waiting == 0 })
	stop()
	// Down for the whole life of the runner: it waits for the next one.
	h, stop = start(t, Options{Config: cfg, Dir: dir})
	if st := h.Targets(); st[1].Waiting != 120 || st[0].Waiting != 0 {
		t.Errorf("after a restart %+v, want 120 that wait for the one that is gone", st)
	}
	within(t, "its trouble is told", func() bool { return h.Targets()[1].Err != "" })
	stop()
	cfg.Targets[1].URL = srv.URL
	r.mu.Lock()
	r.got = nil
	r.mu.Unlock()
	start(t, Options{Config: cfg, Dir: dir})
	within(t, "the other comes back", func() bool { return len(r.numbers()) == 120 })
}

func TestRefusedResultsDoNotStopTheRest(t *testing.T) {
	r := &receiver{t: t, answers: []int{422}}
	srv := httptest.NewServer(r)
	defer srv.Close()
	h, _ := start(t, Options{Config: Config{Targets: []Target{{Name: "till", Kind: "webhook", URL: srv.URL, SecretFile: secretFile(t, "key")}}}})
	publish(h, "dock", 0)
	within(t, "it is refused", func() bool { return h.Targets()[0].Refused == 1 })
	publish(h, "dock", 1)
	within(t, "the next arrives", func() bool { return slices.Equal(r.numbers(), []int{1}) })
}

// TestFullQueueDropsTheOldestAndCounts: a receiver that is away for good costs
// a bounded piece of the disk.
func TestFullQueueDropsTheOldestAndCounts(t *testing.T) {
	dir := t.TempDir()
	h, stop := start(t, Options{Dir: dir, Config: Config{Targets: []Target{
		{Name: "gone", Kind: "webhook", URL: "http://127.0.0.1:1/", SecretFile: secretFile(t, "key"), QueueBytes: 64 << 10}}}})
	for i := range 200 {
		before := h.count()
		h.Publish("dock", json.RawMessage(fmt.Sprintf(`{"input":"dock","n":%d,"text":%q}`, i, strings.Repeat("x", 1000))))
		within(t, "taken", func() bool { return h.count() > before })
	}
	stop()
	h, _ = start(t, Options{Dir: dir, Config: h.opts.Config})
	st := h.Targets()[0]
	if st.Waiting > 70 || st.Waiting < 50 || st.Waiting+st.Dropped != 200 {
		t.Errorf("%d wait and %d were dropped of 200, want about 60 of 1 KB in 64 KB", st.Waiting, st.Dropped)
	}
	if fi, err := os.Stat(filepath.Join(dir, "deliver-gone.db")); err != nil || fi.Size() > 1<<20 {
		t.Errorf("the file has %d bytes, %v", fi.Size(), err)
	}
}

func TestTargetsAreChecked(t *testing.T) {
	secret := secretFile(t, "key")
	good := Target{Name: "till", Kind: "webhook", URL: "http://x/", SecretFile: secret}
	with := func(f func(*Target)) []Target {
		t := good
		f(&t)
		return []Target{t}
	}
	for want, targets := range map[string][]Target{
		"two targets":             {good, good},
		"name: use lower case":    with(func(t *Target) { t.Name = "A/B" }),
		"use webhook with http":   with(func(t *Target) { t.Kind = "kafka" }),
		"with a url of ftp":       with(func(t *Target) { t.URL = "ftp://x/" }),
		"url is no address":       with(func(t *Target) { t.URL = "here" }),
		"holds a user":            with(func(t *Target) { t.URL = "http://me:hush@x/" }),
		"secret_file is required": with(func(t *Target) { t.SecretFile = "" }),
		"read secret":             with(func(t *Target) { t.SecretFile = "/nowhere" }),
		"are for kind mqtt":       with(func(t *Target) { t.Topic = "a" }),
		"queue_bytes is 5":        with(func(t *Target) { t.QueueBytes = 5 }),
		"no + or #":               with(func(t *Target) { t.Kind, t.URL, t.SecretFile, t.Topic = "mqtt", "mqtt://x", "", "a/#" }),
		"go together":             with(func(t *Target) { t.Kind, t.URL, t.SecretFile, t.Username = "mqtt", "mqtt://x", "", "me" }),
		"is for kind webhook":     with(func(t *Target) { t.Kind, t.URL = "mqtt", "mqtt://x" }),
		"read ca_file":            with(func(t *Target) { t.CAFile = "/nowhere" }),
	} {
		h, err := New(Options{Config: Config{Targets: targets}, Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
		if err == nil || h != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestLocalBrokerGetsResults: Mosquitto on the box, with a password, away at
// first and restarted in between.
func TestLocalBrokerGetsResults(t *testing.T) {
	addr, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	h, _ := start(t, Options{Config: Config{Targets: []Target{
		{Name: "mosquitto", Kind: "mqtt", URL: "mqtt://" + addr, Topic: "site/{input}/read"}}}})
	publish(h, "dock", 0)
	within(t, "nobody is there", func() bool { return h.Targets()[0].Err != "" })
	dir := t.TempDir()
	config := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(config, []byte("listener "+port+" 127.0.0.1\nallow_anonymous true\npersistence false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), assets.Program(t, "mosquitto"), "-c", config)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	got := make(chan string, 16) // more than the test publishes
	listen := func() mqtt.Client {
		var c mqtt.Client
		within(t, "the broker listens", func() bool {
			c = mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("test").SetAutoReconnect(false))
			tok := c.Connect()
			tok.Wait()
			return tok.Error() == nil
		})
		tok := c.Subscribe("site/#", 1, func(_ mqtt.Client, m mqtt.Message) { got <- m.Topic() + " " + string(m.Payload()) })
		if tok.Wait(); tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		return c
	}
	cmd := run()
	c := listen()
	publish(h, "a/b#c", 1)
	seen := map[string]bool{}
	for !seen[`site/a_b_c/read {"input":"a/b#c","n":1}`] {
		select {
		case m := <-got:
			seen[m] = true
		case <-time.After(5 * time.Minute):
			t.Fatalf("got %v", seen)
		}
	}
	c.Disconnect(0)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	publish(h, "dock", 2)
	within(t, "it is missed", func() bool { return h.Targets()[0].Err != "" })
	cmd = run()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	within(t, "the queue is empty", func() bool { st := h.Targets()[0]; return st.Waiting == 0 && st.Sent >= 3 })
}
