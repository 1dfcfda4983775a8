package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/internal/loadgen/fleet"
)

// flags of run.
type flags struct {
	self        bool
	state, mqtt string
	program     string
	ledger      string
	output      string
	faults      string
	devices     int
	pid         int
	opts        loadgen.Options
	keep        bool
}

func runCommand(t *terminal) *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use: "run", Short: "Put a controller under load and tell what became of every block", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), t) },
	}
	s := cmd.Flags()
	s.BoolVar(&f.self, "self", false, "start a controller of our own, on --state or on a new directory")
	s.StringVar(&f.state, "state", "", "state directory of the controller")
	s.StringVar(&f.program, "edgeherd", "", "the edgeherd program for --self (default: beside this one)")
	s.BoolVar(&f.keep, "keep", false, "keep the new directory of --self")
	s.StringVar(&f.mqtt, "mqtt", "127.0.0.1:8883", "address of the controller that runs on --state")
	s.IntVar(&f.pid, "pid", 0, "its process, to measure CPU and memory (with --self it is known)")
	s.IntVarP(&f.devices, "devices", "n", 100, "boxes, a device each")
	s.DurationVar(&f.opts.Every, "every", time.Minute, "time between two blocks of a device; 0: the next follows the ACK")
	s.DurationVar(&f.opts.For, "for", 2*time.Minute, "how long blocks are made, once all are connected")
	s.IntVar(&f.opts.Window, "window", 0, "blocks in flight (default 8; 1 with --every 0)")
	s.Uint64Var(&f.opts.Seed, "seed", 0, "of all that is random (default: drawn and printed)")
	s.StringVar(&f.faults, "faults", "none", "none, all, or chances per block: drop=0.02,dup=0.02,cut=0.01,restart=0.01,clock=0.01")
	s.IntVar(&f.opts.Twins, "twins", 0, "boxes that get a second device from a disk image or memory snapshot")
	s.IntVar(&f.opts.Storms, "storms", 0, "how often connections break off all at once")
	s.Float64Var(&f.opts.StormShare, "storm-share", 1, "share of the connections that do")
	s.DurationVar(&f.opts.StormSpread, "storm-spread", 30*time.Second, "within which they come back")
	s.DurationVar(&f.opts.Resend, "resend", 30*time.Second, "wait for an ACK before a block goes out again; doubles")
	s.DurationVar(&f.opts.MaxPause, "max-pause", 5*time.Minute, "longest wait before a reconnect")
	s.IntVar(&f.opts.Handshakes, "handshakes", 64, "TLS handshakes at once")
	s.DurationVar(&f.opts.Connect, "connect", 5*time.Minute, "wait for all devices to be connected")
	s.DurationVar(&f.opts.Drain, "drain", 2*time.Minute, "wait for the last ACK")
	s.StringVar(&f.ledger, "ledger", "", "file for the ledger (default: load.ledger in the state directory)")
	s.StringVarP(&f.output, "output", "o", "table", "table or json")
	return cmd
}

func (f *flags) run(ctx context.Context, t *terminal) (err error) {
	if err := f.check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.opts.Seed == 0 {
		f.opts.Seed = rand.Uint64()
	}
	if f.state == "" {
		if f.state, err = os.MkdirTemp("", "edgeherd-load-"); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
		defer func() {
			if f.keep || err != nil {
				t.say("The state of the controller, its log and the ledger are in %s", f.state)
				return
			}
			os.RemoveAll(f.state)
		}()
	}
	if f.ledger == "" {
		f.ledger = filepath.Join(f.state, "load.ledger")
	}
	report, err := f.load(ctx, t)
	if err != nil {
		return err
	}
	if f.self {
		t.say("Counting what the database has.")
		v, err := fleet.Check(ctx, f.state, f.ledger)
		if err != nil {
			return err
		}
		report.Verdict = &v
	}
	if err := t.print(f.output, report); err != nil {
		return err
	}
	return judge(report)
}

func (f *flags) check() (err error) {
	switch {
	case !f.self && f.state == "":
		return errors.New("say --self for a controller of our own, or --state DIR for one that runs")
	case f.devices < 1:
		return fmt.Errorf("-n %d: want one device or more", f.devices)
	case f.output != "table" && f.output != "json":
		return fmt.Errorf("-o %s: want table or json", f.output)
	case f.opts.Twins > f.devices:
		return fmt.Errorf("--twins %d of %d boxes", f.opts.Twins, f.devices)
	}
	f.opts.Faults, err = loadgen.ParseFaults(f.faults)
	return err
}

// load prepares the boxes, runs the load and stops what it started.
func (f *flags) load(ctx context.Context, t *terminal) (report loadgen.Report, err error) {
	if f.self {
		t.say("Enrolling %d boxes.", f.devices)
		if f.opts.Boxes, err = fleet.Enrol(ctx, f.state, f.devices); err != nil {
			return report, err
		}
		c, err := f.start(ctx)
		if err != nil {
			return report, err
		}
		defer func() { err = errors.Join(err, c.Stop()) }()
		f.opts.Addr, f.opts.Controller = c.MQTT, c.Process
		t.say("The controller is process %d, %s; its log is %s", c.PID, c.MQTT, c.Log)
	} else {
		if f.opts.Boxes, err = known(ctx, f.state, f.devices); err != nil {
			return report, err
		}
		if f.opts.Addr, err = netip.ParseAddrPort(f.mqtt); err != nil {
			return report, fmt.Errorf("%w: --mqtt: %w", errUsage, err)
		}
		f.opts.Controller = loadgen.Process{PID: f.pid}
	}
	if f.opts.Certificates, f.opts.TLS, err = fleet.Certificates(f.state, f.opts.Boxes); err != nil {
		return report, err
	}
	ledger, err := os.Create(f.ledger)
	if err != nil {
		return report, fmt.Errorf("make ledger: %w", err)
	}
	defer func() { err = errors.Join(err, ledger.Close()) }()
	f.opts.Ledger = ledger
	f.opts.Progress = func(p loadgen.Progress) {
		t.say("%6.0f s  connected %d/%d  made %d  acked %d  held %d  resent %d  p99 %s  load %.1f",
			p.Seconds, p.Connected, p.Devices, p.Made, p.Acked, p.Waiting, p.Resent, p.P99.Round(100*time.Microsecond), p.Load)
	}
	t.say("Seed %d, %d devices, %d twins.", f.opts.Seed, f.devices, f.opts.Twins)
	return loadgen.Run(ctx, f.opts)
}

func (f *flags) start(ctx context.Context) (*fleet.Controller, error) {
	if f.program == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find the edgeherd program: %w", err)
		}
		f.program = filepath.Join(filepath.Dir(self), "edgeherd")
	}
	if _, err := os.Stat(f.program); err != nil {
		return nil, fmt.Errorf("find the edgeherd program: %w; build it with `make build`, or name it with --edgeherd", err)
	}
	return fleet.Start(ctx, f.state, f.program)
}

// judge says whether the promise was kept.
func judge(r loadgen.Report) error {
	switch v := r.Verdict; {
	case r.Connected < r.Devices:
		return fmt.Errorf("%d of %d devices were connected", r.Connected, r.Devices)
	case v != nil && v.Lost+v.Doubled > 0:
		return fmt.Errorf("%d blocks or samples were lost and %d doubled", v.Lost, v.Doubled)
	case r.Waiting > 0:
		return fmt.Errorf("%d blocks were not acknowledged in time", r.Waiting)
	}
	return nil
}
