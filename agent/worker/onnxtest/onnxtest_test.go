package onnxtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// TestDecodeTensorReadsEveryStorage covers raw data and the typed fields.
func TestDecodeTensorReadsEveryStorage(t *testing.T) {
	tag, varint, fixed32 := protowire.AppendTag, protowire.AppendVarint, protowire.AppendFixed32
	head := func(dtype uint64, dims ...uint64) []byte {
		var b []byte
		for _, d := range dims {
			b = varint(tag(b, 1, protowire.VarintType), d)
		}
		return varint(tag(b, 2, protowire.VarintType), dtype)
	}
	packed := func(b []byte, n protowire.Number, v ...byte) []byte {
		return protowire.AppendBytes(tag(b, n, protowire.BytesType), v)
	}
	cases := []struct {
		name  string
		bytes []byte
		want  worker.Tensor
	}{
		{"raw float", packed(head(1, 1), 9, 0, 0, 0x80, 0x3f), worker.Tensor{DType: models.FP32, Shape: []int64{1}, Data: []byte{0, 0, 0x80, 0x3f}}},
		{"packed float", packed(head(1, 1), 4, 0, 0, 0x80, 0x3f), worker.Tensor{DType: models.FP32, Shape: []int64{1}, Data: []byte{0, 0, 0x80, 0x3f}}},
		{"unpacked float", fixed32(tag(head(1, 1), 4, protowire.Fixed32Type), 0x3f800000), worker.Tensor{DType: models.FP32, Shape: []int64{1}, Data: []byte{0, 0, 0x80, 0x3f}}},
		{"half in int32", packed(head(10, 2), 5, 0x80, 0x78, 1), worker.Tensor{DType: models.FP16, Shape: []int64{2}, Data: []byte{0, 0x3c, 1, 0}}},
		{"negative int8", varint(tag(head(3), 5, protowire.VarintType), ^uint64(0)), worker.Tensor{DType: models.INT8, Shape: []int64{}, Data: []byte{255}}},
		{"text", packed(packed(head(8, 2), 6, 'a'), 6), worker.Tensor{DType: models.BYTES, Shape: []int64{2}, Data: []byte{1, 0, 0, 0, 'a', 0, 0, 0, 0}}},
		{"empty", head(7, 3, 0), worker.Tensor{DType: models.INT64, Shape: []int64{3, 0}, Data: []byte{}}},
	}
	for _, c := range cases {
		got, err := DecodeTensor(c.bytes)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if err := Compare(got, c.want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for name, b := range map[string][]byte{
		"cut": {0x0a}, "unknown type": head(99, 1), "too few": head(1, 2), "too large": head(1, 1<<40),
		"odd raw": packed(head(1, 1), 9, 1, 2, 3), "external": packed(head(1, 0), 13, 1),
	} {
		if got, err := DecodeTensor(b); err == nil || got.Data != nil {
			t.Errorf("%s: got %v, %v, want an error and no value", name, got, err)
		}
	}
}

// TestCompareFollowsTheONNXRules checks tolerances and special values.
func TestCompareFollowsTheONNXRules(t *testing.T) {
	half := func(b ...byte) worker.Tensor {
		return worker.Tensor{DType: models.FP16, Shape: []int64{1}, Data: b}
	}
	cases := []struct {
		name      string
		got, want worker.Tensor
		equal     bool
	}{
		{"NaN", half(0, 0x7e), half(1, 0x7e), true},
		{"infinity", half(0, 0x7c), half(0, 0x7c), true},
		{"signs of infinity", half(0, 0xfc), half(0, 0x7c), false},
		{"overflow", half(0xff, 0x7b), half(0, 0x7c), false},
		{"within a thousandth", half(1, 0x3c), half(0, 0x3c), true},
		{"beyond a thousandth", half(2, 0x3c), half(0, 0x3c), false},
		{"subnormal", half(1, 0), half(0, 0), true}, // 6e-8
		{"zero and more", half(2, 0), half(0, 0), false},
		{"types", half(0, 0), worker.Tensor{DType: models.BF16, Shape: []int64{1}, Data: []byte{0, 0}}, false},
		{"shapes", half(0, 0), worker.Tensor{DType: models.FP16, Shape: []int64{}, Data: []byte{0, 0}}, false},
		{"lengths", half(0, 0), half(0, 0, 0, 0), false},
	}
	for _, c := range cases {
		if err := Compare(c.got, c.want); (err == nil) != c.equal {
			t.Errorf("%s: got %v, want equal: %v", c.name, err, c.equal)
		}
	}
}

// wrong is a session that answers with zeros.
type wrong struct{ worker.Tensor }

func (w wrong) Signature() models.Signature {
	spec := models.TensorSpec{Name: "x", DType: models.FP32, Shape: []int64{1}}
	return models.Signature{Inputs: []models.TensorSpec{spec}, Outputs: []models.TensorSpec{spec}}
}

func (w wrong) Infer(context.Context, []worker.Tensor, []string) ([]worker.Tensor, error) {
	return []worker.Tensor{w.Tensor}, nil
}
func (wrong) Close() error { return nil }

// TestRunSeesAWrongAnswer keeps the suite from passing whatever happens.
func TestRunSeesAWrongAnswer(t *testing.T) {
	one := []byte{8, 1, 16, 1, 0x4a, 4, 0, 0, 0x80, 0x3f} // dims 1, FLOAT, raw 1.0
	dir := t.TempDir()
	set := filepath.Join(dir, "test_data_set_0")
	if err := os.Mkdir(set, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"input_0.pb", "output_0.pb"} {
		if err := os.WriteFile(filepath.Join(set, name), one, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	answer := worker.Tensor{Name: "x", DType: models.FP32, Shape: []int64{1}, Data: []byte{0, 0, 0x80, 0x3f}}
	open := func(context.Context, string) (Session, error) { return wrong{answer}, nil }
	if err := (Case{Dir: dir}).Run(t.Context(), open); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	answer.Data = make([]byte, 4)
	if err := (Case{Dir: dir}).Run(t.Context(), open); err == nil || !strings.Contains(err.Error(), "is 0, want 1") {
		t.Errorf("a wrong answer: got %v", err)
	}
	refuse := errors.New("refused")
	open = func(context.Context, string) (Session, error) { return nil, refuse }
	if err := (Case{Dir: dir}).Run(t.Context(), open); !errors.Is(err, refuse) {
		t.Errorf("a failed load: got %v", err)
	}
	if _, err := parseList("node/x\n"); err == nil {
		t.Error("a list line without a reason is accepted")
	}
}

// FuzzDecodeTensor checks that what decodes has the length its shape promises.
func FuzzDecodeTensor(f *testing.F) {
	f.Add([]byte{8, 1, 16, 1, 0x4a, 4, 0, 0, 0x80, 0x3f})
	f.Add([]byte{8, 2, 16, 8, 0x32, 1, 'a', 0x32, 0})
	f.Add([]byte{16, 7, 0x3a, 1, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeTensor(b)
		if err != nil {
			if got.Data != nil || got.Shape != nil {
				t.Errorf("an error with a value: %v", got)
			}
			return
		}
		count := int64(1)
		for _, d := range got.Shape {
			count *= d
		}
		if size := int64(got.DType.Size()); size > 0 && int64(len(got.Data)) != count*size {
			t.Errorf("%s of shape %v has %d bytes", got.DType, got.Shape, len(got.Data))
		}
		again, err := DecodeTensor(slices.Clone(b))
		if err != nil || !bytes.Equal(got.Data, again.Data) {
			t.Errorf("decoding twice differs: %v", err)
		}
	})
}
