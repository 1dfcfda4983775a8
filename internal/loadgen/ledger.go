package loadgen

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// LedgerVersion is the form of a ledger. History: 1 first.
const LedgerVersion = 1

// entryBytes is the size of a record: made or acked, number of the box, key.
const entryBytes = 1 + 4 + 8 + 1 + 8 + 8

// What a record tells.
const (
	entryMade  = 1
	entryAcked = 2
)

// Ledger books blocks. Safe for concurrent use; the first error stays.
type Ledger struct {
	mu  sync.Mutex // guards the fields below
	out *bufio.Writer
	err error
}

type ledgerHead struct {
	Version int           `json:"version"`
	Boxes   []identity.ID `json:"boxes"`
}

// NewLedger begins a ledger of boxes; a nil w keeps none.
func NewLedger(w io.Writer, boxes []identity.ID) (*Ledger, error) {
	if w == nil {
		return &Ledger{}, nil
	}
	head, err := json.Marshal(ledgerHead{LedgerVersion, boxes})
	if err != nil {
		return nil, fmt.Errorf("encode ledger: %w", err)
	}
	l := &Ledger{out: bufio.NewWriterSize(w, 64<<10)}
	_, err = l.out.Write(append(head, '\n'))
	return l, err
}

func (l *Ledger) book(what byte, box int32, k wire.Key) {
	if l.out == nil {
		return
	}
	var rec [entryBytes]byte
	rec[0] = what
	binary.LittleEndian.PutUint32(rec[1:], uint32(box))
	copy(rec[5:], k.SID[:])
	rec[13] = byte(k.Lane)
	binary.LittleEndian.PutUint64(rec[14:], k.Seq)
	copy(rec[22:], k.H64[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		_, l.err = l.out.Write(rec[:])
	}
}

// Flush writes what is buffered and returns the first error there was.
func (l *Ledger) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil && l.err == nil {
		l.err = l.out.Flush()
	}
	return l.err
}

// Books is what a ledger tells: for each box its blocks, true when they were
// acknowledged.
type Books map[identity.ID]map[wire.Key]bool

// ReadLedger reads a ledger. A last record that is not whole is not counted:
// its writer was cut off.
func ReadLedger(r io.Reader) (Books, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var head ledgerHead
	if err := json.Unmarshal(line, &head); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	if head.Version != LedgerVersion {
		return nil, fmt.Errorf("ledger has version %d, this program reads %d", head.Version, LedgerVersion)
	}
	books := make(Books, len(head.Boxes))
	for _, id := range head.Boxes {
		books[id] = map[wire.Key]bool{}
	}
	var rec [entryBytes]byte
	for {
		if _, err := io.ReadFull(in, rec[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return books, nil
		} else if err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		box := binary.LittleEndian.Uint32(rec[1:])
		if rec[0] != entryMade && rec[0] != entryAcked || uint64(box) >= uint64(len(head.Boxes)) {
			return nil, fmt.Errorf("ledger: a record of kind %d of box %d", rec[0], box)
		}
		k := wire.Key{Lane: wire.Lane(rec[13]), Seq: binary.LittleEndian.Uint64(rec[14:])}
		copy(k.SID[:], rec[5:])
		copy(k.H64[:], rec[22:])
		of := books[head.Boxes[box]]
		of[k] = of[k] || rec[0] == entryAcked
	}
}

// Stored is what a database holds of one box.
type Stored struct {
	Keys map[wire.Key]int // how often each block is there
	Rows int              // rows of samples in all of them
}

// Verdict compares a ledger with a database.
type Verdict struct {
	Made    int `json:"made"`
	Acked   int `json:"acked"`
	Stored  int `json:"stored"`  // of those made
	Lost    int `json:"lost"`    // acknowledged and not stored
	Missing int `json:"missing"` // made, neither acknowledged nor stored
	Doubled int `json:"doubled"` // blocks, and rows of samples, that are there more than once
	Foreign int `json:"foreign"` // stored, but made by nobody who wrote this ledger
}

// Check asks stored for each box and compares.
func (b Books) Check(stored func(identity.ID) (Stored, error)) (Verdict, error) {
	var v Verdict
	for id, made := range b {
		have, err := stored(id)
		if err != nil {
			return Verdict{}, err
		}
		v.Made += len(made)
		for k, acked := range made {
			n := have.Keys[k]
			switch {
			case n > 0:
				v.Stored++
			case acked:
				v.Lost++
			default:
				v.Missing++
			}
			if acked {
				v.Acked++
			}
		}
		for k, n := range have.Keys {
			v.Doubled += n - 1
			if _, ours := made[k]; !ours {
				v.Foreign++
			}
		}
		if want := rows * len(have.Keys); have.Rows != want {
			// Fewer rows are lost samples of a block that claims to be there.
			v.Doubled += max(0, have.Rows-want)
			v.Lost += max(0, want-have.Rows)
		}
	}
	return v, nil
}
