package spool

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Buckets of the file. A place is the number of a life (4 bytes) and a Seq
// (8 bytes), big endian: within a lane, older blocks come first. A pack is at the
// place of its first member. An entry is a head (see head; class and packFlag in
// one byte, n in one, span in two, H64 of the first member) and the encoded block
// or pack.
//
//	meta      "format" → 1 byte; "counts" → counts; "known" → Unix ms, see Spool.Known
//	lives     number of a life → SID, blocks per lane
//	u0 u1 u2  place → entry: un-acked, one bucket per lane
//	w0 w1 w2  place → run, LSN, entry: the window
//	runs      run → blocks in the window, highest LSN
//	schemas   SchemaID → schema
//	cursors   name → bytes of the caller
//	refused   lane, place → block or pack: refused for good, the last few
const formatVersion = 2

// Names and keys of buckets; never changed.
var (
	bucketNames = []string{"meta", "lives", "u0", "u1", "u2", "w0", "w1", "w2", "runs", "schemas", "cursors", "refused"}
	keyFormat   = []byte("format")
	keyCounts   = []byte("counts")
	keyKnown    = []byte("known")
)

const (
	placeBytes  = 12
	unackedHead = 12               // see head
	windowHead  = 16 + unackedHead // run, LSN
	maxRefused  = 64               // blocks kept for a look
)

type place [placeBytes]byte

func placeOf(life uint32, seq uint64) place {
	var p place
	binary.BigEndian.PutUint32(p[:4], life)
	binary.BigEndian.PutUint64(p[4:], seq)
	return p
}

func (p place) life() uint32 { return binary.BigEndian.Uint32(p[:4]) }
func (p place) seq() uint64  { return binary.BigEndian.Uint64(p[4:]) }

// cost is what a block takes on disk, on the safe side: small ones share
// pages, big ones waste the rest of their last page.
func cost(blockBytes int) int64 {
	n := int64(blockBytes) + placeBytes + windowHead + 16
	switch {
	case n > 2000:
		return (n + 64 + 4095) &^ 4095
	case n > 1300: // two a page
		return 2048
	}
	return n
}

// state is what a transaction may change and memory keeps.
type state struct {
	seq    [wire.Lanes]uint64 // last given out in this life
	named  bool               // this life is in bucket lives
	counts counts
	known  int64 // Unix ms, see Spool.Known
	// packFrom is a place before which no loose blocks are that could be packed.
	// It lives in memory: after a restart all are looked at again.
	packFrom place
}

// counts are kept in every transaction, for counting would read the file.
type counts struct {
	Blocks       [wire.Lanes]int64 // un-acked
	Bytes        [wire.Lanes]int64 // un-acked, as encoded
	Cost         [wire.Lanes]int64 // un-acked, see cost
	WindowBlocks [wire.Lanes]int64
	WindowCost   [wire.Lanes]int64
	Dropped      int64
	Loose        int64 // un-acked blocks of samples that are in no pack
	Exact        int64 // cost of those and of exact packs, un-acked
	ByMember     int64 // cost of packs of one row a member, un-acked
}

func (c counts) total() int64 {
	var n int64
	for lane := range wire.Lanes {
		n += c.Cost[lane] + c.WindowCost[lane]
	}
	return n
}

// txn is one transaction with its view of the state.
type txn struct {
	spool *Spool
	state state
	gone  []wire.SID // lives without blocks, forgotten by this transaction
	packs bool       // un-acked packs were taken away
	acked map[spot]mark

	mostCoarser int64 // bytes of samples that may become coarser, see evict

	known struct { // the schema that was read last
		id     wire.SchemaID
		schema wire.Schema
	}

	meta, lives, runs, schemas, cursors, refused *bbolt.Bucket
	unacked, window                              [wire.Lanes]*bbolt.Bucket
}

func (t *txn) open(tx *bbolt.Tx) {
	b := make(map[string]*bbolt.Bucket, len(bucketNames))
	for _, name := range bucketNames {
		b[name] = tx.Bucket([]byte(name))
	}
	t.meta, t.lives, t.runs, t.schemas = b["meta"], b["lives"], b["runs"], b["schemas"]
	t.cursors, t.refused = b["cursors"], b["refused"]
	t.unacked = [wire.Lanes]*bbolt.Bucket{b["u0"], b["u1"], b["u2"]}
	t.window = [wire.Lanes]*bbolt.Bucket{b["w0"], b["w1"], b["w2"]}
	for lane := range wire.Lanes { // keys mostly grow: fill pages up
		t.unacked[lane].FillPercent, t.window[lane].FillPercent = 0.9, 0.9
	}
}

// begin makes the buckets, reads the state and numbers this life. Past lives
// without blocks are forgotten.
func (s *Spool) begin() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range bucketNames {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		meta := tx.Bucket([]byte("meta"))
		if v := meta.Get(keyFormat); v != nil && (len(v) != 1 || v[0] != formatVersion) {
			return fmt.Errorf("format %x, this program reads %d; start the version that wrote it", v, formatVersion)
		}
		return meta.Put(keyFormat, []byte{formatVersion})
	})
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if v := meta.Get(keyKnown); len(v) == 8 {
			s.state.known = int64(binary.BigEndian.Uint64(v))
		}
		if v := meta.Get(keyCounts); v != nil {
			if _, err := binary.Decode(v, binary.BigEndian, &s.state.counts); err != nil {
				return fmt.Errorf("read counts: %w", err)
			}
		}
		return s.readLives(tx.Bucket([]byte("lives")))
	})
}

func (s *Spool) readLives(b *bbolt.Bucket) error {
	s.lives = map[wire.SID]uint32{}
	var empty [][]byte
	err := b.ForEach(func(k, v []byte) error {
		l, err := decodeLife(v)
		if err != nil || len(k) != 4 {
			return errors.Join(fmt.Errorf("life %x", k), err)
		}
		if l.Blocks == [wire.Lanes]uint64{} {
			empty = append(empty, k)
			return nil
		}
		n := binary.BigEndian.Uint32(k)
		s.lives[l.SID], s.life = n, max(s.life, n)
		return nil
	})
	for _, k := range empty {
		err = errors.Join(err, b.Delete(k))
	}
	s.life++
	return err
}

// save writes the counts; the last thing of a transaction.
func (t *txn) save() error {
	if t.state.known > t.spool.state.known {
		if err := t.meta.Put(keyKnown, binary.BigEndian.AppendUint64(nil, uint64(t.state.known))); err != nil {
			return err
		}
	}
	raw, err := binary.Append(nil, binary.BigEndian, t.state.counts)
	if err != nil {
		return err
	}
	return t.meta.Put(keyCounts, raw)
}

// life is an entry of bucket lives.
type life struct {
	SID    wire.SID
	Blocks [wire.Lanes]uint64 // un-acked and window
}

func decodeLife(v []byte) (life, error) {
	var l life
	if n, err := binary.Decode(v, binary.BigEndian, &l); err != nil || n != len(v) {
		return l, errors.Join(fmt.Errorf("entry of %d bytes", len(v)), err)
	}
	return l, nil
}

// countLife adds n blocks, or takes them away, to a life. A past life without blocks goes.
func (t *txn) countLife(number uint32, lane wire.Lane, n int) error {
	key := binary.BigEndian.AppendUint32(nil, number)
	l, err := decodeLife(t.lives.Get(key))
	if err != nil {
		return fmt.Errorf("life %d: %w", number, err)
	}
	l.Blocks[lane] += uint64(n)
	if l.Blocks == [wire.Lanes]uint64{} && number != t.spool.life {
		t.gone = append(t.gone, l.SID)
		return t.lives.Delete(key)
	}
	return t.putLife(number, l)
}

func (t *txn) putLife(number uint32, l life) error {
	raw, err := binary.Append(nil, binary.BigEndian, l)
	if err != nil {
		return err
	}
	return t.lives.Put(binary.BigEndian.AppendUint32(nil, number), raw)
}

// run is an entry of bucket runs.
type run struct {
	Blocks uint64
	MaxLSN uint64
}

func (t *txn) run(id []byte) (run, error) {
	var r run
	v := t.runs.Get(id)
	if v == nil {
		return r, nil
	}
	_, err := binary.Decode(v, binary.BigEndian, &r)
	return r, err
}

// countRun adds n blocks of the window to a run, or takes them away.
func (t *txn) countRun(id []byte, lsn uint64, n int) error {
	r, err := t.run(id)
	if err != nil {
		return fmt.Errorf("run %x: %w", id, err)
	}
	r.Blocks += uint64(n)
	r.MaxLSN = max(r.MaxLSN, lsn)
	if r.Blocks == 0 {
		return t.runs.Delete(id)
	}
	return t.putRun(id, r)
}

func (t *txn) putRun(id []byte, r run) error {
	raw, err := binary.Append(nil, binary.BigEndian, r)
	if err != nil {
		return err
	}
	return t.runs.Put(append([]byte(nil), id...), raw)
}

// dropUnacked deletes an un-acked entry; the caller answers for it.
func (t *txn) dropUnacked(lane wire.Lane, key place, value []byte) (int64, error) {
	freed, err := t.takeUnacked(lane, key, value)
	return freed, errors.Join(err, t.countLife(key.life(), lane, -headOf(value).n))
}

// dropWindow deletes an entry of the window for good.
func (t *txn) dropWindow(lane wire.Lane, key place, value []byte) (int64, error) {
	n := headOf(value[windowHead-unackedHead:]).n
	freed, err := t.leaveWindow(lane, key, value)
	return freed, errors.Join(err, t.countLife(key.life(), lane, -n))
}

// leaveWindow takes an entry out of the window; its life keeps it.
func (t *txn) leaveWindow(lane wire.Lane, key place, value []byte) (int64, error) {
	size := len(value) - windowHead
	runID, lsn := append([]byte(nil), value[:8]...), binary.BigEndian.Uint64(value[8:16])
	h := headOf(value[windowHead-unackedHead:])
	t.state.counts.windowed(lane, h, size, -1)
	return cost(size), errors.Join(t.window[lane].Delete(key[:]), t.countRun(runID, lsn, -h.n))
}
