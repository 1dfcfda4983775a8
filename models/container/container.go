// Package container finds the tensors inside model files: where each one's
// bytes lie, what they are and what they are called.
//
// It reads ONNX (tensors of the graph, of Constant nodes and of sub-graphs,
// data kept in a second file), safetensors and TFLite. A Tensor is a byte range
// of one file; a Layout is all tensors of a file in the order of their bytes.
// Nothing is copied and no weight is read: a parser jumps over data, so a file
// of gigabytes costs what its headers cost.
//
// Files come from strangers. Every size is checked against the file before it
// is believed, and a parser keeps at most MaxTensors tensors and MaxNameBytes
// bytes of names. A file that is refused is refused with the reason in words.
//
// The one rule a caller can break: ranges of Tensors may repeat (two names for
// the same bytes) where the format allows it, so use Layout.Spans to walk over a
// file's bytes, never Tensors.
package container

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/models"
)

// Format names a kind of container.
type Format string

// The formats that Read knows.
const (
	ONNX        Format = "onnx"
	Safetensors Format = "safetensors"
	TFLite      Format = "tflite"
)

// Bounds on what one file may make a parser keep.
const (
	MaxTensors   = 1 << 18
	MaxNameBytes = 16 << 20 // all names together
	maxName      = 4 << 10
	maxDims      = 64
	maxDepth     = 64
)

// ErrUnknown is the error of a file that is no container this package reads.
var ErrUnknown = errors.New("not an ONNX, safetensors or TFLite file")

// Tensor is one tensor and where its bytes lie.
type Tensor struct {
	Name  string       `json:"name"`
	DType models.DType `json:"datatype"` // empty: a type the serving protocol has no name for
	Shape []int64      `json:"shape"`
	// File is empty, or the name of the second file that the range is in
	// (ONNX external data), as the model gives it: relative to the model.
	File string `json:"file,omitempty"`
	Off  int64  `json:"offset"`
	Len  int64  `json:"size_bytes"`
}

// Layout is what a container says about its tensors.
type Layout struct {
	Format  Format
	Tensors []Tensor
}

// Read finds out what r is and reads its layout. The error wraps ErrUnknown
// when r is none of the formats; any other error is a damaged file.
func Read(r io.ReaderAt, size int64) (Layout, error) {
	var head [8]byte
	if size < int64(len(head)) {
		return Layout{}, fmt.Errorf("a file of %d bytes: %w", size, ErrUnknown)
	}
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return Layout{}, fmt.Errorf("read the first bytes: %w", err)
	}
	s := &scan{cursor: cursor{r: r, size: size}, size: size}
	var err error
	var format Format
	switch {
	case bytes.Equal(head[4:8], []byte("TFL3")):
		format, err = TFLite, s.tflite()
	case looksLikeSafetensors(r, size):
		format, err = Safetensors, s.safetensors()
	case head[0] == 0x08 && head[1] < 0x80: // ModelProto.ir_version, which every exporter writes first
		format, err = ONNX, s.onnx()
	default:
		return Layout{}, ErrUnknown
	}
	if err != nil {
		return Layout{}, fmt.Errorf("%s file: %w", format, err)
	}
	return Layout{Format: format, Tensors: s.tensors}, nil
}

// Spans are the tensors in the file named file ("" is the container itself),
// ordered by offset. Tensors of the same bytes appear once; a tensor that
// begins inside another is left out.
func (l Layout) Spans(file string) []Tensor {
	var out []Tensor
	for _, t := range l.Tensors {
		if t.File == file && t.Len > 0 {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Off, b.Off), cmp.Compare(b.Len, a.Len))
	})
	end := int64(0)
	return slices.DeleteFunc(out, func(t Tensor) bool {
		if t.Off < end {
			return true
		}
		end = t.Off + t.Len
		return false
	})
}

// scan is one reading of one file.
type scan struct {
	cursor
	size      int64
	tensors   []Tensor
	nameBytes int
	depth     int
}

// add keeps a tensor of this file after checking its range.
func (s *scan) add(t Tensor) error {
	switch {
	case t.Len < 0 || t.Off < 0:
		return fmt.Errorf("tensor %q has a negative place or size", t.Name)
	case t.File == "" && t.Len > s.size-t.Off:
		return fmt.Errorf("tensor %q of %d bytes at %d reaches beyond the file of %d bytes", t.Name, t.Len, t.Off, s.size)
	case len(t.Name) > maxName:
		return fmt.Errorf("a tensor's name is longer than %d bytes", maxName)
	case len(s.tensors) == MaxTensors:
		return fmt.Errorf("it has more than %d tensors", MaxTensors)
	}
	if s.nameBytes += len(t.Name) + len(t.File); s.nameBytes > MaxNameBytes {
		return fmt.Errorf("its names need more than %d bytes", MaxNameBytes)
	}
	s.tensors = append(s.tensors, t)
	return nil
}

// bytesOf is the size of a dense tensor. A size that no file can have is
// refused, so that products never wrap around.
func bytesOf(shape []int64, elem int64) (int64, error) {
	n, zero := elem, false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, fmt.Errorf("a dimension is negative: %d", d)
		case d == 0:
			zero = true
		case n > math.MaxInt64/d:
			return 0, fmt.Errorf("its shape %v needs more bytes than a file can have", shape)
		default:
			n *= d
		}
	}
	if zero {
		return 0, nil
	}
	return n, nil
}
