package models

import (
	"errors"
	"fmt"
)

// The checks of stages that read what the model answers. An output whose rank
// the exporter did not declare is checked when it comes.

func (f *flow) output(name string) (TensorSpec, error) {
	outs := f.m.Signature.Outputs
	if name == "" {
		if len(outs) != 1 {
			return TensorSpec{}, fmt.Errorf("output is required, since the model has %s", names(outs))
		}
		return f.float(outs[0])
	}
	t, ok := find(outs, name)
	if !ok {
		return TensorSpec{}, fmt.Errorf("the model has no output %q; it has %s", name, names(outs))
	}
	return f.float(t)
}

func (f *flow) float(t TensorSpec) (TensorSpec, error) {
	switch t.DType {
	case FP32, FP16, FP64, INT8, UINT8, INT32, INT64:
		return t, nil
	}
	return t, fmt.Errorf("output %q is %s, want numbers (FP32, FP16, FP64, INT8, UINT8, INT32, INT64)", t.Name, t.DType)
}

func (f *flow) numeric(s Stage) error {
	_, err := f.output(s.Text("output"))
	return err
}

// classes checks an output whose dimension axis counts classes and whose
// others, where rest is not 0, are rest.
func (f *flow) classes(s Stage, axis, rest int) error {
	t, err := f.output(s.Text("output"))
	if err != nil || len(t.Shape) == 0 {
		return err
	}
	if axis >= len(t.Shape) {
		return fmt.Errorf("output %q has shape %v, want [1 classes …]", t.Name, t.Shape)
	}
	if axis < 0 {
		axis += len(t.Shape)
	}
	for i := range t.Shape {
		if i != axis && (rest > 0 || i == 0) && !fixed(t, i, 1) {
			return fmt.Errorf("output %q has shape %v, want one item with its classes", t.Name, t.Shape)
		}
	}
	return f.labels(s, t.Shape[axis])
}

// labels checks that there is one for each of n classes; n < 0 is free.
func (f *flow) labels(s Stage, n int64) error {
	if s.Has("labels") && n >= 0 && int64(len(s.Texts("labels"))) != n {
		return fmt.Errorf("labels has %d names, the model has %d classes", len(s.Texts("labels")), n)
	}
	return nil
}

func (f *flow) rank(name string, want ...int) (TensorSpec, error) {
	t, err := f.output(name)
	if err != nil || len(t.Shape) == 0 {
		return t, err
	}
	if len(t.Shape) != len(want) {
		return t, fmt.Errorf("output %q has shape %v, want %d dimensions", t.Name, t.Shape, len(want))
	}
	for i, n := range want {
		if n > 0 && !fixed(t, i, n) {
			return t, fmt.Errorf("output %q has shape %v, want %s", t.Name, t.Shape, shapeText(want))
		}
	}
	return t, nil
}

func (f *flow) ctc(s Stage) error {
	_, err := f.rank(s.Text("output"), 1, 0, 0)
	return err
}

func (f *flow) dbBoxes(s Stage) error {
	_, err := f.rank(s.Text("output"), 1, 1, 0, 0)
	return err
}

func (f *flow) yoloBoxes(s Stage) error {
	t, err := f.rank(s.Text("output"), 1, 0, 0)
	if err != nil || len(t.Shape) == 0 {
		return err
	}
	n, extra := t.Shape[2], int64(5)
	if s.Text("form") == "v8" {
		n, extra = t.Shape[1], 4
	}
	if n < 0 {
		return nil
	}
	if n <= extra {
		return fmt.Errorf("output %q has shape %v: form %s needs more than %d numbers a box", t.Name, t.Shape, s.Text("form"), extra)
	}
	return f.labels(s, n-extra)
}

func (f *flow) ssdBoxes(s Stage) error {
	scores, boxes := s.Texts("scores"), s.Texts("boxes")
	grid, cells := s.Numbers("grid"), s.Numbers("per_cell")
	switch {
	case len(scores) != len(boxes):
		return fmt.Errorf("%d outputs of scores and %d of boxes, want pairs", len(scores), len(boxes))
	case s.Has("anchors_file") == s.Has("grid"):
		return errors.New("want grid or anchors_file")
	case s.Has("grid") && (len(grid) != len(scores) || len(cells) != len(grid)):
		return fmt.Errorf("%d grids with %d counts per cell for %d outputs, want one each", len(grid), len(cells), len(scores))
	case s.Text("coding") == "exp" && s.Has("grid"):
		return errors.New("coding exp needs the sizes of anchors: give an anchors_file")
	case len(s.Numbers("variance")) != 2:
		return fmt.Errorf("variance has %d numbers, want 2", len(s.Numbers("variance")))
	}
	for i := range scores {
		n := 0
		if s.Has("grid") {
			n = int(grid[i] * grid[i] * cells[i])
		}
		t, err := f.rank(scores[i], 1, n, 0)
		if err != nil {
			return err
		}
		if len(t.Shape) == 3 {
			classes := t.Shape[2]
			if s.Flag("background") && classes > 0 {
				classes--
			}
			if err := f.labels(s, classes); err != nil {
				return err
			}
		}
		if t, err = f.rank(boxes[i], 1, n, 0); err != nil {
			return err
		}
		if len(t.Shape) == 3 && t.Shape[2] >= 0 && t.Shape[2] < 4 {
			return fmt.Errorf("output %q has shape %v, a box needs 4 numbers", t.Name, t.Shape)
		}
	}
	return nil
}

func (f *flow) windows(s Stage) error {
	t, err := f.input(s)
	if err != nil {
		return err
	}
	n := s.Whole("size") + s.Whole("context")
	if t.DType != FP32 || len(t.Shape) != 2 || !fixed(t, 0, 1) || !fixed(t, 1, n) {
		return fmt.Errorf("input %q is %s%v, windows are FP32[1 %d]", t.Name, t.DType, t.Shape, n)
	}
	return nil
}

func (f *flow) carry(s Stage) error {
	in, err := f.input(s)
	if err != nil {
		return err
	}
	if _, err := made(in); err != nil {
		return err
	}
	out, ok := find(f.m.Signature.Outputs, s.Text("output"))
	if !ok {
		return fmt.Errorf("the model has no output %q; it has %s", s.Text("output"), names(f.m.Signature.Outputs))
	}
	if len(out.Shape) == 0 {
		out.Shape = in.Shape
	}
	if err := in.accepts(out); err != nil {
		return fmt.Errorf("output %q cannot become input %q: as a type it %w", out.Name, in.Name, err)
	}
	return nil
}

func (f *flow) segments(s Stage) error {
	t, err := f.output(s.Text("output"))
	if err != nil {
		return err
	}
	for i := range t.Shape {
		if !fixed(t, i, 1) {
			return fmt.Errorf("output %q has shape %v, want one number a window", t.Name, t.Shape)
		}
	}
	if s.Number("end") > s.Number("start") {
		return fmt.Errorf("end is %v, want at most start (%v)", s.Number("end"), s.Number("start"))
	}
	return nil
}
