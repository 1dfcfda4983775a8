package spool

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// gaps collects what a transaction drops, by reason.
type gaps map[string][]wire.GapRange

// add notes a range; one that follows the last of its lane and life joins it.
func (g gaps) add(reason string, r wire.GapRange) {
	list := g[reason]
	for i := len(list) - 1; i >= 0 && i >= len(list)-wire.Lanes; i-- {
		if l := &list[i]; l.SID == r.SID && l.Lane == r.Lane && r.From > l.To {
			l.To, l.Count = r.To, l.Count+r.Count
			return
		}
	}
	g[reason] = append(list, r)
}

// each calls fn with the gaps, each within the limits of the protocol.
func (g gaps) each(fn func(wire.Gap) error) error {
	for _, reason := range slices.Sorted(maps.Keys(g)) {
		for ranges := range slices.Chunk(g[reason], wire.MaxGapRanges) {
			first := ranges[0]
			err := fn(wire.Gap{
				SID: first.SID, Lane: first.Lane, From: first.From, To: first.To, Count: first.Count,
				Reason: reason, Also: ranges[1:],
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// tell notes that an un-acked block is about to be dropped. A gap that was not
// delivered yet hands on what it told: its own loss counts for nothing.
func (t *txn) tell(lost gaps, reason string, lane wire.Lane, at place, value []byte) error {
	l, err := decodeLife(t.lives.Get(binary.BigEndian.AppendUint32(nil, at.life())))
	if err != nil {
		return fmt.Errorf("life %d: %w", at.life(), err)
	}
	if h := headOf(value); h.pack {
		t.state.counts.Dropped += int64(h.n)
		parcel, err := readParcel(value)
		if err != nil { // damaged: its head knows how many there were
			lost.add(reason, wire.GapRange{SID: l.SID, Lane: lane, From: at.seq(), To: at.seq() + uint64(h.span), Count: uint64(h.n)})
			return nil
		}
		for _, m := range parcel.Pack.Members {
			lost.add(reason, wire.GapRange{SID: l.SID, Lane: lane, From: m.Seq, To: m.Seq, Count: 1})
		}
		return nil
	}
	own := wire.GapRange{SID: l.SID, Lane: lane, From: at.seq(), To: at.seq(), Count: 1}
	if lane == wire.LaneEvents && len(value) > unackedHead {
		if inner, ok := gapIn(value[unackedHead:]); ok {
			own.Count = 0
			lost.add(inner.Reason, wire.GapRange{SID: inner.SID, Lane: inner.Lane, From: inner.From, To: inner.To, Count: inner.Count})
			for _, r := range inner.Also {
				lost.add(inner.Reason, r)
			}
		}
	}
	lost.add(reason, own)
	t.state.counts.Dropped += int64(own.Count)
	return nil
}

func gapIn(raw []byte) (wire.Gap, bool) {
	b, err := wire.Decode[wire.Block](raw)
	if err != nil || b.Kind != wire.KindGap {
		return wire.Gap{}, false
	}
	g, err := wire.DecodeGap(b.Payload)
	return g, err == nil
}

// appendGap stores a tombstone. It asks for no room: what it tells of made some.
func (t *txn) appendGap(g wire.Gap) error {
	payload, err := wire.EncodeGap(g)
	if err != nil {
		return err
	}
	_, err = t.append([]Draft{{
		Lane: wire.LaneEvents, Kind: wire.KindGap, Count: 1, Payload: payload,
		MonoMs: t.spool.opts.SinceBoot().Milliseconds(), WallMs: t.spool.opts.WallClock().UnixMilli(),
	}})
	return err
}
