package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Box is the stored record of one box.
type Box struct {
	ID         identity.ID
	Name       string
	Site       string
	State      State
	Labels     map[string]string
	EnrolledMs int64
	LastSeenMs int64 // 0: never
	Connected  bool
	Inventory  wire.Inventory
	Buffer     wire.Buffer
	Running    wire.Running
	Desired    wire.Desired
	Latest     Newest
	Phases     []Phase
	Reads      Reads
	Heat       []byte       // summary of the judgement of its hours, JSON; empty: none yet
	Findings   []FindingRow // open ones
	// Awaits says that the database came back from a backup and the box was not
	// heard since: what it follows may be newer than Desired.
	Awaits bool
}

// Ahead reports whether the box follows a desired state that this database has
// never signed, so that it would refuse the present one.
func (b Box) Ahead() bool { return ahead(b.Running.Generation, b.Desired.Generation) }

// Reads counts results since some time.
type Reads struct{ Total, Checked, Right int64 }

// AddBox records a box that was enrolled. Adding it again changes nothing; the
// name of another box is ErrConflict.
func (s *Store) AddBox(ctx context.Context, id identity.ID, name, site string) error {
	return s.write(ctx, func(t *tx) error {
		var other identity.ID
		err := t.QueryRow(ctx, `SELECT id FROM box WHERE name = ? AND id <> ?`, name, id).Scan(&other)
		if err == nil {
			return fmt.Errorf("box %s is %s already; choose another name: %w", name, other, ErrConflict)
		}
		if errors.Is(err, sql.ErrNoRows) {
			_, err = t.Exec(ctx, `INSERT INTO box (id, name, site, enrolled_ms, restores) SELECT ?, ?, ?, ?, restores FROM meta WHERE true ON CONFLICT (id) DO NOTHING`,
				id, name, site, s.now().UnixMilli())
		}
		if err != nil {
			return fmt.Errorf("add box %s: %w", name, err)
		}
		return nil
	})
}

// Known reports whether id was enrolled here.
func (s *Store) Known(ctx context.Context, id identity.ID) (bool, error) {
	var one int
	err := s.one(ctx, `SELECT 1 FROM box WHERE id = ?`, []any{id}, &one)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Hello stores what a box said of itself and places its boot in time.
func (s *Store) Hello(ctx context.Context, id identity.ID, h wire.Hello) error {
	inv, err := json.Marshal(h.Inventory)
	if err != nil {
		return err
	}
	buf, err := json.Marshal(h.Buffer)
	if err != nil {
		return err
	}
	now := s.now().UnixMilli()
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `UPDATE box SET last_seen_ms = ?, connected = ?, inventory = ?, buffer = ?, restores = (SELECT restores FROM meta) WHERE id = ?`, now, true, string(inv), string(buf), id); err != nil {
			return fmt.Errorf("store hello of %s: %w", id, err)
		}
		if _, err := t.Exec(ctx, `UPDATE newest SET buffer = NULL WHERE box = ?`, string(id)); err != nil {
			return fmt.Errorf("store hello of %s: %w", id, err)
		}
		if err := s.beginSession(ctx, t, id, h); err != nil {
			return err
		}
		// What a HELLO says is true now, whatever the box's clocks say. An agent
		// whose runner has not answered yet knows nothing of what serves.
		if h.Inventory.Runner == "" {
			was, err := readRunning(ctx, t, id)
			if err != nil {
				return err
			}
			h.Running.Models = was.Models
		}
		if err := setRunning(ctx, t, id, h.Running, moment{TimeMs: now, Boot: h.Clock.Boot.String(), MonoMs: h.Clock.MonoMs, Live: true}); err != nil {
			return err
		}
		if err := witnessed(ctx, t, id, h.Heads, now); err != nil {
			return err
		}
		return setBoot(ctx, t, id, h.Clock, now)
	})
}

// setBoot places a boot of a box on the controller's calendar.
func setBoot(ctx context.Context, t *tx, id identity.ID, c wire.Clock, nowMs int64) error {
	_, err := t.Exec(ctx, `INSERT INTO boot (box, boot, offset_ms) VALUES (?,?,?) ON CONFLICT (box, boot) DO UPDATE SET offset_ms = excluded.offset_ms`,
		id, c.Boot[:], nowMs-c.MonoMs)
	return err
}

// moment is when something was true, on the calendar and in its boot.
type moment struct {
	TimeMs int64  `json:"time_ms"`
	Boot   string `json:"boot,omitempty"`
	MonoMs int64  `json:"mono_ms,omitempty"`
	Seq    uint64 `json:"seq,omitempty"`
	Live   bool   `json:"-"`
}

// before reports whether m was earlier than was. Within a boot its monotonic
// clock decides: a wall clock may have stepped, or differ from ours.
func (m moment) before(was moment) bool {
	switch {
	case m.Live:
		return false
	case m.Boot != was.Boot:
		return m.TimeMs < was.TimeMs
	case m.MonoMs != was.MonoMs:
		return m.MonoMs < was.MonoMs
	}
	return m.Seq < was.Seq
}

// runningRow is the stored form of wire.Running with the time it was true.
type runningRow struct {
	wire.Running
	moment
}

func readRunning(ctx context.Context, t *tx, id identity.ID) (runningRow, error) {
	var row runningRow
	var text []byte
	err := t.QueryRow(ctx, `SELECT running FROM box WHERE id = ? FOR UPDATE`, id).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return row, fmt.Errorf("box %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return row, fmt.Errorf("read running state of %s: %w", id, err)
	}
	if err := json.Unmarshal(text, &row); err != nil {
		return row, fmt.Errorf("parse running state of %s: %w", id, err)
	}
	return row, nil
}

func setRunning(ctx context.Context, t *tx, id identity.ID, r wire.Running, at moment) error {
	was, err := readRunning(ctx, t, id)
	if err != nil {
		return err
	}
	if at.before(was.moment) {
		return nil // an older report that was buffered longer
	}
	row, err := json.Marshal(runningRow{r, at})
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `UPDATE box SET running = ? WHERE id = ?`, string(row), id)
	return err
}

// BootOffset returns the controller's wall clock minus the boot's monotonic
// clock in milliseconds, or false when the boot has not said hello.
func (s *Store) BootOffset(ctx context.Context, id identity.ID, boot wire.BootID) (int64, bool, error) {
	var off int64
	err := s.one(ctx, `SELECT offset_ms FROM boot WHERE box = ? AND boot = ?`, []any{id, boot[:]}, &off)
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	return off, err == nil, err
}

// Boxes returns all boxes by name. Reads counts results from the beginning of
// the hour of readsSinceMs.
func (s *Store) Boxes(ctx context.Context, readsSinceMs int64) ([]Box, error) {
	return s.boxes(ctx, "", readsSinceMs)
}

// Box returns one box by id, or ErrNotFound.
func (s *Store) Box(ctx context.Context, id identity.ID, readsSinceMs int64) (Box, error) {
	all, err := s.boxes(ctx, id, readsSinceMs)
	if err != nil {
		return Box{}, err
	}
	if len(all) == 0 {
		return Box{}, fmt.Errorf("box %s: %w", id, ErrNotFound)
	}
	return all[0], nil
}

func (s *Store) boxes(ctx context.Context, only identity.ID, readsSinceMs int64) ([]Box, error) {
	var out []Box
	var texts [][boxTexts]string
	at := map[identity.ID]int{}
	find, args := ` ORDER BY b.name`, []any(nil)
	if only != "" { // by its key: a condition that may be either is looked up in every row
		find, args = ` WHERE b.id = ?`, []any{only}
	}
	err := s.each(ctx, boxRows+find, args, func(rows *sql.Rows) error {
		b, said, err := scanBox(rows)
		if err != nil {
			return err
		}
		at[b.ID] = len(out)
		out, texts = append(out, b), append(texts, said)
		return nil
	})
	if err == nil {
		err = parseBoxes(out, texts)
	}
	if err != nil {
		return nil, fmt.Errorf("list boxes: %w", err)
	}
	get := func(id identity.ID) *Box {
		if i, ok := at[id]; ok {
			return &out[i]
		}
		return nil
	}
	if err := s.addNewest(ctx, only, get); err != nil {
		return nil, err
	}
	if err := s.addPhases(ctx, only, get); err != nil {
		return nil, err
	}
	if err := s.addCare(ctx, only, get); err != nil {
		return nil, err
	}
	return out, s.addReads(ctx, only, readsSinceMs, get)
}

// boxRows is what scanBox reads; the last boxTexts columns are JSON.
const (
	boxRows = `SELECT b.id, b.name, b.site, b.enrolled_ms, b.last_seen_ms, b.connected, coalesce(s.state, 'active'), b.restores < (SELECT restores FROM meta),
		b.inventory, b.buffer, b.running, b.desired, coalesce(s.labels, '{}') FROM box b LEFT JOIN standing s ON s.box = b.id`
	boxTexts = 5
)

// scanBox reads a row; what is JSON in it is for parseBoxes.
func scanBox(rows *sql.Rows) (b Box, texts [boxTexts]string, err error) {
	err = rows.Scan(&b.ID, &b.Name, &b.Site, &b.EnrolledMs, &b.LastSeenMs, &b.Connected, &b.State, &b.Awaits, &texts[0], &texts[1], &texts[2], &texts[3], &texts[4])
	return b, texts, err
}

// parseBoxes reads the texts of all boxes, which takes as long as to fetch
// them, on all processors.
func parseBoxes(boxes []Box, texts [][boxTexts]string) error {
	errs := make([]error, len(boxes))
	parallel(len(boxes), func(i int) {
		b := &boxes[i]
		for j, into := range []any{&b.Inventory, &b.Buffer, &b.Running, &b.Desired, &b.Labels} {
			if text := texts[i][j]; text != "" && text != "{}" && errs[i] == nil {
				errs[i] = json.Unmarshal([]byte(text), into)
			}
		}
		texts[i] = [boxTexts]string{}
	})
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("box %s: %w", boxes[i].ID, err)
		}
	}
	return nil
}

func (s *Store) addPhases(ctx context.Context, only identity.ID, get func(identity.ID) *Box) error {
	query, args := phaseRows, []any(nil)
	if only != "" { // no condition with OR: it would read the rows of all boxes
		query, args = query+` WHERE box = ?`, []any{only}
	}
	if err := s.each(ctx, query+` ORDER BY t_ms`, args, addPhase(get)); err != nil {
		return fmt.Errorf("list phases: %w", err)
	}
	return nil
}

const phaseRows = `SELECT box, digest, rollout, kind, name, version, phase, err, body, t_ms FROM phase`

// addPhase reads phaseRows into the boxes that get finds.
func addPhase(get func(identity.ID) *Box) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var p Phase
		if err := rows.Scan(&p.Box, &p.Digest, &p.Rollout, &p.Kind, &p.Name, &p.Version, &p.Phase, &p.Err, &p.Body, &p.TimeMs); err != nil {
			return err
		}
		if b := get(p.Box); b != nil {
			b.Phases = append(b.Phases, p)
		}
		return nil
	}
}

func (s *Store) addReads(ctx context.Context, only identity.ID, sinceMs int64, get func(identity.ID) *Box) error {
	query, args := `SELECT box, sum(total), sum(checked), sum(correct) FROM reads_hour WHERE hour_ms >= ?`, []any{hourOf(sinceMs)}
	if only != "" {
		query, args = query+` AND box = ?`, append(args, only)
	}
	err := s.each(ctx, query+` GROUP BY box`, args, func(rows *sql.Rows) error {
		var id identity.ID
		var r Reads
		if err := rows.Scan(&id, &r.Total, &r.Checked, &r.Right); err != nil {
			return err
		}
		if b := get(id); b != nil {
			b.Reads = r
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count results: %w", err)
	}
	return nil
}
