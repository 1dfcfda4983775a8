package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FrameBytes is the length of a frame: as much of a file as is checked, written
// and asked for again at once.
const FrameBytes = 1 << 20

// maxFrames bounds a list in memory: 128 GiB of content in 4 MiB.
const maxFrames = 1 << 17

// MaxFramedBytes is the longest file that a list of frames can tell of.
const MaxFramedBytes = maxFrames * FrameBytes

// framesMagic begins a list. History: 1 first.
const framesMagic = "frames1\n"

// Frames are the digests of a file's frames: all have FrameBytes but the last.
// The digest of the encoded list is small enough to be signed, and the list then
// tells of any frame, whoever sent it, whether it is right.
type Frames struct {
	Size int64 // of the file
	Sums []Digest
}

// FramesOf reads r to its end, once, and returns the file's digest as well.
func FramesOf(r io.Reader) (Frames, Digest, error) {
	var f Frames
	whole, buf := sha256.New(), make([]byte, FrameBytes)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			_, _ = whole.Write(buf[:n]) // never fails
			f.Sums, f.Size = append(f.Sums, Sum(buf[:n])), f.Size+int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return f, Digest(whole.Sum(nil)), nil
		}
		if err != nil {
			return Frames{}, Digest{}, err
		}
	}
}

// Span is where frame i lies in the file.
func (f Frames) Span(i int) (off int64, n int) {
	off = int64(i) * FrameBytes
	return off, int(min(FrameBytes, f.Size-off))
}

// Encode returns the list as it is stored and named by its digest.
func (f Frames) Encode() []byte {
	out := binary.BigEndian.AppendUint64([]byte(framesMagic), uint64(f.Size))
	for _, d := range f.Sums {
		out = append(out, d[:]...)
	}
	return out
}

// EncodedBytes is how long the list of a file of size bytes is.
func EncodedBytes(size int64) int64 {
	return int64(len(framesMagic)) + 8 + count(size)*sha256.Size
}

func count(size int64) int64 { return (size + FrameBytes - 1) / FrameBytes }

// DecodeFrames reads a list. Its digest must have been checked.
func DecodeFrames(data []byte) (Frames, error) {
	rest, ok := bytes.CutPrefix(data, []byte(framesMagic))
	if !ok || len(rest) < 8 {
		return Frames{}, errors.New("not a list of frames")
	}
	size := int64(binary.BigEndian.Uint64(rest))
	if size < 0 || size > maxFrames*FrameBytes || int64(len(data)) != EncodedBytes(size) {
		return Frames{}, fmt.Errorf("a list of frames of %d bytes is not that of a file of %d", len(data), size)
	}
	f := Frames{Size: size}
	for sums := rest[8:]; len(sums) > 0; sums = sums[sha256.Size:] {
		f.Sums = append(f.Sums, Digest(sums[:sha256.Size]))
	}
	return f, nil
}
