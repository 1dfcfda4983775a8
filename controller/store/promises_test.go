package store_test

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// promises is what every engine of the store must keep.
var promises = []struct {
	name  string
	check func(t *testing.T, open func(t *testing.T) *store.Store)
}{
	{"a block counts once however often it comes", countsOnce},
	{"another content under the same number is another block", exactKey},
	{"four writers at once lose and double nothing", fourWriters},
	{"the keys of a box are known wherever they lie", keysStayKnown},
	{"a failed batch leaves nothing behind", allOrNothing},
	{"late news change neither the newest value nor what runs", lateNews},
	{"within a boot its own clock orders reports", bootClock},
	{"a box has the newest of its phases, and no more than a list can bear", phasesBounded},
	{"a gap tells of all its ranges", gaps},
	{"secrets are kept, and the key that is in force found", secretsAreKept},
	{"documents of settings are kept, with labels and settings of boxes", documentsAreKept},
	{"a document of the fleet's metadata is written once, and every root is kept", metadataIsKept},
	{"content that cannot be read is kept and never charted", unreadable},
	{"samples of a time span are found in order", charted},
	{"schemas are known per box, and no more than a WELCOME names", schemas},
	{"reads are counted by the hour", reads},
	{"boxes are added once and names are taken once", boxes},
	{"a HELLO places its boot in time", hello},
	{"what is old goes in slices and does not come back", retains},
	{"cursors only grow", cursors},
	{"its size and the places of boxes can be told", measured},
	{"what waits at a site is what its boxes said last", siteWaits},
	{"merging closed hours changes no answer", compactionKeeps},
	{"a tail gives all samples in the order of commits", tails},
	{"hours, resets and changes count once, the richer summary of an hour stays", heatCountsOnce},
	{"the newest word on a finding counts, and what is closed stays closed", newestWordOnAFindingCounts},
	{"no finding is lost between the boxes and the tickets", noNewsIsLost},
	{"a box has one open ticket of a cause", oneTicketOfACause},
	{"a notice is queued once for each endpoint", noticesAreQueuedOnce},
	{"the air of a site is what its boxes measure", neighboursBreatheTheSameAir},
	{"old hours and findings go, but none that nobody has seen", oldHoursGo},
	{"sketches count once and add up, apart from the first week of a version", sketchesAddUp},
	{"a box has no more sketches than an hour can have", sketchesAreBounded},
	{"a token is what its account is at this moment", tokensFollowAccounts},
	{"names and subjects of users are taken once, and the last admin stays", accountsAreKept},
	{"a name is locked after failures, whether somebody has it or not", namesAreLocked},
	{"a change and its audit record come together or not at all", changesAreRecorded},
	{"a token is used once", aTokenIsUsedOnce},
	{"a machine is claimed once", aMachineIsClaimedOnce},
	{"certificates take turns", certificatesTakeTurns},
	{"one box of a site fetches, and others hear of those who have something", oneBoxOfASiteFetches},
	{"packs are wanted once, cold ones first", packsAreWantedOnce},
	{"packs go by their use, versions with their packs", packsGoByTheirUse},
}

func countsOnce(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	a1, a2 := samples(boxA, 1, 1, epoch, 40, 50), samples(boxA, 1, 2, epoch+60_000, 60)
	b1 := samples(boxB, 1, 1, epoch, 70)
	ev := event(boxA, 1, 1, epoch, wire.EventStarted, nil)
	rs := results(boxA, 1, 3, epoch, "good", "bad")
	last := uint64(0)
	for i, batch := range [][]store.Delivery{{a2, ev}, {a1, a1, a2}, {rs, b1, ev}, {a1, a2, b1, ev, rs}} {
		c := ingest(t, s, batch...)
		if want := []int{2, 1, 2, 0}[i]; c.New != want {
			t.Errorf("batch %d stored %d new blocks, want %d", i, c.New, want)
		}
		if c.LSN <= last || c.Run != runNow(t, s) {
			t.Errorf("batch %d ended at %s/%d after %d", i, c.Run, c.LSN, last)
		}
		last = c.LSN
	}
	if got := keysOf(t, s, boxA); len(got) != 4 || got[a1.Block.Key] != 1 || got[ev.Block.Key] != 1 {
		t.Errorf("keys of a: %v", got)
	}
	b := box(t, s, boxA)
	if b.Reads != (store.Reads{Total: 2, Checked: 2, Right: 1}) {
		t.Errorf("counted %+v", b.Reads)
	}
	evs, err := s.Events(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*epoch), 10)
	if err != nil || len(evs) != 1 {
		t.Errorf("events %v, %v", evs, err)
	}
}

func exactKey(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	one, other := samples(boxA, 1, 5, epoch, 40), samples(boxA, 1, 5, epoch, 41)
	huge := samples(boxA, 1, 1<<64-1, epoch, 42) // numbers have 64 bits
	if c := ingest(t, s, one, other, huge, one); c.New != 3 {
		t.Errorf("%d new blocks, want 3", c.New)
	}
	got := keysOf(t, s, boxA)
	for _, d := range []store.Delivery{one, other, huge} {
		if got[d.Block.Key] != 1 {
			t.Errorf("key %s is stored %d times", d.Block.Key, got[d.Block.Key])
		}
	}
	// The same key of another box is another block.
	twin := one
	twin.Box = boxB
	if c := ingest(t, s, twin); c.New != 1 {
		t.Errorf("the same key of another box: %d new blocks", c.New)
	}
}

func fourWriters(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	var all []store.Delivery
	for i := range 40 {
		all = append(all, results(boxA, 1, uint64(i+1), epoch+int64(i), "good"))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh, lsns := 0, map[uint64]bool{}
	for w := range 4 {
		wg.Go(func() {
			for i := range len(all) {
				d := all[(i*7+w*11)%len(all)]
				c, err := s.Ingest(ctx, []store.Delivery{d}, effects)
				mu.Lock()
				if err != nil || lsns[c.LSN] {
					t.Errorf("commit at %d (seen before: %v): %v", c.LSN, lsns[c.LSN], err)
				}
				fresh += c.New
				lsns[c.LSN] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := box(t, s, boxA).Reads.Total; got != 40 || fresh != 40 || len(keysOf(t, s, boxA)) != 40 {
		t.Errorf("%d results from %d new blocks, want 40", got, fresh)
	}
}

func allOrNothing(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	before := ingest(t, s, samples(boxA, 1, 1, epoch, 40))
	broken := errors.New("broken")
	batch := []store.Delivery{samples(boxA, 1, 2, epoch, 90), results(boxA, 1, 3, epoch, "good")}
	_, err := s.Ingest(ctx, batch, func(d store.Delivery) (store.Effects, error) {
		if d.Results != nil {
			return store.Effects{}, broken
		}
		return effects(d)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("error %v", err)
	}
	b := box(t, s, boxA)
	if len(keysOf(t, s, boxA)) != 1 || maps.Collect(b.Latest.All())["temp_die_celsius"].Value != 40 || b.Reads.Total != 0 {
		t.Errorf("left behind: %v %+v", keysOf(t, s, boxA), b)
	}
	if c := ingest(t, s, batch...); c.New != 2 || c.LSN <= before.LSN {
		t.Errorf("the second try: %+v", c)
	}
}

func phase(name string) wire.PhaseBody {
	return wire.PhaseBody{Name: "m", Version: "1", Digest: "sha256:00", Rollout: "r", Phase: name}
}

func lateNews(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	ingest(t, s, samples(boxA, 1, 2, epoch+60_000, 60, 61), event(boxA, 1, 2, epoch+10, wire.EventModelPhase, phase("active")),
		event(boxA, 1, 3, epoch+20, wire.EventRunning, wire.Running{Generation: 2}))
	ingest(t, s, samples(boxA, 1, 1, epoch, 99), event(boxA, 1, 1, epoch, wire.EventModelPhase, phase("golden")),
		event(boxA, 1, 4, epoch+15, wire.EventRunning, wire.Running{Generation: 1}))
	b := box(t, s, boxA)
	if got, _ := b.Latest.Get("temp_die_celsius"); got != (store.Latest{TimeMs: epoch + 80_000, Value: 61}) {
		t.Errorf("newest value %+v", got)
	}
	if len(b.Phases) != 1 || b.Phases[0].Phase != "active" || b.Running.Generation != 2 {
		t.Errorf("phases %+v, running %+v", b.Phases, b.Running)
	}
}

// bootClock: the calendar time of the second report is earlier, since the
// clock of the box was set between the two.
func bootClock(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	back := func(d store.Delivery) store.Delivery { d.StartMs -= 3_600_000; return d }
	ingest(t, s, event(boxA, 1, 1, epoch, wire.EventModelPhase, phase("golden")), event(boxA, 1, 2, epoch, wire.EventRunning, wire.Running{Generation: 1}))
	ingest(t, s, back(event(boxA, 1, 3, epoch+5, wire.EventModelPhase, phase("active"))), back(event(boxA, 1, 4, epoch+5, wire.EventRunning, wire.Running{Generation: 2})))
	b := box(t, s, boxA)
	if b.Phases[0].Phase != "active" || b.Running.Generation != 2 {
		t.Errorf("phase %s, running %+v", b.Phases[0].Phase, b.Running)
	}
	serves := func(name, variant string) wire.Serving { return wire.Serving{Name: name, Variant: variant} }
	ingest(t, s, event(boxA, 1, 7, epoch+9, wire.EventServing, serves("m", "fp32")), back(event(boxA, 1, 8, epoch+10, wire.EventServing, serves("m", "int8"))),
		event(boxA, 1, 9, epoch+8, wire.EventServing, serves("m", "tiny")), event(boxB, 1, 1, epoch, wire.EventServing, serves("m", "other")))
	if got, err := s.Serving(ctx, boxA); err != nil || len(got) != 1 || got["m"].Variant != "int8" {
		t.Errorf("serving %+v, %v", got, err)
	}
	for n := range 70 {
		ingest(t, s, event(boxA, 2, uint64(n+1), epoch+int64(n), wire.EventServing, serves(fmt.Sprintf("n%02d", n), "")))
	}
	if got, err := s.Serving(ctx, boxA); err != nil || len(got) != 64 || got["n69"].Name == "" || got["n00"].Name != "" {
		t.Errorf("%d models that serve, %v", len(got), err)
	}
	// Two reports in one millisecond: the later number wins, in either order.
	ingest(t, s, event(boxA, 1, 6, epoch+9, wire.EventModelPhase, phase("rolled_back")))
	ingest(t, s, event(boxA, 1, 5, epoch+9, wire.EventModelPhase, phase("trial")))
	if got := box(t, s, boxA).Phases[0].Phase; got != "rolled_back" {
		t.Errorf("phase %s", got)
	}
}

// phasesBounded: the last report comes from a clock that was lost, and stays.
func phasesBounded(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	of := func(n int) wire.PhaseBody {
		p := phase("active")
		p.Digest = fmt.Sprintf("sha256:%02d", n)
		return p
	}
	ingest(t, s, event(boxB, 1, 1, epoch, wire.EventModelPhase, of(0)))
	for n := range 70 {
		ingest(t, s, event(boxA, 1, uint64(n+1), epoch+int64(n), wire.EventModelPhase, of(n)))
	}
	ingest(t, s, event(boxA, 2, 1, epoch-1_000_000, wire.EventModelPhase, of(99)))
	got := box(t, s, boxA).Phases
	if len(got) != 65 || got[0].Digest != "sha256:99" || got[1].Digest != "sha256:06" || got[64].Digest != "sha256:69" {
		t.Errorf("%d phases, from %+v", len(got), got[0])
	}
	if got := box(t, s, boxB).Phases; len(got) != 1 {
		t.Errorf("%d phases of another box, want 1", len(got))
	}
}

func gaps(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	g := wire.Gap{SID: sid(9), Lane: 1, From: 1, To: 1<<64 - 1, Count: 3, Reason: wire.ReasonSpace, Also: []wire.GapRange{{SID: sid(8), Lane: 2, From: 4, To: 5, Count: 2}}}
	d := seal(store.Delivery{Box: boxA, StartMs: epoch, Gap: &g, Block: wire.Block{Kind: wire.KindGap, Count: 1, Payload: []byte{1}}}, 1, 0, 1)
	ingest(t, s, d, d)
	if got := rowCount(t, s, `SELECT sum(n) FROM gap`); got != 5 {
		t.Errorf("gaps of %d blocks, want 5", got)
	}
}

func unreadable(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	check(t, s.AddSchemas(ctx, []wire.Schema{schema}))
	bad := samples(boxA, 1, 1, epoch, 40)
	bad.Samples = nil
	bad.Block.Payload = []byte("garbage")
	check(t, wire.Seal(&bad.Block))
	good := samples(boxA, 1, 2, epoch+60_000, 41)
	if c := ingest(t, s, bad, good); c.New != 2 {
		t.Fatalf("%+v", c)
	}
	n := 0
	check(t, s.Samples(ctx, boxA, time.UnixMilli(epoch), time.UnixMilli(epoch+120_000), func(int64, wire.Samples) error { n++; return nil }))
	if n != 1 || keysOf(t, s, boxA)[bad.Block.Key] != 1 {
		t.Errorf("charted %d blocks; keys %v", n, keysOf(t, s, boxA))
	}
}

func charted(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	check(t, s.AddSchemas(ctx, []wire.Schema{schema}))
	for _, i := range []int{3, 0, 2, 1} {
		ingest(t, s, samples(boxA, 1, uint64(i+1), epoch+int64(i)*60_000, float64(i), float64(i), float64(i)), samples(boxB, 1, uint64(i+1), epoch, 9))
		s.NextEra()
	}
	// The block of minute 0 ends at 40 s: a span from there on touches it.
	for _, c := range []struct {
		from, to int64
		want     []float64
	}{{0, 240_000, []float64{0, 1, 2, 3}}, {40_000, 120_000, []float64{0, 1}}, {40_001, 120_001, []float64{1, 2}}, {240_000, 300_000, nil}} {
		var got []float64
		check(t, s.Samples(ctx, boxA, time.UnixMilli(epoch+c.from), time.UnixMilli(epoch+c.to), func(_ int64, sm wire.Samples) error {
			got = append(got, sm.Values[0][0])
			return nil
		}))
		if !slices.Equal(got, c.want) {
			t.Errorf("from %d to %d: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func schemas(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	check(t, s.AddSchemas(ctx, []wire.Schema{schema, schema}))
	if got, err := s.Schema(ctx, wire.SchemaIDOf(schema)); err != nil || len(got.Metrics) != 2 {
		t.Errorf("schema %v, %v", got, err)
	}
	if _, err := s.Schema(ctx, wire.SchemaID{9}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown schema: %v", err)
	}
	var many []store.Delivery
	for i := range wire.MaxKnownSchemas + 5 {
		d := samples(boxB, 1, uint64(i+1), epoch, 1)
		d.Block.Schema = wire.SchemaID{byte(i), byte(i >> 8), 1}
		many = append(many, d)
	}
	ingest(t, s, append(many, samples(boxA, 1, 1, epoch, 40), samples(boxA, 1, 2, epoch, 40))...)
	for id, want := range map[identity.ID]int{boxA: 1, boxB: wire.MaxKnownSchemas} {
		if got, err := s.BoxSchemas(ctx, id); err != nil || len(got) != want {
			t.Errorf("%s has sent in %d schemas, want %d (%v)", id, len(got), want, err)
		}
	}
}

func reads(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	const hour = 3_600_000
	ingest(t, s, results(boxA, 1, 1, epoch-1, "good", "good"), results(boxA, 1, 2, epoch+hour-1, "bad", "good", "good"), results(boxB, 1, 1, -5, "bad"))
	for _, c := range []struct {
		since int64
		want  int64
	}{{-hour, 5}, {epoch - 1, 5}, {epoch, 4}, {epoch + hour - 1, 4}, {epoch + hour, 2}, {epoch + 2*hour, 0}} {
		if b, err := s.Box(ctx, boxA, c.since); err != nil || b.Reads.Total != c.want {
			t.Errorf("since %d: %+v, want %d (%v)", c.since-epoch, b.Reads, c.want, err)
		}
	}
	if b, err := s.Box(ctx, boxB, 0); err != nil || b.Reads.Total != 0 {
		t.Errorf("a read before 1970 counts after it: %+v, %v", b.Reads, err)
	}
}

func boxes(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	enrolTwo(t, s)
	if err := s.AddBox(ctx, "d-ccccccccccccc", "box-a", "x"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a name taken twice: %v", err)
	}
	if known, err := s.Known(ctx, boxA); !known || err != nil {
		t.Errorf("known %v, %v", known, err)
	}
	if known, err := s.Known(ctx, "d-ccccccccccccc"); known || err != nil {
		t.Errorf("unknown box is known %v, %v", known, err)
	}
	if _, err := s.Box(ctx, "d-ccccccccccccc", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown box: %v", err)
	}
	if err := s.Hello(ctx, "d-ccccccccccccc", wire.Hello{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("hello of an unknown box: %v", err)
	}
	all, err := s.Boxes(ctx, 0)
	if err != nil || len(all) != 2 || all[0].Name != "box-a" || all[1].Site != "krakow" {
		t.Errorf("boxes %+v, %v", all, err)
	}
}

func hello(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	boot := wire.BootID{1}
	if _, known, err := s.BootOffset(ctx, boxA, boot); known || err != nil {
		t.Errorf("offset before hello: %v, %v", known, err)
	}
	ingest(t, s, event(boxA, 1, 1, epoch+9_000, wire.EventRunning, wire.Running{Generation: 5}))
	h := wire.Hello{Clock: wire.Clock{Boot: boot, MonoMs: 5_000}, Running: wire.Running{Generation: 3, Models: []wire.RunningModel{{Name: "m"}}},
		Inventory: wire.Inventory{Class: "itx", Runner: "1.0"}, Buffer: wire.Buffer{Blocks: 4}}
	check(t, s.Hello(ctx, boxA, h))
	off, known, err := s.BootOffset(ctx, boxA, boot)
	if off != epoch-5_000 || !known || err != nil {
		t.Errorf("offset %d, %v, %v", off, known, err)
	}
	b := box(t, s, boxA)
	if !b.Connected || b.LastSeenMs != epoch || b.Running.Generation != 3 || b.Inventory.Class != "itx" || b.Buffer.Blocks != 4 {
		t.Errorf("after hello: %+v", b)
	}
	h.Inventory.Runner, h.Running = "", wire.Running{Generation: 4}
	check(t, s.Hello(ctx, boxA, h))
	if b := box(t, s, boxA); b.Running.Generation != 4 || len(b.Running.Models) != 1 {
		t.Errorf("after the hello of an agent whose runner has not answered: %+v", b.Running)
	}
	if gone, err := s.EndSession(ctx, boxA, h.SID, h.Conn+1); gone || err != nil {
		t.Errorf("the end of another connection counted: %v", err)
	}
	if gone, err := s.EndSession(ctx, boxA, h.SID, h.Conn); !gone || err != nil {
		t.Errorf("end of the session: %v, %v", gone, err)
	}
	d := event(boxA, 2, 1, epoch+10_000, wire.EventStarted, nil)
	d.Behind = &wire.Buffer{Blocks: 7}
	ingest(t, s, d)
	if b := box(t, s, boxA); b.Connected || b.Buffer.Blocks != 7 {
		t.Errorf("after the session: %+v", b)
	}
}

// TestPathsWithAnySignWork: the path is not read as a query.
func siteWaits(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	waits := func(when string, want int64) {
		t.Helper()
		sites, err := s.SiteCounts(ctx)
		check(t, err)
		if got := sites["berlin"]; got != (store.SiteCount{Boxes: 1, Connected: 1, WaitingBytes: want}) {
			t.Errorf("%s: %+v, want %d bytes", when, got, want)
		}
	}
	check(t, s.Hello(ctx, boxA, wire.Hello{Buffer: wire.Buffer{Bytes: 5000}}))
	waits("after the HELLO", 5000)
	d := samples(boxA, 1, 1, epoch, 20)
	d.Behind = &wire.Buffer{Bytes: 70}
	ingest(t, s, d)
	waits("after a message", 70)
	check(t, s.Hello(ctx, boxA, wire.Hello{Buffer: wire.Buffer{Bytes: 9}}))
	waits("after the next HELLO", 9)
}

func TestPathsWithAnySignWork(t *testing.T) {
	for _, name := range []string{"a b.db", "50%20.db", "what?.db", "x#y.db", "a&b=c.db", "ü.db"} {
		path := filepath.Join(t.TempDir(), name)
		open(t, path).Close()
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); !slices.Contains(found, path) {
			t.Errorf("%q was stored as %v", name, found)
		}
	}
}

func TestPathsMayBeRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	open(t, "store.db").Close()
	open(t, fmt.Sprintf(".%cstore.db", filepath.Separator)).Close()
	if found, _ := filepath.Glob("*"); !slices.Equal(found, []string{"store.db"}) {
		t.Errorf("files: %v", found)
	}
}
