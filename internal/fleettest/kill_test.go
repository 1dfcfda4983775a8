package fleettest_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/internal/loadgen/fleet"
)

var killRounds = flag.Int("kill.rounds", 0, "how often each process is killed, in all worlds; 0: once in one world, or 12 times with EDGEHERD_PROVE=1")

// victim is a process that is killed and comes back.
type victim struct {
	name        string
	kill, start func()
	freeze      func() // before kill, until blocks are surely in flight; nil: it is killed at once
}

// TestKillsUnderLoadLoseAndDoubleNothing kills what takes part in storing, one
// process after the other and again and again, while devices send telemetry.
// In the end every block that a device has made was acknowledged to it and is
// in the database once. The short form leaves out what other tests of this
// package kill once as well: PostgreSQL and Mosquitto.
func TestKillsUnderLoadLoseAndDoubleNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	t.Parallel() // most of the time is waiting
	prove := os.Getenv("EDGEHERD_PROVE") != ""
	for _, tc := range []struct {
		name  string
		short bool // part of the short form
		// prepare returns where devices dial, and whom to kill.
		prepare func(t *testing.T) (r *rig, entry string, victims []victim)
	}{
		{"SQLite", true, func(t *testing.T) (*rig, string, []victim) {
			r := &rig{t: t}
			r.prepare(1, 0, "")
			c := r.controllers()
			return r, r.hosts[0].mqtt, []victim{c, c, c}
		}},
		{"PostgreSQL", false, func(t *testing.T) (*rig, string, []victim) {
			assets.Program(t, "haproxy")
			r := newRig(t, 3, 0, "")
			return r, r.balance(), []victim{{name: "PostgreSQL", kill: r.pg.Kill, start: func() { must(t, r.pg.Start()) }}, r.controllers()}
		}},
		{"Mosquitto", false, func(t *testing.T) (*rig, string, []victim) {
			assets.Program(t, "mosquitto")
			r, m := newBrokerRig(t, 2, 0)
			return r, m.addr, []victim{{name: "Mosquitto", kill: m.kill, start: m.start}, r.controllers()}
		}},
	} {
		if !tc.short && !prove && *killRounds == 0 {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, entry, victims := tc.prepare(t)
			r.killUnderLoad(entry, victims)
		})
	}
}

// controllers are killed in turn.
func (r *rig) controllers() victim {
	n := -1
	return victim{
		name:   "a controller",
		freeze: func() { n = (n + 1) % len(r.hosts); must(r.t, r.hosts[n].cmd.Process.Signal(syscall.SIGSTOP)) },
		kill:   func() { r.hosts[n].kill() },
		start:  func() { r.hosts[n].start() },
	}
}

// killUnderLoad kills every victim in each round.
func (r *rig) killUnderLoad(entry string, victims []victim) {
	t := r.t
	devices, rounds := 100, 1
	if os.Getenv("EDGEHERD_PROVE") != "" {
		devices, rounds = 300, 12
	}
	if *killRounds > 0 {
		rounds = *killRounds
	}
	l := r.startLoad(entry, devices)
	rng := rand.New(rand.NewPCG(l.opts.Seed, 1))
	kills := 0
	l.flows("at first")
	for range rounds {
		for _, v := range victims {
			<-time.After(time.Duration(rng.Int64N(int64(time.Second)))) // any moment of what a device does
			if v.freeze != nil {
				v.freeze()
				l.made(devices)
			}
			v.kill()
			v.start()
			kills++
			l.flows("after the end of " + v.name)
		}
	}
	report := l.end()
	v := r.compare(l.ledger)
	t.Logf("seed %d: %d kills, blocks made %d, acked %d, sent again %d, connections lost %d; database: %+v",
		l.opts.Seed, kills, report.Made, report.Acked, report.Resent, report.Lost, v)
	if v.Made == 0 || int64(v.Made) != report.Made || v.Lost+v.Doubled+v.Missing+v.Foreign != 0 || v.Stored != v.Made {
		t.Errorf("seed %d: the database does not have each block once: %+v", l.opts.Seed, v)
	}
	if v.Acked != v.Made || report.Waiting != 0 || report.Refused != 0 {
		t.Errorf("seed %d: %d of %d blocks were acknowledged, %d wait, %d were refused; %v", l.opts.Seed, v.Acked, v.Made, report.Waiting, report.Refused, report.Errors)
	}
	if report.Resent == 0 || report.Lost == 0 {
		t.Errorf("no kill has hit anything: sent again %d, connections lost %d", report.Resent, report.Lost)
	}
}

// load is a running load generator.
type load struct {
	rig    *rig
	opts   loadgen.Options
	ledger string
	last   atomic.Pointer[loadgen.Progress]
	enough chan struct{}
	done   chan struct{} // closed when the fields below are set
	report loadgen.Report
	err    error
}

// startLoad starts the controllers, and devices with a block each half a second.
func (r *rig) startLoad(entry string, devices int) *load {
	t := r.t
	t.Helper()
	l := &load{rig: r, ledger: filepath.Join(r.dir, "ledger"), enough: make(chan struct{}), done: make(chan struct{})}
	var boxes []identity.ID
	r.withStore(func(s *store.Store) (err error) {
		boxes, err = fleet.Add(t.Context(), s, devices)
		return err
	})
	certs, side, err := fleet.Certificates(r.hosts[0].state, boxes)
	must(t, err)
	r.startAll()
	file, err := os.Create(l.ledger)
	must(t, err)
	l.opts = loadgen.Options{
		Addr: netip.MustParseAddrPort(entry), Boxes: boxes, TLS: side, Certificates: certs, Seed: rand.Uint64(),
		Every: 500 * time.Millisecond, For: 24 * time.Hour, Enough: l.enough, Resend: time.Second, MaxPause: 2 * time.Second,
		Drain:      time.Hour, // a block that many kills have hit waits four minutes by then; over when none waits
		Handshakes: 16, Ledger: file,
		Progress: func(p loadgen.Progress) { l.last.Store(&p) },
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(l.done)
		l.report, l.err = loadgen.Run(ctx, l.opts)
	}()
	t.Cleanup(func() { cancel(); <-l.done; file.Close() })
	return l
}

// flows waits until all devices are connected and blocks are acknowledged.
func (l *load) flows(when string) {
	l.rig.t.Helper()
	seen, first := l.last.Load(), &loadgen.Progress{}
	if seen != nil {
		first = nil // the next one; what was seen is of before
	}
	patience := 3 * time.Minute
	if os.Getenv("EDGEHERD_PROVE") != "" { // three times the devices, perhaps beside other proofs
		patience = 10 * time.Minute
	}
	await(l.rig.t, patience, "telemetry flows "+when, func() error {
		p := l.last.Load()
		if p == seen {
			return fmt.Errorf("no news from the load")
		}
		if first == nil {
			seen, first = p, p
		}
		if p.Connected < p.Devices || p.Acked <= first.Acked {
			return fmt.Errorf("%d of %d devices are connected, acknowledged %d and then %d", p.Connected, p.Devices, first.Acked, p.Acked)
		}
		return nil
	})
}

// made waits until so many blocks more are made, which is to say sent: a fast
// controller answers within milliseconds, and a kill may find none in flight.
func (l *load) made(blocks int) {
	l.rig.t.Helper()
	first := l.last.Load().Made
	await(l.rig.t, time.Minute, "blocks are sent", func() error {
		if made := l.last.Load().Made; made < first+int64(blocks) {
			return fmt.Errorf("%d after %d", made, first)
		}
		return nil
	})
}

// end waits for the last acknowledgement.
func (l *load) end() loadgen.Report {
	l.rig.t.Helper()
	close(l.enough)
	<-l.done
	must(l.rig.t, l.err)
	return l.report
}

// withStore opens the database beside those who use it. SQLite has one user:
// its controller must have ended.
func (r *rig) withStore(f func(s *store.Store) error) {
	r.t.Helper()
	s, err := store.Open(r.t.Context(), store.Options{Path: filepath.Join(r.hosts[0].state, "store.db"), Database: r.address})
	must(r.t, err)
	defer s.Close()
	must(r.t, f(s))
}

// compare holds the database to the ledger. No controller serves after it.
func (r *rig) compare(ledger string) (v loadgen.Verdict) {
	r.t.Helper()
	for _, h := range r.hosts {
		h.kill()
	}
	file, err := os.Open(ledger)
	must(r.t, err)
	defer file.Close()
	r.withStore(func(s *store.Store) (err error) {
		v, err = fleet.Compare(r.t.Context(), s, file)
		return err
	})
	return v
}
