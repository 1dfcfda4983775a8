package pipeline

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

func crop(_ context.Context, j *job, s models.Stage) error {
	v := j.v.pic.view
	x, y := s.Number("x"), s.Number("y")
	w, h := min(s.Number("width"), 1-x), min(s.Number("height"), 1-y)
	if w*v.w < 1 || h*v.h < 1 {
		return fmt.Errorf("nothing is left of %.0f × %.0f pixels", v.w, v.h)
	}
	j.v.pic.view = v.part(x, y, w, h)
	return nil
}

// part is a rectangle inside b, in shares of it.
func (b box) part(x, y, w, h float64) box {
	b.centre = b.corners()[0].add(b.u.scale((x + w/2) * b.w)).add(b.v().scale((y + h/2) * b.h))
	b.w, b.h = b.w*w, b.h*h
	return b
}

func resize(_ context.Context, j *job, s models.Stage) error {
	w, h := sizeFor(j.v.pic.view, s)
	if err := checkPixels(w, h); err != nil {
		return err
	}
	j.v.pic.scaled(w, h, s.Text("filter"))
	return nil
}

// sizeFor is the size that a resize stage gives a view.
func sizeFor(v box, s models.Stage) (w, h int) {
	w, h = s.Whole("width"), s.Whole("height")
	follow := func(other float64, bound int) int {
		n := max(int(math.Ceil(other)), 1)
		if bound > 0 {
			n = min(n, bound)
		}
		return n
	}
	switch {
	case w > 0 && h > 0:
	case h > 0:
		w = follow(float64(h)*v.w/v.h, s.Whole("max_width"))
	case w > 0:
		h = follow(float64(w)*v.h/v.w, s.Whole("max_height"))
	default:
		ratio := min(1, float64(s.Whole("longest"))/max(v.w, v.h))
		multiple := s.Number("multiple")
		side := func(n float64) int { return int(max(multiple, math.Round(n*ratio/multiple)*multiple)) }
		w, h = side(v.w), side(v.h)
	}
	return w, h
}

func letterbox(_ context.Context, j *job, s models.Stage) error {
	w, h := s.Whole("width"), s.Whole("height")
	v := j.v.pic.view
	ratio := min(float64(w)/v.w, float64(h)/v.h)
	inW := min(max(int(math.Round(v.w*ratio)), 1), w)
	inH := min(max(int(math.Round(v.h*ratio)), 1), h)
	j.v.pic.scaled(inW, inH, s.Text("filter"))
	x, y := 0, 0
	if s.Text("align") == "centre" {
		x, y = (w-inW)/2, (h-inH)/2
	}
	j.v.pic.framed(w, h, x, y, float32(s.Number("value")))
	return nil
}

// sized makes sure that the picture has a raster. A view may be many times the
// frame: a model says how large the boxes are that others are shown.
func (j *job) sized() (*Frame, error) {
	p := &j.v.pic
	if p.raster == nil {
		w, h := max(int(math.Round(p.view.w)), 1), max(int(math.Round(p.view.h)), 1)
		if err := checkPixels(w, h); err != nil {
			return nil, err
		}
		p.scaled(w, h, "area")
	}
	return p.raster, nil
}

func pad(_ context.Context, j *job, s models.Stage) error {
	r, err := j.sized()
	if err != nil {
		return err
	}
	w, h := max(r.W, s.Whole("width")), max(r.H, s.Whole("height"))
	if err := checkPixels(w, h); err != nil {
		return err
	}
	j.v.pic.framed(w, h, 0, 0, float32(s.Number("value")))
	return nil
}

// input is the signature's entry for the input that a stage means.
func (j *job) input(s models.Stage) (models.TensorSpec, error) {
	name := s.Text("input")
	for _, t := range j.p.manifest.Signature.Inputs {
		if name == "" && !j.filled(t.Name) || t.Name == name {
			return t, nil
		}
	}
	return models.TensorSpec{}, fmt.Errorf("the model has no input %q", name)
}

func (j *job) filled(name string) bool {
	for _, t := range j.v.inputs {
		if t.Name == name {
			return true
		}
	}
	return false
}

func (j *job) set(t worker.Tensor) {
	j.v.inputs = append(j.v.inputs[:len(j.v.inputs):len(j.v.inputs)], t)
}

func tensor(_ context.Context, j *job, s models.Stage) error {
	spec, err := j.input(s)
	if err != nil {
		return err
	}
	r, err := j.sized()
	if err != nil {
		return err
	}
	channels := channelsOf(r, s.Text("order"))
	layout := s.Text("layout")
	shape := []int64{1, int64(len(channels)), int64(r.H), int64(r.W)}
	if layout == "nhwc" {
		shape = []int64{1, int64(r.H), int64(r.W), int64(len(channels))}
	}
	t := worker.Tensor{Name: spec.Name, DType: spec.DType, Shape: shape, Data: make([]byte, len(channels)*r.W*r.H*spec.DType.Size())}
	scale, mean, std := s.Number("scale"), s.Numbers("mean"), s.Numbers("std")
	for c, plane := range channels {
		// Where the first value of the plane goes, and how far apart they are.
		at, step := c*len(plane), 1
		if layout == "nhwc" {
			at, step = c, len(channels)
		}
		m, d := mean[min(c, len(mean)-1)], std[min(c, len(std)-1)]
		if spec.DType == models.FP32 {
			fillFloats(t.Data[4*at:], 4*step, plane, func(v float32) float32 { return float32((float64(v)/scale - m) / d) })
			continue
		}
		for i, v := range plane {
			put(t.Data, at+i*step, spec.DType, (float64(v)/scale-m)/d)
		}
	}
	j.set(t)
	return nil
}

// fillFloats writes f of each value, stride bytes apart.
func fillFloats(data []byte, stride int, values []float32, f func(float32) float32) {
	for i, v := range values {
		binary.LittleEndian.PutUint32(data[i*stride:], math.Float32bits(f(v)))
	}
}

// channelsOf are the planes in the order asked for.
func channelsOf(r *Frame, order string) [][]float32 {
	switch order {
	case "bgr":
		return [][]float32{r.c[2], r.c[1], r.c[0]}
	case "grey":
		return [][]float32{r.grey()}
	}
	return [][]float32{r.c[0], r.c[1], r.c[2]}
}

// grey is the brightness of each pixel by ITU-R BT.601.
func (p *Frame) grey() []float32 {
	out := make([]float32, p.W*p.H)
	for i := range out {
		out[i] = 0.299*p.c[0][i] + 0.587*p.c[1][i] + 0.114*p.c[2][i]
	}
	return out
}

func constant(_ context.Context, j *job, s models.Stage) error {
	spec, err := j.input(s)
	if err != nil {
		return err
	}
	t := zeros(spec)
	values := s.Numbers("values")
	for i := range len(t.Data) / spec.DType.Size() {
		put(t.Data, i, spec.DType, values[min(i, len(values)-1)])
	}
	j.set(t)
	return nil
}

func callStage(ctx context.Context, j *job, s models.Stage) error {
	p := j.v.pic
	got, err := j.r.call(ctx, s.Text("model"), p.frame, p.view, j.out)
	if err != nil {
		return err
	}
	got.pic.frame, got.pic.view = p.frame, p.view
	j.v = got
	return nil
}

// runModel runs the model once, or once for each window.
func runModel(ctx context.Context, j *job, _ models.Stage) error {
	if j.v.kind == models.KindWindows {
		return j.runWindows(ctx)
	}
	outs, by, err := j.r.infer(ctx, j.p.ref.Name, j.v.inputs)
	if err != nil {
		return err
	}
	if err := j.ran(by); err != nil {
		return err
	}
	j.v.raw, j.v.outputs, j.v.kind = outs, map[string]answer{}, models.KindOutputs
	return nil
}

// output is the answer that a stage reads. Its shape is what the model really
// answered: free dimensions have a size now, and it is the model that chose it.
func (j *job) output(name string) (answer, error) {
	if name == "" && len(j.p.manifest.Signature.Outputs) == 1 {
		name = j.p.manifest.Signature.Outputs[0].Name
	}
	if a, ok := j.v.outputs[name]; ok {
		return a, nil
	}
	a, err := read(j.v.raw, name)
	if err != nil {
		return answer{}, fmt.Errorf("use answer of %s: %w", j.p.ref, err)
	}
	j.v.outputs[name] = a
	return a, nil
}

// read finds an output among tensors.
func read(outs []worker.Tensor, name string) (answer, error) {
	for _, t := range outs {
		if t.Name == name {
			v, err := numbers(t)
			return answer{t.Shape, v}, err
		}
	}
	return answer{}, fmt.Errorf("it has no output %q", name)
}

// dims checks the rank of an answer; want -1 is any size.
func (a answer) dims(want ...int64) error {
	ok := len(a.shape) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = want[i] < 0 || a.shape[i] == want[i]
	}
	if !ok {
		return fmt.Errorf("the model answers %v, want %v", a.shape, want)
	}
	return nil
}

func activation(_ context.Context, j *job, s models.Stage) error {
	a, err := j.output(s.Text("output"))
	if err != nil {
		return err
	}
	if s.Name == "softmax" {
		softmax(a.v, a.shape)
		return nil
	}
	for i, v := range a.v {
		a.v[i] = logistic(v)
	}
	return nil
}
