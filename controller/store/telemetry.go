package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// What one transaction of Ingest writes is collected here and written with few
// statements for many rows: on a network each statement is a round trip.

// rowBits of a row's id number the rows of one commit; above is its LSN. So
// ids grow in the order of commits.
const rowBits = 20

var (
	insertSamples = many{head: `INSERT INTO sample (id, era, box, t0_ms, t1_ms, body) VALUES `, row: `(?,?,?,?,?,?)`, width: 6}
	insertHours   = many{head: `INSERT INTO sample_hour (box, hour_ms, part, rev, lsn, t0_ms, t1_ms, rollups, body) VALUES `, row: `(?,?,?,1,?,?,?,?,?)`, width: 8}
	insertRollups = many{head: `INSERT INTO rollup_hour (box, hour_ms, part, body) VALUES `, row: `(?,?,?,?)`, width: 4, tail: ` ON CONFLICT DO NOTHING`}
	insertBlocks  = many{head: `INSERT INTO block (id, box, kind, t0_ms, t1_ms, received_ms, body) VALUES `, row: `(?,?,?,?,?,?,?)`, width: 7}
	insertEvents  = many{head: `INSERT INTO event (box, t_ms, type, text, body) VALUES `, row: `(?,?,?,?,?)`, width: 5}
	insertResults = many{head: `INSERT INTO result (box, t_ms, input, pipeline, item, text, want, score, latency, models) VALUES `, row: `(?,?,?,?,?,?,?,?,?,?)`, width: 10}
	insertGaps    = many{head: `INSERT INTO gap (box, sid, lane, lo, hi, n, reason, t_ms) VALUES `, row: `(?,?,?,?,?,?,?,?)`, width: 8}
	countReads    = many{
		head: `INSERT INTO reads_hour (hour_ms, box, total, checked, correct) VALUES `, row: `(?,?,?,?,?)`, width: 5,
		tail: ` ON CONFLICT (hour_ms, box) DO UPDATE SET total = reads_hour.total + excluded.total,
			checked = reads_hour.checked + excluded.checked, correct = reads_hour.correct + excluded.correct`,
	}
)

// commit is one transaction of Ingest.
type commit struct {
	s     *Store
	tx    *tx
	lsn   uint64
	era   any // of its rows of sample
	nowMs int64
	keys  *keySet
	rows  int64       // numbered so far
	whole [][]packRow // of all deliveries, see prepare

	samples, blocks, events, results, gaps []any
	packs                                  []any
	reads                                  map[readsKey]Reads
	drift                                  map[driftKey][]drift.Sketch
	boxes                                  map[identity.ID]*boxCommit
	order                                  []*boxCommit // of boxes, by id
}

type readsKey struct {
	hourMs int64
	box    identity.ID
}

// boxCommit is what one transaction changes of a box.
type boxCommit struct {
	id     identity.ID
	name   any // id as an argument of statements: each box has many
	behind *wire.Buffer
	fresh  []*Delivery // with samples
	row    newestRow   // as it was, and as it is to be
	open   []chunkID   // of row
}

func (c *commit) box(id identity.ID) *boxCommit {
	b := c.boxes[id]
	if b == nil {
		b = &boxCommit{id: id, name: string(id)}
		c.boxes[id], c.order = b, append(c.order, b)
	}
	return b
}

func (c *commit) id() int64 {
	c.rows++
	return int64(c.lsn)<<rowBits | (c.rows - 1)
}

// take adds d if it has a key that is new, and returns how many it has.
func (c *commit) take(d *Delivery) (fresh int, err error) {
	b := c.box(d.Box)
	if d.Behind != nil || b.behind == nil {
		b.behind = d.Behind
	}
	d.fresh = make([]bool, d.size())
	d.eachKey(func(i int, k wire.Key) {
		if d.fresh[i] = c.keys.add(d.Box, k); d.fresh[i] {
			fresh++
		}
	})
	if fresh == 0 {
		return 0, nil
	}
	if d.Pack != nil {
		err = c.addPack(d, fresh, b.name)
	} else if body := encodeBlock(&d.Block, d.StartMs); d.Samples != nil {
		c.samples = append(c.samples, c.id(), c.era, b.name, d.StartMs, d.StartMs+d.Block.SpanMs, body)
	} else {
		c.blocks = append(c.blocks, c.id(), b.name, int64(d.Block.Kind), d.StartMs, d.StartMs+d.Block.SpanMs, c.nowMs, body)
	}
	if d.Samples != nil || d.Rows != nil {
		b.fresh = append(b.fresh, d)
	}
	return fresh, errors.Join(err, c.derive(d))
}

// derive adds what follows from the content of d beside its samples.
func (c *commit) derive(d *Delivery) error {
	for _, ev := range d.Events {
		if ev.Type == wire.EventHours || ev.Type == wire.EventServing && ev.Text == "" {
			continue // they have a table of their own
		}
		c.events = append(c.events, string(d.Box), d.StartMs+ev.MonoMs-d.Block.MonoMs, ev.Type, ev.Text, string(ev.Body))
	}
	for _, r := range d.Results {
		names, err := json.Marshal(r.Models)
		if err != nil {
			return err
		}
		c.results = append(c.results, string(d.Box), r.WallMs, r.Input, r.Pipeline, r.Item, r.Text, r.Want, float64(r.ScorePPM)/1e6, float64(r.LatencyUs)/1e6, string(names))
		k := readsKey{hourOf(r.WallMs), d.Box}
		n := c.reads[k]
		n.Total++
		if r.Want != "" {
			n.Checked++
			if r.Want == r.Text {
				n.Right++
			}
		}
		c.reads[k] = n
	}
	c.sketch(d)
	if g := d.Gap; g != nil {
		for _, r := range append([]wire.GapRange{{SID: g.SID, Lane: g.Lane, From: g.From, To: g.To, Count: g.Count}}, g.Also...) {
			c.gaps = append(c.gaps, string(d.Box), r.SID[:], int64(r.Lane), int64(r.From), int64(r.To), int64(r.Count), g.Reason, d.StartMs)
		}
	}
	return nil
}

// save writes all that was collected but what changes of boxes.
func (c *commit) save(ctx context.Context) error {
	if err := c.saveKeys(ctx); err != nil {
		return err
	}
	var reads []any
	for k, n := range c.reads {
		reads = append(reads, k.hourMs, string(k.box), n.Total, n.Checked, n.Right)
	}
	for _, w := range []struct {
		what string
		many many
		args []any
	}{
		{"samples", insertSamples, c.samples}, {"packs", insertHours, c.packs},
		{"blocks", insertBlocks, c.blocks}, {"events", insertEvents, c.events},
		{"results", insertResults, c.results}, {"counts of results", countReads, reads}, {"gaps", insertGaps, c.gaps},
	} {
		if _, err := c.tx.execMany(ctx, w.many, w.args); err != nil {
			return fmt.Errorf("store %s: %w", w.what, err)
		}
	}
	return nil
}

// schemaIDs is a list of schemas as a box's row has it, the newest last.
type schemaIDs []byte

func (l schemaIDs) has(id wire.SchemaID) bool {
	for ; len(l) >= len(id); l = l[len(id):] {
		if [8]byte(l) == id {
			return true
		}
	}
	return false
}

// with adds id and forgets the oldest beyond what a WELCOME can name.
func (l schemaIDs) with(id wire.SchemaID) schemaIDs {
	l = append(slices.Clone(l), id[:]...)
	if most := wire.MaxKnownSchemas * len(id); len(l) > most {
		l = l[len(l)-most:]
	}
	return l
}

func (l schemaIDs) newestFirst() []wire.SchemaID {
	var out []wire.SchemaID
	for ; len(l) >= 8; l = l[:len(l)-8] {
		out = append(out, wire.SchemaID(l[len(l)-8:]))
	}
	return out
}
