package container

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/edgeherd/edgeherd/models"
)

// maxSafetensorsHeader bounds memory: a header of a hundred thousand tensors
// has about 10 MB. The reference implementation takes 100 MB.
const maxSafetensorsHeader = 16 << 20

// looksLikeSafetensors: eight bytes of header length, then JSON.
func looksLikeSafetensors(r io.ReaderAt, size int64) bool {
	var b [9]byte
	if size < int64(len(b)) {
		return false
	}
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return false
	}
	return b[8] == '{' && (binary.LittleEndian.Uint64(b[:]) <= 1<<40 || b[0] != 0x08)
}

// safetensorsDTypes are the types with a name of ours.
var safetensorsDTypes = map[string]models.DType{
	"BOOL": models.BOOL, "U8": models.UINT8, "I8": models.INT8, "U16": models.UINT16, "I16": models.INT16,
	"F16": models.FP16, "BF16": models.BF16, "U32": models.UINT32, "I32": models.INT32, "F32": models.FP32,
	"U64": models.UINT64, "I64": models.INT64, "F64": models.FP64,
}

func (s *scan) safetensors() error {
	b, err := s.fill(8)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(b)
	switch {
	case n > uint64(s.size-8):
		return fmt.Errorf("its header claims %d bytes in a file of %d: truncated or damaged", n, s.size)
	case n > maxSafetensorsHeader:
		return fmt.Errorf("its header of %d bytes is longer than %d", n, maxSafetensorsHeader)
	}
	start := 8 + int64(n)
	// The decoder holds one entry at a time, never the header.
	dec := json.NewDecoder(io.NewSectionReader(s.r, 8, int64(n)))
	if err := s.entries(dec, start); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object in its header")
	}
	return s.dense(start)
}

func (s *scan) entries(dec *json.Decoder, start int64) error {
	if t, err := token(dec); err != nil || t != json.Delim('{') {
		return fmt.Errorf("its header is not a JSON object: %w", cmp.Or(err, errors.New("no brace")))
	}
	for dec.More() {
		key, err := token(dec)
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		name, ok := key.(string)
		if !ok {
			return errors.New("its header is not a JSON object")
		}
		if name == "__metadata__" {
			if err := skipValue(dec); err != nil {
				return err
			}
			continue
		}
		if err := s.entry(dec, name, start); err != nil {
			return err
		}
	}
	if _, err := token(dec); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	return nil
}

// entry reads one tensor. Its parts are read token by token, so that a shape
// of a billion dimensions is refused before it is in memory.
func (s *scan) entry(dec *json.Decoder, name string, start int64) error {
	if t, err := token(dec); err != nil || t != json.Delim('{') {
		return fmt.Errorf("tensor %q is not a JSON object", name)
	}
	dtype, shape, place := "", []int64(nil), []int64(nil)
	for dec.More() {
		key, err := token(dec)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		switch key {
		case "dtype":
			t, err := token(dec)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
			dtype, _ = t.(string) // anything else is an unknown type
		case "shape":
			shape, err = numbers(dec, maxDims)
		case "data_offsets":
			place, err = numbers(dec, 2)
		default:
			err = skipValue(dec)
		}
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	if _, err := token(dec); err != nil {
		return fmt.Errorf("tensor %q: %w", name, err)
	}
	if len(place) != 2 || place[0] > place[1] || place[1] > s.size-start {
		return fmt.Errorf("tensor %q lies at %v, outside the %d bytes of data", name, place, s.size-start)
	}
	t := Tensor{Name: name, DType: safetensorsDTypes[dtype], Shape: shape, Off: start + place[0], Len: place[1] - place[0]}
	if elem := t.DType.Size(); elem > 0 {
		want, err := bytesOf(shape, int64(elem))
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		if want != t.Len {
			return fmt.Errorf("tensor %q has %d bytes where its shape %v of %s needs %d", name, t.Len, shape, dtype, want)
		}
	}
	return s.add(t)
}

// dense checks that the tensors cover the data exactly, as the format demands.
func (s *scan) dense(start int64) error {
	byOff := slices.Clone(s.tensors)
	slices.SortStableFunc(byOff, func(a, b Tensor) int { return cmp.Or(cmp.Compare(a.Off, b.Off), cmp.Compare(a.Len, b.Len)) })
	end := start
	for _, t := range byOff {
		switch {
		case t.Off < end:
			return fmt.Errorf("tensor %q overlaps the one before it", t.Name)
		case t.Off > end:
			return fmt.Errorf("%d bytes before tensor %q belong to no tensor", t.Off-end, t.Name)
		}
		end = t.Off + t.Len
	}
	if end != s.size {
		return fmt.Errorf("%d bytes at its end belong to no tensor", s.size-end)
	}
	return nil
}

// token is the next one of a header that has not ended.
func token(dec *json.Decoder) (json.Token, error) {
	t, err := dec.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

// numbers reads an array of at most n sizes.
func numbers(dec *json.Decoder, n int) ([]int64, error) {
	if t, err := token(dec); err != nil || t != json.Delim('[') {
		return nil, errors.New("a list of numbers is missing")
	}
	var out []int64
	for dec.More() {
		var v int64
		if len(out) == n {
			return nil, fmt.Errorf("a list has more than %d numbers", n)
		}
		t, err := token(dec)
		if err != nil {
			return nil, err
		}
		f, ok := t.(float64)
		if v = int64(f); !ok || f < 0 || f > 1<<53 || float64(v) != f {
			return nil, fmt.Errorf("%v is not a size", t)
		}
		out = append(out, v)
	}
	_, err := token(dec)
	return out, err
}

// skipValue passes over any JSON value without keeping it.
func skipValue(dec *json.Decoder) error {
	for depth := 0; ; {
		t, err := token(dec)
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return fmt.Errorf("its header is nested deeper than %d", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}
