package controller

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/exporttest"
	"github.com/edgeherd/edgeherd/controller/export/remotewrite"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var exportSchema = wire.Schema{Metrics: []wire.Metric{{Name: "fan_rpm{rear}"}, {Name: "load1", Scale: 2}, {Name: "temp_die_celsius", Scale: 1}}}

// talker is a box that sends samples by what the broker would call.
type talker struct {
	t    *testing.T
	id   identity.ID
	boot wire.BootID
	r    *rand.Rand
	seq  uint64
	base int64 // when it was booted
}

func (b *talker) deliver(c *Controller, topic wire.Topic, msg any) {
	b.t.Helper()
	payload, err := wire.Encode(msg)
	if err == nil {
		err = sink{c}.Deliver(b.t.Context(), b.id, topic, payload)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// hello places its boot a day ago.
func (b *talker) hello(c *Controller) {
	now := time.Now().UnixMilli()
	b.deliver(c, wire.TopicHello, wire.Hello{
		V: wire.Version, Nonce: wire.Nonce{1}, SID: wire.SID{2}, Conn: 1,
		Clock: wire.Clock{Boot: b.boot, MonoMs: now - b.base, WallMs: now, Quality: wire.TimeSynced},
	})
}

// data sends one minute of samples, the nth since the boot.
func (b *talker) data(c *Controller, nth int64) {
	s := wire.Samples{Schema: exportSchema, Values: make([][]float64, 3)}
	for row := range int64(6) {
		s.TimesMs = append(s.TimesMs, row*10_000)
		s.Values[0] = append(s.Values[0], float64(900+b.r.IntN(300)))
		s.Values[1] = append(s.Values[1], float64(b.r.IntN(400))/100)
		s.Values[2] = append(s.Values[2], float64(300+b.r.IntN(500))/10)
	}
	s.Values[0][2] = math.NaN()
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		b.t.Fatal(err)
	}
	b.seq++
	block := wire.Block{
		Key: wire.Key{SID: wire.SID{2}, Lane: wire.LaneTelemetry, Seq: b.seq}, Kind: wire.KindSamples, Boot: b.boot,
		MonoMs: nth * 60_000, WallMs: b.base + nth*60_000, Quality: wire.TimeSynced,
		Schema: wire.SchemaIDOf(exportSchema), Count: 6, SpanMs: 50_000, Payload: payload,
	}
	if err := wire.Seal(&block); err != nil {
		b.t.Fatal(err)
	}
	b.deliver(c, wire.TopicData, wire.Data{Blocks: []wire.Block{block}, Schemas: []wire.Schema{exportSchema}})
}

// serve runs a controller until stop is called.
func serve(t *testing.T, opts Options) (c *Controller, stop func()) {
	t.Helper()
	c = mustOpen(t, opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// storedPoints is what the database of a controller has, as a receiver names it.
func storedPoints(t *testing.T, c *Controller) map[exporttest.Point]float64 {
	t.Helper()
	out := map[exporttest.Point]float64{}
	var all export.Series
	_, err := c.store.Tail(t.Context(), 0, 1_000_000, func(s store.Tailed) error {
		for m, metric := range s.Samples.Schema.Metrics {
			if !all.Match(metric.Name) {
				continue
			}
			name, sensor := export.SplitMetric(metric.Name)
			series := fmt.Sprintf("__name__=edgeherd_%s,box=%s", name, s.Box)
			if sensor != "" {
				series += ",sensor=" + sensor
			}
			for row, rel := range s.Samples.TimesMs {
				if v := s.Samples.Values[m][row]; !math.IsNaN(v) {
					out[exporttest.Point{Series: series, Ms: s.StartMs + rel}] = v
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWhatIsStoredCanBeQueriedInVictoriaMetrics sends a day of three boxes, the
// backlog in reverse, through a controller that is stopped in the middle.
func TestWhatIsStoredCanBeQueriedInVictoriaMetrics(t *testing.T) {
	v := exporttest.StartVictoria(t)
	opts := options(t.TempDir())
	opts.Exports.RemoteWrite = remotewrite.Options{URL: v.URL() + "/api/v1/write", Poll: 50 * time.Millisecond, Settle: 2 * time.Second}
	c, stop := serve(t, opts)
	var boxes []*talker
	for i := range 3 {
		id, err := c.EnrolBox(t.Context(), t.TempDir(), fmt.Sprint("till-", i), "berlin")
		if err != nil {
			t.Fatal(err)
		}
		boxes = append(boxes, &talker{t: t, id: id, boot: wire.BootID{byte(i + 1)}, r: rand.New(rand.NewPCG(1, uint64(i))), base: time.Now().Add(-24 * time.Hour).UnixMilli()})
	}
	const blocks = 120
	for nth := range int64(blocks) {
		if nth%50 == 0 {
			if nth > 0 {
				stop()
				c, stop = serve(t, opts)
			}
			for _, b := range boxes {
				b.hello(c)
			}
		}
		for i, b := range boxes {
			if i == 2 {
				b.data(c, blocks-nth)
			} else {
				b.data(c, nth)
			}
		}
	}
	defer func() { stop() }()
	want := storedPoints(t, c)
	if len(want) != 3*blocks*11 {
		t.Fatalf("%d samples are stored", len(want))
	}
	const names = "edgeherd_(temp|fan|load).*"
	exporttest.Until(t, "everything can be queried", func() bool { return len(v.Stored(t, names)) >= len(want) })
	have := v.Stored(t, names)
	if len(have) != len(want) {
		t.Errorf("%d samples arrived, %d are stored", len(have), len(want))
	}
	for p, value := range want {
		if got, ok := have[p]; !ok || got != value {
			t.Fatalf("%+v: %v (%v), stored is %v", p, got, ok, value)
		}
	}
	for p := range v.Stored(t, "edgeherd_box_info") {
		if !strings.Contains(p.Series, "site=berlin") || !strings.Contains(p.Series, "name=till-") {
			t.Errorf("info %s", p.Series)
		}
	}
}

func TestScrapersOnThisMachineNeedNoToken(t *testing.T) {
	opts := options(t.TempDir())
	opts.Exports.Metrics = "127.0.0.1:0"
	c, stop := serve(t, opts)
	defer stop()
	id, err := c.EnrolBox(t.Context(), t.TempDir(), "till", "berlin")
	if err != nil {
		t.Fatal(err)
	}
	b := &talker{t: t, id: id, boot: wire.BootID{1}, r: rand.New(rand.NewPCG(1, 1)), base: time.Now().Add(-time.Hour).UnixMilli()}
	b.hello(c)
	b.data(c, 1)
	b.seq--
	b.r = rand.New(rand.NewPCG(1, 1))
	b.data(c, 1) // the same again
	if err := (sink{c}).Deliver(t.Context(), id, wire.TopicData, []byte("rubbish")); err == nil {
		t.Error("rubbish is taken")
	}
	resp, err := http.Get("http://" + c.exports.scrape.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`edgeherd_build_info{version="test"} 1`, `edgeherd_blocks_total{outcome="stored"} 1`, `edgeherd_blocks_total{outcome="duplicate"} 1`,
		`edgeherd_messages_total{outcome="ok",topic="up/data"} 2`, `edgeherd_messages_total{outcome="malformed",topic="up/data"} 1`,
		`edgeherd_ack_duration_seconds_count 2`, `edgeherd_sessions 1`,
		`edgeherd_database_up 1`, `edgeherd_commit_duration_seconds_count{outcome="ok"} 2`,
	} {
		if !strings.Contains(string(body), "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if !strings.Contains(string(body), `link="live",update="current"} 1`) {
		t.Error("the box is not live")
	}
	if strings.Contains(string(body), string(id)) || strings.Contains(string(body), "edgeherd_export") {
		t.Error("a series for a box, or for an export that is off")
	}
	if t.Failed() {
		t.Log(string(body))
	}
	for path, want := range map[string]int{c.URL() + "/metrics": http.StatusUnauthorized, "http://" + c.exports.scrape.Addr().String() + "/api/v1/boxes": http.StatusNotFound} {
		resp, err := http.Get(path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestScrapersWithoutTokenStayOnThisMachine(t *testing.T) {
	opts := options(t.TempDir())
	opts.Exports.Metrics = "0.0.0.0:0"
	if c, err := Open(t.Context(), opts, quiet); err == nil || !strings.Contains(err.Error(), "not a loopback address") {
		t.Errorf("%v, %v", c, err)
	}
}
