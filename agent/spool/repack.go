package spool

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Blocks of samples that nobody takes are packed: ten of a minute each shrink
// to two thirds, with their keys. That happens in the transaction of an append,
// since each commit costs flash.
const (
	packBlocks = 10
	packAge    = 10 * time.Minute // an ACK that is on its way has come by then
	maxSpan    = 1000             // of Seq, in one pack; see find
	maxRepacks = 20               // packs of one transaction
)

// looseRun is a run of blocks that can be one pack.
type looseRun struct {
	at     []place
	values [][]byte
	blocks []wire.Block
	rows   int
}

func (r *looseRun) takes(at place, b wire.Block) bool {
	if len(r.blocks) == 0 {
		return true
	}
	first := r.blocks[0]
	return at.life() == r.at[0].life() && b.Boot == first.Boot && b.Schema == first.Schema &&
		len(r.blocks) < packBlocks && r.rows+int(b.Count) <= wire.MaxRows && b.Key.Seq-first.Key.Seq <= maxSpan
}

func (r *looseRun) add(at place, v []byte, b wire.Block) {
	r.at, r.values, r.blocks = append(r.at, at), append(r.values, bytes.Clone(v)), append(r.blocks, b)
	r.rows += int(b.Count)
}

// repack packs runs of old loose blocks.
func (t *txn) repack() error {
	if t.state.counts.Loose <= packBlocks {
		return nil
	}
	for _, run := range t.looseRuns() {
		if err := t.packRun(run); err != nil {
			return err
		}
	}
	return nil
}

// looseRuns finds runs that are full, or that nothing can follow any more, and
// moves packFrom behind them.
func (t *txn) looseRuns() []looseRun {
	var runs []looseRun
	var run looseRun
	grows := false // what is left at the end may become more
	end := func(next place) bool {
		if len(run.blocks) > 1 {
			runs = append(runs, run)
		}
		run, t.state.packFrom = looseRun{}, next
		return len(runs) < maxRepacks
	}
	c := t.unacked[wire.LaneTelemetry].Cursor()
	for k, v := c.Seek(t.state.packFrom[:]); k != nil; k, v = c.Next() {
		at, h := place(k), headOf(v)
		if len(run.blocks) == packBlocks && !end(at) {
			return runs
		}
		if h.class != classLoose {
			if h.pack && !end(at) {
				return runs
			}
			continue // results lie between blocks of samples
		}
		p, err := readParcel(v)
		if err != nil {
			continue // Pick will tell
		}
		if !run.takes(at, p.Block) && !end(at) {
			return runs
		}
		if grows = !t.isOld(p.Block); grows {
			break
		}
		run.add(at, v, p.Block)
	}
	if len(run.blocks) == 0 {
		return runs
	}
	grows = grows || run.at[0].life() == t.spool.life
	if len(run.blocks) == packBlocks || len(run.blocks) > 1 && !grows {
		return append(runs, run)
	}
	t.state.packFrom = run.at[0]
	return runs
}

// isOld says whether a block has waited for packAge. One of an earlier boot has:
// nobody knows for how long.
func (t *txn) isOld(b wire.Block) bool {
	return b.Boot != t.spool.opts.Boot || t.spool.opts.SinceBoot().Milliseconds()-b.MonoMs-b.SpanMs >= packAge.Milliseconds()
}

// packRun puts one pack where the blocks were. Blocks that will not be packed
// stay as they are.
func (t *txn) packRun(run looseRun) error {
	p, err := t.packOf(run.blocks)
	if err != nil {
		t.spool.log.Debug("blocks not packed", "seq", run.blocks[0].Key.Seq, "err", err)
		return nil
	}
	_, err = t.replace(run.at, run.values, p)
	return err
}

func (t *txn) packOf(blocks []wire.Block) (wire.Pack, error) {
	schema, err := t.schema(blocks[0].Schema)
	if err != nil {
		return wire.Pack{}, err
	}
	return wire.PackBlocks(schema, blocks)
}

// replace puts a pack in the place of entries that have the same keys. It
// returns how much smaller it is.
func (t *txn) replace(at []place, values [][]byte, p wire.Pack) (int64, error) {
	raw, err := wire.Encode(p)
	if err != nil {
		return 0, err
	}
	freed := -cost(len(raw))
	for i, v := range values {
		n, err := t.takeUnacked(wire.LaneTelemetry, at[i], v)
		if err != nil {
			return 0, err
		}
		freed += n
	}
	return freed, t.putUnacked(wire.LaneTelemetry, at[0], entryOf(headOfPack(p), raw))
}

// schema returns a stored schema.
func (t *txn) schema(id wire.SchemaID) (wire.Schema, error) {
	if t.known.id == id && id != (wire.SchemaID{}) {
		return t.known.schema, nil
	}
	raw := t.schemas.Get(id[:])
	if raw == nil {
		return wire.Schema{}, fmt.Errorf("schema %s is not stored", id)
	}
	schema, err := wire.Decode[wire.Schema](raw)
	if err != nil {
		return wire.Schema{}, errors.Join(fmt.Errorf("schema %s", id), err)
	}
	t.known.id, t.known.schema = id, schema
	return schema, nil
}
