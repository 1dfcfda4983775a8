package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Sample is one value of a metric.
type Sample struct {
	UnixMs int64
	Value  float64
}

// Columns is what one stored row holds of the metrics that were asked for.
type Columns struct {
	UnixMs []int64     // of each row
	Values [][]float64 // [metric asked for][row]; NaN means missing, nil: not measured there
	// Summaries are of values that are gone: the box had no room for them.
	// Median is their mean.
	Summaries []Summary
}

// Summary is what is left of some samples.
type Summary struct {
	UnixMs int64          // the middle of their time
	Values []series.Point // [metric asked for]; N is 0 for none
}

// walk calls each with the content of the rows of a box that touch [from, to),
// those of closed hours first, each of them in the order of their times.
func (s *Store) walk(ctx context.Context, id identity.ID, from, to int64, each func(t *tx, body []byte) error) error {
	scan := func(t *tx) func(*sql.Rows) error {
		return func(rows *sql.Rows) error {
			var body sql.RawBytes
			if err := rows.Scan(&body); err != nil {
				return err
			}
			return each(t, body)
		}
	}
	earliest := from - MaxSpan.Milliseconds()
	return s.snapshot(ctx, func(t *tx) error {
		err := t.each(ctx, `SELECT body FROM sample_hour WHERE box = ? AND hour_ms >= ? AND hour_ms < ? AND t0_ms < ? AND t1_ms >= ? ORDER BY hour_ms, t0_ms, part`,
			[]any{string(id), hourOf(earliest), to, to, from}, scan(t))
		if err != nil {
			return err
		}
		return t.each(ctx, ofBox(`body`)+`t0_ms >= ? AND t0_ms < ? AND t1_ms >= ? ORDER BY t0_ms, id`,
			[]any{string(id), earliest, to, from}, scan(t))
	})
}

// prepared looks up all schemas of a box, so that its rows can be read while
// the answer that has them is under way.
func (s *Store) prepared(ctx context.Context, id identity.ID, want []string) (*reading, error) {
	ids, err := s.BoxSchemas(ctx, id)
	if err != nil {
		return nil, err
	}
	known := make(map[wire.SchemaID]*wire.Schema, len(ids))
	for _, sc := range ids {
		found, err := s.Schema(ctx, sc)
		if err != nil {
			return nil, err
		}
		known[sc] = &found
	}
	return &reading{want: want, schema: func(sc wire.SchemaID) (*wire.Schema, error) {
		if known := known[sc]; known != nil {
			return known, nil
		}
		// One of more than a WELCOME names: ask on another connection.
		found, err := s.Schema(ctx, sc)
		return &found, err
	}}, nil
}

// A Question names metrics of a box in [From, To).
type Question struct {
	Box      identity.ID
	From, To time.Time
	Metrics  []string
}

// Columns calls each with all that is stored of the metrics of q in rows
// that touch its time, in no order. Only the metrics asked for are decoded.
func (s *Store) Columns(ctx context.Context, q Question, each func(Columns) error) error {
	r, err := s.prepared(ctx, q.Box, append([]string{}, q.Metrics...))
	if err == nil {
		err = s.walk(ctx, q.Box, q.From.UnixMilli(), q.To.UnixMilli(), func(_ *tx, body []byte) error {
			var c content
			if err := r.read(&c, body); err != nil {
				return err
			}
			return c.columns(each)
		})
	}
	if err != nil {
		return fmt.Errorf("read samples of %s: %w", q.Box, err)
	}
	return nil
}

func (c *content) columns(each func(Columns) error) error {
	for i := range c.parts {
		if err := each(Columns{UnixMs: c.parts[i].timesMs, Values: c.parts[i].values}); err != nil {
			return err
		}
	}
	var out Columns
	for i := range c.coarse {
		row := &c.coarse[i]
		sum := Summary{UnixMs: row.middle(), Values: make([]series.Point, len(row.n))}
		for m := range row.n {
			if row.n[m] > 0 {
				sum.Values[m] = row.summary(m)
			}
		}
		out.Summaries = append(out.Summaries, sum)
	}
	if out.Summaries == nil {
		return nil
	}
	return each(out)
}

// Rollups calls each with the hourly values of the metrics of q, for all hours
// that begin in its time. One hour may come in several parts, that together
// count each sample once.
func (s *Store) Rollups(ctx context.Context, q Question, each func(hourMs int64, values []Rollup)) error {
	id, lo, hi := q.Box, q.From.UnixMilli(), q.To.UnixMilli()
	r, err := s.prepared(ctx, id, nil)
	if err != nil {
		return fmt.Errorf("read hourly values of %s: %w", id, err)
	}
	names := reading{want: append([]string{}, q.Metrics...)}
	tell := func(groups []hourGroup) {
		for _, g := range groups {
			if g.hourMs >= lo && g.hourMs < hi {
				each(g.hourMs, pick(g.values, names.wanted(g.id, g.schema)))
			}
		}
	}
	earliest := lo - MaxSpan.Milliseconds()
	err = s.snapshot(ctx, func(t *tx) error {
		for _, query := range []string{
			`SELECT body FROM rollup_hour WHERE box = ? AND hour_ms >= ? AND hour_ms < ?`,
			`SELECT rollups FROM sample_hour WHERE box = ? AND hour_ms >= ? AND hour_ms < ? AND rollups IS NOT NULL`, // of packs
		} {
			err := t.each(ctx, query+` ORDER BY hour_ms, part`, []any{string(id), hourOf(earliest), hi}, func(rows *sql.Rows) error {
				var body sql.RawBytes
				if err := rows.Scan(&body); err != nil {
					return err
				}
				groups, err := decodeRollups(body, r.schema)
				tell(groups)
				return err
			})
			if err != nil {
				return err
			}
		}
		var open content // of hours that are not closed yet, or were opened again
		err := t.each(ctx, ofBox(`body`)+`t0_ms >= ? AND t0_ms < ? AND t1_ms >= ? ORDER BY t0_ms, id`,
			[]any{string(id), earliest, hi, lo}, func(rows *sql.Rows) error {
				var body sql.RawBytes
				if err := rows.Scan(&body); err != nil {
					return err
				}
				return r.read(&open, body)
			})
		tell(open.rollups())
		return err
	})
	if err != nil {
		return fmt.Errorf("read hourly values of %s: %w", id, err)
	}
	return nil
}

// Samples calls each for the samples of every stored block of a box that
// touches [from, to), in the order of their starts as far as they are stored
// alike: those of closed hours come first. Of samples that are gone, each gets
// the means, a row for each summary.
func (s *Store) Samples(ctx context.Context, id identity.ID, from, to time.Time, each func(startMs int64, samples wire.Samples) error) error {
	lo, hi := from.UnixMilli(), to.UnixMilli()
	r, err := s.prepared(ctx, id, nil)
	if err == nil {
		err = s.walk(ctx, id, lo, hi, func(_ *tx, body []byte) error {
			var c content
			if err := r.read(&c, body); err != nil {
				return err
			}
			for _, one := range c.blocks() {
				if one.startMs < hi && one.endMs >= lo {
					if err := each(one.startMs, one.samples); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read samples of %s: %w", id, err)
	}
	return nil
}

// blockOf is the samples of one block, or what is left of some.
type blockOf struct {
	startMs, endMs int64
	samples        wire.Samples
}

// blocks cuts content into its blocks, in the order of their starts.
func (c *content) blocks() []blockOf {
	var out []blockOf
	for i := range c.parts {
		p := &c.parts[i]
		from := 0
		for _, m := range p.members {
			to := from + int(m.Count)
			b := blockOf{m.StartMs, m.StartMs + m.SpanMs, wire.Samples{Schema: *p.schema}}
			for _, t := range p.timesMs[from:to] {
				b.samples.TimesMs = append(b.samples.TimesMs, t-m.StartMs)
			}
			for _, column := range p.values {
				b.samples.Values = append(b.samples.Values, column[from:to])
			}
			out = append(out, b)
			from = to
		}
	}
	for i := range c.coarse {
		r := &c.coarse[i]
		b := blockOf{r.fromMs, r.toMs, wire.Samples{Schema: *r.schema, TimesMs: []int64{r.middle() - r.fromMs}}}
		for m, v := range r.mean {
			if r.n[m] == 0 {
				v = math.NaN()
			}
			b.samples.Values = append(b.samples.Values, []float64{v})
		}
		out = append(out, b)
	}
	slices.SortStableFunc(out, func(a, b blockOf) int { return cmp.Compare(a.startMs, b.startMs) })
	return out
}
