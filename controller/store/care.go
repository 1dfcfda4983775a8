package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// CareEffects is what newly stored events tell of the heat of their box. They
// are stored in the transaction that stores the events.
type CareEffects struct {
	Hours    []HourRow
	Findings []FindingRow
	Resets   []ResetRow
	Changes  []ChangeRow
}

// HourRow is one summed up hour of a box.
type HourRow struct {
	HourMs  int64
	Samples int // of two summaries of an hour the one of more readings stays
	Body    []byte
}

// FindingRow is what is known of one finding. Body is its JSON.
type FindingRow struct {
	Box      identity.ID
	Family   string
	OpenedMs int64
	ClosedMs int64 // 0: it is open
	TimeMs   int64 // when the box said so; the newest word counts
	Body     []byte
	Muted    bool // as read: a person said that it is known or wrong
}

// Finding is the finding as people see it; false: it is of a newer agent.
func (r FindingRow) Finding() (fleetapi.Finding, bool) {
	f, ok := care.ReadFinding(r.Body)
	f.Box, f.Muted = r.Box, r.Muted
	if r.ClosedMs != 0 && f.Closed == nil { // the box forgot it
		f.Closed, f.ClosedBy = new(time.UnixMilli(r.ClosedMs).UTC()), "found anew"
	}
	return f, ok
}

// OpenOnly, as the time since which to list, leaves out all that has ended.
var OpenOnly = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// ResetRow is one restart of a box. Body is its JSON.
type ResetRow struct {
	Box    identity.ID
	TimeMs int64
	Cause  string
	Body   []byte
}

// ChangeRow is a logged event that may move the measure of a box.
type ChangeRow struct {
	Box    identity.ID
	TimeMs int64
	Kind   string
	Detail string
	By     string
}

// Mute keeps a family of findings of a box from making tickets.
type Mute struct {
	Box     identity.ID
	Family  string
	UntilMs int64
	Why     string
	By      string
}

// Heat is how far the hours of a box are judged.
type Heat struct {
	Box    identity.ID
	Hours  int64 // that came, ever
	Judged int64 // of them
	Body   []byte
}

// apply stores what a delivery of a box told.
func (e *CareEffects) apply(ctx context.Context, t *tx, box identity.ID) error {
	for _, h := range e.Hours {
		if _, err := t.Exec(ctx, `INSERT INTO box_hour (box, hour_ms, samples, body) VALUES (?,?,?,?)
			ON CONFLICT (box, hour_ms) DO UPDATE SET samples = excluded.samples, body = excluded.body WHERE excluded.samples > box_hour.samples`,
			string(box), h.HourMs, h.Samples, h.Body); err != nil {
			return fmt.Errorf("store an hour: %w", err)
		}
	}
	if n := len(e.Hours); n > 0 {
		if _, err := t.Exec(ctx, `INSERT INTO box_heat (box, hours, judged, body) VALUES (?,?,0,'')
			ON CONFLICT (box) DO UPDATE SET hours = box_heat.hours + excluded.hours`, string(box), n); err != nil {
			return fmt.Errorf("count hours: %w", err)
		}
	}
	for _, f := range e.Findings {
		if err := putFinding(ctx, t, box, f); err != nil {
			return fmt.Errorf("store a finding: %w", err)
		}
	}
	for _, r := range e.Resets {
		if _, err := t.Exec(ctx, `INSERT INTO box_reset (box, t_ms, cause, body) VALUES (?,?,?,?) ON CONFLICT DO NOTHING`,
			string(box), r.TimeMs, r.Cause, string(r.Body)); err != nil {
			return fmt.Errorf("store a reset: %w", err)
		}
	}
	for _, c := range e.Changes {
		if err := putChange(ctx, t, c); err != nil {
			return err
		}
	}
	return nil
}

// putFinding keeps the newest word on a finding. What is closed stays closed,
// though an older word comes later. A box that lost its memory finds the same
// anew: what it found before ends with that.
func putFinding(ctx context.Context, t *tx, box identity.ID, f FindingRow) error {
	if _, err := t.Exec(ctx, `INSERT INTO finding (box, family, opened_ms, closed_ms, t_ms, news, body) VALUES (?,?,?,?,?,1,?)
		ON CONFLICT (box, family, opened_ms) DO UPDATE SET closed_ms = excluded.closed_ms, t_ms = excluded.t_ms, news = 1, body = excluded.body
		WHERE finding.closed_ms = 0 AND (excluded.closed_ms <> 0 OR excluded.t_ms >= finding.t_ms)`,
		string(box), f.Family, f.OpenedMs, f.ClosedMs, f.TimeMs, string(f.Body)); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, `UPDATE finding SET closed_ms = ?, news = 1 WHERE box = ? AND family = ? AND opened_ms < ? AND closed_ms = 0`,
		f.OpenedMs, string(box), f.Family, f.OpenedMs); err != nil {
		return err
	}
	_, err := t.Exec(ctx, `DELETE FROM finding WHERE box = ? AND t_ms < (SELECT t_ms FROM finding WHERE box = ? ORDER BY t_ms DESC LIMIT 1 OFFSET ?)`,
		string(box), string(box), maxFindings)
	return err
}

// maxFindings of one box are kept: a box that makes families up must not fill
// the disk. A box has some ten families, and findings last for weeks.
const maxFindings = 500

func putChange(ctx context.Context, t *tx, c ChangeRow) error {
	if _, err := t.Exec(ctx, `INSERT INTO box_change (box, t_ms, kind, detail, author) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`,
		string(c.Box), c.TimeMs, c.Kind, c.Detail, c.By); err != nil {
		return fmt.Errorf("log a change of %s: %w", c.Box, err)
	}
	return nil
}

// Hours returns the hours of a box from one on, oldest first.
func (s *Store) Hours(ctx context.Context, box identity.ID, from time.Time, limit int) ([]HourRow, error) {
	var out []HourRow
	err := s.each(ctx, `SELECT hour_ms, samples, body FROM box_hour WHERE box = ? AND hour_ms >= ? ORDER BY hour_ms LIMIT ?`,
		[]any{string(box), from.UnixMilli(), limit}, func(rows *sql.Rows) error {
			var h HourRow
			err := rows.Scan(&h.HourMs, &h.Samples, &h.Body)
			out = append(out, h)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read hours of box %s: %w", box, err)
	}
	return out, nil
}

// FirstHour is the oldest hour of a box that is stored; 0: none.
func (s *Store) FirstHour(ctx context.Context, box identity.ID) (ms int64, err error) {
	err = s.one(ctx, `SELECT coalesce(min(hour_ms), 0) FROM box_hour WHERE box = ?`, []any{string(box)}, &ms)
	return ms, err
}

// Unjudged are boxes with hours that are not taken into their state.
func (s *Store) Unjudged(ctx context.Context, limit int) ([]Heat, error) {
	return s.heats(ctx, `SELECT box, hours, judged, body FROM box_heat WHERE judged < hours ORDER BY box LIMIT ?`, limit)
}

// Heats is what is known of the heat of all boxes.
func (s *Store) Heats(ctx context.Context) ([]Heat, error) {
	return s.heats(ctx, `SELECT box, hours, judged, body FROM box_heat ORDER BY box`)
}

func (s *Store) heats(ctx context.Context, query string, args ...any) ([]Heat, error) {
	var out []Heat
	err := s.each(ctx, query, args, func(rows *sql.Rows) error {
		var h Heat
		err := rows.Scan((*string)(&h.Box), &h.Hours, &h.Judged, &h.Body)
		out = append(out, h)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the heat of boxes: %w", err)
	}
	return out, nil
}

// HeatState returns the state of a box's judgement; nil: there is none.
func (s *Store) HeatState(ctx context.Context, box identity.ID) ([]byte, error) {
	var body []byte
	err := s.one(ctx, `SELECT body FROM box_state WHERE box = ?`, []any{string(box)}, &body)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the heat of box %s: %w", box, err)
	}
	return body, nil
}

// KeepHeat stores the state of a box after the hours that h counts as judged.
// When another has judged meanwhile it changes nothing and returns false.
func (s *Store) KeepHeat(ctx context.Context, h Heat, was int64, state []byte) (kept bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, `UPDATE box_heat SET judged = ?, body = ? WHERE box = ? AND judged = ?`, h.Judged, string(h.Body), string(h.Box), was)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if kept = n == 1; err != nil || !kept {
			return err
		}
		_, err = t.Exec(ctx, `INSERT INTO box_state (box, body) VALUES (?,?) ON CONFLICT (box) DO UPDATE SET body = excluded.body`, string(h.Box), string(state))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("keep the heat of box %s: %w", h.Box, err)
	}
	return kept, nil
}

// Findings returns those of a box, or of all without one: open ones, and those
// that closed since.
func (s *Store) Findings(ctx context.Context, box identity.ID, since time.Time) ([]FindingRow, error) {
	var out []FindingRow
	err := s.read(ctx, func(t *tx) (err error) {
		out, err = t.findings(ctx, s.now().UnixMilli(), box, since.UnixMilli())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list findings: %w", err)
	}
	return out, nil
}

const findingColumns = `SELECT f.box, f.family, f.opened_ms, f.closed_ms, f.t_ms, f.body,
	EXISTS (SELECT 1 FROM mute m WHERE m.box = f.box AND m.family = f.family AND m.until_ms > ?) FROM finding f `

func (t *tx) findings(ctx context.Context, nowMs int64, box identity.ID, sinceMs int64) (out []FindingRow, err error) {
	query, args := findingColumns+`WHERE (f.closed_ms = 0 OR f.closed_ms >= ?)`, []any{nowMs, sinceMs}
	if box != "" {
		query, args = query+` AND f.box = ?`, append(args, string(box))
	}
	err = t.each(ctx, query+` ORDER BY f.opened_ms, f.box, f.family`, args, func(rows *sql.Rows) error { return scanFinding(rows, &out) })
	return out, err
}

func scanFinding(rows *sql.Rows, out *[]FindingRow) error {
	var f FindingRow
	err := rows.Scan((*string)(&f.Box), &f.Family, &f.OpenedMs, &f.ClosedMs, &f.TimeMs, &f.Body, &f.Muted)
	*out = append(*out, f)
	return err
}

// AnyNews reports whether there are findings that no ticket knows of.
func (s *Store) AnyNews(ctx context.Context) (any bool, err error) {
	err = s.one(ctx, `SELECT EXISTS (SELECT 1 FROM finding WHERE news = 1)`, nil, &any)
	return any, err
}

// Resets returns the newest restarts, of one box or of all.
func (s *Store) Resets(ctx context.Context, box identity.ID, since time.Time, limit int) ([]ResetRow, error) {
	query, args := `SELECT box, t_ms, cause, body FROM box_reset WHERE t_ms >= ?`, []any{since.UnixMilli()}
	if box != "" {
		query, args = query+` AND box = ?`, append(args, string(box))
	}
	var out []ResetRow
	err := s.each(ctx, query+` ORDER BY t_ms DESC, box LIMIT ?`, append(args, limit), func(rows *sql.Rows) error {
		var r ResetRow
		err := rows.Scan((*string)(&r.Box), &r.TimeMs, &r.Cause, &r.Body)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list resets: %w", err)
	}
	return out, nil
}

// ResetCauses counts restarts by cause, of one box or of all.
func (s *Store) ResetCauses(ctx context.Context, box identity.ID, since time.Time) (map[string]int, error) {
	query, args := `SELECT cause, count(*) FROM box_reset WHERE t_ms >= ?`, []any{since.UnixMilli()}
	if box != "" {
		query, args = query+` AND box = ?`, append(args, string(box))
	}
	out := map[string]int{}
	err := s.each(ctx, query+` GROUP BY cause`, args, func(rows *sql.Rows) error {
		var cause string
		var n int
		err := rows.Scan(&cause, &n)
		out[cause] = n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count resets: %w", err)
	}
	return out, nil
}

// Changes returns the logged changes of a box, oldest first.
func (s *Store) Changes(ctx context.Context, box identity.ID, since time.Time) ([]ChangeRow, error) {
	var out []ChangeRow
	err := s.each(ctx, `SELECT box, t_ms, kind, detail, author FROM box_change WHERE box = ? AND t_ms >= ? ORDER BY t_ms, kind, detail`,
		[]any{string(box), since.UnixMilli()}, func(rows *sql.Rows) error {
			var c ChangeRow
			err := rows.Scan((*string)(&c.Box), &c.TimeMs, &c.Kind, &c.Detail, &c.By)
			out = append(out, c)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list changes of box %s: %w", box, err)
	}
	return out, nil
}

// addCare adds to boxes what is known of their heat.
func (s *Store) addCare(ctx context.Context, only identity.ID, get func(identity.ID) *Box) error {
	query, args := `SELECT box, hours, judged, body FROM box_heat`, []any(nil)
	if only != "" {
		query, args = query+` WHERE box = ?`, []any{string(only)}
	}
	heats, err := s.heats(ctx, query, args...)
	if err != nil {
		return err
	}
	for _, h := range heats {
		if b := get(h.Box); b != nil {
			b.Heat = h.Body
		}
	}
	open, err := s.Findings(ctx, only, OpenOnly)
	if err != nil {
		return err
	}
	for _, f := range open {
		if b := get(f.Box); b != nil {
			b.Findings = append(b.Findings, f)
		}
	}
	return nil
}

// EndMutes ends the mutes whose time is over: what is found all the same is
// news again, for the box said it long ago and says it once.
func (s *Store) EndMutes(ctx context.Context) error {
	now := s.now().UnixMilli()
	return s.write(ctx, func(t *tx) error {
		for _, q := range []string{
			`UPDATE finding SET news = 1 WHERE closed_ms = 0 AND EXISTS (SELECT 1 FROM mute m WHERE m.box = finding.box AND m.family = finding.family AND m.until_ms <= ?)`,
			`DELETE FROM mute WHERE until_ms <= ?`,
		} {
			if _, err := t.Exec(ctx, q, now); err != nil {
				return fmt.Errorf("end mutes: %w", err)
			}
		}
		return nil
	})
}

// ForgetCare deletes findings that closed, and notices that were sent, before
// a time.
func (s *Store) ForgetCare(ctx context.Context, before time.Time) error {
	return s.write(ctx, func(t *tx) error {
		for _, q := range []string{
			`DELETE FROM finding WHERE closed_ms > 0 AND closed_ms < ? AND news = 0`,
			`DELETE FROM notice WHERE state <> 0 AND changed_ms < ?`,
		} {
			if _, err := t.Exec(ctx, q, before.UnixMilli()); err != nil {
				return fmt.Errorf("forget old findings and notices: %w", err)
			}
		}
		return nil
	})
}
