package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The keys of all blocks that were ever stored, apart from what the blocks
// held: a late copy is known however its samples are stored by then. One row
// has the keys of 64 sequence numbers of a stream, 9 bytes a key: the low bits
// of the number and the hash, in order. Rows that a box adds to now are in its
// row of newest instead: openkeys.go.

const (
	chunkBits = 6
	entrySize = 1 + len(wire.H64{})
	// maxChunkBytes bounds a row, which is rewritten for each key: 64 blocks to
	// each number, where a clone or a resumed image makes two or three.
	maxChunkBytes = 64 << chunkBits * entrySize
)

// ErrForked says that one stream has more blocks of the same numbers than any
// number of clones would make. Sending them again cannot help.
var ErrForked = errors.New("too many different blocks of the same numbers")

// chunkID names the row of some keys.
type chunkID struct {
	box   identity.ID
	sid   int64 // its bits
	lane  wire.Lane
	chunk int64 // seq / 64
}

func (c chunkID) compare(d chunkID) int {
	return cmp.Or(cmp.Compare(c.box, d.box), cmp.Compare(c.sid, d.sid), cmp.Compare(c.lane, d.lane), cmp.Compare(c.chunk, d.chunk))
}

func chunkOf(id identity.ID, k wire.Key) chunkID {
	return chunkID{id, int64(binary.BigEndian.Uint64(k.SID[:])), k.Lane, int64(k.Seq >> chunkBits)}
}

// chunk is the keys of one row.
type chunk struct {
	body  []byte
	dirty bool
}

// add puts a key in its place and reports whether it was not there.
func (c *chunk) add(k wire.Key) bool {
	var e [entrySize]byte
	e[0] = byte(k.Seq & (1<<chunkBits - 1))
	copy(e[1:], k.H64[:])
	n := len(c.body) / entrySize
	i := n
	if n > 0 && bytes.Compare(c.body[(n-1)*entrySize:], e[:]) >= 0 { // else at the end, as nearly always
		i = sort.Search(n, func(i int) bool { return bytes.Compare(c.body[i*entrySize:(i+1)*entrySize], e[:]) >= 0 })
	}
	if i < n && bytes.Equal(c.body[i*entrySize:(i+1)*entrySize], e[:]) {
		return false
	}
	c.body, c.dirty = slices.Insert(c.body, i*entrySize, e[:]...), true
	return true
}

func (c *chunk) each(id chunkID, f func(wire.Key)) {
	var k wire.Key
	binary.BigEndian.PutUint64(k.SID[:], uint64(id.sid))
	k.Lane = id.lane
	for e := c.body; len(e) >= entrySize; e = e[entrySize:] {
		k.Seq = uint64(id.chunk)<<chunkBits | uint64(e[0])
		copy(k.H64[:], e[1:entrySize])
		f(k)
	}
}

// keySet is the rows that a transaction looks at.
type keySet struct {
	rows map[chunkID]*chunk
	// last is where the last key was: those of a pack follow each other.
	last   *chunk
	lastID chunkID
}

var (
	readChunks = many{
		head: `WITH want (n, box, sid, lane, chunk) AS (VALUES `, row: `(CAST(? AS BIGINT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT))`, width: 5,
		tail: `) SELECT want.n, k.body FROM want CROSS JOIN block_key k
			WHERE k.box = want.box AND k.sid = want.sid AND k.lane = want.lane AND k.chunk = want.chunk`,
	}
	writeChunks = many{
		head: `INSERT INTO block_key (box, sid, lane, chunk, body) VALUES `, row: `(?,?,?,?,?)`, width: 5,
		tail: ` ON CONFLICT (box, sid, lane, chunk) DO UPDATE SET body = excluded.body`,
	}
)

// loadKeys reads the rows in which the keys of ds are or will be. Those of the
// boxes' rows of newest are there already.
func (c *commit) loadKeys(ctx context.Context, ds []Delivery) error {
	set := c.keys
	var all []*chunk
	var args []any
	for i := range ds {
		ds[i].eachKey(func(_ int, k wire.Key) {
			id := chunkOf(ds[i].Box, k)
			if set.at(id) != nil {
				return
			}
			set.last = &chunk{}
			set.rows[id] = set.last
			args = append(args, len(all), string(id.box), id.sid, int64(id.lane), id.chunk)
			all = append(all, set.last)
		})
	}
	err := c.tx.eachMany(ctx, readChunks, args, func(rows *sql.Rows) error {
		var n int
		var body []byte
		if err := rows.Scan(&n, &body); err != nil {
			return err
		}
		if n < 0 || n >= len(all) || len(body)%entrySize != 0 {
			return fmt.Errorf("keys %d: %d bytes; restore the database from a backup", n, len(body))
		}
		all[n].body = body
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up keys: %w", err)
	}
	return nil
}

// at returns the row of a name, if the transaction looks at it.
func (s *keySet) at(id chunkID) *chunk {
	if s.last == nil || s.lastID != id {
		s.last, s.lastID = s.rows[id], id
	}
	return s.last
}

// add notes the key as stored and reports whether it was not yet.
func (s *keySet) add(id identity.ID, k wire.Key) bool { return s.at(chunkOf(id, k)).add(k) }

// saveKeys writes the rows that changed, but for those that boxes keep open.
func (c *commit) saveKeys(ctx context.Context) error {
	done := c.shut()
	args := make([]any, 0, 5*len(done))
	for _, id := range slices.SortedFunc(maps.Keys(done), chunkID.compare) { // neighbours share pages
		body := done[id].body
		if len(body) > maxChunkBytes {
			return fmt.Errorf("%w: %d in stream %016x of %s", ErrForked, len(body)/entrySize, uint64(id.sid), id.box)
		}
		args = append(args, string(id.box), id.sid, int64(id.lane), id.chunk, body)
	}
	if _, err := c.tx.execMany(ctx, writeChunks, args); err != nil {
		return fmt.Errorf("store keys: %w", err)
	}
	return nil
}

// Keys calls each with the key of every block of a box that was ever stored;
// ledger checks use it.
func (s *Store) Keys(ctx context.Context, id identity.ID, each func(wire.Key)) error {
	var found map[chunkID]*chunk
	err := s.snapshot(ctx, func(t *tx) error {
		found = map[chunkID]*chunk{}
		err := t.each(ctx, `SELECT sid, lane, chunk, body FROM block_key WHERE box = ?`, []any{string(id)}, func(rows *sql.Rows) error {
			of, c := chunkID{box: id}, &chunk{}
			err := rows.Scan(&of.sid, &of.lane, &of.chunk, &c.body)
			found[of] = c
			return err
		})
		if err != nil {
			return err
		}
		return t.each(ctx, `SELECT open_keys FROM newest WHERE box = ?`, []any{string(id)}, func(rows *sql.Rows) error {
			var open []byte
			if err := rows.Scan(&open); err != nil {
				return err
			}
			return eachOpen(id, open, func(of chunkID, body []byte) { found[of] = &chunk{body: body} })
		})
	})
	if err != nil {
		return fmt.Errorf("list keys of %s: %w", id, err)
	}
	for _, of := range slices.SortedFunc(maps.Keys(found), chunkID.compare) {
		found[of].each(of, each)
	}
	return nil
}
