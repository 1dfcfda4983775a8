package container

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// window is how many bytes a cursor reads at once. Headers between large
// tensors are short, so a larger one would read weights for nothing.
const window = 16 << 10

// cursor reads forward through a file and jumps without reading.
type cursor struct {
	r      io.ReaderAt
	size   int64
	off    int64
	buf    []byte
	bufOff int64
}

// fill makes at least n bytes at off available, n <= window.
func (c *cursor) fill(n int) ([]byte, error) {
	if int64(n) > c.size-c.off {
		return nil, c.truncated()
	}
	if at := c.off - c.bufOff; at >= 0 && at+int64(n) <= int64(len(c.buf)) {
		return c.buf[at:], nil
	}
	if cap(c.buf) == 0 {
		c.buf = make([]byte, window)
	}
	c.buf = c.buf[:min(int64(window), c.size-c.off)]
	if got, err := c.r.ReadAt(c.buf, c.off); got < len(c.buf) {
		c.buf = c.buf[:0]
		return nil, fmt.Errorf("read at byte %d: %w", c.off, err)
	}
	c.bufOff = c.off
	return c.buf, nil
}

func (c *cursor) truncated() error {
	return fmt.Errorf("it ends at byte %d in the middle of something: %w", c.size, io.ErrUnexpectedEOF)
}

// field is the head of a protobuf field: a number, or a range of bytes when
// end is above 0.
type field struct {
	num   protowire.Number
	value uint64
	start int64
	end   int64
	fixed int // bytes of a fixed-size number, 0 for a varint
}

func (f field) text() bool { return f.end > 0 }

func (f field) len() int64 { return f.end - f.start }

// varint reads a base-128 number that must end before end.
func (c *cursor) varint(end int64) (uint64, error) {
	n := min(binary.MaxVarintLen64, end-c.off)
	if n <= 0 {
		return 0, fmt.Errorf("a number at byte %d runs past what holds it", c.off)
	}
	b, err := c.fill(int(n))
	if err != nil {
		return 0, err
	}
	v, used := protowire.ConsumeVarint(b[:n])
	if used < 0 {
		return 0, fmt.Errorf("a number at byte %d is damaged", c.off)
	}
	c.off += int64(used)
	return v, nil
}

// message calls visit for each field up to end. Whatever visit leaves unread of
// a field is skipped.
func (s *scan) message(end int64, visit func(field) error) error {
	if s.depth++; s.depth > maxDepth {
		return fmt.Errorf("its messages are nested deeper than %d", maxDepth)
	}
	defer func() { s.depth-- }()
	for s.off < end {
		f, err := s.field(end)
		if err != nil {
			return err
		}
		if err := visit(f); err != nil {
			return err
		}
		if f.text() {
			s.off = f.end
		}
	}
	return nil
}

func (s *scan) field(end int64) (field, error) {
	at := s.off
	tag, err := s.varint(end)
	if err != nil {
		return field{}, err
	}
	num, typ := protowire.DecodeTag(tag)
	f := field{num: num}
	if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
		return f, fmt.Errorf("invalid protobuf field at byte %d", at)
	}
	switch typ {
	case protowire.VarintType:
		f.value, err = s.varint(end)
		return f, err
	case protowire.Fixed32Type:
		f.fixed = 4
	case protowire.Fixed64Type:
		f.fixed = 8
	case protowire.BytesType:
		n, err := s.varint(end)
		if err != nil {
			return f, err
		}
		if n > uint64(end-s.off) {
			return f, fmt.Errorf("the field at byte %d claims %d bytes where %d are left: truncated or damaged", at, n, end-s.off)
		}
		f.start, f.end = s.off, s.off+int64(n)
		return f, nil
	default:
		return f, fmt.Errorf("invalid protobuf wire type %d at byte %d", typ, at)
	}
	if int64(f.fixed) > end-s.off {
		return f, fmt.Errorf("a number at byte %d runs past what holds it", at)
	}
	s.off += int64(f.fixed)
	return f, nil
}

// string reads a short text field.
func (s *scan) string(f field) (string, error) {
	if f.len() > maxName {
		return "", fmt.Errorf("the text at byte %d is longer than %d bytes", f.start, maxName)
	}
	b, err := s.fill(int(f.len()))
	if err != nil {
		return "", err
	}
	return string(b[:f.len()]), nil
}
