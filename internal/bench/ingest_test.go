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
	ingestBoxes  = 200 // one block a box and commit
	ingestRounds = 12
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
	w := &blockWriter{t: t, samples: sensorBlocks(ingestRounds)}
	for i := range ingestBoxes {
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

// ingestRate compares samples per second that the store commits as sealed
// blocks (with newest values and hourly rollups) to the same samples as narrow
// rows in the same engine with the same settings, and measures the whole way
// in, from message to acknowledgement, beside it.
func ingestRate(t *testing.T) []Figure {
	dir := t.TempDir()
	blocks, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db")})
	check(t, err)
	defer blocks.Close()
	whole, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "whole.db")})
	check(t, err)
	defer whole.Close()
	narrow := openNarrow(t, filepath.Join(dir, "narrow.db"))
	direct, way := newBlockWriter(t, blocks), newWayIn(t, whole)
	none := func(store.Delivery) (store.Effects, error) { return store.Effects{}, nil }
	const samples = ingestBoxes * sensors * 6
	var asBlocks, asRows, asMessages []float64
	for range ingestRounds {
		ds := direct.next()
		began := time.Now()
		c, err := blocks.Ingest(t.Context(), ds, none)
		check(t, err)
		asBlocks = append(asBlocks, samples/time.Since(began).Seconds())
		if c.New != len(ds) {
			t.Fatalf("%d of %d blocks are new", c.New, len(ds))
		}
		asRows = append(asRows, samples/narrow.commit(ds).Seconds())
		asMessages = append(asMessages, samples/way.deliver().Seconds())
	}
	rows := median(asRows)
	return []Figure{
		Figure{Value: median(asBlocks), Unit: "1/s", Goal: Goal{AtLeast: 12}}.Against("narrow rows", rows),
		Figure{Name: "message-to-ack", Value: median(asMessages), Unit: "1/s"}.Against("narrow rows", rows),
		{Name: "blocks", Value: median(asBlocks) / (sensors * 6), Unit: "1/s"},
	}
}

// narrowTable is the usual table of metrics, with numbers for names.
type narrowTable struct {
	t  *testing.T
	db *sql.DB
}

func openNarrow(t *testing.T, path string) *narrowTable {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	check(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	_, err = db.Exec(`CREATE TABLE sample (box INTEGER, metric INTEGER, t_ms INTEGER, value REAL, PRIMARY KEY (box, metric, t_ms)) WITHOUT ROWID`)
	check(t, err)
	return &narrowTable{t, db}
}

// commit stores every sample of ds as a row, in one transaction.
func (n *narrowTable) commit(ds []store.Delivery) time.Duration {
	n.t.Helper()
	began := time.Now()
	tx, err := n.db.Begin()
	check(n.t, err)
	insert, err := tx.Prepare(`INSERT INTO sample VALUES (?,?,?,?) ON CONFLICT DO NOTHING`)
	check(n.t, err)
	for box, d := range ds {
		for m, column := range d.Samples.Values {
			for row, v := range column {
				_, err := insert.Exec(box, m, d.StartMs+d.Samples.TimesMs[row], v)
				check(n.t, err)
			}
		}
	}
	check(n.t, insert.Close())
	check(n.t, tx.Commit())
	return time.Since(began)
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
