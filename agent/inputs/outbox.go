package inputs

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

const (
	commitRecords = 32
	commitEvery   = 2 * time.Second
	// pendingMax bounds what waits in memory while commits fail (disk full).
	pendingMax = 1024
	// replyBytes bounds one answer of Results well below what the client reads.
	replyBytes = 4 << 20
	// outboxGrowth is the step in which the file grows, instead of bbolt's 16 MB.
	outboxGrowth = 256 << 10
)

// The buckets and keys of the file. results maps a cursor (8 bytes, big-endian)
// to a Result without its cursor. Header and results are sealed: a CRC-32C (4
// bytes, little-endian) and JSON, since bbolt has no checksum on data pages.
var (
	bucketMeta    = []byte("meta")
	bucketResults = []byte("results")
	keyHeader     = []byte("header")  // sealed outboxHeader
	keyDropped    = []byte("dropped") // 8 bytes, big-endian
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

// outboxVersion is the shape of the file. History: 1 first.
const outboxVersion = 1

type outboxHeader struct {
	V  int    `json:"v"`
	ID string `json:"id"`
}

// Errors that callers of Ack tell apart.
var (
	// ErrOtherOutbox: the cursor belongs to a file that is no more.
	ErrOtherOutbox = errors.New("results belong to another outbox; ask for results again")
	// ErrCursor: the outbox never issued this cursor.
	ErrCursor = errors.New("cursor was never issued")
)

// outbox is the bounded durable queue of results.
type outbox struct {
	path     string
	maxBytes int64
	log      *slog.Logger
	now      func() time.Time

	mu      sync.Mutex // guards all below
	db      *bolt.DB   // nil after a failed commit, until it could be reopened
	id      string
	records int64
	bytes   int64  // of keys and values
	last    uint64 // cursor issued last
	dropped uint64
	pending [][]byte // encoded results, not yet committed
}

func openOutbox(path string, maxBytes int64, now func() time.Time, log *slog.Logger) (*outbox, error) {
	o := &outbox{path: path, maxBytes: maxBytes, now: now, log: log}
	return o, o.openLocked()
}

// openLocked opens the file and replaces it when it is damaged.
func (o *outbox) openLocked() error {
	err := o.tryLocked()
	var damage *damageError
	if !errors.As(err, &damage) {
		return err
	}
	aside := fmt.Sprintf("%s.corrupt-%s", o.path, o.now().UTC().Format("20060102T150405.000"))
	if rerr := durable.Rename(o.path, aside); rerr != nil {
		return fmt.Errorf("set damaged outbox aside: %w", errors.Join(err, rerr))
	}
	o.log.Error("outbox was damaged and has been set aside; its results are lost", "path", aside, "err", err)
	return o.tryLocked()
}

func (o *outbox) tryLocked() error {
	if err := checkBolt(o.path); err != nil {
		return err
	}
	db, err := bolt.Open(o.path, 0o600, &bolt.Options{
		Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	if err != nil {
		return fmt.Errorf("open outbox %s (is another runner using it?): %w", o.path, err)
	}
	db.AllocSize = outboxGrowth
	if err := db.Update(o.loadLocked); err != nil {
		return errors.Join(fmt.Errorf("read outbox %s: %w", o.path, err), db.Close())
	}
	o.db = db
	return durable.SyncDir(filepath.Dir(o.path))
}

// loadLocked reads what the file holds, or starts it.
func (o *outbox) loadLocked(tx *bolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	results, err2 := tx.CreateBucketIfNotExists(bucketResults)
	if err := errors.Join(err, err2); errors.Is(err, berrors.ErrIncompatibleValue) {
		return damaged("its buckets are none")
	} else if err != nil {
		return err
	}
	sealed := meta.Get(keyHeader)
	if sealed == nil && results.Sequence() == 0 {
		if sealed, err = begin(meta); err != nil {
			return err
		}
	}
	head, err := unseal[outboxHeader](sealed)
	dropped := meta.Get(keyDropped)
	if err != nil || len(dropped) != 8 {
		return damaged("its header is unreadable")
	}
	if head.V != outboxVersion {
		return fmt.Errorf("outbox has version %d, this program reads %d: move the file away to start a new one", head.V, outboxVersion)
	}
	o.id, o.dropped = head.ID, binary.BigEndian.Uint64(dropped)
	o.last, o.records, o.bytes = results.Sequence(), 0, 0
	var before uint64
	return results.ForEach(func(k, v []byte) error {
		if len(k) != 8 {
			return damaged("a key has %d bytes", len(k))
		}
		at := binary.BigEndian.Uint64(k)
		if at <= before || at > o.last {
			return damaged("cursor %d is out of order", at)
		}
		before = at
		if _, err := unseal[runnerapi.Result](v); err != nil {
			return damaged("result %d: %v", at, err)
		}
		o.records++
		o.bytes += int64(len(k) + len(v))
		return nil
	})
}

func begin(meta *bolt.Bucket) ([]byte, error) {
	var random [16]byte
	rand.Read(random[:]) // never fails
	sealed, err := seal(outboxHeader{outboxVersion, hex.EncodeToString(random[:])})
	return sealed, errors.Join(err, meta.Put(keyHeader, sealed), meta.Put(keyDropped, make([]byte, 8)))
}

// add queues r for the next commit, and commits when the batch is full.
func (o *outbox) add(r runnerapi.Result) error {
	r.Cursor = 0
	return o.put(r)
}

// put is add for any value whose JSON can be read as a result.
func (o *outbox) put(v any) error {
	rec, err := seal(v)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending) >= pendingMax {
		o.pending = o.pending[1:]
		o.dropped++ // durable with the next commit
	}
	o.pending = append(o.pending, rec)
	if len(o.pending)%commitRecords == 0 {
		return o.commitLocked()
	}
	return nil
}

// commit makes everything added so far durable.
func (o *outbox) commit() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.commitLocked()
}

func (o *outbox) commitLocked() error {
	if o.db == nil {
		lost := o.dropped // the file may not know of all
		if err := o.openLocked(); err != nil {
			return err
		}
		o.dropped = max(o.dropped, lost)
	}
	if len(o.pending) == 0 {
		return nil
	}
	next := o.tallyLocked()
	err := o.db.Update(func(tx *bolt.Tx) error { return next.store(tx, o.pending, o.maxBytes) })
	if err != nil {
		// After a failed fsync nobody knows what is on disk, though bbolt would
		// go on: begin again from the file.
		return o.giveUpLocked(fmt.Errorf("commit results: %w", err))
	}
	o.pending = nil
	o.setLocked(next)
	return nil
}

func (o *outbox) giveUpLocked(err error) error {
	err = errors.Join(err, o.db.Close())
	o.db = nil
	return err
}

// tally is the part of the outbox's memory that a transaction changes; it is
// taken over only after the commit.
type tally struct {
	records, bytes int64
	last, dropped  uint64
}

func (o *outbox) tallyLocked() *tally {
	return &tally{o.records, o.bytes, o.last, o.dropped}
}

func (o *outbox) setLocked(t *tally) {
	o.records, o.bytes, o.last, o.dropped = t.records, t.bytes, t.last, t.dropped
}

// store appends recs and drops the oldest above maxBytes.
func (t *tally) store(tx *bolt.Tx, recs [][]byte, maxBytes int64) error {
	results := tx.Bucket(bucketResults)
	results.FillPercent = 0.9 // keys only grow
	for _, rec := range recs {
		at, err := results.NextSequence()
		if err != nil {
			return err
		}
		if err := results.Put(cursorKey(at), rec); err != nil {
			return err
		}
		t.last = at
		t.records++
		t.bytes += int64(8 + len(rec))
	}
	c := results.Cursor()
	for k, v := c.First(); k != nil && t.bytes > maxBytes; k, v = c.First() {
		n := int64(len(k) + len(v))
		if err := c.Delete(); err != nil {
			return err
		}
		t.records--
		t.bytes -= n
		t.dropped++
	}
	return tx.Bucket(bucketMeta).Put(keyDropped, cursorKey(t.dropped))
}

// results returns at most n committed results after a cursor, oldest first.
func (o *outbox) results(after uint64, n int) (runnerapi.Results, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := runnerapi.Results{Records: []runnerapi.Result{}, Dropped: o.dropped, Outbox: o.id}
	err := eachLocked(o, after, n, func(at uint64, r runnerapi.Result) {
		r.Cursor = at
		out.Records, out.Next = append(out.Records, r), at
	})
	return out, err
}

// eachLocked reads at most n committed records after a cursor, oldest first.
func eachLocked[T any](o *outbox, after uint64, n int, use func(at uint64, v T)) error {
	if o.db == nil {
		return errors.New("outbox is closed after a failed commit; it is reopened within seconds")
	}
	size, count := 0, 0
	return o.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketResults).Cursor()
		for k, v := c.Seek(cursorKey(after)); k != nil && count < n && size < replyBytes; k, v = c.Next() {
			at := binary.BigEndian.Uint64(k)
			if at == after {
				continue
			}
			r, err := unseal[T](v)
			if err != nil {
				return fmt.Errorf("read result %d: %w", at, err)
			}
			use(at, r)
			size += len(v)
			count++
		}
		return nil
	})
}

// ack deletes all results up to cursor. Repeating an ack is not an error.
func (o *outbox) ack(id string, cursor uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.db == nil:
		return errors.New("outbox is closed after a failed commit; it is reopened within seconds")
	case id != o.id:
		return fmt.Errorf("acknowledge %d of outbox %q: %w", cursor, id, ErrOtherOutbox)
	case cursor > o.last:
		return fmt.Errorf("acknowledge %d, the newest is %d: %w", cursor, o.last, ErrCursor)
	case o.records == 0:
		return nil
	}
	next := o.tallyLocked()
	err := o.db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketResults).Cursor()
		for k, v := c.First(); k != nil && binary.BigEndian.Uint64(k) <= cursor; k, v = c.First() {
			next.records--
			next.bytes -= int64(len(k) + len(v))
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return o.giveUpLocked(fmt.Errorf("acknowledge results: %w", err))
	}
	o.setLocked(next)
	return nil
}

// counts returns how many results wait and how many were ever dropped.
func (o *outbox) counts() (records, dropped int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.records + int64(len(o.pending)), int64(o.dropped)
}

// close commits what is pending and closes the file.
func (o *outbox) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.commitLocked()
	if o.db != nil {
		err = errors.Join(err, o.db.Close())
		o.db = nil
	}
	return err
}

func cursorKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// seal encodes v behind its checksum; unseal is the reverse.
func seal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode for outbox: %w", err)
	}
	return append(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(data, castagnoli)), data...), nil
}

func unseal[T any](b []byte) (v T, err error) {
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return v, errors.New("checksum differs")
	}
	return v, json.Unmarshal(b[4:], &v)
}

// damageError says that the file's content, not its disk or owner, is at fault.
type damageError struct{ what string }

func (e *damageError) Error() string { return "outbox is damaged: " + e.what }

// checkBolt returns a *damageError when the file at path is no sound bbolt file.
func checkBolt(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open outbox: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open outbox: %w", err)
	}
	if info.Size() == 0 {
		return nil // bbolt starts a new database in an empty file
	}
	return checkPages(f, info.Size())
}
