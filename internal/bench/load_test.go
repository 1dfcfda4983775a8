package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/internal/loadgen/fleet"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// asSink has TestMain be a broker whose sink acknowledges without a database.
const asSink = "EDGEHERD_BENCH_SINK"

func TestMain(m *testing.M) {
	run := serveSink
	switch {
	case os.Getenv(asHostile) != "":
		run = attack
	case os.Getenv(asBare) != "":
		run = serveBare
	case os.Getenv(asSink) == "":
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fastSink does what ingest does with a message, but for the database: decode,
// verify, decode the samples, acknowledge.
type fastSink struct {
	broker  *broker.Broker
	run     wire.RunID
	schemas sync.Map // wire.SchemaID → wire.Schema
}

func (s *fastSink) Deliver(_ context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	if topic == wire.TopicHello {
		h, err := wire.Decode[wire.Hello](payload)
		if err != nil {
			return err
		}
		return s.answer(id, wire.TopicWelcome, wire.Welcome{V: wire.Version, Nonce: h.Nonce, Run: s.run, WindowBytes: 64 << 10, WindowCount: 8})
	}
	d, err := wire.Decode[wire.Data](payload)
	if err != nil {
		return err
	}
	for _, schema := range d.Schemas {
		s.schemas.Store(wire.SchemaIDOf(schema), schema)
	}
	ack := wire.Ack{Run: s.run, LSN: 1}
	for _, b := range d.Blocks {
		if err := b.Verify(); err != nil {
			return err
		}
		schema, _ := s.schemas.Load(b.Schema)
		if _, err := wire.DecodeSamples(schema.(wire.Schema), b.Payload, int(b.Count)); err != nil {
			return err
		}
		ack.Keys = append(ack.Keys, b.Key)
	}
	return s.answer(id, wire.TopicAck, ack)
}

func (s *fastSink) answer(id identity.ID, topic wire.Topic, msg any) error {
	payload, err := wire.Encode(msg)
	if err != nil {
		return err
	}
	return s.broker.Publish(id, topic, payload, 1)
}

// serveSink understands the flags of fleet.Start.
func serveSink(ctx context.Context, args []string) error {
	value := func(name string) string { return args[slices.Index(args, name)+1] }
	ca, err := identity.OpenCA(filepath.Join(value("--state"), "ca"), nil)
	if err != nil {
		return err
	}
	cert, err := ca.IssueServer([]string{"127.0.0.1"})
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", value("--mqtt"))
	if err != nil {
		return err
	}
	sink := &fastSink{run: wire.RunID{1}}
	l := tls.NewListener(tcp, ca.ServerTLS(cert, func(identity.ID) error { return nil }))
	sink.broker, err = broker.New(broker.Options{Sink: sink, Listeners: []net.Listener{l}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return sink.broker.Run(ctx)
}

// testbed is a controller, or the sink, with boxes.
type testbed struct {
	t     *testing.T
	state string
	ctl   *fleet.Controller
	boxes []identity.ID
	certs []tls.Certificate
	tls   *tls.Config
}

func newTestbed(t *testing.T, devices int, command ...string) *testbed {
	t.Helper()
	state := t.TempDir()
	b := &testbed{t: t, state: state}
	var err error
	b.boxes, err = fleet.Enrol(t.Context(), state, devices)
	check(t, err)
	b.certs, b.tls, err = fleet.Certificates(state, b.boxes)
	check(t, err)
	b.ctl, err = fleet.Start(t.Context(), state, command...)
	check(t, err)
	t.Cleanup(func() {
		if err := b.ctl.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// run puts the first n boxes to work.
func (b *testbed) run(n int, opts loadgen.Options) loadgen.Report {
	b.t.Helper()
	opts.Addr, opts.Controller, opts.Seed = b.ctl.MQTT, b.ctl.Process, blockSeed
	opts.Boxes, opts.Certificates, opts.TLS = b.boxes[:n], b.certs[:n], b.tls
	r, err := loadgen.Run(b.t.Context(), opts)
	check(b.t, err)
	if r.Connected < n || r.Waiting > 0 {
		b.t.Fatalf("%d of %d devices were connected, %d blocks not acknowledged: %+v", r.Connected, n, r.Waiting, r.Errors)
	}
	b.t.Logf("%d devices, %.0f acked/s, p50 %.1f ms, p99 %.1f ms, %.0f %% of a core, %.0f KB a connection, load average %.1f to %.1f",
		n, r.Rate, r.Latency.P50Ms, r.Latency.P99Ms, 100*r.Controller.Cores, r.Controller.RSSPerConnection/1e3, r.LoadBefore, r.LoadAfter)
	return r
}

// fleetSize is how many boxes the fleet has: fewer with -bench.short.
func fleetSize() int {
	if *shortFlag {
		return 1000
	}
	return 10_000
}

// fleetLoad is a fleet at its usual rate, a block a minute and box, and its
// return after all connections broke off at once.
func fleetLoad(t *testing.T) []Figure {
	n := fleetSize()
	b := newTestbed(t, n, program(t, "edgeherd"))
	steady := b.run(n, loadgen.Options{Every: time.Minute, For: time.Minute})
	storm := b.run(n, loadgen.Options{Every: time.Minute, For: 30 * time.Second, Storms: 1, StormSpread: 20 * time.Second})
	back := storm.Storms[0]
	errors := float64(back.Errors)
	if !back.Back {
		errors += float64(n - storm.Connected)
	}
	return []Figure{
		{Name: "cpu", Value: steady.Controller.Cores, Unit: "cores", Goal: Goal{AtMost: 0.5}},
		{Name: "rss-per-connection", Value: steady.Controller.RSSPerConnection / 1e3, Unit: "KB", Goal: Goal{AtMost: 95}},
		{Name: "publish-to-ack-p99", Value: steady.Latency.P99Ms, Unit: "ms"},
		{Name: "connect-all", Value: steady.ConnectSeconds, Unit: "s"},
		{Name: "reconnect-all", Value: back.Seconds, Unit: "s", Goal: Goal{AtMost: 120}},
		{Name: "reconnect-errors", Value: errors, Unit: "", Goal: Goal{AtMost: 0.5}},
		{Name: "generator-per-device", Value: float64(steady.Own.State) / float64(n), Unit: "B", Goal: Goal{AtMost: 2000}},
		Figure{Name: "generator-with-tls", Value: float64(steady.Own.Connected) / float64(n), Unit: "B", Goal: Goal{AtMost: 1}}.Against("a paho client without TLS, 34.5 KB", 34_500),
	}
}

// durableLoad compares acknowledgements after a commit with those of the sink,
// in a closed loop with one block in flight per connection; medians of three
// rounds that take turns, since other work on the machine comes and goes.
func durableLoad(t *testing.T) []Figure {
	most := fleetSize()
	durable := newTestbed(t, most, program(t, "edgeherd"))
	t.Setenv(asSink, "1")
	fast := newTestbed(t, most, os.Args[0])
	var out []Figure
	for _, n := range slices.Compact([]int{1000, most}) {
		opts := loadgen.Options{For: 6 * time.Second}
		var without, with, p99 []float64
		for range 3 {
			without = append(without, fast.run(n, opts).Rate)
			r := durable.run(n, opts)
			with, p99 = append(with, r.Rate), append(p99, r.Latency.P99Ms)
		}
		out = append(out,
			Figure{Name: fmt.Sprintf("connections-%d", n), Value: median(with), Unit: "1/s", Goal: Goal{AtLeast: 0.4}}.Against("ACK without commit", median(without)),
			Figure{Name: fmt.Sprintf("p99-%d", n), Value: median(p99), Unit: "ms"})
	}
	return out
}
