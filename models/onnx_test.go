package models

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// The helpers below write the few messages of onnx.proto3 that the tests need.
func msg(num protowire.Number, content ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(content, nil))
}

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func name(n protowire.Number, s string) []byte { return msg(n, []byte(s)) }

// value is a ValueInfoProto; a dimension below 0 gets a name, 0 is left empty.
func value(field protowire.Number, n string, elem uint64, dims ...int) []byte {
	var shape []byte
	for _, d := range dims {
		switch {
		case d > 0:
			shape = append(shape, msg(1, num(1, uint64(d)))...)
		case d < 0:
			shape = append(shape, msg(1, name(2, "batch"))...)
		default:
			shape = append(shape, msg(1)...)
		}
	}
	return msg(field, name(1, n), msg(2, msg(1, num(1, elem), msg(2, shape))))
}

func tensor(field protowire.Number, n string, content ...[]byte) []byte {
	return msg(field, num(1, 4), num(2, 1), name(8, n), bytes.Join(content, nil))
}

// outside is a tensor of 16 bytes whose data are in another file.
func outside(field protowire.Number, n string, entries ...string) []byte {
	content := num(14, 1)
	for i := 0; i < len(entries); i += 2 {
		content = append(content, msg(13, name(1, entries[i]), name(2, entries[i+1]))...)
	}
	return tensor(field, n, content)
}

func scattered() (all []byte) {
	for i := range maxONNXExternal + 1 {
		all = append(all, outside(5, "t", "location", strconv.Itoa(i))...)
	}
	return all
}

func model(graph ...[]byte) []byte {
	return bytes.Join([][]byte{num(1, 8), name(2, "maker"), name(3, "1.2"), msg(7, graph...), msg(8, num(2, 17)), msg(8, name(1, "ai.onnx.ml"), num(2, 3))}, nil)
}

func smallModel() []byte {
	return model(
		value(11, "x", 1, -1, 3), value(11, "w", 1, 4), value(11, "sr", 7),
		tensor(5, "w", msg(9, make([]byte, 16))), tensor(5, "b", msg(9, make([]byte, 16))),
		msg(1, name(1, "x"), msg(5, name(1, "body"), msg(6, tensor(5, "inner")))),
		value(12, "y", 10, 0))
}

func TestONNXHeaderIsReadWithoutInitializers(t *testing.T) {
	got, err := ReadONNX(bytes.NewReader(smallModel()))
	if err != nil {
		t.Fatal(err)
	}
	want := Signature{
		Inputs:  []TensorSpec{{"x", FP32, []int64{-1, 3}}, {"sr", INT64, nil}},
		Outputs: []TensorSpec{{"y", FP16, []int64{-1}}},
	}
	if !reflect.DeepEqual(got.Signature, want) {
		t.Errorf("signature %+v\nwant      %+v", got.Signature, want)
	}
	if got.IRVersion != 8 || got.Producer != "maker 1.2" || got.Opset != 17 || got.Initializers != 3 {
		t.Errorf("got %+v, want IR 8 of maker 1.2, opset 17, 3 initializers", got)
	}
}

func TestONNXWeightsInOtherFilesHaveTheirPlace(t *testing.T) {
	got, err := ReadONNX(bytes.NewReader(model(value(11, "x", 1, 1), value(12, "y", 1, 1),
		outside(5, "a", "location", "w.bin", "offset", "4096", "length", "16"), outside(5, "b", "location", "w.bin"),
		msg(1, msg(5, msg(6, outside(5, "inner", "location", "more/v.bin", "offset", "8")))))))
	want := []ExternalFile{{"w.bin", 4112, "a"}, {"more/v.bin", 24, "inner"}}
	if err != nil || !reflect.DeepEqual(got.External, want) {
		t.Errorf("got %+v, %v; want %+v", got.External, err, want)
	}
	if got := want[1].Beside("small/model.onnx"); got != "small/more/v.bin" {
		t.Errorf("beside a graph in a folder: %s", got)
	}
}

func TestONNXFaultsAreNamed(t *testing.T) {
	x, y := value(11, "x", 1, 1), value(12, "y", 1, 1)
	deep := func() []byte {
		g := []byte(nil)
		for range maxONNXDepth {
			g = msg(1, msg(5, msg(6, g)))
		}
		return g
	}
	for _, tt := range []struct {
		name string
		data []byte
		err  string
	}{
		{"empty", nil, "it has no graph"},
		{"text", []byte("this is not a model, it is a sentence"), "not a usable ONNX file"},
		{"zeroes", make([]byte, 100), "invalid protobuf field"},
		{"no IR version", msg(7, x, y), "no IR version"},
		{"two graphs", append(model(x, y), msg(7, x, y)...), "two graphs"},
		{"no outputs", model(x), "no inputs or no outputs"},
		{"external data in no file", model(x, y, tensor(5, "big", num(14, 1))), `tensor "big" keeps its data in "", want the name of a file`},
		{"external data above the folder", model(x, y, outside(5, "up", "location", "../w.bin")), `tensor "up" keeps its data in "../w.bin"`},
		{"external data at the root", model(x, y, outside(5, "root", "location", "/etc/passwd")), `tensor "root" keeps`},
		{"external data on a drive", model(x, y, outside(5, "drive", "location", `C:\w`)), `tensor "drive" keeps`},
		{"external data by a detour", model(x, y, outside(5, "d", "location", "a/../w.bin")), `tensor "d" keeps`},
		{"external data of another length", model(x, y, outside(5, "big", "location", "w.bin", "length", "15")), `tensor "big" has 15 bytes in w.bin, and its shape needs 16`},
		{"external data at no offset", model(x, y, outside(5, "big", "location", "w.bin", "offset", "-4")), `tensor "big" has in w.bin the offset "-4"`},
		{"external data beyond all files", model(x, y, outside(5, "big", "location", "w.bin", "offset", "9223372036854775800")), `beyond what a file can have`},
		{"external data of a shape beyond all files", model(x, y, msg(5, num(1, 1<<40), num(1, 1<<40), num(2, 1), msg(13, name(1, "location"), name(2, "w.bin")), msg(13, name(1, "length"), name(2, "4")))), `its shape needs 9223372036854775807`},
		{"external data in many files", model(x, y, scattered()), "in more than 100 files"},
		{"external constant", model(x, y, msg(1, msg(5, outside(5, "c", "location", "w.bin")))), `tensor "c", an attribute`},
		{"external sparse", model(x, y, msg(15, outside(1, "s", "location", "w.bin"))), `tensor "s", an attribute`},
		{"sequence input", model(msg(11, name(1, "q"), msg(2, msg(4))), y), `input "q" is not a tensor`},
		{"float8 output", model(x, value(12, "f", 17, 1)), `output "f" has ONNX element type 17`},
		{"long name", model(value(11, string(make([]byte, maxONNXName+1)), 1, 1), y), "longer than 4096 bytes"},
		{"many dimensions", model(value(11, "x", 1, make([]int, maxONNXDims+1)...), y), "more than 64 dimensions"},
		{"deep nesting", model(x, y, deep()), "nested deeper"},
		{"length past the file", protowire.AppendVarint(append(model(x, y), 0x7a), 1<<30), "in the middle of a field"},
		{"more than any runtime loads", protowire.AppendVarint(append(model(x, y), 0x7a), 1<<31), "fp16 or int8"},
		{"length past its message", model(x, y, []byte{0x7a, 0x7f}), "longer than what holds it"},
		{"endless number", append(num(1, 8), bytes.Repeat([]byte{0xff}, 20)...), "64 bits"},
		{"group", []byte{0x0b}, "wire type 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			info, err := ReadONNX(bytes.NewReader(tt.data))
			wantError(t, err, tt.err)
			if !reflect.DeepEqual(info, ONNXInfo{}) {
				t.Errorf("error with a value: %+v", info)
			}
		})
	}
}

func TestTruncatedONNXIsRefusedAtEveryLength(t *testing.T) {
	data := smallModel()
	end := len(data) - len(msg(8, name(1, "ai.onnx.ml"), num(2, 3))) - len(msg(8, num(2, 17)))
	for n := range end {
		if info, err := ReadONNX(bytes.NewReader(data[:n])); err == nil {
			t.Fatalf("%d of %d bytes were read as %+v", n, len(data), info)
		}
	}
}

func TestReadingAHugeONNXNeedsLittleMemory(t *testing.T) {
	const weights = 1 << 30
	head := smallModel()
	// A second file part: a node attribute of one GiB inside field 100, skipped.
	head = protowire.AppendVarint(protowire.AppendTag(head, 100, protowire.BytesType), weights)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := ReadONNX(io.MultiReader(bytes.NewReader(head), io.LimitReader(zeroes{}, weights))); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("allocated %d bytes, want at most 4 MiB", got)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }

func TestDemoModelsHaveTheirKnownSignatures(t *testing.T) {
	for _, tt := range []struct {
		name  string
		opset int64
		want  Signature
	}{
		{"silero-vad-6.0.0", 16, Signature{
			Inputs:  []TensorSpec{{"input", FP32, []int64{-1, -1}}, {"state", FP32, []int64{2, -1, 128}}, {"sr", INT64, nil}},
			Outputs: []TensorSpec{{"output", FP32, []int64{-1, 1}}, {"stateN", FP32, []int64{-1, -1, -1}}},
		}},
		{"ocr-rec-4.0.0", 9, Signature{
			Inputs:  []TensorSpec{{"x", FP32, []int64{-1, 3, 48, -1}}},
			Outputs: []TensorSpec{{"softmax_11.tmp_0", FP32, []int64{-1, -1, 6625}}},
		}},
		{"ocr-cls-2.0.0", 9, Signature{
			Inputs:  []TensorSpec{{"x", FP32, []int64{-1, 3, -1, -1}}},
			Outputs: []TensorSpec{{"softmax_0.tmp_0", FP32, []int64{-1, 2}}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadONNXFile(filepath.Join(assets.Model(t, tt.name), ModelFile))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Signature, tt.want) || got.Opset != tt.opset {
				t.Errorf("got  %d %+v\nwant %d %+v", got.Opset, got.Signature, tt.opset, tt.want)
			}
		})
	}
}

func TestDamagedDemoModelNeverPanics(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(assets.Model(t, "ocr-cls-2.0.0"), ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(20240611)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		bad := bytes.Clone(data)
		for range 1 + rng.IntN(20) {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		}
		_, _ = ReadONNX(bytes.NewReader(bad[:rng.IntN(len(bad))]))
	}
}

// A header that is read has a valid signature, is read the same way again from
// a reader that delivers single bytes, and an error returns no value.
func FuzzReadONNX(f *testing.F) {
	f.Add(smallModel())
	f.Add(model(value(11, "x", 1, 1), value(12, "y", 8, 1), msg(15, tensor(1, "s"))))
	f.Add(model(value(11, "x", 1, 1), value(12, "y", 8, 1), outside(5, "w", "location", "d/w", "offset", "8", "length", "16")))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := ReadONNX(bytes.NewReader(data))
		if err != nil {
			if !reflect.DeepEqual(info, ONNXInfo{}) {
				t.Fatal("error with a value")
			}
			return
		}
		if err := info.Signature.Validate(); err != nil {
			t.Fatalf("invalid signature: %v", err)
		}
		if err := info.Signature.Accepts(info.Signature); err != nil {
			t.Fatalf("does not accept itself: %v", err)
		}
		for _, e := range info.External {
			if !filepath.IsLocal(e.Path) || e.NeedsBytes < 0 {
				t.Fatalf("weights in %+v", e)
			}
		}
		again, err := ReadONNX(oneByte{bytes.NewReader(data)})
		if err != nil || !reflect.DeepEqual(info, again) {
			t.Fatalf("read again: %+v, %v\nwant %+v", again, err, info)
		}
	})
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }
