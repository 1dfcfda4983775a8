// Package witness remembers which heads of the controller's audit log this box was
// shown, so that nobody who has the controller can cut or rewrite the log unseen.
//
// Vocabulary: a head is the number of a record and its hash, signed by the
// controller together with the time. The newest comes in each WELCOME; the box
// says in each HELLO which ones it holds, with their signatures: no box can make
// one up. What it holds it never gives up for a head that contradicts it.
//
//	STATE/witness.json   the heads, at most 8: the newest, and older ones ever farther apart
//
// A box does not see the records. It knows a log that was cut, since a head that
// was signed later has a lower number, and one that was forked, since one number
// has two hashes; a log that was rewritten and went on is found by
// `edgeherd audit verify`, which compares it with what boxes hold.
//
// The one rule a caller can break: See only what the controller's key has signed,
// with the signature in Proof.
package witness

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Head is what was signed.
type Head struct {
	Seq  uint64    `json:"seq"`
	Hash string    `json:"hash"` // SHA-256 in hexadecimal
	Time time.Time `json:"time"` // by the controller's clock, in whole seconds
	// Proof is what signed it; not a part of what was signed.
	Proof *Proof `json:"proof,omitempty"`
}

// Proof is the signature of a head.
type Proof struct {
	Key trust.KeyID `json:"key"`
	Sig []byte      `json:"sig"`
}

// Parse reads what was signed.
func Parse(payload []byte) (Head, error) {
	var s struct {
		V int `json:"v"`
		Head
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Head{}, fmt.Errorf("head of the audit log: %w", err)
	}
	raw, err := hex.DecodeString(s.Hash)
	if s.V != 1 || s.Seq == 0 || s.Seq > wire.MaxAuditSeq || err != nil || len(raw) != wire.AuditHashBytes || s.Proof != nil ||
		s.Time.Unix() < 0 || s.Time.Unix() > wire.MaxAuditUnixS || s.Time.Nanosecond() != 0 {
		return Head{}, errors.New("head of the audit log: not of a known form")
	}
	return s.Head, nil
}

// Contradiction says that a head cannot be of the log that this box has seen.
type Contradiction struct{ Has, Shown Head }

func (c *Contradiction) Error() string {
	if c.Has.Seq == c.Shown.Seq {
		return fmt.Sprintf("the audit log of the controller was forked: this box has seen record %d as %.16s…, and is shown %.16s…", c.Has.Seq, c.Has.Hash, c.Shown.Hash)
	}
	return fmt.Sprintf("the audit log of the controller was cut, or put back from a backup: this box has seen record %d, and is shown record %d as the newest, signed later", c.Has.Seq, c.Shown.Seq)
}

// Witness holds heads. Safe for concurrent use.
type Witness struct {
	journal durable.Journal

	mu    sync.Mutex // guards heads
	heads []Head     // by number, growing
}

// Open reads the file. What cannot be read is an error beside a Witness that
// begins anew.
func Open(path string) (*Witness, error) {
	w := &Witness{journal: durable.Journal{Path: path, Version: 1}}
	if _, err := w.journal.Load(&w.heads); err != nil {
		w.heads = nil
		return w, fmt.Errorf("heads of the audit log are lost: %w", err)
	}
	return w, nil
}

// See takes a head. It is on the disk when See returns nil. A *Contradiction
// changes nothing.
func (w *Witness) See(h Head) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.heads) == 0 {
		return w.keep([]Head{h})
	}
	newest := w.heads[len(w.heads)-1]
	for _, have := range w.heads {
		if have.Seq == h.Seq && have.Hash != h.Hash {
			return &Contradiction{have, h}
		}
	}
	switch {
	case h.Seq > newest.Seq:
		return w.keep(thin(append(append([]Head(nil), w.heads...), h)))
	case h.Seq < newest.Seq && h.Time.After(newest.Time):
		return &Contradiction{newest, h}
	}
	return nil // seen, or shown late by a controller that was asked in between
}

func (w *Witness) keep(heads []Head) error {
	if err := w.journal.Save(heads); err != nil {
		return fmt.Errorf("keep head of the audit log: %w", err)
	}
	w.heads = heads
	return nil
}

// thin leaves out the head that tells least: the closest to its neighbours, for
// how far back it is.
func thin(heads []Head) []Head {
	if len(heads) <= wire.MaxAuditHeads {
		return heads
	}
	newest := heads[len(heads)-1].Seq
	least, at := 0.0, 0
	for i := 1; i < len(heads)-1; i++ {
		tells := float64(heads[i+1].Seq-heads[i-1].Seq) / float64(newest-heads[i].Seq)
		if at == 0 || tells < least {
			least, at = tells, i
		}
	}
	return append(heads[:at], heads[at+1:]...)
}

// Heads are those that the box holds and can prove, for its HELLO.
func (w *Witness) Heads() []wire.AuditHead {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []wire.AuditHead
	for _, h := range w.heads {
		if told, ok := h.wire(); ok {
			out = append(out, told)
		}
	}
	return out
}

func (h Head) wire() (wire.AuditHead, bool) {
	if h.Proof == nil {
		return wire.AuditHead{}, false
	}
	hash, err := hex.DecodeString(h.Hash)
	key, err2 := hex.DecodeString(string(h.Proof.Key))
	ok := err == nil && err2 == nil && len(hash) == wire.AuditHashBytes && len(key) == wire.AuditKeyBytes && len(h.Proof.Sig) == wire.AuditSigBytes
	return wire.AuditHead{Seq: h.Seq, Hash: hash, UnixS: h.Time.Unix(), Key: key, Sig: h.Proof.Sig}, ok
}
