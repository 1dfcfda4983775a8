package store

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// MaxSpan bounds the time from the first to the last record of one block.
const MaxSpan = 24 * time.Hour

// A Delivery is one verified block or pack with its content decoded and placed
// in time. At most one of Samples, Events, Results, Gap and Rows is set, as the
// kind of the block or the grain of the pack says; none means that the content
// could not be read.
type Delivery struct {
	Box     identity.ID
	Block   wire.Block
	Pack    *wire.Pack // instead of Block
	StartMs int64      // corrected time of the first record, Unix milliseconds
	// Starts are the corrected times of the first records of the members of Pack.
	Starts  []int64
	Samples *wire.Samples // of Block, or all of an exact Pack with times from its first member
	Rows    []wire.CoarseRow
	Events  []wire.Event
	Results []wire.Result
	// Drift are the sketches that came among Results, and are no results.
	Drift  []DriftRow
	Gap    *wire.Gap
	Schema *wire.Schema // of Samples and Rows
	// Behind is what still waits on the box, as the message that brought the
	// block said; nil when it did not say.
	Behind *wire.Buffer

	fresh []bool    // which keys were new in the present transaction
	whole []packRow // of Pack, if all its members are new
}

// size is how many keys d has.
func (d *Delivery) size() int {
	if d.Pack != nil {
		return len(d.Pack.Members)
	}
	return 1
}

func (d *Delivery) eachKey(f func(int, wire.Key)) {
	if d.Pack == nil {
		f(0, d.Block.Key)
		return
	}
	for i := range d.Pack.Members {
		f(i, d.Pack.Key(i))
	}
}

func (d *Delivery) schemaID() wire.SchemaID {
	if d.Pack != nil {
		return d.Pack.Schema
	}
	return d.Block.Schema
}

// EachRow calls f with the number of each row of Samples that was not stored
// before, and with its time.
func (d *Delivery) EachRow(f func(row int, unixMs int64)) {
	if d.Pack == nil {
		for row, rel := range d.Samples.TimesMs {
			f(row, d.StartMs+rel)
		}
		return
	}
	row := 0
	for i, m := range d.Pack.Members {
		end, shift := row+int(m.Count), d.Starts[i]-(m.MonoMs-d.Pack.Members[0].MonoMs)
		for ; row < end; row++ {
			if d.fresh == nil || d.fresh[i] {
				f(row, d.Samples.TimesMs[row]+shift)
			}
		}
	}
}

// Effects is what one newly stored delivery changes beside its own rows; the
// ingest layer computes it from the content, before the commit.
type Effects struct {
	Phases  []Phase
	Running *wire.Running
	// RunningMonoMs is when Running was true, in milliseconds since boot.
	RunningMonoMs int64
	Serving       []ServingRow
	// Care is what events told of the heat of the box.
	Care CareEffects
}

// maxPhases bounds the phases of a box, of which the newest are kept: every
// list of boxes reads them all, and a box can name any artefact.
const maxPhases = 64

// Phase is the last phase a box reported for one artefact.
type Phase struct {
	Box     identity.ID
	Kind    string // model, agent or config
	Name    string
	Version string
	Digest  string
	Rollout string
	Phase   string
	Err     string
	Body    string // JSON as reported
	TimeMs  int64
	MonoMs  int64 // since boot; orders the reports of one boot
}

// Committed tells where an Ingest ended in the history of the database.
type Committed struct {
	Run wire.RunID
	LSN uint64
	// New counts blocks that were not stored before, members of packs as well.
	New int
	// NoRoom counts drift sketches that were left out, by box: it has more than
	// an hour can have.
	NoRoom map[identity.ID]int
}

// Ingest stores deliveries in one transaction. A block whose key is stored
// already changes nothing, and is as safe as a new one when Ingest returns; of
// a pack, only the members whose keys are not stored yet count. effects is
// called for each delivery that brought something new.
func (s *Store) Ingest(ctx context.Context, ds []Delivery, effects func(Delivery) (Effects, error)) (Committed, error) {
	var c Committed
	packs, err := prepare(ds)
	if err != nil {
		return c, err
	}
	rows := 0
	err = s.write(ctx, func(t *tx) (err error) {
		c = Committed{}
		if c.Run, c.LSN, err = s.engine.stamp(ctx, t); err != nil {
			return err
		}
		b := commit{s: s, tx: t, lsn: c.LSN, era: s.eras.at(c.LSN), whole: packs, nowMs: s.now().UnixMilli(), reads: map[readsKey]Reads{}, boxes: map[identity.ID]*boxCommit{}, keys: &keySet{rows: map[chunkID]*chunk{}}}
		if err := b.loadBoxes(ctx, ds); err != nil {
			return err
		}
		if err := b.loadKeys(ctx, ds); err != nil {
			return err
		}
		for i := range ds {
			d := ds[i] // a copy: the transaction may run again
			d.whole = b.whole[i]
			if d.Schema == nil && d.Samples != nil {
				d.Schema = &d.Samples.Schema
			}
			fresh, err := b.take(&d)
			if err != nil {
				return fmt.Errorf("store %s: %w", d.name(), err)
			}
			if fresh == 0 {
				continue
			}
			c.New += fresh
			e, err := effects(d)
			if err != nil {
				return fmt.Errorf("judge %s: %w", d.name(), err)
			}
			if err := applyEffects(ctx, t, d, e); err != nil {
				return fmt.Errorf("store content of %s: %w", d.name(), err)
			}
		}
		if err := b.save(ctx); err != nil {
			return err
		}
		if c.NoRoom, err = b.saveDrift(ctx); err != nil {
			return err
		}
		rows = int(b.rows)
		return b.saveBoxes(ctx)
	})
	if err == nil {
		s.eras.took(rows)
	}
	return c, err
}

// name tells of d in errors.
func (d *Delivery) name() string {
	if d.Pack != nil {
		return fmt.Sprintf("pack from %s of %s", d.Pack.Key(0), d.Box)
	}
	return fmt.Sprintf("block %s of %s", d.Block.Key, d.Box)
}

func applyEffects(ctx context.Context, t *tx, d Delivery, e Effects) error {
	for _, p := range e.Phases {
		var err error
		if p.Body, err = keepProbe(ctx, t, p); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `INSERT INTO phase (box, digest, rollout, kind, name, version, phase, err, body, t_ms, boot, mono_ms, seq) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT (box, digest, rollout) DO UPDATE SET phase = excluded.phase, err = excluded.err, body = excluded.body,
			t_ms = excluded.t_ms, boot = excluded.boot, mono_ms = excluded.mono_ms, seq = excluded.seq
			WHERE CASE WHEN excluded.boot = phase.boot THEN (excluded.mono_ms, excluded.seq) >= (phase.mono_ms, phase.seq)
			ELSE excluded.t_ms >= phase.t_ms END`,
			p.Box, p.Digest, p.Rollout, p.Kind, p.Name, p.Version, p.Phase, p.Err, p.Body, p.TimeMs,
			d.Block.Boot[:], p.MonoMs, int64(d.Block.Key.Seq)); err != nil {
			return err
		}
		// What was reported just now stays, whatever the clock of the box says.
		if _, err := t.Exec(ctx, `DELETE FROM phase WHERE box = ? AND NOT (digest = ? AND rollout = ?) AND (digest, rollout) IN
			(SELECT digest, rollout FROM phase WHERE box = ? ORDER BY t_ms DESC, digest, rollout LIMIT 1000 OFFSET ?)`,
			p.Box, p.Digest, p.Rollout, p.Box, maxPhases); err != nil {
			return fmt.Errorf("forget old phases: %w", err)
		}
	}
	for _, r := range e.Serving {
		if err := r.apply(ctx, t, d); err != nil {
			return err
		}
	}
	if err := e.Care.apply(ctx, t, d.Box); err != nil {
		return err
	}
	if e.Running != nil {
		at := moment{TimeMs: d.StartMs + e.RunningMonoMs - d.Block.MonoMs, Boot: d.Block.Boot.String(), MonoMs: e.RunningMonoMs, Seq: d.Block.Key.Seq}
		if err := setRunning(ctx, t, d.Box, *e.Running, at); err != nil {
			return err
		}
	}
	return nil
}
