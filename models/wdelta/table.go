package wdelta

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"
)

// kind is what a segment of a frame is made from. Part of the format.
type kind byte

const (
	kindText  kind = iota // bytes that are no numbers: names, graph, padding
	kindCopy              // the same bytes as a range of the base
	kindPlain             // numbers by themselves
	kindMoved             // numbers as differences to a range of the base
	kindSteps             // floats as whole steps from a range of the base
	kindEnd
)

// based reports whether the kind reads the base.
func (k kind) based() bool { return k == kindCopy || k == kindMoved || k == kindSteps }

// rows reports whether the numbers of the kind may lie in rows.
func (k kind) rows() bool { return k == kindMoved || k == kindSteps }

// numbers reports whether the kind needs an element.
func (k kind) numbers() bool { return k == kindPlain || k == kindMoved || k == kindSteps }

// takes reports whether numbers of kind k can be of element e.
func (k kind) takes(e elem) bool {
	switch k {
	case kindPlain, kindMoved:
		return e > elemNone && e < elemEnd
	case kindSteps:
		return e == elemF16 || e == elemBF16 || e == elemF32
	}
	return e == elemNone
}

// segment is a run of bytes of the target made in one way.
type segment struct {
	kind kind
	elem elem
	n    int
	base int64 // where its range of the base begins
	step float32
	// Of matrices: elements of a row, and where in a row the segment begins.
	width, col int
}

// run is the segment as the context coder sees it.
func (s segment) run() run { return run{s.n / s.elem.size(), s.width, s.col} }

// key names the stream that a segment's bytes are in: all segments of a frame
// with the same kind and element share one, in order.
type key byte

func (s segment) key() key { return key(s.kind) | key(s.elem)<<4 }

func (k key) kind() kind { return kind(k & 15) }
func (k key) elem() elem { return elem(k >> 4) }

// method is how a stream is coded. Part of the format.
type method byte

const (
	methodRaw      method = iota
	methodZstd            // zstd
	methodDict            // zstd with a window of the dictionary
	methodPlane           // byte planes, zstd
	methodSubPlane        // differences to the base, byte planes, zstd
	methodCtx             // differences to the base, context coder
	methodCtx0            // context coder
	methodLocal           // differences to the base, context coder without rows
	methodBytes           // differences of 8-bit numbers to the base, context coder
	methodEnd
)

// rows reports whether the method makes use of rows.
func (m method) rows() bool { return m == methodCtx || m == methodBytes }

// fits reports whether a stream of key k may be coded by m.
func (m method) fits(k key) bool {
	switch k.kind() {
	case kindText:
		return m <= methodDict
	case kindPlain:
		return m == methodRaw || m == methodZstd || m == methodPlane || m == methodCtx0
	case kindMoved, kindSteps:
		return m == methodSubPlane || m == methodCtx || m == methodLocal || m == methodBytes && k.elem() == elemI8
	}
	return false
}

// stream is the coded bytes of all segments of one key.
type stream struct {
	key    key
	method method
	wire   []byte
	dict   span // with methodDict: the window of the dictionary
}

// table is what a payload begins with.
type table struct {
	segments []segment
	streams  []stream
}

func zigzag(v int64) uint64   { return uint64(v<<1 ^ v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// appendTo appends the payload: length and bytes of the table, then the streams.
// off is the frame's place in the target: where the base is expected first.
func (t table) appendTo(out []byte, off int64, enc *zstd.Encoder) []byte {
	b := binary.AppendUvarint(nil, uint64(len(t.segments)))
	expected := off
	for _, s := range t.segments {
		b = append(b, byte(s.key()))
		b = binary.AppendUvarint(b, uint64(s.n))
		if s.kind.based() {
			b = binary.AppendUvarint(b, zigzag(s.base-expected))
			expected = s.base
		}
		if s.kind == kindSteps {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s.step))
		}
		if s.kind.rows() {
			if b = binary.AppendUvarint(b, uint64(s.width)); s.width > 0 {
				b = binary.AppendUvarint(b, uint64(s.col))
			}
		}
		expected += int64(s.n)
	}
	b = binary.AppendUvarint(b, uint64(len(t.streams)))
	for _, s := range t.streams {
		b = append(b, byte(s.key), byte(s.method))
		b = binary.AppendUvarint(b, uint64(len(s.wire)))
		if s.method == methodDict {
			b = binary.AppendUvarint(b, uint64(s.dict.off))
			b = binary.AppendUvarint(b, uint64(s.dict.n))
		}
	}
	wire := b
	if len(b) > 64 {
		if z := enc.EncodeAll(b, nil); len(z) < len(b) {
			wire = z
		}
	}
	out = binary.AppendUvarint(out, uint64(len(b)))
	out = binary.AppendUvarint(out, uint64(len(wire)))
	out = append(out, wire...)
	for _, s := range t.streams {
		out = append(out, s.wire...)
	}
	return out
}

// parse reads the payload of f. Every length is checked against what it is a
// part of; the wire slices point into payload.
func (d *Decoder) parse(f Frame, payload []byte) error {
	c := cut8{b: payload}
	raw, wire := c.uvarint(), c.uvarint()
	if c.bad || raw > maxTableBytes || wire > raw || wire > uint64(len(c.b)) {
		return fmt.Errorf("length of its table: %w", ErrCorrupt)
	}
	body, rest := c.b[:wire], c.b[wire:]
	if wire < raw {
		var err error
		if body, err = d.unzstd(d.zstd, &d.tableBuf, body, int(raw)); err != nil {
			return fmt.Errorf("its table: %w", err)
		}
	}
	c = cut8{b: body}
	lens, err := d.parseSegments(&c, f)
	if err != nil {
		return err
	}
	if rest, err = d.parseStreams(&c, rest, &lens); err != nil {
		return err
	}
	if c.bad || len(c.b) > 0 || len(rest) > 0 {
		return fmt.Errorf("bytes that belong to nothing: %w", ErrCorrupt)
	}
	for k, n := range lens {
		if n > 0 && key(k).kind() != kindCopy {
			return fmt.Errorf("a segment without its stream: %w", ErrCorrupt)
		}
	}
	return nil
}

// parseSegments returns how many bytes each key has.
func (d *Decoder) parseSegments(c *cut8, f Frame) (lens [256]int, err error) {
	n, left, expected := c.uvarint(), f.Len, f.Off
	if n > uint64(len(c.b)) {
		return lens, fmt.Errorf("number of its segments: %w", ErrCorrupt)
	}
	d.segments = d.segments[:0]
	for range n {
		k := key(c.byte())
		length := c.uvarint()
		if length == 0 || length > uint64(left) || c.bad {
			return lens, fmt.Errorf("length of a segment: %w", ErrCorrupt)
		}
		s := segment{kind: k.kind(), elem: k.elem(), n: int(length)}
		if s.kind >= kindEnd || !s.kind.takes(s.elem) || s.kind.numbers() && s.n%s.elem.size() != 0 {
			return lens, fmt.Errorf("a segment of kind %d with element %d and %d bytes: %w", s.kind, s.elem, s.n, ErrCorrupt)
		}
		if s.kind.based() {
			s.base = expected + unzigzag(c.uvarint())
			if s.base < 0 || s.base > d.header.BaseSize-int64(s.n) {
				return lens, fmt.Errorf("a segment reads the base outside of its %d bytes: %w", d.header.BaseSize, ErrCorrupt)
			}
			expected = s.base
		}
		if s.kind == kindSteps {
			bits := uint32(c.byte()) | uint32(c.byte())<<8 | uint32(c.byte())<<16 | uint32(c.byte())<<24
			if s.step = math.Float32frombits(bits); c.bad || !usableStep(s.step) {
				return lens, fmt.Errorf("the step of a segment is no positive number: %w", ErrCorrupt)
			}
		}
		if s.kind.rows() {
			if err := s.parseRows(c); err != nil {
				return lens, err
			}
		}
		expected += int64(s.n)
		left -= s.n
		lens[k] += s.n
		d.segments = append(d.segments, s)
	}
	if left != 0 {
		return lens, fmt.Errorf("its segments leave %d bytes open: %w", left, ErrCorrupt)
	}
	return lens, nil
}

// parseRows refuses rows longer than the segment, so that what they cost to decode
// is bounded by the size of the frame, and rows of 64-bit numbers, whose values need
// more bits than prediction has.
func (s *segment) parseRows(c *cut8) error {
	width, col := c.uvarint(), uint64(0)
	if width > 0 {
		col = c.uvarint()
	}
	if c.bad || width > 0 && s.elem.size() == 8 || width > mostWidth || width > uint64(s.n/s.elem.size()) || col > 0 && col >= width {
		return fmt.Errorf("rows of %d elements from the element %d of one: %w", width, col, ErrCorrupt)
	}
	s.width, s.col = int(width), int(col)
	return nil
}

// parseStreams decodes each stream as it comes and takes its key off lens.
func (d *Decoder) parseStreams(c *cut8, rest []byte, lens *[256]int) ([]byte, error) {
	n := c.uvarint()
	if n > uint64(kindEnd)*uint64(elemEnd) {
		return nil, fmt.Errorf("number of its streams: %w", ErrCorrupt)
	}
	d.streams = d.streams[:0]
	for range n {
		s := stream{key: key(c.byte()), method: method(c.byte())}
		wire := c.uvarint()
		if s.method == methodDict {
			s.dict = span{int64(c.uvarint()), int64(c.uvarint())}
		}
		if c.bad || wire > uint64(len(rest)) || !s.method.fits(s.key) || lens[s.key] == 0 {
			return nil, fmt.Errorf("a stream of key %d by method %d: %w", s.key, s.method, ErrCorrupt)
		}
		s.wire, rest = rest[:wire], rest[wire:]
		d.lens[s.key] = lens[s.key]
		lens[s.key] = 0
		d.streams = append(d.streams, s)
	}
	return rest, nil
}
