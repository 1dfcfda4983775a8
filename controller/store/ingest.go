package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// MaxSpan bounds the time from the first to the last record of one block.
const MaxSpan = 24 * time.Hour

// A Delivery is one verified block with its content decoded and placed in time.
// At most one of Samples, Events, Results and Gap is set, as Block.Kind says;
// none means that the content could not be read.
type Delivery struct {
	Box     identity.ID
	Block   wire.Block
	StartMs int64 // corrected time of the first record, Unix milliseconds
	Samples *wire.Samples
	Events  []wire.Event
	Results []wire.Result
	Gap     *wire.Gap
	Schema  *wire.Schema // of Samples
	// Behind is what still waits on the box, as the message that brought the
	// block said; nil when it did not say.
	Behind *wire.Buffer
}

// Effects is what one newly stored delivery changes beside its own rows; the
// ingest layer computes it from the content, before the commit.
type Effects struct {
	Phases  []Phase
	Running *wire.Running
	// RunningMonoMs is when Running was true, in milliseconds since boot.
	RunningMonoMs int64
	// Thermal, if set, maps the stored analytics state of the box to the next.
	Thermal func(stored []byte) ([]byte, error)
}

// Phase is the last phase a box reported for one artefact.
type Phase struct {
	Box     identity.ID
	Kind    string // model or agent
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
	// New counts deliveries that were not stored before.
	New int
}

// Ingest stores deliveries in one transaction. A block whose key is stored
// already changes nothing, and is as safe as a new one when Ingest returns.
// effects is called for each new delivery.
func (s *Store) Ingest(ctx context.Context, ds []Delivery, effects func(Delivery) (Effects, error)) (Committed, error) {
	var c Committed
	err := s.write(ctx, func(t *tx) (err error) {
		c = Committed{}
		if c.Run, c.LSN, err = s.engine.stamp(ctx, t); err != nil {
			return err
		}
		if err := s.heard(ctx, t, ds); err != nil {
			return err
		}
		for _, d := range ds {
			fresh, err := s.insertBlock(ctx, t, d)
			if err != nil {
				return fmt.Errorf("store block %s of %s: %w", d.Block.Key, d.Box, err)
			}
			if !fresh {
				continue
			}
			c.New++
			e, err := effects(d)
			if err != nil {
				return fmt.Errorf("judge block %s of %s: %w", d.Block.Key, d.Box, err)
			}
			if err := s.derive(ctx, t, d, e); err != nil {
				return fmt.Errorf("store content of block %s of %s: %w", d.Block.Key, d.Box, err)
			}
		}
		return nil
	})
	return c, err
}

// heard notes when the senders were last heard and what still waits there.
func (s *Store) heard(ctx context.Context, t *tx, ds []Delivery) error {
	newest := map[identity.ID]*wire.Buffer{}
	for _, d := range ds {
		if d.Behind != nil || newest[d.Box] == nil {
			newest[d.Box] = d.Behind
		}
	}
	for id, behind := range newest {
		var buffer any // NULL keeps what is stored
		if behind != nil {
			text, err := json.Marshal(behind)
			if err != nil {
				return err
			}
			buffer = string(text)
		}
		if _, err := t.Exec(ctx, `UPDATE box SET last_seen_ms = ?, buffer = coalesce(?, buffer) WHERE id = ?`, s.now().UnixMilli(), buffer, id); err != nil {
			return fmt.Errorf("note that %s was heard: %w", id, err)
		}
	}
	return nil
}

func (s *Store) insertBlock(ctx context.Context, t *tx, d Delivery) (fresh bool, err error) {
	k := d.Block.Key
	res, err := t.Exec(ctx, `INSERT INTO block (box, sid, lane, seq, h64, kind, t0_ms, t1_ms, wall_ms, schema, n, payload, received_ms, decoded)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`,
		d.Box, k.SID[:], k.Lane, int64(k.Seq), k.H64[:], d.Block.Kind, d.StartMs, d.StartMs+d.Block.SpanMs, d.Block.WallMs,
		d.Block.Schema[:], d.Block.Count, d.Block.Payload, s.now().UnixMilli(), d.decoded())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

func (d Delivery) decoded() bool {
	return d.Samples != nil || d.Events != nil || d.Results != nil || d.Gap != nil
}

func (s *Store) derive(ctx context.Context, t *tx, d Delivery, e Effects) error {
	if d.Samples != nil {
		if err := s.deriveSamples(ctx, t, d); err != nil {
			return err
		}
	}
	for _, ev := range d.Events {
		if _, err := t.Exec(ctx, `INSERT INTO event (box, t_ms, type, text, body) VALUES (?,?,?,?,?)`,
			d.Box, d.StartMs+ev.MonoMs-d.Block.MonoMs, ev.Type, ev.Text, string(ev.Body)); err != nil {
			return err
		}
	}
	if err := deriveResults(ctx, t, d); err != nil {
		return err
	}
	if g := d.Gap; g != nil {
		for _, r := range append([]wire.GapRange{{SID: g.SID, Lane: g.Lane, From: g.From, To: g.To, Count: g.Count}}, g.Also...) {
			if _, err := t.Exec(ctx, `INSERT INTO gap (box, sid, lane, lo, hi, n, reason, t_ms) VALUES (?,?,?,?,?,?,?,?)`,
				d.Box, r.SID[:], r.Lane, int64(r.From), int64(r.To), int64(r.Count), g.Reason, d.StartMs); err != nil {
				return err
			}
		}
	}
	return applyEffects(ctx, t, d, e)
}

// keepProbe carries what a box measured of a version into its later phases,
// which do not repeat it.
const keepProbe = `CASE WHEN json_valid(phase.body) AND json_valid(excluded.body)
		AND json_type(phase.body, '$.probe') IS NOT NULL AND json_type(excluded.body, '$.probe') IS NULL
	THEN json_set(excluded.body, '$.probe', json(phase.body -> '$.probe')) ELSE excluded.body END`

func applyEffects(ctx context.Context, t *tx, d Delivery, e Effects) error {
	for _, p := range e.Phases {
		if _, err := t.Exec(ctx, `INSERT INTO phase (box, digest, rollout, kind, name, version, phase, err, body, t_ms, boot, mono_ms, seq) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT (box, digest, rollout) DO UPDATE SET phase = excluded.phase, err = excluded.err, body = `+keepProbe+`,
			t_ms = excluded.t_ms, boot = excluded.boot, mono_ms = excluded.mono_ms, seq = excluded.seq
			WHERE CASE WHEN excluded.boot = phase.boot THEN (excluded.mono_ms, excluded.seq) >= (phase.mono_ms, phase.seq)
			ELSE excluded.t_ms >= phase.t_ms END`,
			p.Box, p.Digest, p.Rollout, p.Kind, p.Name, p.Version, p.Phase, p.Err, p.Body, p.TimeMs,
			d.Block.Boot[:], p.MonoMs, int64(d.Block.Key.Seq)); err != nil {
			return err
		}
	}
	if e.Running != nil {
		at := moment{TimeMs: d.StartMs + e.RunningMonoMs - d.Block.MonoMs, Boot: d.Block.Boot.String(), MonoMs: e.RunningMonoMs, Seq: d.Block.Key.Seq}
		if err := setRunning(ctx, t, d.Box, *e.Running, at); err != nil {
			return err
		}
	}
	if e.Thermal == nil {
		return nil
	}
	var stored []byte
	if err := t.QueryRow(ctx, `SELECT thermal FROM box WHERE id = ? FOR UPDATE`, d.Box).Scan(&stored); err != nil {
		return err
	}
	next, err := e.Thermal(stored)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `UPDATE box SET thermal = ? WHERE id = ?`, string(next), d.Box)
	return err
}

// deriveResults stores results and counts them by the hour.
func deriveResults(ctx context.Context, t *tx, d Delivery) error {
	hours := map[int64]Reads{}
	for _, r := range d.Results {
		names, err := json.Marshal(r.Models)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `INSERT INTO result (box, t_ms, input, pipeline, item, text, want, score, latency, models) VALUES (?,?,?,?,?,?,?,?,?,?)`,
			d.Box, r.WallMs, r.Input, r.Pipeline, r.Item, r.Text, r.Want, float64(r.ScorePPM)/1e6, float64(r.LatencyUs)/1e6, string(names)); err != nil {
			return err
		}
		n := hours[hourOf(r.WallMs)]
		n.Total++
		if r.Want != "" {
			n.Checked++
			if r.Want == r.Text {
				n.Right++
			}
		}
		hours[hourOf(r.WallMs)] = n
	}
	for hour, n := range hours {
		if _, err := t.Exec(ctx, `INSERT INTO reads_hour (hour_ms, box, total, checked, correct) VALUES (?,?,?,?,?)
			ON CONFLICT (hour_ms, box) DO UPDATE SET total = reads_hour.total + excluded.total, checked = reads_hour.checked + excluded.checked, correct = reads_hour.correct + excluded.correct`,
			hour, d.Box, n.Total, n.Checked, n.Right); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) deriveSamples(ctx context.Context, t *tx, d Delivery) error {
	if _, err := t.Exec(ctx, `INSERT INTO box_schema (box, schema, since_ms) VALUES (?,?,?) ON CONFLICT DO NOTHING`,
		d.Box, d.Block.Schema[:], s.now().UnixMilli()); err != nil {
		return err
	}
	for m, metric := range d.Samples.Schema.Metrics {
		if err := deriveMetric(ctx, t, d, m); err != nil {
			return fmt.Errorf("metric %s: %w", metric.Name, err)
		}
	}
	return nil
}

const hourMs = 3600_000

// hourOf returns the start of the hour, of times before 1970 as well.
func hourOf(ms int64) int64 { return ms - ((ms%hourMs)+hourMs)%hourMs }

const (
	putLatest = `INSERT INTO latest (box, metric, t_ms, value) VALUES (?,?,?,?)
		ON CONFLICT (box, metric) DO UPDATE SET t_ms = excluded.t_ms, value = excluded.value WHERE excluded.t_ms >= latest.t_ms`
	addRollup = `INSERT INTO rollup_hour (box, metric, hour_ms, min, max, sum, n) VALUES (?,?,?,?,?,?,?)
		ON CONFLICT (box, metric, hour_ms) DO UPDATE SET min = min(rollup_hour.min, excluded.min), max = max(rollup_hour.max, excluded.max),
		sum = rollup_hour.sum + excluded.sum, n = rollup_hour.n + excluded.n`
)

func deriveMetric(ctx context.Context, t *tx, d Delivery, m int) error {
	name := d.Samples.Schema.Metrics[m].Name
	type agg struct {
		min, max, sum float64
		n             int
	}
	hours := map[int64]agg{}
	lastMs, lastValue, any := int64(0), 0.0, false
	for row, rel := range d.Samples.TimesMs {
		v := d.Samples.Values[m][row]
		if math.IsNaN(v) {
			continue
		}
		t := d.StartMs + rel
		if !any || t >= lastMs {
			lastMs, lastValue, any = t, v, true
		}
		hour := hourOf(t)
		a, seen := hours[hour]
		if !seen {
			a = agg{min: v, max: v}
		}
		hours[hour] = agg{min(a.min, v), max(a.max, v), a.sum + v, a.n + 1}
	}
	if !any {
		return nil
	}
	if _, err := t.Exec(ctx, putLatest, d.Box, name, lastMs, lastValue); err != nil {
		return err
	}
	for hour, a := range hours {
		if _, err := t.Exec(ctx, addRollup, d.Box, name, hour, a.min, a.max, a.sum, a.n); err != nil {
			return err
		}
	}
	return nil
}
