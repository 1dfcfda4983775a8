package wire

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// maxRawPack bounds what the payload of a pack expands to.
const maxRawPack = 512 << 10

// ErrBomb is wrapped by the error for a payload that would expand beyond the
// limit.
var ErrBomb = errors.New("compressed beyond measure")

// decoder is stateless: only DecodeAll is called on it. It is made with the
// program since its channels must belong to no test's bubble.
var decoder = must(zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxRawPack), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true)))

// compress returns one zstd frame (RFC 8878) that tells its content's size.
func compress(raw []byte) ([]byte, error) {
	if err := atMost("bytes of pack", len(raw), maxRawPack); err != nil {
		return nil, err
	}
	// The fastest level, since finding longer matches gains nothing here: what
	// shrinks a column of differences is the entropy coder, which must be told to
	// try even where there are no matches. It saves a fifth.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithAllLitEntropyCompression(true),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("compress pack: %w", err)
	}
	defer enc.Close()
	return enc.EncodeAll(raw, nil), nil
}

// expand reads one frame. It allocates what the frame says, within the limit.
func expand(frame []byte) ([]byte, error) {
	size, err := frameSize(frame)
	if err != nil {
		return nil, fmt.Errorf("expand pack: %w", err)
	}
	raw, err := decoder.DecodeAll(frame, make([]byte, 0, size))
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("%w: %w", ErrBomb, err)
	}
	if err != nil {
		return nil, fmt.Errorf("expand pack: %w", err)
	}
	if len(raw) != size {
		return nil, fmt.Errorf("expand pack: %d bytes, its frame says %d", len(raw), size)
	}
	return raw, nil
}

// frameSize is the size of the content. It refuses dictionaries, frames that do
// not tell it, and anything behind the first frame.
func frameSize(frame []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return 0, err
	}
	if h.HasFCS && h.FrameContentSize > maxRawPack {
		return 0, fmt.Errorf("a frame of %d bytes, the limit is %d: %w", h.FrameContentSize, maxRawPack, ErrBomb)
	}
	if h.Skippable || h.DictionaryID != 0 || h.HasCheckSum || !h.SingleSegment || !h.HasFCS || h.FrameContentSize == 0 {
		return 0, errors.New("not a plain frame of known size")
	}
	rest := frame[h.HeaderSize:]
	for last := false; !last; {
		if len(rest) < 3 {
			return 0, errors.New("frame " + badEnd)
		}
		head := int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
		size := head >> 3
		if head>>1&3 == 1 { // RLE: one byte, repeated
			size = 1
		}
		last = head&1 == 1
		if len(rest) < 3+size {
			return 0, errors.New("frame " + badEnd)
		}
		rest = rest[3+size:]
	}
	if len(rest) > 0 {
		return 0, errors.New("bytes behind the frame")
	}
	return int(h.FrameContentSize), nil
}
