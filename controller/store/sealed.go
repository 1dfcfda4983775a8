package store

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/klauspost/compress/zstd"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// A piece of formSealed is an exact pack of which all members count. Its
// samples stay as the box compressed them: it did the work, and what it made is
// as compact and nearly as quick to read as a piece of formRows. After its
// first byte:
//
//	sid, lane, boot, schema id
//	section   members
//	count     bytes of the payload before compression
//	section   the payload of the pack as it came, see internal/wire
//
// No lengths of columns are kept. To pass over one is to count the last bytes
// of its numbers, which takes a part of what expanding it took.

// encodeSealed returns the piece of p, whose samples are in frame, or nil when
// that does not say how large they are.
func (p *part) encodeSealed(frame []byte) []byte {
	var h zstd.Header
	if err := h.Decode(frame); err != nil || !h.HasFCS || h.FrameContentSize > maxColumns {
		return nil
	}
	out := p.appendHead(make([]byte, 0, 64+24*len(p.members)+len(frame)), formSealed)
	out = binary.AppendUvarint(out, h.FrameContentSize)
	return appendSection(out, frame)
}

func (r *reading) readSealed(c *content, in input) error {
	p := part{sid: in.eight(), lane: wire.Lane(in.octet()), boot: in.eight(), id: in.eight()}
	members, size, frame := in.section(), in.uvarint(), in.section()
	if err := in.end(); err != nil || size > maxColumns {
		return errDamaged
	}
	var err error
	if p.schema, err = r.schema(p.id); err != nil {
		return err
	}
	if p.members, err = decodeMembers(members); err != nil {
		return err
	}
	raw, err := expander.DecodeAll(frame, make([]byte, 0, size))
	if err != nil || uint64(len(raw)) != size {
		return errDamaged
	}
	if err := p.openSealed(input{rest: raw}, r.wanted(p.id, p.schema)); err != nil {
		return err
	}
	c.parts = append(c.parts, p)
	return nil
}

// The modes of a column in a samples payload.
const (
	sealedFull    = 0
	sealedMissing = 1
	sealedHoles   = 2
)

// openSealed reads times and wanted columns of a samples payload.
func (p *part) openSealed(in input, cols []int) error {
	rows := uint64(0)
	for _, m := range p.members {
		rows += uint64(m.Count)
	}
	if in.octet(); rows > uint64(len(in.rest)) { // the form; there is one
		return errDamaged
	}
	p.sealedTimes(&in, int(rows))
	metrics := len(p.schema.Metrics)
	modes := in.take((metrics + 3) / 4)
	if in.short || uint64(len(cols))*rows > maxColumns {
		return errDamaged
	}
	last := -1
	for _, col := range cols {
		last = max(last, col)
	}
	columns := make([][]byte, last+1)
	for i := range columns {
		columns[i] = in.sealedColumn(modes[i/4]>>(i%4*2)&3, int(rows))
	}
	if in.short {
		return errDamaged
	}
	p.values = make([][]float64, len(cols))
	cells := make([]float64, int(rows)*len(cols))
	for i, col := range cols {
		if col < 0 {
			continue
		}
		p.values[i], cells = cells[:rows:rows], cells[rows:]
		mode := [4]byte{columnFull, columnMissing, columnHoles, columnConstant}[modes[col/4]>>(col%4*2)&3]
		if !decodeColumnOf(mode, p.values[i], columns[col], scaleOf(p.schema.Metrics[col].Scale)) {
			return errDamaged
		}
	}
	return nil
}

// sealedTimes puts the rows of the members on the calendar.
func (p *part) sealedTimes(in *input, rows int) {
	p.timesMs = make([]int64, 0, rows)
	var t, step int64
	for _, m := range p.members {
		shift := m.StartMs - (m.MonoMs - p.members[0].MonoMs)
		for range m.Count {
			if d := in.varint(); len(p.timesMs) < 2 {
				step = d
			} else {
				step += d
			}
			t += step
			p.timesMs = append(p.timesMs, t+shift)
		}
	}
}

// sealedColumn takes the column of a mode.
func (r *input) sealedColumn(mode byte, rows int) []byte {
	switch mode {
	case sealedFull:
		return r.take(varints(r.rest, rows))
	case sealedMissing:
		return nil
	case sealedHoles:
		present, n := 0, (rows+7)/8
		for _, b := range r.rest[:min(n, len(r.rest))] {
			present += bits.OnesCount8(b)
		}
		if n > len(r.rest) {
			return r.take(n)
		}
		return r.take(n + varints(r.rest[n:], present))
	}
	return r.take(varints(r.rest, 1))
}

// varints returns how many bytes n numbers have, more than b if it has fewer.
func varints(b []byte, n int) int {
	const top = 0x8080808080808080 // 0 in the last byte of a number
	at := 0
	for len(b)-at >= 8 {
		ends := bits.OnesCount64(^binary.LittleEndian.Uint64(b[at:]) & top)
		if ends >= n {
			break
		}
		n, at = n-ends, at+8
	}
	for ; n > 0; at++ {
		if at >= len(b) {
			return math.MaxInt
		}
		if b[at] < 0x80 {
			n--
		}
	}
	return at
}
