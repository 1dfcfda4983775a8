package wdelta

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// dictID marks streams that need a window of the dictionary.
const dictID = 1

// Decoder makes frames of one delta, in any order. It is for one goroutine and
// holds some MiB.
type Decoder struct {
	header Header
	base   Source
	zstd   *zstd.Decoder
	// The last window of the dictionary and the decoder that knows it.
	window  span
	withDic *zstd.Decoder
	ctx     [elemEnd]*ctxModel
	ctx0    [elemEnd]*ctx0Model
	local   [elemEnd]*localModel
	small   *byteModel
	// Of the frame at work.
	segments []segment
	streams  []stream
	lens     [256]int    // bytes of each key
	plain    [256][]byte // decoded bytes of each key
	bases    []byte      // what a stream's segments read of the base
	tableBuf []byte
	runs     []run // of the stream at work
	planes   []byte
	payload  []byte
	out      []byte
}

// NewDecoder makes a decoder for the delta with header h. base may be nil for
// a cold pack. Only the size of the base is checked here: a base of other
// content shows as ErrBase at the first frame that reads what differs.
func NewDecoder(h Header, base Source) (*Decoder, error) {
	switch {
	case h.Cold():
		base = nil
	case base == nil:
		return nil, fmt.Errorf("the delta needs the base %s and none is given: %w", h.Base, ErrBase)
	case base.Size() != h.BaseSize:
		return nil, fmt.Errorf("the base has %d bytes, the delta was made from %d (%s): %w", base.Size(), h.BaseSize, h.Base, ErrBase)
	}
	z, err := zstd.NewReader(nil, decoderOptions()...)
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return &Decoder{header: h, base: base, zstd: z}, nil
}

// Close frees what the decoder holds.
func (d *Decoder) Close() {
	d.zstd.Close()
	if d.withDic != nil {
		d.withDic.Close()
	}
}

// Frame makes the bytes of f from its payload. The payload is checked before
// it is looked at and the result before it is returned; it is valid until the
// next call.
func (d *Decoder) Frame(f Frame, payload []byte) ([]byte, error) {
	out, err := d.frame(f, payload)
	if err != nil {
		return nil, fmt.Errorf("frame at byte %d of the target: %w", f.Off, err)
	}
	return out, nil
}

func (d *Decoder) frame(f Frame, payload []byte) ([]byte, error) {
	switch {
	case f.Len <= 0 || f.Len > MaxFrameBytes || f.Off < 0 || int64(f.Len) > d.header.TargetSize-f.Off:
		return nil, fmt.Errorf("it claims %d bytes: %w", f.Len, ErrCorrupt)
	case len(payload) != f.WireLen || len(payload) > MaxPayloadBytes:
		return nil, fmt.Errorf("it has %d bytes of %d: %w", len(payload), f.WireLen, ErrCorrupt)
	case sha256.Sum256(payload) != [32]byte(f.WireSum):
		return nil, fmt.Errorf("digest of its bytes: %w", ErrCorrupt)
	}
	if err := d.parse(f, payload); err != nil {
		return nil, err
	}
	for _, s := range d.streams {
		if err := d.stream(s); err != nil {
			return nil, err
		}
	}
	d.out = grow(d.out, f.Len)
	if err := d.gather(d.out); err != nil {
		return nil, err
	}
	if sha256.Sum256(d.out) != [32]byte(f.Sum) {
		// The payload is as it was made, so what it was decoded against is not.
		if d.header.Cold() {
			return nil, fmt.Errorf("digest of the result: %w", ErrCorrupt)
		}
		return nil, fmt.Errorf("digest of the result: the base is not %s: %w", d.header.Base, ErrBase)
	}
	return d.out, nil
}

// grow returns b with n bytes, which it may have held before.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// stream decodes s into plain[s.key].
func (d *Decoder) stream(s stream) error {
	n, e := d.lens[s.key], s.key.elem()
	d.runs = d.runs[:0]
	for _, seg := range d.segments {
		if seg.key() == s.key && s.method.rows() {
			d.runs = append(d.runs, seg.run())
		}
	}
	switch s.key.kind() {
	case kindMoved:
		d.bases = grow(d.bases, n)
		if err := d.readBases(s.key); err != nil {
			return err
		}
	case kindSteps: // the steps are whole numbers, as differences to zero
		n, e = n/e.size()*4, elemI32
		d.bases = grow(d.bases, n)
		clear(d.bases)
	}
	out := grow(d.plain[s.key], n)
	d.plain[s.key] = out
	switch s.method {
	case methodRaw:
		if len(s.wire) != n {
			return errStream
		}
		copy(out, s.wire)
	case methodZstd, methodDict:
		dec := d.zstd
		if s.method == methodDict {
			var err error
			if dec, err = d.dictionary(s.dict); err != nil {
				return err
			}
		}
		_, err := d.unzstd(dec, &d.plain[s.key], s.wire, n)
		return err
	case methodPlane, methodSubPlane:
		planes, err := d.unzstd(d.zstd, &d.planes, s.wire, n)
		if err != nil {
			return err
		}
		base := d.bases
		if s.method == methodPlane {
			base = nil
		}
		e.fromPlanes(out, planes, base)
	case methodCtx:
		if d.ctx[e] == nil {
			d.ctx[e] = newCtxModel(e)
		}
		return d.ctx[e].decode(e, d.runs, d.bases, s.wire, out)
	case methodCtx0:
		if d.ctx0[e] == nil {
			d.ctx0[e] = newCtx0Model(e)
		}
		return d.ctx0[e].decode(e, s.wire, out)
	case methodLocal:
		if d.local[e] == nil {
			d.local[e] = newLocalModel(e)
		}
		return d.local[e].decode(e, d.bases, s.wire, out)
	case methodBytes:
		if d.small == nil {
			d.small = newByteModel()
		}
		d.small.decode(d.runs, d.bases, s.wire, out)
	}
	return nil
}

// unzstd unpacks exactly n bytes into buf.
func (d *Decoder) unzstd(dec *zstd.Decoder, buf *[]byte, wire []byte, n int) ([]byte, error) {
	*buf = grow(*buf, n)
	out, err := dec.DecodeAll(wire, (*buf)[:0:n])
	if err != nil {
		return nil, fmt.Errorf("unpack: %w: %w", err, ErrCorrupt)
	}
	if len(out) != n {
		return nil, fmt.Errorf("unpacked %d bytes of %d: %w", len(out), n, ErrCorrupt)
	}
	*buf = out
	return out, nil
}

// readBases reads what the segments of k have in the base, in their order.
func (d *Decoder) readBases(k key) error {
	at := 0
	for _, s := range d.segments {
		if s.key() == k {
			if err := readAt(d.base, d.bases[at:at+s.n], s.base); err != nil {
				return err
			}
			at += s.n
		}
	}
	return nil
}

// gather puts the segments together.
func (d *Decoder) gather(out []byte) error {
	var used [256]int
	for _, s := range d.segments {
		k := s.key()
		switch s.kind {
		case kindCopy:
			if err := readAt(d.base, out[:s.n], s.base); err != nil {
				return err
			}
		case kindSteps:
			d.bases = grow(d.bases, s.n)
			if err := readAt(d.base, d.bases, s.base); err != nil {
				return err
			}
			s.elem.addSteps(out[:s.n], d.plain[k][used[k]:], d.bases, s.step)
			used[k] += s.n / s.elem.size() * 4
		default:
			used[k] += copy(out[:s.n], d.plain[k][used[k]:])
		}
		out = out[s.n:]
	}
	return nil
}

func readAt(base Source, b []byte, off int64) error {
	if n, err := base.ReadAt(b, off); n < len(b) {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the base ends at byte %d: %w", off+int64(n), ErrBase)
		}
		return fmt.Errorf("read base: %w", err)
	}
	return nil
}

// dictionary is a zstd decoder that knows a window of the dictionary.
func (d *Decoder) dictionary(w span) (*zstd.Decoder, error) {
	if d.withDic != nil && d.window == w {
		return d.withDic, nil
	}
	content, err := readDict(d.base, d.header.dict, w)
	if err != nil {
		return nil, err
	}
	if d.withDic != nil {
		d.withDic.Close()
		d.withDic = nil
	}
	dec, err := zstd.NewReader(nil, append(decoderOptions(), zstd.WithDecoderDictRaw(dictID, content))...)
	if err != nil {
		return nil, fmt.Errorf("start zstd with a dictionary: %w: %w", err, ErrCorrupt)
	}
	d.withDic, d.window = dec, w
	return dec, nil
}

// readDict reads a window of the dictionary, the ranges of the base that the
// header lists put one after the other.
func readDict(base Source, ranges []span, w span) ([]byte, error) {
	if w.off < 0 || w.n < 8 || w.n > maxDictBytes {
		return nil, fmt.Errorf("a window of the dictionary of %d bytes: %w", w.n, ErrCorrupt)
	}
	out := make([]byte, 0, w.n)
	at := int64(0)
	for _, r := range ranges {
		from, to := max(w.off-at, 0), min(w.off+w.n-at, r.n)
		if from < to {
			n := len(out)
			out = out[:n+int(to-from)]
			if err := readAt(base, out[n:], r.off+from); err != nil {
				return nil, err
			}
		}
		at += r.n
	}
	if int64(len(out)) != w.n {
		return nil, fmt.Errorf("a window beyond the dictionary of %d bytes: %w", at, ErrCorrupt)
	}
	return out, nil
}

// check compares what a file's bytes add up to with what the delta promised.
func check(h Header, got blob.Digest) error {
	if got != h.Target {
		return fmt.Errorf("the result has the digest %s instead of %s: %w", got, h.Target, ErrCorrupt)
	}
	return nil
}
