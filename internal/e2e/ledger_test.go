package e2e

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	_ "modernc.org/sqlite" // the tests read what the controller wrote

	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// stream is one sequence of blocks.
type stream struct {
	box, sid string
	lane     wire.Lane
}

// audit holds a stopped controller's database to the promise: every result
// that a runner numbered is there once, no sequence of blocks has a hole that
// no gap tells of, and the rows that pages show are those of the blocks. It
// returns how many results there are.
func audit(t *testing.T, data string) int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "server", "store.db")+"?mode=ro")
	must(t, err)
	defer db.Close()
	seqs := map[stream]map[uint64]int{}
	// A row has the keys of 64 numbers, 9 bytes each: the low bits, then a hash.
	chunks := map[stream]map[int64][]byte{}
	put := func(s stream, sid, chunk int64, keys []byte) {
		s.sid = fmt.Sprintf("%016x", uint64(sid))
		if chunks[s] == nil {
			chunks[s] = map[int64][]byte{}
		}
		chunks[s][chunk] = keys
	}
	must(t, each(db, `SELECT box, sid, lane, chunk, body FROM block_key`, func(rows *sql.Rows) error {
		var s stream
		var sid, chunk int64
		var keys []byte
		err := rows.Scan(&s.box, &sid, &s.lane, &chunk, &keys)
		put(s, sid, chunk, keys)
		return err
	}))
	// Rows that a box adds to now count in place of those: 8 bytes of the life, 1
	// of the lane, 8 of the chunk, and how many keys follow.
	must(t, each(db, `SELECT box, open_keys FROM newest`, func(rows *sql.Rows) error {
		var s stream
		var open []byte
		err := rows.Scan(&s.box, &open)
		for len(open) > 0 {
			s.lane = wire.Lane(open[8])
			keys := open[18:][:9*int(open[17])]
			put(s, int64(binary.BigEndian.Uint64(open)), int64(binary.BigEndian.Uint64(open[9:])), keys)
			open = open[18+len(keys):]
		}
		return err
	}))
	for s, numbers := range chunks {
		seqs[s] = map[uint64]int{}
		for chunk, keys := range numbers {
			for ; len(keys) >= 9; keys = keys[9:] {
				seqs[s][uint64(chunk)<<6|uint64(keys[0])]++
			}
		}
	}
	cursors := map[string]map[uint64]int{}
	results, declared := map[string]int{}, map[string]int{}
	sketches := map[string]int{} // of them, which have a table of their own
	must(t, each(db, `SELECT box, body FROM block WHERE kind = `+fmt.Sprint(wire.KindResults), func(rows *sql.Rows) error {
		var box string
		var body []byte
		if err := rows.Scan(&box, &body); err != nil {
			return err
		}
		n, payload := blockOf(body)
		records, err := wire.DecodeResults(payload)
		if err != nil {
			return err
		}
		if cursors[box] == nil {
			cursors[box] = map[uint64]int{}
		}
		for _, r := range records {
			cursors[box][r.Cursor]++
			if r.Pipeline == drift.Pipeline {
				sketches[box]++
			}
		}
		results[box] += len(records)
		declared[box] += n
		return nil
	}))
	for box, seen := range cursors {
		once(t, "box "+box+": result", seen, nil)
		rows := count(t, db, `SELECT count(*) FROM result WHERE box = ?`, box)
		if results[box] != declared[box] || results[box] != rows+sketches[box] {
			t.Errorf("box %s: blocks hold %d results, %d of them sketches, declare %d, and the table has %d rows", box, results[box],
				sketches[box], declared[box], rows)
		}
	}
	for s, seen := range seqs {
		once(t, fmt.Sprintf("box %s sid %s lane %d: block", s.box, s.sid, s.lane), seen, gaps(t, db, s))
	}
	total := 0
	for _, n := range results {
		total += n
	}
	if total == 0 {
		t.Error("the database has no result at all")
	}
	return total
}

// each calls scan for every row of an answer.
func each(db *sql.DB, query string, scan func(*sql.Rows) error) error {
	rows, err := db.Query(query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// blockOf reads how many records a stored block has, and its payload. Before
// them are 36 bytes of form, kind, key, boot, quality and schema, and six
// varints, the fourth of which is the number.
func blockOf(body []byte) (n int, payload []byte) {
	rest := body[1+1+8+1+8+8+1+8:]
	for i := range 6 {
		v, size := binary.Uvarint(rest)
		if rest = rest[size:]; i == 3 {
			n = int(v)
		}
	}
	return n, rest
}

// once requires each number from 1 to the highest exactly once, but for those
// that excused holds.
func once(t *testing.T, what string, seen map[uint64]int, excused map[uint64]bool) {
	t.Helper()
	var top uint64
	for n, times := range seen {
		top = max(top, n)
		if times != 1 {
			t.Errorf("%s %d is stored %d times", what, n, times)
		}
	}
	var missing []uint64
	for n := uint64(1); n <= top; n++ {
		if seen[n] == 0 && !excused[n] {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%s: of 1 to %d are missing %v", what, top, missing)
	}
	if seen[0] > 0 {
		t.Errorf("%s 0 is stored, numbers begin at 1", what)
	}
}

func gaps(t *testing.T, db *sql.DB, s stream) map[uint64]bool {
	t.Helper()
	told := map[uint64]bool{}
	rows, err := db.Query(`SELECT lo, hi FROM gap WHERE box = ? AND lower(hex(sid)) = ? AND lane = ?`, s.box, s.sid, s.lane)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var lo, hi uint64
		must(t, rows.Scan(&lo, &hi))
		for ; lo <= hi; lo++ {
			told[lo] = true
		}
	}
	return told
}

func count(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	must(t, db.QueryRow(query, args...).Scan(&n))
	return n
}

// rolloutsStored is how many rollouts a stopped controller knows, by model.
func rolloutsStored(t *testing.T, data string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "server", "store.db")+"?mode=ro")
	must(t, err)
	defer db.Close()
	rows, err := db.Query(`SELECT id FROM rollout`)
	must(t, err)
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		must(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
