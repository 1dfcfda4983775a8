package spool_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// machine puts a small spool and a controller's database through steps in any
// order, and looks after each of them whether all that was appended is there.
type machine struct {
	t     *testing.T
	rng   *rand.Rand
	steps []string // for the report

	*spool.Spool
	path string
	up   time.Duration
	boot byte
	full bool // the disk takes no writes

	taken map[wire.Key]sampled // what Append promised
	gaps  map[wire.Key]wire.Gap
	acked map[wire.Key]bool // ever, by a commit of the database
	db    map[wire.Key]uint64
	run   wire.RunID
	runs  []wire.RunLSN // of the past that this database comes from
	lsn   uint64
	late  [][]wire.Key // deliveries whose ACK is still on its way
	stale bool         // the box does not know yet what the database has
}

// sampled is what the samples of a block were: of the first metric.
type sampled struct {
	n   uint32
	sum int64
}

var few = []wire.Schema{{Metrics: []wire.Metric{{Name: "a"}, {Name: "b"}}}, {Metrics: []wire.Metric{{Name: "a"}}}}

func newMachine(t *testing.T, seed uint64) *machine {
	m := &machine{
		t: t, rng: rand.New(rand.NewPCG(seed, 6)), path: path(t), up: time.Hour, boot: 1,
		taken: map[wire.Key]sampled{}, gaps: map[wire.Key]wire.Gap{}, acked: map[wire.Key]bool{}, db: map[wire.Key]uint64{}, run: wire.RunID{1},
	}
	m.open()
	return m
}

func (m *machine) open() {
	m.Spool = open(m.t, spool.Options{Path: m.path, MaxBytes: 2 << 20, Boot: wire.BootID{m.boot}, SinceBoot: func() time.Duration { return m.up }})
	spool.OnStep(m.Spool, func(what string) error {
		if m.full && what == "commit" {
			return &fs.PathError{Op: "write", Path: m.path, Err: syscall.ENOSPC}
		}
		return nil
	})
}

func (m *machine) samples(schema wire.Schema, rows int) (spool.Draft, sampled) {
	s := wire.Samples{Schema: schema}
	for i := range rows {
		s.TimesMs = append(s.TimesMs, int64(i)*1000+m.rng.Int64N(9))
	}
	wide := []int64{1, 3, 1 << 30}[m.rng.IntN(3)]
	for range schema.Metrics {
		column := make([]float64, rows)
		for i := range column {
			column[i] = float64(m.rng.Int64N(wide))
		}
		s.Values = append(s.Values, column)
	}
	return m.draft(s), sampledOf(s)
}

func sampledOf(s wire.Samples) sampled {
	sum := sampled{n: uint32(len(s.TimesMs))}
	for _, v := range s.Values[0] {
		sum.sum += int64(v)
	}
	return sum
}

func (m *machine) draft(s wire.Samples) spool.Draft {
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		m.t.Fatal(err)
	}
	rows := len(s.TimesMs)
	return spool.Draft{
		Lane: wire.LaneTelemetry, Kind: wire.KindSamples, MonoMs: m.up.Milliseconds(), WallMs: 1_700_000_000_000 + m.up.Milliseconds(),
		SpanMs: s.TimesMs[rows-1], Schema: &s.Schema, Count: uint32(rows), Payload: payload,
	}
}

// append adds some minutes of samples, with other things between.
func (m *machine) append() {
	schema, rows := few[m.rng.IntN(8)/7], []int{1, 6, 60, 360}[m.rng.IntN(4)]
	for range 1 + m.rng.IntN(60) {
		d, sum := m.samples(schema, rows)
		drafts, sums := []spool.Draft{d}, []sampled{sum}
		if m.rng.IntN(9) == 0 {
			drafts = append(drafts, draft(wire.Lane(m.rng.IntN(wire.Lanes)), len(m.taken), m.rng.IntN(3000)))
			sums = append(sums, sampled{})
		}
		keys, err := m.Append(drafts...)
		if err != nil && !m.full {
			m.t.Fatalf("append: %v", err)
		}
		for i, k := range keys {
			if _, twice := m.taken[k]; twice {
				m.t.Fatalf("key %s was given out twice", k)
			}
			m.taken[k] = sums[i]
		}
		m.up += time.Minute
	}
}

// deliver commits some of what is picked; the ACK may come later, in parts.
func (m *machine) deliver() {
	list, err := m.Pick(spool.Query{MaxParcels: 1 + m.rng.IntN(64), MaxBytes: 1 << (10 + m.rng.IntN(9)), OldFirst: m.rng.IntN(2) == 0})
	if err != nil {
		m.t.Fatal(err)
	}
	var keys []wire.Key
	for _, p := range list {
		keys = append(keys, p.Keys()...)
	}
	if m.rng.IntN(3) == 0 { // a part of it: the rest was lost on its way
		m.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		keys = keys[:m.rng.IntN(len(keys)+1)]
	}
	m.lsn++
	for _, k := range keys {
		if m.db[k] == 0 {
			m.db[k] = m.lsn
		}
	}
	m.late = append(m.late, keys)
	if m.rng.IntN(3) > 0 {
		m.ack()
	}
}

// ack brings an ACK that is on its way, in any order.
func (m *machine) ack() {
	if len(m.late) == 0 {
		return
	}
	i := m.rng.IntN(len(m.late))
	keys := m.late[i]
	if m.rng.IntN(4) > 0 {
		m.late = slices.Delete(m.late, i, i+1)
	}
	for part := range slices.Chunk(keys, 1+m.rng.IntN(300)) {
		if _, err := m.Ack(m.run, m.lsn, part); err != nil {
			if !m.full {
				m.t.Fatal(err)
			}
			continue
		}
		for _, k := range part {
			m.acked[k] = true
		}
	}
}

// restart is a clean one, or a crash; sometimes with a boot.
func (m *machine) restart() {
	if m.rng.IntN(2) == 0 && !m.full {
		if err := m.Close(); err != nil {
			m.t.Fatal(err)
		}
	} else {
		data, err := os.ReadFile(m.path)
		if err != nil {
			m.t.Fatal(err)
		}
		m.Close()
		m.path = path(m.t)
		write(m.t, m.path, data)
	}
	if m.rng.IntN(3) == 0 {
		m.boot, m.up = m.boot+1, time.Minute
	}
	m.full = false
	m.open()
	if m.rng.IntN(2) == 0 {
		m.welcome()
	}
}

// restore brings an older copy of the database back.
func (m *machine) restore() {
	to := m.rng.Uint64N(m.lsn + 1)
	if m.rng.IntN(3) == 0 {
		to = 0
	}
	m.stale = true
	maps.DeleteFunc(m.db, func(_ wire.Key, lsn uint64) bool { return lsn > to })
	if m.rng.IntN(2) == 0 {
		m.runs = nil
	}
	for i := range m.runs {
		m.runs[i].LSN = min(m.runs[i].LSN, to)
	}
	m.runs = append(m.runs, wire.RunLSN{Run: m.run, LSN: to})
	m.run, m.late = wire.RunID{m.run[0] + 1}, nil
	m.welcome()
}

// welcome says what the database has.
func (m *machine) welcome() {
	valid := append(slices.Clone(m.runs), wire.RunLSN{Run: m.run, LSN: m.lsn})
	_, err := m.Validate(valid)
	if err != nil && !m.full {
		m.t.Fatal(err)
	}
	m.stale = err != nil
}

func (m *machine) refuse() {
	list, err := m.Pick(spool.Query{MaxParcels: 3, MaxBytes: 1 << 20, OldFirst: true})
	if err != nil || len(list) == 0 {
		return
	}
	keys := list[m.rng.IntN(len(list))].Keys()
	if m.rng.IntN(2) == 0 {
		keys = keys[:1+m.rng.IntN(len(keys))]
	}
	if _, err := m.Refuse(keys); err != nil && !m.full {
		m.t.Fatal(err)
	}
}

// check compares what is in the spool with what was appended.
func (m *machine) check() {
	m.t.Helper()
	if err := spool.Recount(m.Spool); err != nil {
		m.t.Fatal(err)
	}
	list := parcels(m.t, m.Spool)
	held := map[wire.Key]sampled{}
	for _, p := range list {
		for _, k := range p.Keys() {
			if _, twice := held[k]; twice {
				m.t.Fatalf("%s is held twice", k)
			}
			held[k] = sampled{}
		}
		if p.Pack == nil && p.Block.Kind == wire.KindGap {
			g, err := wire.DecodeGap(p.Block.Payload)
			if err != nil {
				m.t.Fatal(err)
			}
			m.gaps[p.Block.Key] = g
			delete(held, p.Block.Key)
		} else if p.Pack != nil || p.Block.Kind == wire.KindSamples {
			m.checkSamples(p)
		}
	}
	for _, k := range spool.Acked(m.Spool) {
		if m.db[k] == 0 && !m.stale {
			m.t.Fatalf("%s counts as acknowledged and is not in the database", k)
		}
	}
	missing, told := int64(0), m.told()
	for k := range m.taken {
		if _, ok := held[k]; ok || m.acked[k] {
			continue
		}
		if missing++; !told(k) {
			m.t.Fatalf("%s is neither held nor acknowledged nor in a gap", k)
		}
	}
	if got := m.Buffer(); got.DroppedBlocks < missing || got.Blocks < 0 || got.Bytes < 0 || got.Window < 0 {
		m.t.Fatalf("%d blocks are missing, buffer %+v", missing, got)
	}
	for k := range held {
		if _, ok := m.taken[k]; !ok {
			m.t.Fatalf("%s was never appended", k)
		}
	}
	if info, err := os.Stat(m.path); err != nil || info.Size() > 2<<20 {
		m.t.Fatalf("file of %d bytes, %v", info.Size(), err)
	}
}

func (m *machine) told() func(wire.Key) bool {
	type lane struct {
		sid  wire.SID
		lane wire.Lane
	}
	ranges := map[lane][]wire.GapRange{}
	for _, g := range m.gaps {
		for _, r := range append([]wire.GapRange{{SID: g.SID, Lane: g.Lane, From: g.From, To: g.To}}, g.Also...) {
			at := lane{r.SID, r.Lane}
			ranges[at] = append(ranges[at], r)
		}
	}
	return func(k wire.Key) bool {
		return slices.ContainsFunc(ranges[lane{k.SID, k.Lane}], func(r wire.GapRange) bool { return r.From <= k.Seq && k.Seq <= r.To })
	}
}

// checkSamples compares number and sum of the first metric with what was appended.
func (m *machine) checkSamples(p spool.Parcel) {
	m.t.Helper()
	id, _ := p.Schema()
	schemas, err := m.Schemas(id)
	if err != nil || len(schemas) != 1 {
		m.t.Fatalf("schemas %v, %v", schemas, err)
	}
	var got, want sampled
	for _, k := range p.Keys() {
		want.n, want.sum = want.n+m.taken[k].n, want.sum+m.taken[k].sum
	}
	add := func(s wire.Samples, err error) {
		if err != nil {
			m.t.Fatal(err)
		}
		for _, v := range s.Values[0] {
			got.n, got.sum = got.n+1, got.sum+int64(v)
		}
	}
	switch {
	case p.Pack == nil:
		add(wire.DecodeSamples(schemas[0], p.Block.Payload, int(p.Block.Count)))
	case p.Pack.Grain == wire.GrainExact:
		if _, err := p.Pack.Blocks(schemas[0]); err != nil {
			m.t.Fatal(err)
		}
		add(p.Pack.Samples(schemas[0]))
	default:
		rows, err := p.Pack.Rows(schemas[0])
		if err != nil {
			m.t.Fatal(err)
		}
		for _, r := range rows {
			n := uint32(0)
			for i, one := range r.N[0] {
				if of := m.taken[p.Pack.Key(r.From+i)].n; one != of {
					m.t.Fatalf("%s counts %d samples, want %d", p.Pack.Key(r.From+i), one, of)
				}
				n += one
			}
			got.n, got.sum = got.n+n, got.sum+int64(r.Mean[0]*float64(n)+0.5)
		}
	}
	if got != want {
		m.t.Fatalf("parcel from %s holds %+v, want %+v", p.Keys()[0], got, want)
	}
}

// TestNoOrderOfStepsLosesABlock: EDGEHERD_PROVE=1 takes thousands of lives,
// RAPID_SEED one of them.
func TestNoOrderOfStepsLosesABlock(t *testing.T) {
	lives := 3
	if os.Getenv("EDGEHERD_PROVE") != "" {
		lives = 2000
	}
	first := assets.Seed(t)
	if raw := os.Getenv("RAPID_SEED"); raw != "" {
		n, err := strconv.ParseUint(raw, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, lives = n, 1
	}
	for i := range lives {
		m := newMachine(t, first+uint64(i))
		m.live(60, func() string {
			return fmt.Sprintf("RAPID_SEED=%d, after %s", first+uint64(i), strings.Join(m.steps, " "))
		})
		if t.Failed() {
			return
		}
	}
}

func (m *machine) live(steps int, report func() string) {
	defer func() {
		if m.t.Failed() {
			m.t.Log(report())
		}
	}()
	all := map[string]func(){
		"append": m.append, "more": m.append, "much": m.append, "deliver": m.deliver, "delivers": m.deliver, "ack": m.ack, "restart": m.restart,
		"restore": m.restore, "welcome": m.welcome, "refuse": m.refuse,
		"full":   func() { m.full = true },
		"healed": func() { m.full = false },
		"compact": func() {
			if err := spool.Compact(m.Spool); err != nil {
				m.t.Fatal(err)
			}
		},
		"flush": func() {
			if err := spool.Flush(m.Spool); err != nil && !m.full {
				m.t.Fatal(err)
			}
		},
	}
	names := slices.Sorted(maps.Keys(all))
	for range steps {
		name := names[m.rng.IntN(len(names))]
		m.steps = append(m.steps, name)
		all[name]()
		m.check()
	}
	m.Close()
	if files := corruptFiles(m.t, m.path); len(files) > 0 {
		m.t.Fatalf("set aside %v", files)
	}
	os.RemoveAll(filepath.Dir(m.path))
}

// TestASampleASecondBecomesCoarserToo: packs are small when values hardly
// change, and the records of many are more than one may have.
func TestASampleASecondBecomesCoarserToo(t *testing.T) {
	m := newMachine(t, 1)
	for range 200 {
		s := wire.Samples{Schema: few[1], Values: [][]float64{make([]float64, 60)}}
		for i := range 60 {
			s.TimesMs = append(s.TimesMs, int64(i)*1000)
		}
		keys, err := m.Append(m.draft(s))
		if err != nil {
			t.Fatal(err)
		}
		m.taken[keys[0]] = sampledOf(s)
		m.up += time.Minute
	}
	coarse := 0
	for n := 0; m.Buffer().DroppedBlocks == 0 && coarse < 100; n++ {
		if _, err := m.Append(draft(wire.LaneTelemetry, n, 3000)); err != nil {
			t.Fatal(err)
		}
		coarse = 0
		for _, p := range parcels(t, m.Spool) {
			if p.Pack != nil {
				m.checkSamples(p)
			}
			if p.Pack != nil && p.Pack.Grain != wire.GrainExact {
				coarse += len(p.Pack.Members)
			}
		}
	}
	if coarse < 100 {
		t.Errorf("%d of 200 blocks became coarser, %+v", coarse, m.Buffer())
	}
}

// TestAcksThatWaitedForTheDiskFit: while it took no writes the link went on, and
// there is more to move than a small file has room to copy at once.
func TestAcksThatWaitedForTheDiskFit(t *testing.T) {
	m := newMachine(t, 1)
	var keys []wire.Key
	for n := 0; m.Buffer().DroppedBlocks == 0; n++ {
		k, err := m.Append(draft(wire.LaneTelemetry, n, 300))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k...)
	}
	m.full = true
	for part := range slices.Chunk(keys, 20) {
		ack(t, m.Spool, runA, 1, part...)
	}
	if got := m.Buffer(); got.Blocks > 1 { // a gap
		t.Errorf("buffer %+v", got)
	}
	m.full = false
	if _, err := m.Append(draft(wire.LaneTelemetry, 0, 300)); err != nil {
		t.Error(err)
	}
	if err := spool.Recount(m.Spool); err != nil || m.Buffer().Window < 1000 {
		t.Errorf("buffer %+v, %v", m.Buffer(), err)
	}
}
