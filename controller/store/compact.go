package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Compaction merges the rows of sample of one box and closed hour into its row
// of sample_hour: exact samples stay exact, with all that is needed to rebuild
// their blocks, and summaries stay as they came. It changes no answer but one:
// what comes late is a row of sample again until the next time, and until then
// the hourly median is that of the two parts.
//
// The work is done outside of the transaction, which then replaces exactly the
// rows that were read, or nothing: two controllers may try the same hour.

const (
	// closedAfter is how long an hour stays open for what is under way.
	closedAfter = 10 * time.Minute
	// maxHourBytes is about where a further part of an hour begins: a box may
	// send more for an hour than fits into memory.
	maxHourBytes = 1 << 20
	maxHourRows  = 512
	// hoursAtOnce share a transaction: each would wait for the disk alone.
	hoursAtOnce = 32
)

// Compacted tells what a call of Compact did.
type Compacted struct {
	Hours, Rows int // rows of boxes and hours written, rows merged into them
	// More says that there was more to do than the bound.
	More bool
}

// errChanged says that others changed the rows meanwhile.
var errChanged = errors.New("changed meanwhile")

type boxHour struct {
	box    identity.ID
	hourMs int64
}

// Compact merges samples of closed hours, of at most about limit rows.
func (s *Store) Compact(ctx context.Context, limit int) (Compacted, error) {
	var done Compacted
	closed := hourOf(s.now().Add(-closedAfter).UnixMilli())
	var hours []boxHour
	seen := map[boxHour]bool{}
	n := 0
	// Rows that came first have closed hours first.
	err := s.each(ctx, `SELECT box, t0_ms FROM sample ORDER BY id LIMIT ?`, []any{limit}, func(rows *sql.Rows) error {
		var h boxHour
		var t0 int64
		if err := rows.Scan((*string)(&h.box), &t0); err != nil {
			return err
		}
		n++
		if h.hourMs = hourOf(t0); h.hourMs < closed && !seen[h] {
			seen[h], hours = true, append(hours, h)
		}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("look for closed hours: %w", err)
	}
	done.More = n == limit && len(hours) > 0
	// Neighbours share pages.
	slices.SortFunc(hours, func(a, b boxHour) int { return cmp.Or(cmp.Compare(a.box, b.box), cmp.Compare(a.hourMs, b.hourMs)) })
	var errs []error
	for group := range slices.Chunk(hours, hoursAtOnce) {
		if done.Rows >= limit {
			done.More = true
			break
		}
		merged, rows, err := s.compactHours(ctx, group)
		done.Hours, done.Rows = done.Hours+merged, done.Rows+rows
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		errs = append(errs, err) // it must not hold up the others
	}
	return done, errors.Join(errs...)
}

// compactHours merges some hours in one transaction, or one by one when that
// fails.
func (s *Store) compactHours(ctx context.Context, hours []boxHour) (merged, rows int, err error) {
	work := make([]*hourWork, len(hours))
	errs := make([]error, len(hours))
	parallel(len(hours), func(i int) { work[i], errs[i] = s.prepareHour(ctx, hours[i]) })
	work = slices.DeleteFunc(work, func(w *hourWork) bool { return w == nil || len(w.ids) == 0 })
	store := func(work ...*hourWork) error {
		err := s.write(ctx, func(t *tx) error {
			for _, w := range work {
				if err := w.store(ctx, t); err != nil {
					return fmt.Errorf("merge hour %s of %s: %w", time.UnixMilli(w.hourMs).UTC().Format("2006-01-02 15h"), w.box, err)
				}
			}
			return nil
		})
		if err == nil {
			for _, w := range work {
				merged, rows = merged+1, rows+len(w.ids)
			}
		}
		return err
	}
	if len(work) > 0 && store(work...) != nil {
		for _, w := range work {
			if err := store(w); err != nil && !errors.Is(err, errChanged) { // that one at the next call
				errs = append(errs, err)
			}
		}
	}
	return merged, rows, errors.Join(errs...)
}

// hourRow is a row of sample_hour.
type hourRow struct {
	part, rev    int64
	lsn          uint64
	fromMs, toMs int64
	body         []byte
}

// hourWork is what is to be merged, and into what.
type hourWork struct {
	boxHour
	ids  []any // of the rows of sample
	size int
	into hourRow // rev 0: not there yet
	all  content

	body, rollups []byte // to store
}

// prepareHour reads an hour and makes its new rows.
func (s *Store) prepareHour(ctx context.Context, h boxHour) (*hourWork, error) {
	r, err := s.prepared(ctx, h.box, nil)
	if err != nil {
		return nil, err
	}
	w := &hourWork{boxHour: h}
	if err := s.snapshot(ctx, func(t *tx) error { return w.load(ctx, t, r) }); err != nil {
		return nil, fmt.Errorf("read hour %s of %s: %w", time.UnixMilli(h.hourMs).UTC().Format("2006-01-02 15h"), h.box, err)
	}
	if len(w.ids) > 0 {
		w.body = w.encode()
		w.rollups = encodeRollups(w.all.rollups())
		w.all = content{}
	}
	return w, nil
}

// load reads the last part of the hour and what comes to it.
func (w *hourWork) load(ctx context.Context, t *tx, r *reading) error {
	err := t.QueryRow(ctx, `SELECT part, rev, lsn, t0_ms, t1_ms, body FROM sample_hour WHERE box = ? AND hour_ms = ? AND part < ? ORDER BY part DESC LIMIT 1`,
		string(w.box), w.hourMs, firstPackPart).Scan(&w.into.part, &w.into.rev, &w.into.lsn, &w.into.fromMs, &w.into.toMs, &w.into.body)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && len(w.into.body) > maxHourBytes:
		w.into = hourRow{}
		// Samples leave for their age before the hourly values of their part.
		err = t.QueryRow(ctx, `SELECT coalesce(max(part) + 1, 0) FROM (
			SELECT part FROM sample_hour WHERE box = ? AND hour_ms = ? AND part < ? UNION ALL
			SELECT part FROM rollup_hour WHERE box = ? AND hour_ms = ? AND part < ?) AS parts`,
			string(w.box), w.hourMs, firstPackPart, string(w.box), w.hourMs, firstPackPart).Scan(&w.into.part)
	case err == nil:
		err = r.read(&w.all, w.into.body)
		w.size = len(w.into.body)
	}
	if err != nil {
		return err
	}
	errFull := errors.New("enough for this time")
	err = t.each(ctx, ofBox(`id, t0_ms, t1_ms, body`)+`t0_ms >= ? AND t0_ms < ? ORDER BY t0_ms, id LIMIT ?`,
		[]any{string(w.box), w.hourMs, w.hourMs + hourMs, maxHourRows}, func(rows *sql.Rows) error {
			var id, from, to int64
			var body sql.RawBytes
			if err := rows.Scan(&id, &from, &to, &body); err != nil {
				return err
			}
			if len(w.ids) > 0 && w.size+len(body) > 2*maxHourBytes {
				return errFull
			}
			if w.into.rev == 0 && len(w.ids) == 0 {
				w.into.fromMs, w.into.toMs = from, to
			}
			w.into.lsn = max(w.into.lsn, uint64(id)>>rowBits)
			w.into.fromMs, w.into.toMs = min(w.into.fromMs, from), max(w.into.toMs, to)
			w.ids, w.size = append(w.ids, id), w.size+len(body)
			return r.read(&w.all, body)
		})
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// encode merges what has one life, lane, boot and schema, with its blocks in
// the order of their starts.
func (w *hourWork) encode() []byte {
	w.all.merge()
	out := []byte{formHour}
	for i := range w.all.parts {
		out = appendSection(out, w.all.parts[i].encode())
	}
	for _, p := range w.all.packs {
		out = appendSection(out, p)
	}
	return out
}

func (c *content) merge() {
	type kind struct {
		sid  wire.SID
		lane wire.Lane
		boot wire.BootID
		id   wire.SchemaID
	}
	type block struct {
		member
		from    int // its rows in of
		of      *part
		timesMs []int64
	}
	groups := map[kind][]block{}
	var order []kind
	for i := range c.parts {
		p := &c.parts[i]
		k := kind{p.sid, p.lane, p.boot, p.id}
		if groups[k] == nil {
			order = append(order, k)
		}
		from := 0
		for _, m := range p.members {
			groups[k] = append(groups[k], block{m, from, p, p.timesMs[from : from+int(m.Count)]})
			from += int(m.Count)
		}
	}
	merged := make([]part, 0, len(order))
	for _, k := range order {
		blocks := groups[k]
		slices.SortStableFunc(blocks, func(a, b block) int {
			return cmp.Or(cmp.Compare(a.StartMs, b.StartMs), cmp.Compare(a.Seq, b.Seq), slices.Compare(a.H64[:], b.H64[:]))
		})
		p := part{sid: k.sid, lane: k.lane, boot: k.boot, id: k.id, schema: blocks[0].of.schema, values: make([][]float64, len(blocks[0].of.values))}
		for _, b := range blocks {
			p.members, p.timesMs = append(p.members, b.member), append(p.timesMs, b.timesMs...)
			for m := range p.values {
				p.values[m] = append(p.values[m], b.of.values[m][b.from:b.from+int(b.Count)]...)
			}
		}
		merged = append(merged, p)
	}
	slices.SortStableFunc(merged, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.members[0].StartMs, b.members[0].StartMs), slices.Compare(a.sid[:], b.sid[:]), slices.Compare(a.id[:], b.id[:]))
	})
	c.parts = merged
}

// store replaces the rows that were read, or fails with errChanged.
func (w *hourWork) store(ctx context.Context, t *tx) error {
	remove := many{head: `DELETE FROM sample WHERE id IN (`, row: `?`, width: 1, tail: `)`}
	deleted, err := t.execMany(ctx, remove, w.ids)
	if err != nil {
		return err
	}
	h := &w.into
	var res sql.Result
	if h.rev == 0 {
		res, err = t.Exec(ctx, `INSERT INTO sample_hour (box, hour_ms, part, rev, lsn, t0_ms, t1_ms, body) VALUES (?,?,?,1,?,?,?,?) ON CONFLICT DO NOTHING`,
			string(w.box), w.hourMs, h.part, int64(h.lsn), h.fromMs, h.toMs, w.body)
	} else {
		res, err = t.Exec(ctx, `UPDATE sample_hour SET rev = rev + 1, lsn = ?, t0_ms = ?, t1_ms = ?, body = ? WHERE box = ? AND hour_ms = ? AND part = ? AND rev = ?`,
			int64(h.lsn), h.fromMs, h.toMs, w.body, string(w.box), w.hourMs, h.part, h.rev)
	}
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 || deleted != int64(len(w.ids)) {
		return errors.Join(err, errChanged)
	}
	conflict := `NOTHING` // a new part never replaces what another part has told
	if h.rev > 0 {
		conflict = `UPDATE SET body = excluded.body`
	}
	res, err = t.Exec(ctx, `INSERT INTO rollup_hour (box, hour_ms, part, body) VALUES (?,?,?,?)
		ON CONFLICT (box, hour_ms, part) DO `+conflict, string(w.box), w.hourMs, h.part, w.rollups)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, errChanged)
	}
	return nil
}
