package models

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// raw encodes numbers as little-endian elements of type t.
func raw(t DType, values ...float64) []byte {
	var b []byte
	for _, v := range values {
		switch t {
		case FP64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		case FP32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
		case BF16:
			b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(float32(v))>>16))
		case INT64:
			b = binary.LittleEndian.AppendUint64(b, uint64(int64(v)))
		case UINT8:
			b = append(b, byte(v))
		}
	}
	return b
}

func str(ss ...string) []byte {
	var b []byte
	for _, s := range ss {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

func TestGoldenAnswersAreJudgedByTheirTolerance(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	half := func(bits ...uint16) (b []byte) {
		for _, h := range bits {
			b = binary.LittleEndian.AppendUint16(b, h)
		}
		return b
	}
	tests := []struct {
		name      string
		dtype     DType
		shape     []int64
		want, got []byte
		abs, rel  float64
		err       string // part of the error, "" when the answer is right
	}{
		{"equal floats", FP32, []int64{2}, raw(FP32, 1, 2), raw(FP32, 1, 2), 0, 0, ""},
		{"inside the absolute tolerance", FP32, []int64{1}, raw(FP32, 1), raw(FP32, 1.25), 0.25, 0, ""},
		{"outside the absolute tolerance", FP32, []int64{2}, raw(FP32, 1, 1), raw(FP32, 1, 1.5), 0.25, 0, "1 of 2 elements differ, first element 1: got 1.5, want 1 ± 0.25"},
		{"relative to the wanted value", FP64, []int64{1}, raw(FP64, 100), raw(FP64, 101), 0, 0.01, ""},
		{"relative to zero is zero", FP64, []int64{1}, raw(FP64, 0), raw(FP64, 1e-9), 0, 0.01, "1 of 1"},
		{"both tolerances add up", FP64, []int64{1}, raw(FP64, -8), raw(FP64, -11), 1, 0.25, ""},
		{"NaN where NaN is wanted", FP32, []int64{1}, raw(FP32, nan), raw(FP32, nan), 0, 0, ""},
		{"NaN instead of a number", FP32, []int64{1}, raw(FP32, 1), raw(FP32, nan), 1e9, 1, "got NaN"},
		{"a number instead of NaN", FP32, []int64{1}, raw(FP32, nan), raw(FP32, 1), 1e9, 1, "want NaN"},
		{"the same infinity", FP32, []int64{1}, raw(FP32, inf), raw(FP32, inf), 0, 0, ""},
		{"the other infinity", FP32, []int64{1}, raw(FP32, inf), raw(FP32, -inf), 1, 1, "1 of 1"},
		{"a number instead of infinity", FP32, []int64{1}, raw(FP32, inf), raw(FP32, 1), 1, 1, "1 of 1"},
		{"half 1.0 and 1.0009765625", FP16, []int64{1}, half(0x3c00), half(0x3c01), 0.001, 0, ""},
		{"half 1.0 and -1.0", FP16, []int64{1}, half(0x3c00), half(0xbc00), 0.001, 0, "got -1, want 1"},
		{"half subnormal and zero", FP16, []int64{1}, half(0x0001), half(0x0000), 1e-7, 0, ""},
		{"half infinity and NaN", FP16, []int64{2}, half(0x7c00, 0x7e00), half(0x7c00, 0x7e01), 0, 0, ""},
		{"bfloat16", BF16, []int64{1}, raw(BF16, 2), raw(BF16, 2.5), 0.5, 0, ""},
		{"integers ignore tolerances", INT64, []int64{2}, raw(INT64, 1, 2), raw(INT64, 1, 3), 10, 10, "element 1 of 2 differs"},
		{"equal integers", UINT8, []int64{2}, raw(UINT8, 1, 2), raw(UINT8, 1, 2), 0, 0, ""},
		{"equal strings", BYTES, []int64{2}, str("a", "bc"), str("a", "bc"), 0, 0, ""},
		{"other strings of the same lengths", BYTES, []int64{1}, str("ab"), str("ac"), 0, 0, "strings differ from byte 5"},
		{"other split of the same strings", BYTES, []int64{2}, str("a", "bc"), str("ab", "c"), 0, 0, "strings differ from byte 0"},
		{"longer string", BYTES, []int64{1}, str("ab"), str("abc"), 0, 0, "strings differ from byte 0"},
		{"short data", FP32, []int64{2}, raw(FP32, 1, 2), raw(FP32, 1), 0, 0, "4 bytes of data"},
		{"a scalar", FP32, nil, raw(FP32, 1), raw(FP32, 1), 0, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := TensorSpec{Name: "y", DType: tt.dtype, Shape: tt.shape}
			err := GoldenWant{TensorSpec: spec, Data: tt.want, Abs: tt.abs, Rel: tt.rel}.Check(spec, tt.got)
			wantError(t, err, tt.err)
		})
	}
}

func TestGoldenAnswerMustBeTheSameTensor(t *testing.T) {
	w := GoldenWant{TensorSpec: TensorSpec{Name: "y", DType: FP32, Shape: []int64{1, 2}}, Data: raw(FP32, 1, 2)}
	wantError(t, w.Check(TensorSpec{Name: "z", DType: FP32, Shape: []int64{1, 2}}, w.Data), `output is "z", want "y"`)
	wantError(t, w.Check(TensorSpec{Name: "y", DType: FP64, Shape: []int64{1, 1}}, w.Data), "is FP64, want FP32")
	wantError(t, w.Check(TensorSpec{Name: "y", DType: FP32, Shape: []int64{2, 1}}, w.Data), "has shape [2 1], want [1 2]")
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if part == "" {
		if err != nil {
			t.Errorf("got error %v, want none", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("got error %v, want one with %q", err, part)
	}
}

func goldenSample() Golden {
	return Golden{V: GoldenVersion, Cases: []GoldenCase{{
		Name:    "silence",
		Inputs:  []GoldenInput{{TensorSpec{"x", FP32, []int64{1, 2}}, raw(FP32, 0, 0)}},
		Outputs: []GoldenWant{{TensorSpec{"y", FP32, []int64{1}}, raw(FP32, 0.5), 1e-3, 0, nil}},
	}}}
}

func TestGoldenFileFaultsAreNamed(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*Golden)
		err   string
	}{
		{"a good file", func(*Golden) {}, ""},
		{"another version", func(g *Golden) { g.V = 2 }, "version 2, this program reads 1"},
		{"no case", func(g *Golden) { g.Cases = nil }, "0 cases"},
		{"a case without a name", func(g *Golden) { g.Cases[0].Name = "" }, "empty or used twice"},
		{"two cases of one name", func(g *Golden) { g.Cases = append(g.Cases, g.Cases[0]) }, "empty or used twice"},
		{"no outputs", func(g *Golden) { g.Cases[0].Outputs = nil }, "no inputs or no outputs"},
		{"short data", func(g *Golden) { g.Cases[0].Inputs[0].Data = raw(FP32, 1) }, `input "x": 4 bytes of data, shape [1 2] of FP32 needs 8`},
		{"free dimension", func(g *Golden) { g.Cases[0].Outputs[0].Shape = []int64{-1} }, "free dimension"},
		{"overflowing shape", func(g *Golden) { g.Cases[0].Outputs[0].Shape = []int64{1 << 31, 1 << 31, 4} }, "more than"},
		{"unknown type", func(g *Golden) { g.Cases[0].Outputs[0].DType = "FP8" }, `unknown datatype "FP8"`},
		{"strings past the end", func(g *Golden) {
			g.Cases[0].Outputs[0].DType, g.Cases[0].Outputs[0].Data = BYTES, []byte{9, 0, 0, 0, 'a'}
		}, "runs past the end"},
		{"negative tolerance", func(g *Golden) { g.Cases[0].Outputs[0].Abs = -1 }, "tolerance -1"},
		{"input given twice", func(g *Golden) { g.Cases[0].Inputs = append(g.Cases[0].Inputs, g.Cases[0].Inputs[0]) }, "given twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := goldenSample()
			tt.spoil(&g)
			data, err := json.Marshal(g)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), GoldenFile)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = ReadGolden(path)
			wantError(t, err, tt.err)
		})
	}
}

func TestGoldenFileRefusesUnknownKeysAndTails(t *testing.T) {
	data, err := json.Marshal(goldenSample())
	if err != nil {
		t.Fatal(err)
	}
	_, err = DecodeGolden(append(data, "{}"...))
	wantError(t, err, "bytes after its end")
	_, err = DecodeGolden([]byte(`{"v":1,"case":[]}`))
	wantError(t, err, `unknown field "case"`)
	_, err = DecodeGolden(make([]byte, MaxGoldenBytes+1))
	wantError(t, err, "longer than")
}

func TestGoldenCasesMustFitTheSignature(t *testing.T) {
	sig := Signature{
		Inputs:  []TensorSpec{{"x", FP32, []int64{-1, 2}}},
		Outputs: []TensorSpec{{"y", FP32, []int64{-1}}, {"z", FP32, nil}},
	}
	tests := []struct {
		name  string
		spoil func(*Golden, *Signature)
		err   string
	}{
		{"fits", func(*Golden, *Signature) {}, ""},
		{"other input", func(_ *Golden, s *Signature) { s.Inputs[0].Name = "w" }, `the model has no input "x"`},
		{"missing input", func(_ *Golden, s *Signature) { s.Inputs = append(s.Inputs, TensorSpec{Name: "sr", DType: INT64}) }, `input "sr" is missing`},
		{"other size", func(_ *Golden, s *Signature) { s.Inputs[0].Shape = []int64{1, 3} }, "has shape [1 2], the model has [1 3]"},
		{"other rank", func(_ *Golden, s *Signature) { s.Inputs[0].Shape = []int64{2} }, "has shape [1 2], the model has [2]"},
		{"other type", func(_ *Golden, s *Signature) { s.Inputs[0].DType = FP16 }, "is FP32, the model has FP16"},
		{"other output", func(g *Golden, _ *Signature) { g.Cases[0].Outputs[0].Name = "q" }, `the model has no output "q"`},
		{"output of undeclared rank", func(g *Golden, _ *Signature) { g.Cases[0].Outputs[0].Name = "z" }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, s := goldenSample(), Signature{
				Inputs: append([]TensorSpec(nil), sig.Inputs...), Outputs: append([]TensorSpec(nil), sig.Outputs...),
			}
			tt.spoil(&g, &s)
			wantError(t, g.Fits(s), tt.err)
		})
	}
}

// What decodes must encode back to the same value, and an error returns none.
func FuzzDecodeGolden(f *testing.F) {
	data, _ := json.Marshal(goldenSample())
	f.Add(data)
	f.Add([]byte(`{"v":1,"cases":[{"name":"a","inputs":[{"name":"s","datatype":"BYTES","shape":[1],"data":"AQAAAGE="}],"outputs":[{"name":"y","datatype":"INT8","shape":[],"data":"AA==","abs":0,"rel":0}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := DecodeGolden(data)
		if err != nil {
			if g.Cases != nil {
				t.Fatal("error with a value")
			}
			return
		}
		again, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeGolden(again); err != nil {
			t.Fatalf("encoded again: %v", err)
		}
		for _, c := range g.Cases {
			for _, w := range c.Outputs {
				if err := w.Check(w.TensorSpec, w.Data); err != nil {
					t.Fatalf("an answer differs from itself: %v", err)
				}
			}
		}
	})
}

func TestTheClosestClassOfHardwareSaysTheTolerance(t *testing.T) {
	w := GoldenWant{TensorSpec: TensorSpec{"y", FP32, []int64{1}}, Data: raw(FP32, 1), Abs: 0.1, On: map[string]Tolerance{
		"cpu-arm64": {Abs: 0.2}, "tensorrt": {Abs: 0.3}, "tensorrt-arm64": {Rel: 0.4},
	}}
	g := Golden{V: GoldenVersion, Cases: []GoldenCase{{Name: "one", Outputs: []GoldenWant{w}}}}
	for _, c := range []struct {
		on   Hardware
		want Tolerance
	}{
		{Hardware{"CPU", "amd64"}, Tolerance{Abs: 0.1}},
		{Hardware{"CPU", "arm64"}, Tolerance{Abs: 0.2}},
		{Hardware{"TensorRT", "amd64"}, Tolerance{Abs: 0.3}},
		{Hardware{"TensorRT", "arm64"}, Tolerance{Rel: 0.4}},
		{Hardware{"CUDA", "arm64"}, Tolerance{Abs: 0.1}},
		{Hardware{Arch: "arm64"}, Tolerance{Abs: 0.1}},
	} {
		got := g.For(c.on).Cases[0].Outputs[0]
		if (Tolerance{got.Abs, got.Rel}) != c.want {
			t.Errorf("on %+v: ± %v + %v × want, want %+v", c.on, got.Abs, got.Rel, c.want)
		}
		spec := w.TensorSpec
		if err := got.Check(spec, raw(FP32, 1+0.25)); (err == nil) != (c.want.Abs+c.want.Rel >= 0.25) {
			t.Errorf("on %+v: 1.25 for 1: %v", c.on, err)
		}
	}
	if w.On["cpu-arm64"] != (Tolerance{Abs: 0.2}) || g.Cases[0].Outputs[0].Abs != 0.1 {
		t.Error("the samples themselves changed")
	}
	for class, part := range map[string]string{"CUDA": "small letters", "cpu-x64": "amd64, arm64", "": "small letters", "cuda": "finite"} {
		bad := w
		bad.On = map[string]Tolerance{class: {Abs: -1}}
		c := GoldenCase{Name: "x", Inputs: []GoldenInput{{w.TensorSpec, w.Data}}, Outputs: []GoldenWant{bad}}
		if err := (Golden{V: GoldenVersion, Cases: []GoldenCase{c}}).Validate(); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("class %q: %v, want an error with %q", class, err, part)
		}
	}
}

// TestGoldenExampleIsRight: what docs/inference.md shows can be copied.
func TestGoldenExampleIsRight(t *testing.T) {
	text, err := os.ReadFile("../docs/inference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "## Golden samples")
	_, after, _ = strings.Cut(after, "```json\n")
	example, _, _ := strings.Cut(after, "```")
	if _, err := DecodeGolden([]byte(example)); err != nil {
		t.Errorf("%v\n%s", err, example)
	}
}
