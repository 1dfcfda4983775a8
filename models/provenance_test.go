package models

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/blob"
)

func TestQuantisedWeightsSayWhatTheyAreAndThatTheyAreGood(t *testing.T) {
	d := blob.Sum([]byte("x"))
	good := func() Quantised {
		return Quantised{Base: Ref{Name: "eye", Version: "1", Digest: d}, Levels: 4, Metric: MetricAccuracy, Cases: 3, Before: 0.9, After: 0.895, Tolerance: 0.01,
			Files: []QuantisedFile{{Path: ModelFile, Base: d, Trained: d, Tensors: 2, Bits: 4, RelativeError: 0.08}}}
	}
	for _, c := range []struct {
		name   string
		change func(*Quantised)
		says   string
	}{
		{"good", func(*Quantised) {}, ""},
		{"less error", func(q *Quantised) { q.Metric, q.After = MetricError, 0.1 }, ""},
		{"moved a little", func(q *Quantised) { q.Metric, q.Before, q.After = MetricMoved, 0, 0.01 }, ""},
		{"worse", func(q *Quantised) { q.After = 0.8 }, "further than"},
		{"more error", func(q *Quantised) { q.Metric, q.After = MetricError, 0.92 }, "further than"},
		{"moved far", func(q *Quantised) { q.Metric, q.After = MetricMoved, 0.02 }, "further than"},
		{"no number", func(q *Quantised) { q.After = math.NaN() }, "no measure"},
		{"another model", func(q *Quantised) { q.Base.Name = "ear" }, "want a version of eye"},
		{"of no version", func(q *Quantised) { q.Base.Digest = blob.Digest{} }, "with its digest"},
		{"unproved", func(q *Quantised) { q.Cases = 0 }, "0 cases"},
		{"unknown metric", func(q *Quantised) { q.Metric = "taste" }, "taste"},
		{"strange file", func(q *Quantised) { q.Files[0].Path = "other" }, "not among the files"},
	} {
		m := Manifest{V: 1, Name: "eye", Version: "2", Files: []File{{Path: ModelFile, Digest: d, SizeBytes: 1}},
			Signature: Signature{Inputs: []TensorSpec{{Name: "x", DType: FP32, Shape: []int64{1}}}, Outputs: []TensorSpec{{Name: "y", DType: FP32, Shape: []int64{1}}}}}
		q := good()
		c.change(&q)
		m.Provenance = &Provenance{Quantised: &q}
		err := m.Validate()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestAScoreCountsDecisionsAndErrors(t *testing.T) {
	floats := func(v ...float32) (b []byte) {
		for _, f := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		return b
	}
	want := GoldenCase{Name: "c", Outputs: []GoldenWant{
		{TensorSpec: TensorSpec{Name: "p", DType: FP32, Shape: []int64{2, 3}}, Data: floats(0, 1, 0, 1, 0, 0)},
		{TensorSpec: TensorSpec{Name: "label", DType: INT8, Shape: []int64{3}}, Data: []byte{1, 2, 3}},
	}}
	got := []GoldenWant{want.Outputs[0], want.Outputs[1]}
	got[0].Data, got[1].Data = floats(0, 0.9, 0, 0, 2, 0), []byte{1, 2, 4}
	var s Score
	if err := s.Add(want, got); err != nil {
		t.Fatal(err)
	}
	if s.Right != 3 || s.Decisions != 5 || s.Elements != 6 || math.Abs(s.Squares-5.01) > 1e-6 {
		t.Errorf("got %+v", s)
	}
	if s.Accuracy() != 0.6 || math.Abs(s.Error()-math.Sqrt(5.01/6)) > 1e-6 {
		t.Errorf("accuracy %v, error %v", s.Accuracy(), s.Error())
	}
	got[0].Shape = []int64{3, 2}
	if err := s.Add(want, got); err == nil || s.Add(want, got[:1]) == nil {
		t.Error("outputs of another form are scored")
	}
}
