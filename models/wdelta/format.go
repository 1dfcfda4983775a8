package wdelta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// magic begins a delta: the name, the version and a line end.
const magic = "wdelta1\n"

const (
	headerBytes = 96 // before the ranges
	headBytes   = 80 // of a frame
)

// Header says what a delta makes and of what.
type Header struct {
	Target     blob.Digest
	TargetSize int64
	// Base is zero, with BaseSize 0, in a cold pack.
	Base     blob.Digest
	BaseSize int64

	dict []span // of the base: what the texts between tensors are coded against
	size int64  // on the wire
}

// Cold reports whether the delta needs no base.
func (h Header) Cold() bool { return h.Base.IsZero() }

// span is a range of a file.
type span struct{ off, n int64 }

// Frame is the head of a frame. Off and WireOff are not on the wire: they
// follow from the frames before.
type Frame struct {
	Off     int64       // in the target
	Len     int         // bytes of the target
	WireOff int64       // of the payload, in the delta
	WireLen int         // bytes of the payload
	Sum     blob.Digest // of the bytes of the target
	WireSum blob.Digest // of the payload
}

// end reports whether f ends the delta. Sum is then the target's digest and
// WireSum that of the header and all heads: the digest of the Index.
func (f Frame) end() bool { return f.Len == 0 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (h Header) marshal() ([]byte, error) {
	z, err := newZstd()
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var b, ranges []byte
	at := int64(0)
	for _, s := range h.dict {
		ranges = binary.AppendUvarint(ranges, uint64(s.off-at))
		ranges = binary.AppendUvarint(ranges, uint64(s.n))
		at = s.off + s.n
	}
	wire := z.EncodeAll(ranges, nil)
	if len(wire) >= len(ranges) {
		wire = ranges
	}
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.TargetSize))
	b = append(b, h.Target[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.BaseSize))
	b = append(b, h.Base[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ranges)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(wire)))
	b = append(b, wire...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// Peek reads the header of a delta, and returns what reads the delta whole: who has to
// make room for the target learns how much before anything is decoded.
func Peek(r io.Reader) (Header, io.Reader, error) {
	h, raw, err := readHeader(r)
	return h, io.MultiReader(bytes.NewReader(raw), r), err
}

// readHeader also returns the bytes that it read.
func readHeader(r io.Reader) (Header, []byte, error) {
	b := make([]byte, headerBytes)
	if n, err := io.ReadFull(r, b); err != nil {
		if n >= len(magic) && string(b[:len(magic)]) == magic {
			return Header{}, nil, cut("header", err)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Header{}, nil, fmt.Errorf("a file of %d bytes: %w", n, ErrFormat)
		}
		return Header{}, nil, fmt.Errorf("read header: %w", err)
	}
	if string(b[:len(magic)]) != magic {
		return Header{}, nil, ErrFormat
	}
	raw, wire := binary.LittleEndian.Uint32(b[88:]), binary.LittleEndian.Uint32(b[92:])
	if raw > maxRangesBytes || wire > raw {
		return Header{}, nil, fmt.Errorf("its list of ranges claims %d bytes in %d: %w", raw, wire, ErrCorrupt)
	}
	b = append(b, make([]byte, wire+4)...)
	if _, err := io.ReadFull(r, b[headerBytes:]); err != nil {
		return Header{}, nil, cut("header", err)
	}
	sum := len(b) - 4
	if crc32.Checksum(b[:sum], castagnoli) != binary.LittleEndian.Uint32(b[sum:]) {
		return Header{}, nil, fmt.Errorf("checksum of its header: %w", ErrCorrupt)
	}
	h := Header{
		TargetSize: int64(binary.LittleEndian.Uint64(b[8:])), Target: blob.Digest(b[16:48]),
		BaseSize: int64(binary.LittleEndian.Uint64(b[48:])), Base: blob.Digest(b[56:88]), size: int64(len(b)),
	}
	if h.TargetSize < 0 || h.TargetSize > maxFileBytes || h.BaseSize < 0 || h.BaseSize > maxFileBytes || h.Cold() && (h.BaseSize > 0 || raw > 0) {
		return Header{}, nil, fmt.Errorf("it claims a target of %d bytes and a base of %d: %w", h.TargetSize, h.BaseSize, ErrCorrupt)
	}
	var err error
	if h.dict, err = readRanges(b[headerBytes:sum], int(raw), h.BaseSize); err != nil {
		return Header{}, nil, err
	}
	return h, b, nil
}

func readRanges(wire []byte, raw int, baseSize int64) ([]span, error) {
	ranges := wire
	if len(wire) < raw {
		dec, err := zstd.NewReader(nil, decoderOptions()...)
		if err != nil {
			return nil, fmt.Errorf("start zstd: %w", err)
		}
		defer dec.Close()
		if ranges, err = dec.DecodeAll(wire, make([]byte, 0, raw)); err != nil || len(ranges) != raw {
			return nil, fmt.Errorf("its list of ranges (%v): %w", err, ErrCorrupt)
		}
	}
	var out []span
	at := uint64(0)
	for c := (cut8{b: ranges}); len(c.b) > 0; {
		gap, n := c.uvarint(), c.uvarint()
		at += gap
		if c.bad || gap > maxFileBytes || n > maxFileBytes || at+n > uint64(baseSize) || len(out) == maxRanges {
			return nil, fmt.Errorf("a dictionary range is outside of the base: %w", ErrCorrupt)
		}
		out = append(out, span{int64(at), int64(n)})
		at += n
	}
	return out, nil
}

// cut8 takes varints off a slice; bad is set when one is damaged.
type cut8 struct {
	b   []byte
	bad bool
}

func (c *cut8) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cut8) byte() byte {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// cut tells the end of a file from a fault of the disk or the network.
func cut(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("in its %s: %w", what, ErrTruncated)
	}
	return fmt.Errorf("read %s: %w", what, err)
}

func (f Frame) appendTo(b []byte) []byte {
	begin := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(f.Len))
	b = binary.LittleEndian.AppendUint32(b, uint32(f.WireLen))
	b = append(b, f.Sum[:]...)
	b = append(b, f.WireSum[:]...)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[begin:], castagnoli))
}

// heads reads the heads of a delta in turn and checks what they say together.
type heads struct {
	header  Header
	off     int64 // in the target
	wireOff int64 // of the next head
	sum     interface {
		io.Writer
		Sum([]byte) []byte
	}
	done bool
}

func newHeads(h Header, raw []byte) *heads {
	hs := &heads{header: h, wireOff: h.size, sum: sha256.New()}
	_, _ = hs.sum.Write(raw) // never fails
	return hs
}

// next reads one head from r.
func (hs *heads) next(r io.Reader) (Frame, error) {
	var b [headBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Frame{}, cut(fmt.Sprintf("frame at byte %d of the target", hs.off), err)
	}
	f := Frame{
		Off: hs.off, Len: int(binary.LittleEndian.Uint32(b[0:])),
		WireOff: hs.wireOff + headBytes, WireLen: int(binary.LittleEndian.Uint32(b[4:])),
		Sum: blob.Digest(b[8:40]), WireSum: blob.Digest(b[40:72]),
	}
	damaged := func(what string) error {
		return fmt.Errorf("frame at byte %d of the target: %s: %w", hs.off, what, ErrCorrupt)
	}
	switch {
	case crc32.Checksum(b[:76], castagnoli) != binary.LittleEndian.Uint32(b[76:]):
		return Frame{}, damaged("checksum of its head")
	case binary.LittleEndian.Uint32(b[72:]) != 0:
		return Frame{}, damaged("unknown flags")
	case f.Len > MaxFrameBytes || f.WireLen > MaxPayloadBytes || f.Len < 0 || f.WireLen < 0:
		return Frame{}, damaged(fmt.Sprintf("it claims %d bytes made of %d", f.Len, f.WireLen))
	case int64(f.Len) > hs.header.TargetSize-f.Off:
		return Frame{}, damaged("it reaches beyond the target")
	}
	if f.end() {
		if f.WireLen != 0 || f.Off != hs.header.TargetSize || f.Sum != hs.header.Target || f.WireSum != blob.Digest(hs.sum.Sum(nil)) {
			return Frame{}, damaged("it ends the delta and does not fit the header and the frames")
		}
		hs.done = true
	}
	_, _ = hs.sum.Write(b[:]) // never fails
	hs.off += int64(f.Len)
	hs.wireOff += headBytes + int64(f.WireLen)
	return f, nil
}

// decoderOptions bound what zstd may need.
func decoderOptions() []zstd.DOption {
	return []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxFrameBytes), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(MaxFrameBytes * 2),
	}
}
