package spool

import (
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Draft is a block before it has a number.
type Draft struct {
	Lane    wire.Lane
	Kind    wire.Kind
	MonoMs  int64
	WallMs  int64
	SpanMs  int64
	Quality wire.TimeQuality
	Schema  *wire.Schema // of KindSamples, else nil
	Count   uint32       // records
	Payload []byte
}

// Append stores drafts, all or none. When it returns nil they are on disk. A
// full or read-only disk is an error that changes nothing; a later Append works
// when the disk does.
func (s *Spool) Append(drafts ...Draft) ([]wire.Key, error) {
	return s.append("", nil, drafts)
}

// AppendWithCursor stores drafts and a cursor of the caller in one transaction.
func (s *Spool) AppendWithCursor(name string, cursor []byte, drafts ...Draft) ([]wire.Key, error) {
	return s.append(name, cursor, drafts)
}

// Cursor returns what was last stored under name, nil if nothing was.
func (s *Spool) Cursor(name string) ([]byte, error) {
	var cursor []byte
	err := s.view(func(t *txn) error {
		if v := t.cursors.Get([]byte(name)); v != nil {
			cursor = append([]byte{}, v...)
		}
		return nil
	})
	return cursor, err
}

func (s *Spool) append(name string, cursor []byte, drafts []Draft) ([]wire.Key, error) {
	if name == "" && len(drafts) == 0 {
		return nil, nil
	}
	var need int64
	for _, d := range drafts {
		if d.Lane >= wire.Lanes {
			return nil, fmt.Errorf("append to spool: lane %d, there are %d", d.Lane, wire.Lanes)
		}
		need += cost(len(d.Payload) + 160)
	}
	if need > s.opts.budget()/2 {
		return nil, fmt.Errorf("append to spool: %d bytes at once, its room is %d", need, s.opts.budget())
	}
	if over := s.cost() + need - s.opts.budget(); over > 0 {
		if err := s.room(over); err != nil {
			return nil, fmt.Errorf("append to spool: %w", err)
		}
	}
	var keys []wire.Key
	tries := 0
	err := s.write(func(t *txn) (err error) {
		if name != "" {
			if err := t.cursors.Put([]byte(name), cursor); err != nil {
				return err
			}
		}
		if keys, err = t.append(drafts); err != nil {
			return err
		}
		if tries++; tries > 1 { // there was no room: packing needs some first
			return nil
		}
		return t.repack()
	})
	if err != nil {
		return nil, fmt.Errorf("append to spool: %w", err)
	}
	if len(keys) > 0 {
		s.signal()
	}
	return keys, nil
}

func (t *txn) append(drafts []Draft) ([]wire.Key, error) {
	keys := make([]wire.Key, 0, len(drafts))
	for _, d := range drafts {
		b := wire.Block{
			Key:  wire.Key{SID: t.spool.sid, Lane: d.Lane, Seq: t.state.seq[d.Lane] + 1},
			Kind: d.Kind, Boot: t.spool.opts.Boot, MonoMs: d.MonoMs, WallMs: d.WallMs,
			Quality: d.Quality, Count: d.Count, SpanMs: d.SpanMs, Payload: d.Payload,
		}
		if d.Schema != nil {
			id, err := t.putSchema(*d.Schema)
			if err != nil {
				return nil, err
			}
			b.Schema = id
		}
		if err := wire.Seal(&b); err != nil {
			return nil, err
		}
		if err := t.put(b); err != nil {
			return nil, err
		}
		if b.Quality != wire.TimeUnknown {
			t.state.known = max(t.state.known, b.WallMs+b.SpanMs)
		}
		t.state.seq[d.Lane]++
		keys = append(keys, b.Key)
	}
	return keys, nil
}

func (t *txn) putSchema(s wire.Schema) (wire.SchemaID, error) {
	id := wire.SchemaIDOf(s)
	if t.schemas.Get(id[:]) != nil {
		return id, nil
	}
	raw, err := wire.Encode(s)
	if err != nil {
		return id, err
	}
	return id, t.schemas.Put(id[:], raw)
}

// put stores a sealed block of this life.
func (t *txn) put(b wire.Block) error {
	if !t.state.named {
		if err := t.putLife(t.spool.life, life{SID: t.spool.sid}); err != nil {
			return err
		}
		t.state.named = true
	}
	raw, err := wire.Encode(b)
	if err != nil {
		return err
	}
	return errors.Join(
		t.putUnacked(b.Key.Lane, placeOf(t.spool.life, b.Key.Seq), entryOf(headOfBlock(b), raw)),
		t.countLife(t.spool.life, b.Key.Lane, 1))
}
