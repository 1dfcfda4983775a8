package wdelta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// Decode writes the target to w. Each frame is checked before it is written,
// and the whole at the end.
func Decode(ctx context.Context, base Source, delta io.Reader, w io.Writer) (Header, error) {
	whole := sha256.New()
	h, err := each(ctx, base, delta, func(d *Decoder, f Frame, payload io.Reader) error {
		out, err := decodeFrom(d, f, payload)
		if err != nil {
			return err
		}
		_, _ = whole.Write(out) // never fails
		if _, err := w.Write(out); err != nil {
			return fmt.Errorf("write byte %d of the target: %w", f.Off, err)
		}
		return nil
	})
	if err == nil {
		err = check(h, blob.Digest(whole.Sum(nil)))
	}
	if err != nil {
		return h, fmt.Errorf("decode delta: %w", err)
	}
	return h, nil
}

// Part is a file on its way in, such as an *os.File.
type Part interface {
	io.ReaderAt
	io.WriterAt
}

// Applied says what Apply found and did.
type Applied struct {
	Header    Header `json:"-"`
	KeptBytes int64  `json:"kept_bytes"` // were in the part already
	MadeBytes int64  `json:"made_bytes"`
}

// Apply makes the target in part, which may hold any of it from an earlier
// try that was stopped at any place: frames that are there are kept. It reads
// the whole part back at the end, so nil means that its bytes are right.
func Apply(ctx context.Context, base Source, delta io.Reader, part Part) (Applied, error) {
	var a Applied
	buf := make([]byte, FrameBytes)
	h, err := each(ctx, base, delta, func(d *Decoder, f Frame, payload io.Reader) error {
		if Present(part, f, &buf) {
			a.KeptBytes += int64(f.Len)
			return nil
		}
		out, err := decodeFrom(d, f, payload)
		if err != nil {
			return err
		}
		if _, err := part.WriteAt(out, f.Off); err != nil {
			return fmt.Errorf("write byte %d of the target: %w", f.Off, err)
		}
		a.MadeBytes += int64(f.Len)
		return nil
	})
	a.Header = h
	if err == nil {
		var got blob.Digest
		if got, err = sum(ctx, part, h.TargetSize); err == nil {
			err = check(h, got)
		}
	}
	if err != nil {
		return a, fmt.Errorf("apply delta: %w", err)
	}
	return a, nil
}

// Present reports whether part holds the bytes of f. buf is room that callers
// keep from frame to frame.
func Present(part io.ReaderAt, f Frame, buf *[]byte) bool {
	*buf = grow(*buf, f.Len)
	n, _ := part.ReadAt(*buf, f.Off) // what cannot be read is not there
	return n == f.Len && sha256.Sum256(*buf) == [32]byte(f.Sum)
}

func decodeFrom(d *Decoder, f Frame, payload io.Reader) ([]byte, error) {
	d.payload = grow(d.payload, f.WireLen)
	if _, err := io.ReadFull(payload, d.payload); err != nil {
		return nil, cut(fmt.Sprintf("frame at byte %d of the target", f.Off), err)
	}
	return d.Frame(f, d.payload)
}

// each calls visit for every frame of delta and checks the end. visit may leave
// the payload, or a part of it, unread.
func each(ctx context.Context, base Source, delta io.Reader, visit func(*Decoder, Frame, io.Reader) error) (Header, error) {
	h, raw, err := readHeader(delta)
	if err != nil {
		return Header{}, err
	}
	d, err := NewDecoder(h, base)
	if err != nil {
		return h, err
	}
	defer d.Close()
	for hs := newHeads(h, raw); ; {
		if err := ctx.Err(); err != nil {
			return h, err
		}
		f, err := hs.next(delta)
		if err != nil {
			return h, err
		}
		if f.end() {
			return h, nil
		}
		payload := &io.LimitedReader{R: delta, N: int64(f.WireLen)}
		if err := visit(d, f, payload); err != nil {
			return h, err
		}
		if left := payload.N; left > 0 {
			if n, err := io.Copy(io.Discard, payload); n < left {
				return h, cut(fmt.Sprintf("frame at byte %d of the target", f.Off), orEOF(err))
			}
		}
	}
}

// orEOF is for io.Copy, which hides io.EOF.
func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// sum is the digest of the first n bytes of r.
func sum(ctx context.Context, r io.ReaderAt, n int64) (blob.Digest, error) {
	h := sha256.New()
	buf := make([]byte, min(n, FrameBytes))
	for off := int64(0); off < n; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return blob.Digest{}, err
		}
		buf = buf[:min(int64(len(buf)), n-off)]
		if got, err := r.ReadAt(buf, off); got < len(buf) {
			return blob.Digest{}, fmt.Errorf("read at byte %d: %w", off, err)
		}
		_, _ = h.Write(buf) // never fails
	}
	return blob.Digest(h.Sum(nil)), nil
}

// Index is a delta without its payloads: what a box needs to fetch frames in
// any order from anybody.
type Index struct {
	Header Header
	Frames []Frame
	Digest blob.Digest // of the index's own bytes, without the end: the thing to sign
}

// WriteIndex copies header and heads of the delta to w. It jumps over payloads.
func WriteIndex(delta Source, w io.Writer) (Index, error) {
	at := io.NewSectionReader(delta, 0, delta.Size())
	ix, err := readIndex(at, func(f Frame) error {
		if f.WireOff+int64(f.WireLen) > delta.Size() {
			return fmt.Errorf("in its frame at byte %d of the target: %w", f.Off, ErrTruncated)
		}
		_, err := at.Seek(f.WireOff+int64(f.WireLen), io.SeekStart)
		return err
	}, w)
	if err != nil {
		return Index{}, fmt.Errorf("index delta: %w", err)
	}
	return ix, nil
}

// ReadIndex reads what WriteIndex wrote.
func ReadIndex(r io.Reader) (Index, error) {
	ix, err := readIndex(r, func(Frame) error { return nil }, io.Discard)
	if err != nil {
		return Index{}, fmt.Errorf("read delta index: %w", err)
	}
	return ix, nil
}

// maxFrames bounds an Index in memory: 1 TiB in frames of 1 MiB.
const maxFrames = 1 << 20

func readIndex(r io.Reader, jump func(Frame) error, w io.Writer) (Index, error) {
	h, raw, err := readHeader(r)
	if err != nil {
		return Index{}, err
	}
	ix := Index{Header: h}
	if _, err := w.Write(raw); err != nil {
		return Index{}, fmt.Errorf("write index: %w", err)
	}
	for hs := newHeads(h, raw); ; {
		var head bytes.Buffer
		f, err := hs.next(io.TeeReader(r, &head))
		if err != nil {
			return Index{}, err
		}
		if _, err := w.Write(head.Bytes()); err != nil {
			return Index{}, fmt.Errorf("write index: %w", err)
		}
		if f.end() {
			ix.Digest = f.WireSum
			return ix, nil
		}
		if len(ix.Frames) == maxFrames {
			return Index{}, errors.New("it has more frames than an index may have")
		}
		ix.Frames = append(ix.Frames, f)
		if err := jump(f); err != nil {
			return Index{}, err
		}
	}
}
