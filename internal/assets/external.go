package assets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// ExternalRows is how many numbers a model of ExternalModel takes and gives.
const ExternalRows = 16

// ExternalModel writes the ONNX model dir/model.onnx with its weights in a
// second file of dir, called data: y = x·a·b, x and y FP32 [-1, ExternalRows].
// The first half of the weights is a, the other one b; they begin after skip
// bytes, which are a hole.
func ExternalModel(t testing.TB, dir, data string, skip int64, weights []float32) {
	t.Helper()
	columns := uint64(len(weights) / 2 / ExternalRows)
	half := int64(columns) * ExternalRows * 4
	place := func(i int64) []byte {
		return join(entry("location", data), entry("offset", fmt.Sprint(skip+i*half)), entry("length", fmt.Sprint(half)))
	}
	tensor := func(name string, at int64, dims ...uint64) []byte {
		return field(5, number(1, dims[0]), number(1, dims[1]), number(2, 1), field(8, []byte(name)), place(at), number(14, 1))
	}
	value := func(num uint64, name string) []byte {
		shape := field(2, field(1, field(2, []byte("n"))), field(1, number(1, ExternalRows)))
		return field(num, field(1, []byte(name)), field(2, field(1, number(1, 1), shape)))
	}
	multiply := func(x, y, z string) []byte {
		return field(1, field(1, []byte(x)), field(1, []byte(y)), field(2, []byte(z)), field(4, []byte("MatMul")))
	}
	graph := field(7, multiply("x", "a", "h"), multiply("h", "b", "y"), field(2, []byte("g")),
		tensor("a", 0, ExternalRows, columns), tensor("b", 1, columns, ExternalRows), value(11, "x"), value(12, "y"))
	var raw []byte
	for _, w := range weights {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(w))
	}
	path := filepath.Join(dir, filepath.FromSlash(data))
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	write(t, filepath.Join(dir, "model.onnx"), 0, join(number(1, 8), graph, field(8, number(2, 17))))
	write(t, path, skip, raw)
}

func write(t testing.TB, path string, at int64, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = f.WriteAt(data, at)
	must(t, errors.Join(err, f.Close()))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func entry(key, value string) []byte {
	return field(13, field(1, []byte(key)), field(2, []byte(value)))
}

// field and number are those of protobuf.
func field(num uint64, content ...[]byte) []byte {
	body := join(content...)
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, num<<3|2), uint64(len(body))), body...)
}

func number(num, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, num<<3), v)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
