package store

import (
	"encoding/binary"
	"math"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// A piece of formRows, after its first byte:
//
//	sid, lane, boot, schema id
//	section   members
//	count     rows
//	count     bytes of the columns before compression
//	section   the columns, one zstd frame: times, then for each metric of the
//	          schema its length and, after all lengths, the columns themselves,
//	          so that one metric of a month is read without the others
//
// Values are the integers of the schema's scale, as they travelled. A column
// of length 0 is missing; else its first byte is the mode.
const (
	columnFull     = 0 // a difference for each row
	columnHoles    = 1 // a bit for each row, then as full for those present
	columnConstant = 2 // one value
	columnFloats   = 3 // 8 bytes for each row: what is no integer of the scale
	columnMissing  = 4 // nothing; not stored
)

// maxColumns bounds the columns of a row before compression, and their values.
const maxColumns = 1 << 30

func (p *part) encode() []byte {
	out := binary.AppendUvarint(p.appendHead(nil, formRows), uint64(len(p.timesMs)))
	raw := p.encodeColumns()
	out = binary.AppendUvarint(out, uint64(len(raw)))
	return appendSection(out, squeezer.EncodeAll(raw, nil))
}

// appendHead writes what begins a piece of formRows or formSealed.
func (p *part) appendHead(out []byte, form byte) []byte {
	out = append(append(out, form), p.sid[:]...)
	out = append(append(out, byte(p.lane)), p.boot[:]...)
	return appendSection(append(out, p.id[:]...), p.encodeMembers())
}

func (p *part) encodeMembers() []byte {
	out := binary.AppendUvarint(make([]byte, 0, 24*len(p.members)), uint64(len(p.members)))
	var last member
	for _, m := range p.members {
		out = append(out, m.H64[:]...)
		out = binary.AppendVarint(out, int64(m.Seq-last.Seq))
		out = binary.AppendVarint(out, m.MonoMs-last.MonoMs)
		out = binary.AppendVarint(out, (m.WallMs-m.MonoMs)-(last.WallMs-last.MonoMs))
		out = binary.AppendVarint(out, (m.StartMs-m.WallMs)-(last.StartMs-last.WallMs))
		out = append(out, byte(m.Quality))
		out = binary.AppendUvarint(out, uint64(m.Count))
		out = binary.AppendVarint(out, m.SpanMs)
		last = m
	}
	return out
}

func decodeMembers(raw []byte) ([]member, error) {
	in := input{rest: raw}
	members := make([]member, in.count())
	var last member
	for i := range members {
		m := member{Member: wire.Member{H64: in.eight()}}
		m.Seq = last.Seq + uint64(in.varint())
		m.MonoMs = last.MonoMs + in.varint()
		m.WallMs = m.MonoMs + (last.WallMs - last.MonoMs) + in.varint()
		m.StartMs = m.WallMs + (last.StartMs - last.WallMs) + in.varint()
		m.Quality, m.Count, m.SpanMs = wire.TimeQuality(in.octet()), uint32(in.uvarint()), in.varint()
		members[i], last = m, m
	}
	return members, in.end()
}

func (p *part) encodeColumns() []byte {
	out := make([]byte, 0, len(p.timesMs)*(2*len(p.values)+2)+64)
	var last, step int64
	for _, t := range p.timesMs {
		d := t - last
		out = binary.AppendVarint(out, d-step)
		last, step = t, d
	}
	var data []byte
	ints := make([]int64, 0, len(p.timesMs))
	for m, column := range p.values {
		from := len(data)
		data = appendColumn(data, ints, column, scaleOf(p.schema.Metrics[m].Scale))
		out = binary.AppendUvarint(out, uint64(len(data)-from))
	}
	return append(out, data...)
}

// appendColumn uses ints as room for as many integers as there are rows.
func appendColumn(out []byte, ints []int64, column []float64, sc scale) []byte {
	missing, constant := 0, true
	for _, v := range column {
		if math.IsNaN(v) {
			missing++
			continue
		}
		k, ok := sc.integer(v)
		if !ok {
			out = append(out, columnFloats)
			for _, v := range column {
				out = appendFloat(out, v)
			}
			return out
		}
		ints = append(ints, k)
		constant = constant && k == ints[0]
	}
	switch {
	case missing == len(column):
		return out
	case missing > 0:
		out = append(out, columnHoles)
		bits := make([]byte, (len(column)+7)/8)
		for i, v := range column {
			if !math.IsNaN(v) {
				bits[i/8] |= 1 << (i % 8)
			}
		}
		out = append(out, bits...)
	case constant:
		return binary.AppendVarint(append(out, columnConstant), ints[0])
	default:
		out = append(out, columnFull)
	}
	var last int64
	for _, k := range ints {
		out = binary.AppendVarint(out, k-last)
		last = k
	}
	return out
}

func (r *reading) readRows(c *content, in input) error {
	p := part{sid: in.eight(), lane: wire.Lane(in.octet()), boot: in.eight(), id: in.eight()}
	raw := in.section()
	rows, size := in.uvarint(), in.uvarint()
	frame := in.section()
	if err := in.end(); err != nil || rows > size || size > maxColumns {
		return errDamaged
	}
	var err error
	if p.schema, err = r.schema(p.id); err != nil {
		return err
	}
	if r.want == nil { // else nobody asks for the blocks
		if p.members, err = decodeMembers(raw); err != nil {
			return err
		}
	}
	columns, err := expander.DecodeAll(frame, make([]byte, 0, size))
	if err != nil || uint64(len(columns)) != size {
		return errDamaged
	}
	if err := p.decodeColumns(input{rest: columns}, int(rows), r.wanted(p.id, p.schema)); err != nil {
		return err
	}
	c.parts = append(c.parts, p)
	return nil
}

func (p *part) decodeColumns(in input, rows int, cols []int) error {
	p.timesMs = make([]int64, rows)
	var last, step int64
	for i := range p.timesMs {
		step += in.varint()
		last += step
		p.timesMs[i] = last
	}
	ends := make([]int, len(p.schema.Metrics)+1)
	for i := range p.schema.Metrics {
		ends[i+1] = ends[i] + in.count()
	}
	if in.short || len(in.rest) != ends[len(ends)-1] {
		return errDamaged
	}
	p.values = make([][]float64, len(cols))
	cells := make([]float64, rows*len(cols))
	for i, col := range cols {
		if col < 0 {
			continue
		}
		p.values[i], cells = cells[:rows:rows], cells[rows:]
		if !decodeColumn(p.values[i], in.rest[ends[col]:ends[col+1]], scaleOf(p.schema.Metrics[col].Scale)) {
			return errDamaged
		}
	}
	return nil
}

// decodeColumn fills dst and reports whether data was a column of its length.
func decodeColumn(dst []float64, data []byte, sc scale) bool {
	if len(data) == 0 {
		return decodeColumnOf(columnMissing, dst, nil, sc)
	}
	return decodeColumnOf(data[0], dst, data[1:], sc)
}

func decodeColumnOf(mode byte, dst []float64, rest []byte, sc scale) bool {
	switch mode {
	case columnMissing:
		for i := range dst {
			dst[i] = math.NaN()
		}
		return len(rest) == 0
	case columnFull:
		return decodeFull(dst, rest, sc)
	case columnConstant:
		u, n := binary.Uvarint(rest)
		v := sc.value(int64(u>>1) ^ -int64(u&1))
		for i := range dst {
			dst[i] = v
		}
		return n == len(rest)
	case columnFloats:
		in := input{rest: rest}
		for i := range dst {
			dst[i] = in.float()
		}
		return in.end() == nil
	case columnHoles:
		in := input{rest: rest}
		bits := in.take((len(dst) + 7) / 8)
		if in.short {
			return false
		}
		var k int64
		for i := range dst {
			if bits[i/8]>>(i%8)&1 == 0 {
				dst[i] = math.NaN()
				continue
			}
			k += in.varint()
			dst[i] = sc.value(k)
		}
		return in.end() == nil
	}
	return false
}

// decodeFull is where the time goes when a month is read.
func decodeFull(dst []float64, rest []byte, sc scale) bool {
	var k int64
	p := sc.p
	for i := range dst {
		var u uint64
		switch {
		case len(rest) >= 1 && rest[0] < 0x80:
			u = uint64(rest[0])
			rest = rest[1:]
		case len(rest) >= 2 && rest[1] < 0x80:
			u = uint64(rest[0]&0x7f) | uint64(rest[1])<<7
			rest = rest[2:]
		default:
			var n int
			if u, n = binary.Uvarint(rest); n <= 0 {
				return false
			}
			rest = rest[n:]
		}
		k += int64(u>>1) ^ -int64(u&1)
		if sc.mul {
			dst[i] = float64(k) * p
		} else {
			dst[i] = float64(k) / p
		}
	}
	return len(rest) == 0
}
