package models

import (
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
)

func TestSignatureAcceptsOnlyWhatCallersCanUse(t *testing.T) {
	in := func(shape ...int64) Signature {
		return Signature{Inputs: []TensorSpec{{"x", FP32, shape}}, Outputs: []TensorSpec{{"y", FP32, nil}}}
	}
	two := in(1)
	two.Inputs = append(two.Inputs, TensorSpec{"h", FP32, []int64{2, 1}})
	out := func(specs ...TensorSpec) Signature { s := in(1); s.Outputs = specs; return s }
	y := TensorSpec{"y", FP32, []int64{-1, 2}}
	tests := []struct {
		name     string
		old, new Signature
		err      string
	}{
		{"same", in(1, 2), in(1, 2), ""},
		{"a dimension became free", in(1, 2), in(-1, 2), ""},
		{"a free dimension became fixed", in(-1, 2), in(1, 2), `input "x": dimension 0 was free and is now fixed to 1`},
		{"another size", in(1, 2), in(1, 3), `input "x" had size 2 in dimension 1 and has now 3`},
		{"another rank", in(1, 2), in(1), `input "x" had 2 dimensions and has now 1`},
		{"another type", in(1), Signature{Inputs: []TensorSpec{{"x", FP16, []int64{1}}}}, `input "x" was FP32 and is now FP16`},
		{"a new input", in(1), two, `input "h" is new`},
		{"an input less", two, in(1), `input "h" is gone`},
		{"an output less", out(y), out(TensorSpec{"z", FP32, nil}), `output "y" is gone`},
		{"an output more", out(y), out(y, TensorSpec{"z", FP32, nil}), ""},
		{"outputs in another order", out(y, TensorSpec{"z", INT8, nil}), out(TensorSpec{"z", INT8, nil}, y), ""},
		{"another output type", out(y), out(TensorSpec{"y", INT64, []int64{-1, 2}}), `output "y" was FP32 and is now INT64`},
		{"another output rank", out(y), out(TensorSpec{"y", FP32, []int64{2}}), `output "y" had 2 dimensions and has now 1`},
		{"an output without a shape", out(y), out(TensorSpec{"y", FP32, nil}), ""},
		{"another output size", out(y), out(TensorSpec{"y", FP32, []int64{-1, 3}}), `output "y" had size 2 in dimension 1 and has now 3`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantError(t, tt.old.Accepts(tt.new), tt.err) })
	}
}

func TestSileroFiveMayBecomeSixButNotLegacy(t *testing.T) {
	read := func(name string) Signature {
		info, err := ReadONNXFile(filepath.Join(assets.Model(t, name), ModelFile))
		if err != nil {
			t.Fatal(err)
		}
		return info.Signature
	}
	five, six, legacy := read("silero-vad-5.0.0"), read("silero-vad-6.0.0"), read("silero-vad-legacy")
	wantError(t, five.Accepts(six), "")
	wantError(t, six.Accepts(five), "")
	wantError(t, five.Accepts(legacy), `input "state" is gone`)
	wantError(t, legacy.Accepts(six), `input "h" is gone`)
}

func TestSignatureFaultsAreNamed(t *testing.T) {
	x := TensorSpec{"x", FP32, []int64{1}}
	for _, tt := range []struct {
		name string
		sig  Signature
		err  string
	}{
		{"good", Signature{[]TensorSpec{x}, []TensorSpec{x}}, ""},
		{"empty", Signature{}, "no inputs or no outputs"},
		{"twice", Signature{[]TensorSpec{x, x}, []TensorSpec{x}}, `tensor "x" is in the signature twice`},
		{"no name", Signature{[]TensorSpec{{"", FP32, nil}}, []TensorSpec{x}}, "has no name"},
		{"type", Signature{[]TensorSpec{x}, []TensorSpec{{"y", "FP8", nil}}}, `unknown datatype "FP8"`},
		{"shape", Signature{[]TensorSpec{x}, []TensorSpec{{"y", FP32, []int64{-2}}}}, "impossible shape"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantError(t, tt.sig.Validate(), tt.err) })
	}
}
