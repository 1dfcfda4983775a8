package models

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

func floats(xs ...float32) []byte {
	var b []byte
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func words(ss ...string) []byte {
	var b []byte
	for _, s := range ss {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// TestVersionsAgreeWhereTheirAnswersMeanTheSame holds Agreement against the
// meaning of each kind of output.
func TestVersionsAgreeWhereTheirAnswersMeanTheSame(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name  string
		dtype DType
		shape []int64
		a, b  []byte
		want  float64
	}{
		{"the same class, other scores", FP32, []int64{1, 3}, floats(.1, .8, .1), floats(.3, .4, .3), 1},
		{"another class", FP32, []int64{1, 3}, floats(.1, .8, .1), floats(.5, .4, .1), 0},
		{"one row of two", FP32, []int64{2, 2}, floats(1, 2, 3, 4), floats(1, 2, 4, 3), .5},
		{"a single score, near", FP32, []int64{1, 1}, floats(.62), floats(.7), 1},
		{"a single score, far", FP32, []int64{1, 1}, floats(.1), floats(.7), 0},
		{"large numbers, near", FP32, []int64{2}, floats(100, 200), floats(109, 230), .5},
		{"infinities and nothing", FP32, []int64{3}, floats(inf, nan, inf), floats(inf, nan, -inf), 2. / 3},
		{"an infinity and a number", FP32, []int64{1}, floats(inf), floats(3), 0},
		{"rows of nothing", FP32, []int64{1, 2}, floats(nan, nan), floats(nan, nan), 1},
		{"a row of nothing and one of scores", FP32, []int64{1, 2}, floats(nan, nan), floats(1, 0), 0},
		{"classes", UINT8, []int64{4}, []byte{1, 2, 3, 4}, []byte{1, 2, 3, 5}, .75},
		{"texts", BYTES, []int64{2}, words("kept", "short"), words("kept", "longer"), .5},
		{"empty", FP32, []int64{0, 4}, nil, nil, 1},
		{"data that does not fill its shape", FP32, []int64{2}, floats(1), floats(1), 0},
	} {
		spec := TensorSpec{DType: c.dtype, Shape: c.shape}
		if got := Agreement(spec, c.a, spec, c.b); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: agreement %g, want %g", c.name, got, c.want)
		}
	}
	a, b := TensorSpec{DType: FP32, Shape: []int64{1, 2}}, TensorSpec{DType: FP32, Shape: []int64{2, 1}}
	if got := Agreement(a, floats(1, 2), b, floats(1, 2)); got != 0 {
		t.Errorf("other shapes: agreement %g, want 0", got)
	}
}

func TestShadowRulesThatCannotBeMetAreRefused(t *testing.T) {
	for _, c := range []struct {
		rule Shadow
		want string
	}{
		{Shadow{Seconds: -1}, "seconds"}, {Shadow{Seconds: 1e9}, "seconds"}, {Shadow{MinCompared: -1}, "min_compared"},
		{Shadow{MinAgreement: 1.2}, "min_agreement"}, {Shadow{MinAgreement: math.NaN()}, "min_agreement"},
		{Shadow{Seconds: 60, MinCompared: 50, MinAgreement: .9}, ""},
	} {
		err := Manifest{Shadow: &c.rule}.checkShadow()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.rule, err, c.want)
		}
	}
}
