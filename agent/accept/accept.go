package accept

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// Options of Run. State, Runner and Identity are required; Dial as well, unless
// the delivery list says that the box works without a controller.
type Options struct {
	State    string
	Root     string // of sysfs and procfs; default "/"
	Runner   *runnerapi.Client
	Identity *identity.Identity
	// Dial opens TLS to the controller's port of files; see dial.Dialer.Files.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Sensors and Outside are as in agent.Options.
	Sensors map[string]string
	Outside sense.Outside
	Config  string // path of agent.yaml; it may be absent
	Version string // of the agent
	By      string // who runs the test
	// ID of the report; default one by chance. An order of the controller has one.
	ID       string
	Delivery Delivery // default none
	// Levels to go through; default all.
	Levels []acceptance.Level
	// Model to load the box with, as name or name:version; default all that serve
	// are tried, and the first with known samples is the load.
	Model string
	// LoadFor is how long the sustained load lasts; default 10 min.
	LoadFor time.Duration
	// Pause between two looks at the sensors before they are judged; default 2 s.
	Pause time.Duration
	// Bounds of what is taken: default 1 GiB of memory, 256 MiB of disk, 8 MiB of
	// the line each way.
	MemoryBytes, DiskBytes, NetworkBytes int64
	// WallClock stamps the report and is judged; nil means the kernel's.
	WallClock func() time.Time
	// Each is told of progress; nil means nobody. It must not block.
	Each func(Event)
}

func (o Options) withDefaults() Options {
	def := func(n *int64, v int64) {
		if *n <= 0 {
			*n = v
		}
	}
	if o.Root == "" {
		o.Root = "/"
	}
	if len(o.Levels) == 0 {
		o.Levels = acceptance.Levels()
	}
	if o.LoadFor <= 0 {
		o.LoadFor = 10 * time.Minute
	}
	if o.Pause <= 0 {
		o.Pause = 2 * time.Second
	}
	def(&o.MemoryBytes, 1<<30)
	def(&o.DiskBytes, 256<<20)
	def(&o.NetworkBytes, 8<<20)
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	if o.Each == nil {
		o.Each = func(Event) {}
	}
	if o.ID == "" {
		o.ID = acceptance.NewID()
	}
	return o
}

// Event is progress: a check that is judged, or how far a step is.
type Event struct {
	Level acceptance.Level
	Check *acceptance.Check
	Step  string // sensors, golden, inference, memory, disk, network
	Done  float64
	Die   *float64 // °C, of step inference
	Rate  float64  // inferences/s, of step inference
}

type test struct {
	opts    Options
	sampler *sense.Sampler
	tree    tree
	level   acceptance.Level
	way     *reached
	report  acceptance.Report
}

func (t *test) tell(e Event) { t.opts.Each(e) }

func (t *test) add(checks []acceptance.Check) {
	for i := range checks {
		if len(t.report.Checks) == acceptance.MaxChecks {
			return // a box with hundreds of disks
		}
		t.report.Checks = append(t.report.Checks, checks[i])
		t.tell(Event{Level: checks[i].Level, Check: &checks[i]})
	}
}

// Run measures and judges. When ctx ends before it is done, the report holds
// what was judged until then and says that it was aborted.
func Run(ctx context.Context, opts Options) (acceptance.Report, error) {
	opts = opts.withDefaults()
	if opts.Identity == nil {
		return acceptance.Report{}, errors.New("this box is not enrolled, so nobody would know whose report it is: edgeherd-agent enroll TOKEN")
	}
	outside := opts.Outside
	outside.Dust, outside.Pressure = nil, sense.Outside{}.Pressure // the agent has those lines for itself
	t := &test{opts: opts, tree: tree{opts.Root}, sampler: sense.New(sense.Options{
		Root: opts.Root, Roles: opts.Sensors, Outside: outside, StateDir: opts.State,
	}, slog.New(slog.DiscardHandler))}
	board, id := t.sampler.Board(), opts.Identity
	t.report = acceptance.Report{
		V: acceptance.Version, ID: opts.ID, Box: id.ID, Name: acceptance.Clean(id.Name), Site: acceptance.Clean(id.Site),
		Vendor: acceptance.Clean(board.Vendor), Product: acceptance.Clean(board.Product), Serial: acceptance.Clean(board.Serial), Simulated: board.Simulated,
		By: acceptance.Clean(opts.By), Agent: opts.Version, BootID: acceptance.Clean(board.BootID), Delivery: acceptance.Clean(opts.Delivery.Name),
		Started: opts.WallClock().UTC().Truncate(time.Second), Checks: []acceptance.Check{}, CurveSeconds: []float64{}, Curve: []acceptance.Course{},
	}
	reading, stop := context.WithCancel(ctx) // ends programs that still run
	defer stop()
	for _, level := range acceptance.Levels() {
		if !slices.Contains(opts.Levels, level) {
			continue
		}
		t.report.Levels = append(t.report.Levels, level)
		if ctx.Err() == nil {
			t.level = level
			t.tell(Event{Level: level})
			t.through(reading)
		}
	}
	t.report.Aborted = ctx.Err() != nil
	t.report.Ended = opts.WallClock().UTC().Truncate(time.Second)
	if t.way != nil && t.way.client != nil {
		t.way.client.CloseIdleConnections()
	}
	return t.report, nil
}

// through goes through one level. What was not measured to its end is not judged.
func (t *test) through(ctx context.Context) {
	d := t.opts.Delivery
	judged := func(checks []acceptance.Check) bool {
		if ctx.Err() == nil {
			t.add(checks)
		}
		return ctx.Err() == nil
	}
	switch t.level {
	case acceptance.Hardware:
		judged(judgeHardware(t.measureHardware(ctx), d))
	case acceptance.System:
		judged(judgeSystem(t.measureSystem(ctx), t.tree.accelerators(), d))
	case acceptance.Operations:
		judged(judgeOperations(t.measureOperations(ctx), d))
	case acceptance.Load:
		refs, runner := t.models(ctx)
		if !judged(judgeAnswers(t.tryAnswers(ctx, refs), runner)) {
			return
		}
		l, curve := t.sustain(ctx, refs)
		t.report.CurveSeconds, t.report.Curve = curve.series()
		limit, _ := t.sampler.DieLimitCelsius()
		if !judged(judgeLoad(l, runner, limit, d.Limits)) {
			return
		}
		t.pressure(ctx, &l)
		t.tryDisk(ctx, &l)
		if !judged(judgeStores(l, runner, d.Limits)) {
			return
		}
		var n network
		var reachErr string
		if !d.Offline {
			n, reachErr = t.measureNetwork(ctx)
		}
		judged(judgeNetwork(n, reachErr, d))
	}
}
