package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// world is an API over a real store and a real blob store, behind a real server.
type world struct {
	t      *testing.T
	store  *store.Store
	blobs  *blob.Store
	key    trust.PrivateKey
	hub    *Hub
	api    *API
	server *httptest.Server
	tokens map[string]string // by role
	clock  *clock
	woken  chan struct{}
}

// clock is a wall clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keptInTests is for those that delete what is old.
var keptInTests = store.Retention{Samples: 90 * 24 * time.Hour, Rollups: 800 * 24 * time.Hour}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, hub: NewHub(), tokens: map[string]string{}, clock: &clock{now: testStart}, woken: make(chan struct{}, 100)}
	dir := t.TempDir()
	var err error
	w.store, err = store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), WallClock: w.clock.Now})
	must(t, err)
	t.Cleanup(func() { w.store.Close() })
	w.blobs, err = blob.Open(filepath.Join(dir, "blobs"))
	must(t, err)
	w.key, err = trust.NewKey()
	must(t, err)
	w.api, err = New(Options{
		Store: w.store, Blobs: w.blobs, Keyring: trust.DevelopmentKeyring(w.key.Public()), Hub: w.hub,
		Wake: func() {
			select {
			case w.woken <- struct{}{}:
			default:
			}
		},
		Metrics: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("edgeherd_up 1\n")) }),
		Version: "v1-test", WallClock: w.clock.Now, SamplesFor: keptInTests.Samples,
	}, slog.New(slog.NewTextHandler(testLog{t}, nil)))
	must(t, err)
	w.server = httptest.NewServer(w.api.Operator())
	t.Cleanup(w.server.Close)
	for _, role := range authz.Roles() {
		w.grant(string(role), role, authz.AllSites)
	}
	w.grant("owner", authz.Owner, authz.AllSites)
	return w
}

// grant makes a token under a name that ask and client know.
func (w *world) grant(name string, role authz.Role, sites ...string) {
	w.t.Helper()
	secret, _, err := w.api.opts.People.GiveToken(w.t.Context(), people.NewToken{Name: name, Role: role, Sites: sites, Life: 365 * 24 * time.Hour})
	must(w.t, err)
	w.tokens[name] = secret
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) client(role string) *fleetapi.Client {
	return fleetapi.New(w.server.URL, w.tokens[role], nil)
}

// answer is a reply that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) problem(t *testing.T) fleetapi.Error {
	t.Helper()
	var p fleetapi.Error
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Title == "" || p.Status != a.status {
		t.Fatalf("%d %q is no problem document: %v", a.status, a.body, err)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("problem has content type %q", ct)
	}
	return p
}

// ask sends a request with the token of a role; "" is nobody.
func (w *world) ask(role, method, path, body string, header ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(body))
	must(w.t, err)
	if role != "" {
		req.Header.Set("Authorization", "Bearer "+w.tokens[role])
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	must(w.t, err)
	defer res.Body.Close()
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		return answer{res.StatusCode, res.Header, ""}
	}
	data, err := io.ReadAll(res.Body)
	must(w.t, err)
	return answer{res.StatusCode, res.Header, string(data)}
}

// box enrols a box; arch "" leaves it unheard of.
func (w *world) box(name, site, arch string) identity.ID {
	w.t.Helper()
	id := identity.NewID()
	must(w.t, w.store.AddBox(w.t.Context(), id, name, site))
	if arch != "" {
		must(w.t, w.store.Hello(w.t.Context(), id, wire.Hello{Inventory: wire.Inventory{Name: name, Class: "itx", Arch: arch, Agent: "1.0.0", Simulated: true}}))
	}
	return id
}

// desire makes a model version the desired one of a box.
func (w *world) desire(id identity.ID, ref models.Ref) {
	w.t.Helper()
	_, err := w.store.SetDesired(w.t.Context(), id, func(d *wire.Desired) error {
		d.Models = []wire.DesiredModel{{Name: ref.Name, Version: ref.Version, Digest: ref.Digest}}
		return nil
	}, func(p []byte) ([]byte, error) { return trust.Sign(trust.TypeDesired, p, w.key) })
	must(w.t, err)
}

// onnx is a model file with one float input and output of the given names.
func onnx(in, out string, dims ...int) []byte {
	msg := func(n protowire.Number, content ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(content, nil))
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	value := func(field protowire.Number, name string) []byte {
		var shape []byte
		for _, d := range dims {
			shape = append(shape, msg(1, num(1, uint64(d)))...)
		}
		return msg(field, msg(1, []byte(name)), msg(2, msg(1, num(1, 1), msg(2, shape))))
	}
	return bytes.Join([][]byte{num(1, 8), msg(7, value(11, in), value(12, out)), msg(8, num(2, 17))}, nil)
}

// manifest describes a model whose only file is content.
func manifest(t *testing.T, name, version string, content []byte) models.Manifest {
	t.Helper()
	info, err := models.ReadONNX(bytes.NewReader(content))
	must(t, err)
	return models.Manifest{V: models.ManifestVersion, Name: name, Version: version, Signature: info.Signature,
		Files: []models.File{{Path: models.ModelFile, Digest: blob.Sum(content), SizeBytes: int64(len(content))}}}
}

func (w *world) sign(m models.Manifest) []byte {
	w.t.Helper()
	payload, err := m.Encode()
	must(w.t, err)
	envelope, err := trust.Sign(trust.TypeModel, payload, w.key)
	must(w.t, err)
	return envelope
}

func (w *world) put(content []byte) {
	w.t.Helper()
	must(w.t, w.blobs.Put(bytes.NewReader(content), blob.Sum(content)))
}

// push uploads and registers a model with the given tensors.
func (w *world) push(name, version, in, out string, dims ...int) models.Ref {
	w.t.Helper()
	content := onnx(in, out, dims...)
	c := w.client("ops")
	must(w.t, c.Upload(w.t.Context(), blob.Sum(content), bytes.NewReader(content), int64(len(content)), nil))
	v, err := c.PushModel(w.t.Context(), w.sign(manifest(w.t, name, version, content)))
	must(w.t, err)
	return v.Ref
}

// samples stores one block of samples of a box, a row a second from start on.
func (w *world) samples(id identity.ID, seq uint64, start time.Time, columns map[string][]float64) {
	w.t.Helper()
	s := wire.Samples{}
	for name, values := range columns {
		s.Schema.Metrics = append(s.Schema.Metrics, wire.Metric{Name: name, Scale: 3})
		s.Values = append(s.Values, values)
		s.TimesMs = s.TimesMs[:0]
		for row := range values {
			s.TimesMs = append(s.TimesMs, int64(row)*1000)
		}
	}
	payload, err := wire.EncodeSamples(s)
	must(w.t, err)
	n := len(s.TimesMs)
	b := wire.Block{Key: wire.Key{SID: wire.SID{1}, Lane: wire.LaneTelemetry, Seq: seq}, Kind: wire.KindSamples, WallMs: start.UnixMilli(),
		Quality: wire.TimeSynced, Schema: wire.SchemaIDOf(s.Schema), Count: uint32(n), SpanMs: int64(n-1) * 1000, Payload: payload}
	must(w.t, wire.Seal(&b))
	must(w.t, w.store.AddSchemas(w.t.Context(), []wire.Schema{s.Schema}))
	w.ingest(store.Delivery{Box: id, Block: b, StartMs: start.UnixMilli(), Samples: &s, Schema: &s.Schema})
}

// results stores results of a box at a time, one for each latency in seconds.
func (w *world) results(id identity.ID, seq uint64, at time.Time, latencies ...float64) {
	w.t.Helper()
	var rs []wire.Result
	for i, l := range latencies {
		rs = append(rs, wire.Result{WallMs: at.UnixMilli() + int64(i), Input: "cam", Pipeline: "ocr", Item: "f", Text: "A", Want: "A", ScorePPM: 900_000, LatencyUs: uint32(l * 1e6)})
	}
	payload, err := wire.EncodeResults(rs)
	must(w.t, err)
	b := wire.Block{Key: wire.Key{SID: wire.SID{2}, Lane: wire.LaneTelemetry, Seq: seq}, Kind: wire.KindResults, WallMs: at.UnixMilli(), Quality: wire.TimeSynced, Count: uint32(len(rs)), Payload: payload}
	must(w.t, wire.Seal(&b))
	w.ingest(store.Delivery{Box: id, Block: b, StartMs: at.UnixMilli(), Results: rs})
}

// event stores one event of a box.
func (w *world) event(id identity.ID, seq uint64, at time.Time, typ, text string) {
	w.t.Helper()
	es := []wire.Event{{WallMs: at.UnixMilli(), Type: typ, Text: text}}
	payload, err := wire.EncodeEvents(es)
	must(w.t, err)
	b := wire.Block{Key: wire.Key{SID: wire.SID{3}, Lane: wire.LaneEvents, Seq: seq}, Kind: wire.KindEvents, WallMs: at.UnixMilli(), Quality: wire.TimeSynced, Count: 1, Payload: payload}
	must(w.t, wire.Seal(&b))
	w.ingest(store.Delivery{Box: id, Block: b, StartMs: at.UnixMilli(), Events: es})
}

func (w *world) ingest(d store.Delivery) {
	w.t.Helper()
	_, err := w.store.Ingest(context.Background(), []store.Delivery{d}, func(store.Delivery) (store.Effects, error) { return store.Effects{}, nil })
	must(w.t, err)
}

// twoOutputs is the model of onnx("x", "y", 2) with one more output, z.
func twoOutputs() []byte {
	msg := func(n protowire.Number, content ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(content, nil))
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	value := func(field protowire.Number, name string) []byte {
		return msg(field, msg(1, []byte(name)), msg(2, msg(1, num(1, 1), msg(2, msg(1, num(1, 2))))))
	}
	return bytes.Join([][]byte{num(1, 8), msg(7, value(11, "x"), value(12, "y"), value(12, "z")), msg(8, num(2, 17))}, nil)
}

// contextOf is that of a request which the guard let in.
func contextOf(t *testing.T, c people.Caller) context.Context {
	return context.WithValue(t.Context(), whoKey{}, c)
}
