// Package wdelta makes a model file from another one and few bytes.
//
// A delta rebuilds a target file, bit for bit, from a base file. It knows that
// model files are arrays of numbers: the encoder finds the tensors of both files
// (package container), pairs them, and writes how far each number moved. A delta
// without a base is a cold pack: the file alone, smaller than a general packer
// gets it.
//
// A delta is a header and frames. A frame makes up to 1 MiB of the target by
// itself and carries the SHA-256 of what it is on the wire and of what it
// decodes to, so frames may come in any order and from anybody: a Decoder
// gives out no byte that it has not checked. The bytes are specified in
// docs/wdelta.md, with test vectors in testdata.
//
// The decoder knows nothing of containers: frames only say where in the base
// to read and which coder to use. So a fault of a parser can make a delta large
// but never wrong.
//
// Apply writes into a part file, which is its own journal: a frame whose bytes
// are already there, by hash, is not decoded again.
//
// The one rule a caller can break: what Decode and Apply have written is the
// target only when they returned nil, for only then has the whole been checked.
package wdelta

import (
	"errors"
	"fmt"
	"io"
)

// The bounds of the format. A decoder refuses what exceeds them.
const (
	// FrameBytes is how much of the target the encoder puts into a frame.
	FrameBytes = 1 << 20
	// MaxFrameBytes is the most that a decoder makes of one frame.
	MaxFrameBytes = 4 << 20
	// MaxPayloadBytes is the most that a frame has on the wire.
	MaxPayloadBytes = MaxFrameBytes + 64<<10
	maxTableBytes   = 1 << 20 // of a frame
	maxRangesBytes  = 4 << 20 // of the header's list of dictionary ranges
	maxRanges       = 1 << 18
	maxDictBytes    = 256 << 10 // of one window of the dictionary
	maxFileBytes    = 1 << 50
)

// The errors that callers tell apart. Each is wrapped with what happened.
var (
	// ErrFormat: the bytes are no delta, or none of this version.
	ErrFormat = errors.New("not a wdelta file")
	// ErrCorrupt: the delta is damaged; fetch it, or the frame, again.
	ErrCorrupt = errors.New("damaged delta")
	// ErrTruncated: the delta ends too early; go on fetching.
	ErrTruncated = errors.New("delta ends early")
	// ErrBase: the base is not the file that the delta was made from.
	ErrBase = errors.New("wrong base")
)

var errStream = fmt.Errorf("a stream of numbers does not fit: %w", ErrCorrupt)

// Source is a file to read at any place; *io.SectionReader and *bytes.Reader
// are Sources.
type Source interface {
	io.ReaderAt
	Size() int64
}

// A delta is offered only when it saves at least a fifth of the cold pack: each
// one costs the controller its making and its room.
const worthwhile = 0.8

// Worth reports whether a delta of deltaBytes should be offered to boxes that
// could take the cold pack of coldBytes instead.
func Worth(deltaBytes, coldBytes int64) bool {
	return float64(deltaBytes) <= worthwhile*float64(coldBytes)
}
