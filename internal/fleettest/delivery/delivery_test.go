package delivery

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
)

// This file holds protocol v1 to its promise with the real spool and link on
// one side, the real broker, ingest and store on the other, TLS between them,
// and the faults of internal/protosim: whatever Append has accepted is stored
// once, or a gap tells of it.

var (
	seeds    = flag.Int("delivery.seeds", 0, "schedules to run; 0: 3, or 200 with EDGEHERD_PROVE=1")
	seedFrom = flag.Uint64("delivery.seed", 1, "first seed")
)

// world is a center and its stations.
type world struct {
	t    *testing.T
	log  *slog.Logger
	rng  *lockedRand
	plan *mathrand.Rand // of the schedule
	net  *memnet.Network
	ca   *identity.CA

	listen func() (net.Listener, error)
	dial   func(ctx context.Context, host string) (net.Conn, error)

	cert     tls.Certificate
	ctl      *center
	ids      []identity.ID
	stations []*station
	uid      int
	untaken  int  // blocks that a full disk did not take
	rows     int  // of a block of samples, at most
	tight    bool // stations run out of room
	ledger   map[boxKey]*record
}

// lockedRand lets goroutines draw from one seed. Which draws first may differ
// between runs of one seed; the schedule of faults does not.
type lockedRand struct {
	mu  sync.Mutex
	rng *mathrand.Rand
}

func (r *lockedRand) Float64() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Float64()
}

func empty(t *testing.T, seed uint64) *world {
	return &world{
		t: t, log: slog.New(slog.DiscardHandler), ledger: map[boxKey]*record{}, rows: 2,
		rng: &lockedRand{rng: mathrand.New(mathrand.NewPCG(seed, 1))}, plan: mathrand.New(mathrand.NewPCG(seed, 2)),
	}
}

// newWorld makes a world on an in-memory network.
func newWorld(t *testing.T, seed uint64, boxes int) *world {
	t.Helper()
	n := memnet.New()
	n.SetLatency(40 * time.Millisecond)
	w := empty(t, seed)
	w.net = n
	w.listen = func() (net.Listener, error) { return n.Listen("ctl:8883") }
	w.dial = func(ctx context.Context, host string) (net.Conn, error) { return n.Dial(ctx, host, "ctl:8883") }
	w.start(boxes)
	return w
}

func (w *world) start(boxes int) {
	t := w.t
	t.Helper()
	var err error
	if w.ca, err = identity.OpenCA(t.TempDir(), time.Now); err != nil {
		t.Fatal(err)
	}
	if w.cert, err = w.ca.IssueServer([]string{"ctl"}); err != nil {
		t.Fatal(err)
	}
	w.ctl = &center{w: w, disk: newDisk(t), vault: t.TempDir(), seen: map[boxKey]bool{}, mixed: map[identity.ID]bool{}}
	w.ctl.start()
	for i := range boxes {
		dir := t.TempDir()
		box := identity.Box{ID: identity.NewID(), Server: "ctl"}
		if err := identity.Enrol(dir, w.ca, box); err != nil {
			t.Fatal(err)
		}
		if err := w.ctl.store.AddBox(context.Background(), box.ID, fmt.Sprint("box-", i), "site"); err != nil {
			t.Fatal(err)
		}
		s := &station{w: w, host: fmt.Sprint("box", i), disk: newDisk(t), vault: t.TempDir(), has: map[boxKey]bool{}}
		if s.id, err = identity.Load(dir); err != nil {
			t.Fatal(err)
		}
		if w.tight {
			s.room = 2 << 20
		}
		s.reboot()
		s.start()
		w.ids, w.stations = append(w.ids, box.ID), append(w.stations, s)
	}
}

func (w *world) since(s *station) time.Duration { return time.Since(s.booted) }

func (w *world) close() {
	for _, s := range w.stations {
		s.stop()
	}
	w.ctl.delayed.Wait()
	w.ctl.stop()
}

// settle waits until every station has heard of the database as it is and
// nothing waits.
func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	lineage, err := w.ctl.store.Lineage(context.Background(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	end := time.Now().Add(limit)
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		left := int64(0)
		for _, s := range w.stations {
			left += s.spool.Buffer().Blocks
			if st := s.link.Status(); !st.Connected || st.Run != lineage.Run {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			for _, s := range w.stations {
				w.t.Logf("%s: %+v, %+v", s.host, s.spool.Buffer(), s.link.Status())
			}
			w.t.Fatalf("%d blocks or stations are not settled %v after the last fault", left, limit)
		}
		<-look.C
	}
}

func TestBlocksAreStoredOnceOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		for range 10 {
			for _, s := range w.stations {
				s.append(10)
			}
			time.Sleep(time.Minute)
		}
		w.settle(time.Minute)
		if v := w.judge(); v.stored != w.uid {
			t.Error(v)
		}
	})
}

// TestBlocksAreStoredOnceOverSockets is the same over TCP, in real time.
func TestBlocksAreStoredOnceOverSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := empty(t, 1)
	w.listen = func() (net.Listener, error) { return l, nil }
	w.dial = func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	w.start(3)
	defer w.close()
	for _, s := range w.stations {
		s.append(100)
	}
	w.settle(time.Minute)
	if v := w.judge(); v.stored != w.uid {
		t.Error(v)
	}
}

// TestNoScheduleOfFaultsLosesOrDoublesABlock runs random schedules.
func TestNoScheduleOfFaultsLosesOrDoublesABlock(t *testing.T) {
	n := *seeds
	if n == 0 {
		n = 3
		if os.Getenv("EDGEHERD_PROVE") != "" {
			n = 200
		}
	}
	began := time.Now()
	var all verdict
	var through traffic
	counts := map[string]int{}
	for i := range uint64(n) {
		seed := *seedFrom + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Logf("again with -run %q -delivery.seed %d -delivery.seeds 1", "NoSchedule", seed)
				v, faults, came := play(t, seed)
				t.Logf("%s; %+v; faults %v", v, came, faults)
				all.add(v)
				through.add(came)
				for f, n := range faults {
					counts[f] += n
				}
			})
		})
	}
	t.Logf("%d schedules: %s; %+v; faults %s; in %v", n, all, through, list(counts), time.Since(began).Round(time.Second))
	for _, f := range faultNames {
		if n >= 50 && counts[f] == 0 {
			t.Errorf("%s never happened: nothing was shown about it", f)
		}
	}
	for g := range through.Packs {
		if n >= 50 && (through.Packs[g] == 0 || through.PartlyStored[g] == 0) {
			t.Errorf("no pack of grain %d was stored in part: nothing was shown about it", g)
		}
	}
}

func list(counts map[string]int) string {
	var parts []string
	for _, f := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", f, counts[f]))
	}
	return strings.Join(parts, ", ")
}

func play(t *testing.T, seed uint64) (verdict, map[string]int, traffic) {
	w := newShapedWorld(t, seed)
	defer w.close()
	faults := w.schedule(120)
	w.calm()
	w.settle(24 * time.Hour)
	return w.judge(), faults, w.ctl.traffic
}

// newShapedWorld draws what a schedule is like.
func newShapedWorld(t *testing.T, seed uint64) *world {
	n := memnet.New()
	n.SetLatency(40 * time.Millisecond)
	w := empty(t, seed)
	w.net = n
	w.listen = func() (net.Listener, error) { return n.Listen("ctl:8883") }
	w.dial = func(ctx context.Context, host string) (net.Conn, error) { return n.Dial(ctx, host, "ctl:8883") }
	if w.tight = w.plan.IntN(2) == 0; w.tight {
		w.rows = 12
	}
	w.start(2)
	return w
}
