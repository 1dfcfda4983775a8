package serve

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// classify replaces the outputs that were asked for as classes, by Triton's
// classification extension: the k largest values of the last dimension, best
// first, each as the text value:index.
func (c *call) classify(outs []worker.Tensor) error {
	for i := range c.outputs {
		k := c.outputs[i].classes
		if k == 0 {
			continue
		}
		if err := best(&outs[i], k); err != nil {
			return faultf(http.StatusBadRequest, "output %q: %w", outs[i].Name, err)
		}
	}
	return nil
}

// best turns t into a BYTES tensor of its k best classes a row.
func best(t *worker.Tensor, k int) error {
	values, err := numbers(t)
	if err != nil {
		return err
	}
	rank := len(t.Shape)
	if rank == 0 || t.Shape[rank-1] == 0 {
		return fmt.Errorf("has shape %v, which holds no classes", t.Shape)
	}
	classes := int(t.Shape[rank-1])
	k = min(k, classes)
	var data []byte
	order := make([]int, classes)
	for ; len(values) >= classes; values = values[classes:] {
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(values[b], values[a]) })
		for _, i := range order[:k] {
			text := strconv.AppendFloat(nil, values[i], 'f', 6, 64)
			text = strconv.AppendInt(append(text, ':'), int64(i), 10)
			data = append(binary.LittleEndian.AppendUint32(data, uint32(len(text))), text...)
		}
	}
	shape := slices.Clone(t.Shape)
	shape[rank-1] = int64(k)
	t.DType, t.Shape, t.Data = models.BYTES, shape, data
	return nil
}

// numbers reads a tensor of any numeric type but the 16-bit floats.
func numbers(t *worker.Tensor) ([]float64, error) {
	size := t.DType.Size()
	if size == 0 || t.DType == models.FP16 || t.DType == models.BF16 {
		return nil, fmt.Errorf("is %s, which cannot be ranked as classes", t.DType)
	}
	values := make([]float64, 0, len(t.Data)/size)
	for rest := t.Data; len(rest) >= size; rest = rest[size:] {
		var bits uint64
		for i := size - 1; i >= 0; i-- {
			bits = bits<<8 | uint64(rest[i])
		}
		unused := 64 - 8*size
		switch {
		case t.DType == models.FP32:
			values = append(values, float64(math.Float32frombits(uint32(bits))))
		case t.DType == models.FP64:
			values = append(values, math.Float64frombits(bits))
		case t.DType[0] == 'I':
			values = append(values, float64(int64(bits<<unused)>>unused))
		default:
			values = append(values, float64(bits))
		}
	}
	return values, nil
}
