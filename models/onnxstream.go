package models

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// onnxField is one field: num and typ, and the value of a varint or the end
// offset of a length-delimited field.
type onnxField struct {
	num   protowire.Number
	value uint64
	end   int64 // 0 when the field is not length-delimited
}

func (f onnxField) text() bool { return f.end > 0 }

// message calls visit for each field up to the offset end. visit must consume
// the field's content.
func (p *onnxParser) message(end int64, visit func(onnxField) error) error {
	if p.depth++; p.depth > maxONNXDepth {
		return fmt.Errorf("its messages are nested deeper than %d", maxONNXDepth)
	}
	defer func() { p.depth-- }()
	for p.off < end {
		f, err := p.field(end)
		if err == io.EOF && end == onnxNoSizeLimit {
			return nil
		}
		if err == io.EOF {
			return p.truncated()
		}
		if err != nil {
			return err
		}
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// field reads the head of a field. It returns io.EOF only where a field could
// begin.
func (p *onnxParser) field(end int64) (onnxField, error) {
	tag, err := p.varint(end)
	if err != nil {
		return onnxField{}, err
	}
	num, typ := protowire.DecodeTag(tag)
	f := onnxField{num: num}
	if num < protowire.MinValidNumber || num > protowire.MaxValidNumber {
		return f, fmt.Errorf("invalid protobuf field at byte %d", p.off)
	}
	switch typ {
	case protowire.VarintType:
		f.value, err = p.varint(end)
	case protowire.Fixed32Type:
		err = p.discard(4, end)
	case protowire.Fixed64Type:
		err = p.discard(8, end)
	case protowire.BytesType:
		var n uint64
		if n, err = p.varint(end); err == nil {
			if n > uint64(end-p.off) {
				return f, fmt.Errorf("field at byte %d is longer than what holds it: truncated or not ONNX", p.off)
			}
			if f.end = p.off + int64(n); f.end > maxONNXBytes {
				return f, fmt.Errorf("it has more than %d bytes, which ONNX Runtime does not load: weights inside are too many; %s", maxONNXBytes, waysToLess)
			}
		}
	default:
		return f, fmt.Errorf("invalid protobuf wire type %d at byte %d", typ, p.off)
	}
	if err == io.EOF {
		err = p.truncated()
	}
	return f, err
}

func (p *onnxParser) truncated() error {
	return fmt.Errorf("it ends at byte %d in the middle of a field: %w", p.off, io.ErrUnexpectedEOF)
}

func (p *onnxParser) varint(end int64) (uint64, error) {
	var buf [binary.MaxVarintLen64]byte
	for i := range buf {
		if p.off >= end {
			return 0, fmt.Errorf("number at byte %d runs past its message", p.off)
		}
		b, err := p.r.ReadByte()
		if err == io.EOF && i > 0 {
			return 0, p.truncated()
		}
		if err != nil {
			return 0, err
		}
		p.off++
		buf[i] = b
		if b < 0x80 {
			v, n := protowire.ConsumeVarint(buf[:i+1])
			if n < 0 {
				return 0, fmt.Errorf("number at byte %d: %w", p.off, protowire.ParseError(n))
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("number at byte %d is longer than 64 bits", p.off)
}

// name reads a short string field.
func (p *onnxParser) name(f onnxField) (string, error) {
	n := f.end - p.off
	if n > maxONNXName {
		return "", fmt.Errorf("name at byte %d is longer than %d bytes", p.off, maxONNXName)
	}
	buf := make([]byte, n)
	got, err := io.ReadFull(p.r, buf)
	p.off += int64(got)
	if err != nil {
		return "", p.truncated()
	}
	return string(buf), nil
}

// skip consumes the content of a field that nobody wants.
func (p *onnxParser) skip(f onnxField) error {
	if !f.text() {
		return nil
	}
	return p.discard(f.end-p.off, f.end)
}

func (p *onnxParser) discard(n, end int64) error {
	if n > end-p.off {
		return p.truncated()
	}
	for n > 0 {
		step := min(n, 1<<30) // Discard takes an int, which has 32 bits on small boxes
		got, err := p.r.Discard(int(step))
		p.off += int64(got)
		n -= int64(got)
		if err == io.EOF {
			return p.truncated()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
