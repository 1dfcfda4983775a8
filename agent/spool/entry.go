package spool

import (
	"encoding/binary"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// class says what can still be made of an entry when room is needed.
type class byte

const (
	classOther  class = 0 // nothing: it stays as it is or goes
	classLoose  class = 1 // a block of samples, to be packed
	classExact  class = 2 // a pack of all samples
	classMember class = 3 // a pack of one row a member
)

// head is what begins an entry: enough to count it without reading it.
type head struct {
	pack  bool
	class class
	n     int    // blocks: of a pack its members, else 1
	span  uint16 // of a pack: last Seq less first
	h64   wire.H64
}

// packFlag marks packs in the first byte of a head, beside the class.
const packFlag = 0x80

func headOfBlock(b wire.Block) head {
	h := head{n: 1, h64: b.Key.H64}
	if b.Key.Lane == wire.LaneTelemetry && b.Kind == wire.KindSamples {
		h.class = classLoose
	}
	return h
}

func headOfPack(p wire.Pack) head {
	first, last := p.Members[0], p.Members[len(p.Members)-1]
	h := head{pack: true, n: len(p.Members), span: uint16(last.Seq - first.Seq), h64: first.H64}
	switch p.Grain {
	case wire.GrainExact:
		h.class = classExact
	case wire.GrainMember:
		h.class = classMember
	}
	return h
}

// headOf reads the head of an un-acked entry. An entry that is too short for one
// reads as a block that does not verify.
func headOf(v []byte) head {
	if len(v) < unackedHead {
		return head{n: 1}
	}
	return head{
		pack: v[0]&packFlag != 0, class: class(v[0] &^ packFlag), n: int(v[1]),
		span: binary.BigEndian.Uint16(v[2:]), h64: wire.H64(v[4:unackedHead]),
	}
}

// entryOf puts a head before an encoded block or pack.
func entryOf(h head, raw []byte) []byte {
	first := byte(h.class)
	if h.pack {
		first |= packFlag
	}
	v := append(make([]byte, 0, unackedHead+len(raw)), first, byte(h.n))
	v = binary.BigEndian.AppendUint16(v, h.span)
	v = append(v, h.h64[:]...)
	return append(v, raw...)
}

// Parcel is what the spool has as one: a block or a pack.
type Parcel struct {
	Block wire.Block // when Pack is nil
	Pack  *wire.Pack
	Bytes int  // as encoded
	Old   bool // not younger than Query.Since, and no event
}

// Keys names the blocks of a parcel.
func (p Parcel) Keys() []wire.Key {
	if p.Pack != nil {
		return p.Pack.Keys()
	}
	return []wire.Key{p.Block.Key}
}

// Schema is that of samples; ok is false for everything else.
func (p Parcel) Schema() (id wire.SchemaID, ok bool) {
	if p.Pack != nil {
		return p.Pack.Schema, true
	}
	return p.Block.Schema, p.Block.Kind == wire.KindSamples
}

func (p Parcel) wallMs() int64 {
	if p.Pack != nil {
		return p.Pack.Members[0].WallMs
	}
	return p.Block.WallMs
}

// readParcel decodes and verifies an un-acked entry.
func readParcel(v []byte) (Parcel, error) {
	if len(v) < unackedHead {
		return Parcel{}, fmt.Errorf("entry of %d bytes", len(v))
	}
	p := Parcel{Bytes: len(v) - unackedHead}
	if !headOf(v).pack {
		var err error
		if p.Block, err = wire.Decode[wire.Block](v[unackedHead:]); err != nil {
			return Parcel{}, err
		}
		return p, p.Block.Verify()
	}
	pack, err := wire.Decode[wire.Pack](v[unackedHead:])
	if err != nil {
		return Parcel{}, err
	}
	p.Pack = &pack
	return p, pack.Verify()
}

// putUnacked stores an entry and counts it. Its life is counted by the caller,
// since most entries come from other ones.
func (t *txn) putUnacked(lane wire.Lane, at place, v []byte) error {
	t.state.counts.unacked(lane, headOf(v), len(v)-unackedHead, 1)
	return t.unacked[lane].Put(at[:], v)
}

// takeUnacked removes an entry; its life keeps it. It returns what that frees.
func (t *txn) takeUnacked(lane wire.Lane, at place, v []byte) (int64, error) {
	h := headOf(v)
	t.state.counts.unacked(lane, h, len(v)-unackedHead, -1)
	t.packs = t.packs || h.pack
	return cost(len(v) - unackedHead), t.unacked[lane].Delete(at[:])
}

// unacked adds an entry, or takes it away with sign -1.
func (c *counts) unacked(lane wire.Lane, h head, size int, sign int64) {
	c.Blocks[lane] += sign * int64(h.n)
	c.Bytes[lane] += sign * int64(size)
	c.Cost[lane] += sign * cost(size)
	switch h.class {
	case classLoose:
		c.Loose += sign
		c.Exact += sign * cost(size)
	case classExact:
		c.Exact += sign * cost(size)
	case classMember:
		c.ByMember += sign * cost(size)
	}
}

func (c *counts) windowed(lane wire.Lane, h head, size int, sign int64) {
	c.WindowBlocks[lane] += sign * int64(h.n)
	c.WindowCost[lane] += sign * cost(size)
}
