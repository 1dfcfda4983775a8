package bench

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const (
	ingestBoxes  = 200                      // one block a box and commit
	ingestRounds = 60                       // an hour
	ingestStart  = int64(1_795_305_600_000) // 2026-11-22, Unix milliseconds
)

// blockWriter makes the blocks that a fleet sends minute by minute.
type blockWriter struct {
	t       *testing.T
	boxes   []identity.ID
	samples []wire.Samples
	minute  int
}

func newBlockWriter(t *testing.T, s *store.Store) *blockWriter {
	t.Helper()
	return newBlockWriterOf(t, s, ingestBoxes)
}

func newBlockWriterOf(t *testing.T, s *store.Store, boxes int) *blockWriter {
	t.Helper()
	w := &blockWriter{t: t, samples: sensorBlocks(ingestRounds)}
	for i := range boxes {
		w.boxes = append(w.boxes, identity.NewID())
		check(t, s.AddBox(t.Context(), w.boxes[i], fmt.Sprint("box-", i), "site"))
	}
	check(t, s.AddSchemas(t.Context(), []wire.Schema{w.samples[0].Schema}))
	return w
}

// next is one block of each box.
func (w *blockWriter) next() []store.Delivery {
	w.t.Helper()
	s := w.samples[w.minute%len(w.samples)]
	payload, err := wire.EncodeSamples(s)
	check(w.t, err)
	at := int64(w.minute) * 60_000
	w.minute++
	out := make([]store.Delivery, len(w.boxes))
	for i, id := range w.boxes {
		b := wire.Block{
			Key: wire.Key{SID: wire.SID{byte(i), byte(i >> 8)}, Lane: wire.LaneTelemetry, Seq: uint64(w.minute)}, Kind: wire.KindSamples,
			Boot: wire.BootID{1}, MonoMs: at, WallMs: ingestStart + at, Quality: wire.TimeSynced, Schema: wire.SchemaIDOf(s.Schema),
			Count: uint32(len(s.TimesMs)), SpanMs: s.TimesMs[len(s.TimesMs)-1], Payload: payload,
		}
		check(w.t, wire.Seal(&b))
		out[i] = store.Delivery{Box: id, Block: b, StartMs: b.WallMs, Samples: &s, Schema: &s.Schema}
	}
	return out
}

// nextPacks is one pack of ten blocks of each box.
func (w *blockWriter) nextPacks() []store.Delivery {
	w.t.Helper()
	blocks := make([][]wire.Block, len(w.boxes))
	for range packMinutes {
		for i, d := range w.next() {
			blocks[i] = append(blocks[i], d.Block)
		}
	}
	schema := w.samples[0].Schema
	out := make([]store.Delivery, len(w.boxes))
	for i, id := range w.boxes {
		p, err := wire.PackBlocks(schema, blocks[i])
		check(w.t, err)
		s, err := p.Samples(schema)
		check(w.t, err)
		d := store.Delivery{Box: id, Pack: &p, StartMs: p.Members[0].WallMs, Samples: &s, Schema: &schema}
		for _, m := range p.Members {
			d.Starts = append(d.Starts, m.WallMs)
		}
		out[i] = d
	}
	return out
}

// ingestRate compares samples per second that the store commits as sealed
// blocks and as packs to the same samples as narrow rows in the same engine
// with the same settings, and measures the whole way in, from message to
// acknowledgement, beside it.
//
// Counted for blocks and packs are the newest values, the keys of all blocks,
// and the hourly values of packs; those of blocks follow when their hours are
// merged, which with-compaction counts. Narrow rows (box, metric, time, value)
// have their primary key, which makes them idempotent, and nothing else: no
// newest and no hourly values, but those of packs-same-answers, which sum up a
// message before they store least, greatest, sum and number by the hour. They come box by box, as messages do, in the
// order in which they were taken; 10,000 share a transaction. What is left to
// move from the log into the database is moved now and then, and counted for
// all of them.
func ingestRate(t *testing.T) []Figure {
	dir := t.TempDir()
	now := ingestStart // the controller's clock
	clock := func() time.Time { return time.UnixMilli(now) }
	open := func(name string) *store.Store {
		s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, name), WallClock: clock})
		check(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	}
	blocks, packs := open("store.db"), open("packs.db")
	narrow, narrowPacks := openNarrow(t, filepath.Join(dir, "narrow.db")), openNarrow(t, filepath.Join(dir, "narrowpacks.db"))
	answers := openNarrow(t, filepath.Join(dir, "answers.db"))
	answers.answerToo()
	direct, packed, way := newBlockWriter(t, blocks), newBlockWriter(t, packs), newWayIn(t, open("whole.db"))
	const samples = ingestBoxes * sensors * 6
	var asBlocks, asRows, asMessages, asPacks, asPackRows, asAnswers []float64
	var ofBlocks, ofRows time.Duration // to move the logs
	for round := range ingestRounds {
		asBlocks = append(asBlocks, samples/commitTime(t, blocks, direct.next(), 1).Seconds())
		asRows = append(asRows, samples/narrow.commit(lastOf(direct)).Seconds())
		asMessages = append(asMessages, samples/way.deliver().Seconds())
		if round%logRounds == logRounds-1 {
			ofBlocks, ofRows = ofBlocks+checkpointTime(t, blocks), ofRows+narrow.checkpoint()
		}
		if round < packRounds {
			ds := packed.nextPacks()
			asPacks = append(asPacks, packMinutes*samples/commitTime(t, packs, ds, packMinutes).Seconds())
			asPackRows = append(asPackRows, packMinutes*samples/narrowPacks.commit(ds).Seconds())
			asAnswers = append(asAnswers, packMinutes*samples/answers.commit(ds).Seconds())
		}
	}
	ofPacks, ofPackRows, ofAnswers := checkpointTime(t, packs), narrowPacks.checkpoint(), answers.checkpoint()
	// The hours are closed: what it costs to merge them.
	now += 3 * 3_600_000
	blockMerge, all := compactTime(t, blocks)+checkpointTime(t, blocks), float64(samples*direct.minute)
	summedUp(t, packs, packed.boxes[0]) // packs bring their rollups along
	with := func(rates []float64, rest ...time.Duration) float64 {
		perSample := 1 / median(rates)
		for _, d := range rest {
			perSample += d.Seconds() / all // an hour, of packs as well
		}
		return 1 / perSample
	}
	asBlock, asPack := with(asBlocks, ofBlocks), with(asPacks, ofPacks)
	rows, packRows := with(asRows, ofRows), with(asPackRows, ofPackRows)
	return []Figure{
		Figure{Value: asBlock, Unit: "1/s", Goal: Goal{AtLeast: 12}}.Against("narrow rows", rows),
		Figure{Name: "with-compaction", Value: with(asBlocks, ofBlocks, blockMerge), Unit: "1/s", Goal: Goal{AtLeast: 12}}.Against("narrow rows", rows),
		Figure{Name: "packs", Value: asPack, Unit: "1/s", Goal: Goal{AtLeast: 100}}.Against("narrow rows", packRows),
		Figure{Name: "packs-same-answers", Value: asPack, Unit: "1/s"}.Against("narrow rows with newest and hourly values", with(asAnswers, ofAnswers)),
		Figure{Name: "message-to-ack", Value: median(asMessages), Unit: "1/s"}.Against("narrow rows", rows),
		{Name: "blocks", Value: asBlock / (sensors * 6), Unit: "1/s"},
		{Name: "compaction-per-block", Value: float64(blockMerge.Microseconds()) / (all / (sensors * 6)), Unit: "us"},
	}
}

const (
	packMinutes = 10
	packRounds  = 6  // an hour: narrow rows of packs take their time
	logRounds   = 10 // a tenth of a second or so; the controller waits for seconds
)

// lastOf returns what the writer gave last.
func lastOf(w *blockWriter) []store.Delivery {
	w.minute--
	return w.next()
}

func commitTime(t *testing.T, s *store.Store, ds []store.Delivery, each int) time.Duration {
	t.Helper()
	began := time.Now()
	c, err := s.Ingest(t.Context(), ds, func(store.Delivery) (store.Effects, error) { return store.Effects{}, nil })
	took := time.Since(began)
	check(t, err)
	if c.New != each*len(ds) {
		t.Fatalf("%d of %d blocks are new", c.New, each*len(ds))
	}
	return took
}

// checkpointTime moves what the log has into the database.
func checkpointTime(t *testing.T, s *store.Store) time.Duration {
	t.Helper()
	began := time.Now()
	check(t, s.Checkpoint(t.Context()))
	return time.Since(began)
}

// summedUp checks that the hourly values of a box, which sent packs for an
// hour, are stored: nothing is left to be merged or summed up.
func summedUp(t *testing.T, s *store.Store, box identity.ID) {
	t.Helper()
	if c, err := s.Compact(t.Context(), 1); err != nil || c != (store.Compacted{}) {
		t.Fatalf("packs were merged: %+v, %v", c, err)
	}
	schemas, err := s.BoxSchemas(t.Context(), box)
	check(t, err)
	schema, err := s.Schema(t.Context(), schemas[0])
	check(t, err)
	q, n := store.Question{Box: box, From: time.UnixMilli(0), To: time.UnixMilli(2 * ingestStart)}, 0
	for _, m := range schema.Metrics {
		q.Metrics = append(q.Metrics, m.Name)
	}
	check(t, s.Rollups(t.Context(), q, func(_ int64, values []store.Rollup) {
		for _, v := range values {
			n += v.N
		}
	}))
	if want := sensors * 6 * packMinutes * packRounds; n != want {
		t.Fatalf("hourly values of %d samples, want %d", n, want)
	}
}

// compactTime merges all hours.
func compactTime(t *testing.T, s *store.Store) time.Duration {
	t.Helper()
	began, hours := time.Now(), 0
	for {
		c, err := s.Compact(t.Context(), 5000)
		check(t, err)
		if hours += c.Hours; c.Hours == 0 {
			break
		}
	}
	if hours < ingestBoxes {
		t.Fatalf("%d hours of %d boxes were merged", hours, ingestBoxes)
	}
	return time.Since(began)
}

// narrowTable is the usual table of metrics, with numbers for names.
type narrowTable struct {
	t      *testing.T
	db     *sql.DB
	insert *sql.Stmt

	hour, newest *sql.Stmt // set by answerToo
}

// answerToo keeps newest and hourly values beside the rows.
func (n *narrowTable) answerToo() {
	n.t.Helper()
	_, err := n.db.Exec(`CREATE TABLE hour (box INTEGER, metric INTEGER, hour_ms INTEGER, least REAL, greatest REAL, sum REAL, n INTEGER, PRIMARY KEY (box, metric, hour_ms)) WITHOUT ROWID;
		CREATE TABLE newest (box INTEGER, metric INTEGER, t_ms INTEGER, value REAL, PRIMARY KEY (box, metric)) WITHOUT ROWID`)
	check(n.t, err)
	n.hour, err = n.db.Prepare(`INSERT INTO hour VALUES (?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET least = min(least, excluded.least),
		greatest = max(greatest, excluded.greatest), sum = sum + excluded.sum, n = n + excluded.n`)
	check(n.t, err)
	n.newest, err = n.db.Prepare(`INSERT INTO newest VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET t_ms = excluded.t_ms, value = excluded.value WHERE excluded.t_ms >= t_ms`)
	check(n.t, err)
	n.t.Cleanup(func() { n.hour.Close(); n.newest.Close() })
}

// answer stores what follows from a message of a box: its times are in order.
func (n *narrowTable) answer(tx *sql.Tx, box int, d store.Delivery) {
	n.t.Helper()
	const hourMs = 3_600_000
	hour, newest := tx.Stmt(n.hour), tx.Stmt(n.newest)
	for m, column := range d.Samples.Values {
		for from := 0; from < len(column); {
			at := (d.StartMs + d.Samples.TimesMs[from]) / hourMs
			least, greatest, sum, to := column[from], column[from], 0.0, from
			for ; to < len(column) && (d.StartMs+d.Samples.TimesMs[to])/hourMs == at; to++ {
				least, greatest, sum = min(least, column[to]), max(greatest, column[to]), sum+column[to]
			}
			_, err := hour.Exec(box, m, at*hourMs, least, greatest, sum, to-from)
			check(n.t, err)
			from = to
		}
		last := len(column) - 1
		_, err := newest.Exec(box, m, d.StartMs+d.Samples.TimesMs[last], column[last])
		check(n.t, err)
	}
}

func openNarrow(t *testing.T, path string) *narrowTable {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"+
		"&_pragma=cache_size(-16384)&_pragma=wal_autocheckpoint(16384)") // as the store has it
	check(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`CREATE TABLE sample (box INTEGER, metric INTEGER, t_ms INTEGER, value REAL, PRIMARY KEY (box, metric, t_ms)) WITHOUT ROWID`)
	check(t, err)
	insert, err := db.Prepare(`INSERT INTO sample VALUES (?,?,?,?) ON CONFLICT DO NOTHING`)
	check(t, err)
	t.Cleanup(func() { insert.Close() })
	return &narrowTable{t: t, db: db, insert: insert}
}

// narrowBatch is how many rows one transaction takes, as usual for such tables.
const narrowBatch = 10_000

// commit stores every sample of ds as a row, in the order in which they were
// taken on each box.
func (n *narrowTable) commit(ds []store.Delivery) time.Duration {
	n.t.Helper()
	began := time.Now()
	batch := n.begin()
	for box, d := range ds {
		if n.hour != nil {
			n.answer(batch.tx, box, d)
		}
		for row, ms := range d.Samples.TimesMs { // starts of packs are those of their first member
			for m, column := range d.Samples.Values {
				_, err := batch.insert.Exec(box, m, d.StartMs+ms, column[row])
				check(n.t, err)
				if batch.rows++; batch.rows == narrowBatch {
					check(n.t, batch.tx.Commit())
					batch = n.begin()
				}
			}
		}
	}
	check(n.t, batch.tx.Commit())
	return time.Since(began)
}

func (n *narrowTable) checkpoint() time.Duration {
	n.t.Helper()
	began := time.Now()
	_, err := n.db.Exec(`PRAGMA wal_checkpoint(PASSIVE)`)
	check(n.t, err)
	return time.Since(began)
}

type narrowRows struct {
	tx     *sql.Tx
	insert *sql.Stmt
	rows   int
}

func (n *narrowTable) begin() narrowRows {
	n.t.Helper()
	tx, err := n.db.Begin()
	check(n.t, err)
	return narrowRows{tx: tx, insert: tx.Stmt(n.insert)}
}

// wayIn is ingest with its checks, as the broker calls it.
type wayIn struct {
	*blockWriter
	in *ingest.Ingest
}

func newWayIn(t *testing.T, s *store.Store) wayIn {
	t.Helper()
	in := ingest.New(ingest.Options{
		Store: s, Publish: func(identity.ID, wire.Topic, []byte, byte) error { return nil },
	}, slog.New(slog.DiscardHandler))
	background(t, in.Run)
	return wayIn{newBlockWriter(t, s), in}
}

// deliver sends one message of each box at the same time.
func (w wayIn) deliver() time.Duration {
	w.t.Helper()
	var messages [][]byte
	for _, d := range w.next() {
		m, err := wire.Encode(wire.Data{Blocks: []wire.Block{d.Block}})
		check(w.t, err)
		messages = append(messages, m)
	}
	var all sync.WaitGroup
	began := time.Now()
	for i, id := range w.boxes {
		all.Go(func() {
			if err := w.in.Deliver(context.Background(), id, wire.TopicData, messages[i]); err != nil {
				w.t.Error(err)
			}
		})
	}
	all.Wait()
	return time.Since(began)
}
