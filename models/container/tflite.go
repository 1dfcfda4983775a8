package container

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/edgeherd/edgeherd/models"
)

// tfliteDTypes maps TensorType of
// https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs.
var tfliteDTypes = map[byte]models.DType{
	0: models.FP32, 1: models.FP16, 2: models.INT32, 3: models.UINT8, 4: models.INT64, 6: models.BOOL, 7: models.INT16,
	9: models.INT8, 10: models.FP64, 12: models.UINT64, 15: models.UINT32, 16: models.UINT16, 18: models.BF16,
}

// table is a FlatBuffers table: its place and that of its vtable.
type table struct{ off, vtable, vlen int64 }

// vector is a FlatBuffers vector: the place of its first element.
type vector struct{ off, n int64 }

// at reads n bytes at off; n <= 8.
func (s *scan) at(off int64, n int) ([]byte, error) {
	if off < 0 || off > s.size-int64(n) {
		return nil, fmt.Errorf("something at byte %d is beyond its %d bytes", off, s.size)
	}
	s.off = off
	b, err := s.fill(n)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

func (s *scan) u32(off int64) (int64, error) {
	b, err := s.at(off, 4)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(b)), nil
}

// table follows the offset stored at off.
func (s *scan) table(off int64) (table, error) {
	rel, err := s.u32(off)
	if err != nil {
		return table{}, err
	}
	t := table{off: off + rel}
	back, err := s.u32(t.off)
	if err != nil {
		return table{}, err
	}
	t.vtable = t.off - int64(int32(uint32(back)))
	b, err := s.at(t.vtable, 2)
	if err != nil {
		return table{}, err
	}
	t.vlen = int64(binary.LittleEndian.Uint16(b))
	return t, nil
}

// slot is the place of a table's field, 0 when it is left out.
func (s *scan) slot(t table, i int) (int64, error) {
	entry := int64(4 + 2*i)
	if entry+2 > t.vlen {
		return 0, nil
	}
	b, err := s.at(t.vtable+entry, 2)
	if err != nil {
		return 0, err
	}
	if o := int64(binary.LittleEndian.Uint16(b)); o > 0 {
		return t.off + o, nil
	}
	return 0, nil
}

// vectorOf follows field i of t, a vector of elements of elem bytes.
func (s *scan) vectorOf(t table, i int, elem int64) (vector, error) {
	at, err := s.slot(t, i)
	if err != nil || at == 0 {
		return vector{}, err
	}
	rel, err := s.u32(at)
	if err != nil {
		return vector{}, err
	}
	n, err := s.u32(at + rel)
	if err != nil {
		return vector{}, err
	}
	v := vector{off: at + rel + 4, n: n}
	if n > (s.size-v.off)/elem {
		return vector{}, fmt.Errorf("a list at byte %d claims %d elements of %d bytes in a file of %d", at+rel, n, elem, s.size)
	}
	return v, nil
}

// number reads field i of t, of 1, 4 or 8 bytes; 0 is the default.
func (s *scan) number(t table, i, size int) (uint64, error) {
	at, err := s.slot(t, i)
	if err != nil || at == 0 {
		return 0, err
	}
	b, err := s.at(at, size)
	if err != nil {
		return 0, err
	}
	var full [8]byte
	copy(full[:], b)
	return binary.LittleEndian.Uint64(full[:]), nil
}

func (s *scan) tflite() error {
	model, err := s.table(0)
	if err != nil {
		return err
	}
	buffers, err := s.vectorOf(model, 4, 4)
	if err != nil {
		return err
	}
	graphs, err := s.vectorOf(model, 2, 4)
	if err != nil {
		return err
	}
	if buffers.n > MaxTensors || graphs.n > MaxTensors {
		return fmt.Errorf("it has %d buffers and %d graphs, more than %d", buffers.n, graphs.n, MaxTensors)
	}
	seen := 0
	for g := range graphs.n {
		graph, err := s.table(graphs.off + 4*g)
		if err != nil {
			return err
		}
		tensors, err := s.vectorOf(graph, 0, 4)
		if err != nil {
			return err
		}
		for i := range tensors.n {
			// Entries may share a table, so a short file could claim many.
			if seen++; seen > MaxTensors {
				return fmt.Errorf("it has more than %d tensors", MaxTensors)
			}
			if err := s.tfliteTensor(tensors.off+4*i, buffers); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scan) tfliteTensor(ref int64, buffers vector) error {
	tensor, err := s.table(ref)
	if err != nil {
		return err
	}
	index, err := s.number(tensor, 2, 4)
	if err != nil || index == 0 { // buffer 0 means: computed, not stored
		return err
	}
	if int64(index) >= buffers.n {
		return fmt.Errorf("a tensor names buffer %d of %d", index, buffers.n)
	}
	var t Tensor
	if t.Off, t.Len, err = s.tfliteBuffer(buffers.off + 4*int64(index)); err != nil || t.Len == 0 {
		return err
	}
	kind, err := s.number(tensor, 1, 1)
	if err != nil {
		return err
	}
	t.DType = tfliteDTypes[byte(kind)]
	shape, err := s.vectorOf(tensor, 0, 4)
	if err != nil {
		return err
	}
	if shape.n > maxDims {
		return fmt.Errorf("a tensor has %d dimensions, more than %d", shape.n, maxDims)
	}
	for i := range shape.n {
		d, err := s.u32(shape.off + 4*i)
		if err != nil {
			return err
		}
		t.Shape = append(t.Shape, int64(int32(uint32(d))))
	}
	name, err := s.vectorOf(tensor, 3, 1)
	if err != nil {
		return err
	}
	if name.n > maxName {
		return fmt.Errorf("a tensor's name is longer than %d bytes", maxName)
	}
	s.off = name.off
	b, err := s.fill(int(name.n))
	if err != nil {
		return err
	}
	t.Name = string(b[:name.n])
	if _, err := bytesOf(t.Shape, max(1, int64(t.DType.Size()))); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return s.add(t)
}

// tfliteBuffer is a buffer's range: inside the FlatBuffer, or behind it for
// models beyond 2 GiB.
func (s *scan) tfliteBuffer(ref int64) (off, n int64, err error) {
	buffer, err := s.table(ref)
	if err != nil {
		return 0, 0, err
	}
	far, err := s.number(buffer, 1, 8)
	if err != nil {
		return 0, 0, err
	}
	size, err := s.number(buffer, 2, 8)
	if err != nil {
		return 0, 0, err
	}
	if far > 1 { // the converter writes 1 as "not yet known"
		if far > math.MaxInt64 || size > math.MaxInt64 {
			return 0, 0, fmt.Errorf("a buffer claims %d bytes at %d", size, far)
		}
		return int64(far), int64(size), nil
	}
	data, err := s.vectorOf(buffer, 0, 1)
	return data.off, data.n, err
}
