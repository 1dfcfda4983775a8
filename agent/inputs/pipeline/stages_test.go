package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

func fp32(name string, shape []int64, v ...float32) worker.Tensor {
	t := worker.Tensor{Name: name, DType: models.FP32, Shape: shape}
	for _, f := range v {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(f))
	}
	return t
}

// lab is a catalog of models that answer what a test says.
type lab struct {
	t         testing.TB
	dir       string
	manifests map[string]models.Manifest
	answers   map[string][]worker.Tensor
	asked     map[string][]worker.Tensor // the last inputs
}

func newLab(t testing.TB) *lab {
	return &lab{t, "", map[string]models.Manifest{}, map[string][]worker.Tensor{}, map[string][]worker.Tensor{}}
}

// serve declares a model with one picture input; stages as in model.yaml.
func (l *lab) serve(name string, in models.TensorSpec, stages string, outs ...worker.Tensor) {
	l.t.Helper()
	m := models.Manifest{V: 1, Name: name, Version: "1", Signature: models.Signature{Inputs: []models.TensorSpec{in}}}
	for _, o := range outs {
		m.Signature.Outputs = append(m.Signature.Outputs, models.TensorSpec{Name: o.Name, DType: o.DType, Shape: o.Shape})
	}
	p := models.Pipeline{Name: name, Takes: models.KindImage}
	if err := yaml.Unmarshal([]byte(stages), &p.Stages); err != nil {
		l.t.Fatal(err)
	}
	m.Pipelines = []models.Pipeline{p}
	for _, f := range []string{"labels.txt", "anchors.json"} {
		m.Files = append(m.Files, models.File{Path: f})
	}
	l.manifests[name], l.answers[name] = m, outs
}

func (l *lab) Serving() (out []models.Ref, err error) {
	for name := range l.manifests {
		out = append(out, models.Ref{Name: name, Version: "1"})
	}
	slices.SortFunc(out, func(a, b models.Ref) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (l *lab) Manifest(ref models.Ref) (models.Manifest, error) { return l.manifests[ref.Name], nil }

func (l *lab) File(_ models.Ref, path string) (string, error) { return filepath.Join(l.dir, path), nil }

func (l *lab) infer(_ context.Context, model string, in []worker.Tensor) ([]worker.Tensor, By, error) {
	l.asked[model] = in
	var outs []worker.Tensor
	for _, o := range l.answers[model] { // the real worker copies, and stages work in place
		o.Data = slices.Clone(o.Data)
		outs = append(outs, o)
	}
	return outs, By{Ref: models.Ref{Name: model, Version: "1"}}, nil
}

func (l *lab) file(name, text string) {
	l.t.Helper()
	if l.dir == "" {
		l.dir = l.t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) run(name string, frame Frame) (Reading, error) {
	return New(name, l.infer, l).Image(context.Background(), frame)
}

func picture96(h, w int64) models.TensorSpec {
	return models.TensorSpec{Name: "x", DType: models.FP32, Shape: []int64{1, 3, h, w}}
}

// TestAnswersByHand: each post-processing stage on numbers that a person can
// check. The frame is 200 × 100, the raster 100 × 100 in a letterbox: twice as
// large, with bars of 25 above and below.
func TestAnswersByHand(t *testing.T) {
	const pre = "[{letterbox: {width: 100, height: 100}}, tensor, run, "
	classes := fp32("y", []int64{1, 3}, 1, 3, 2)
	for _, tt := range []struct {
		name, stages string
		files        map[string]string
		outs         []worker.Tensor
		want         string
	}{
		{"best class", "{top_k: {min_score: 0}}]", nil, []worker.Tensor{fp32("y", []int64{1, 3}, 0.1, 0.7, 0.2)}, "1 0.70"},
		{"two with names", "{top_k: {count: 2, labels: [cat, dog, cow]}}]", nil, []worker.Tensor{fp32("y", []int64{1, 3}, 0.1, 0.7, 0.2)}, "dog 0.70, cow 0.20"},
		{"names of a file", "{top_k: {labels_file: labels.txt}}]", map[string]string{"labels.txt": "a\r\nb\r\nc\r\n"}, []worker.Tensor{fp32("y", []int64{1, 3}, 0.1, 0.7, 0.2)}, "b 0.70"},
		{"softmax", "softmax, {top_k: {count: 3}}]", nil, []worker.Tensor{classes}, "1 0.67, 2 0.24, 0 0.09"},
		{"sigmoid", "sigmoid, {threshold: {above: 0.8}}]", nil, []worker.Tensor{classes}, "1 0.95, 2 0.88"},
		{"none above", "{threshold: {above: 0.8}}]", nil, []worker.Tensor{fp32("y", []int64{1, 2}, 0.1, float32(math.NaN()))}, "nothing found"},
		{"shares of a map", "{argmax: {labels: [road, sky]}}]", nil, []worker.Tensor{fp32("y", []int64{1, 2, 2, 2}, 1, 1, 1, 0, 0, 0, 0, 1)}, "road 0.75, sky 0.25"},
		// Centre 50,50 of the raster is 100,50 of the frame; 20 × 10 is 40 × 20.
		{"yolo v5", "{yolo_boxes: {form: v5, labels: [a, b]}}]", nil, []worker.Tensor{fp32("y", []int64{1, 2, 7}, 50, 50, 20, 10, 0.9, 0.1, 1, 9, 9, 9, 9, 0.1, 1, 1)}, "b 0.90 at 80,40 40×20"},
		{"yolo v8", "{yolo_boxes: {form: v8}}, nms]", nil, []worker.Tensor{fp32("y", []int64{1, 6, 3}, 50, 51, 20, 50, 50, 50, 20, 20, 5, 10, 10, 5, 0.1, 0.1, 0.8, 0.9, 0.8, 0.1)},
			"1 0.90 at 80,40 40×20; 0 0.80 at 35,45 10×10"},
		{"one for each class", "{yolo_boxes: {form: v8}}, {nms: {per_class: true}}]", nil, []worker.Tensor{fp32("y", []int64{1, 6, 2}, 50, 50, 50, 50, 20, 20, 10, 10, 0.1, 0.8, 0.9, 0.1)},
			"1 0.90 at 80,40 40×20; 0 0.80 at 80,40 40×20"},
		{"one in all", "{yolo_boxes: {form: v8}}, {nms: {per_class: false}}]", nil, []worker.Tensor{fp32("y", []int64{1, 6, 2}, 50, 50, 50, 50, 20, 20, 10, 10, 0.1, 0.8, 0.9, 0.1)},
			"1 0.90 at 80,40 40×20"},
		// Side by side by half their width they share a third of what they cover.
		{"a third is not too much", "{yolo_boxes: {form: v8}}, {nms: {iou: 0.4}}]", nil, []worker.Tensor{fp32("y", []int64{1, 5, 2}, 50, 60, 50, 50, 20, 20, 10, 10, 0.9, 0.8)},
			"0 0.90 at 80,40 40×20; 0 0.80 at 100,40 40×20"},
		{"a third is too much", "{yolo_boxes: {form: v8}}, {nms: {iou: 0.3}}]", nil, []worker.Tensor{fp32("y", []int64{1, 5, 2}, 50, 60, 50, 50, 20, 20, 10, 10, 0.9, 0.8)},
			"0 0.90 at 80,40 40×20"},
		// 0.9 at 100 and 0.3 at 104 of the frame: the mean is at 101.
		{"blended", "{yolo_boxes: {form: v8, min_score: 0.2}}, {nms: {method: blend}}]", nil, []worker.Tensor{fp32("y", []int64{1, 5, 2}, 50, 52, 50, 50, 20, 20, 10, 10, 0.9, 0.3)},
			"0 0.90 at 81,40 40×20"},
		{"filtered", "{yolo_boxes: {form: v8, labels: [a, b]}}, {filter: {labels: [b], min_side: 15}}]", nil, []worker.Tensor{fp32("y", []int64{1, 6, 3}, 50, 51, 20, 50, 50, 50, 20, 20, 5, 10, 10, 5, 0.1, 0.8, 0.1, 0.9, 0.1, 0.8)},
			"b 0.90 at 80,40 40×20"},
		// SSD: anchor 0.5, 0.5 of size 0.2: x + 1·0.1·0.2 = 0.52, w = 0.2·e^0.
		{"ssd with anchors", "{ssd_boxes: {scores: s, boxes: b, anchors_file: anchors.json, coding: exp, background: true, labels: [car]}}]",
			map[string]string{"anchors.json": "[[0.5,0.5,0.2,0.1],[0.1,0.1,0.1,0.1]]"},
			[]worker.Tensor{fp32("s", []int64{1, 2, 2}, 0.2, 0.8, 0.9, 0.1), fp32("b", []int64{1, 2, 4}, 1, 0, 0, 0, 0, 0, 0, 0)}, "car 0.80 at 84,40 40×20"},
		// A grid of one cell: its centre 0.5; x + 10/100, size 20/100 × 10/100.
		{"ssd with a grid", "{ssd_boxes: {scores: s, boxes: b, grid: 1, per_cell: 1, scale: 100, sigmoid: true}}]", nil,
			[]worker.Tensor{fp32("s", []int64{1, 1, 1}, 3), fp32("b", []int64{1, 1, 4}, 10, 0, 20, 10)}, "0 0.95 at 100,40 40×20"},
		{"nothing that is a number", "{ssd_boxes: {scores: s, boxes: b, grid: 1, per_cell: 1}}, nms]", nil,
			[]worker.Tensor{fp32("s", []int64{1, 1, 1}, float32(math.NaN())), fp32("b", []int64{1, 1, 4}, 0, 0, 1, 1)}, "nothing found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			for name, text := range tt.files {
				l.file(name, text)
			}
			l.serve("m", picture96(100, 100), pre+tt.stages, tt.outs...)
			got, err := l.run("m", newFrame(200, 100))
			if err != nil || got.Text != tt.want {
				t.Errorf("%q, %v; want %q", got.Text, err, tt.want)
			}
		})
	}
}

// TestDetectCropRecognise: boxes of one model are cut out for the next, which
// sees just them.
func TestDetectCropRecognise(t *testing.T) {
	l := newLab(t)
	l.serve("find", picture96(100, 100), "[{letterbox: {width: 100, height: 100}}, tensor, run, {yolo_boxes: {form: v8, labels: [plate]}}, nms]",
		fp32("y", []int64{1, 5, 1}, 50, 50, 20, 10, 0.9))
	l.serve("name", picture96(2, 4), "[{resize: {width: 4, height: 2, filter: nearest}}, {tensor: {scale: 1}}, run, {top_k: {labels: [no, yes]}}]",
		fp32("p", []int64{1, 2}, 0.2, 0.8))
	l.serve("both", picture96(1, 1), "[{call: {model: find, gives: boxes}}, {each: {model: name}}]", fp32("y", []int64{1, 1}, 0))
	frame := newFrame(200, 100)
	for y := 40; y < 60; y++ { // where the box lies
		for x := 80; x < 120; x++ {
			frame.c[0][y*200+x] = 200
		}
	}
	got, err := l.run("both", frame)
	if err != nil || got.Text != `plate 0.90 at 80,40 40×20 "yes" 0.80` || fmt.Sprint(got.Models) != "[find:1 name:1]" {
		t.Errorf("%q by %v, %v", got.Text, got.Models, err)
	}
	v, err := numbers(l.asked["name"][0])
	if err != nil || slices.Min(v[:8]) != 200 || slices.Max(v[8:]) != 0 {
		t.Errorf("the second model saw %v, %v; want red alone", v, err)
	}
}

// TestItemStartsAnewWithTheStagesOfWhoAnswers: between the look at what serves
// and the answer another version with other stages took over.
func TestItemStartsAnewWithTheStagesOfWhoAnswers(t *testing.T) {
	l := newLab(t)
	l.serve("m", picture96(1, 1), "[{resize: {width: 1, height: 1}}, {tensor: {scale: 1}}, run, {top_k: {labels: [old]}}]", fp32("y", []int64{1, 1}, 1))
	was := l.manifests["m"]
	l.serve("m", picture96(1, 1), "[{resize: {width: 1, height: 1}}, {tensor: {scale: 2}}, run, {top_k: {labels: [new]}}]", fp32("y", []int64{1, 1}, 1))
	both := switched{l, was}
	frame := newFrame(1, 1)
	frame.fill(100)
	calls := 0
	infer := func(ctx context.Context, model string, in []worker.Tensor) ([]worker.Tensor, By, error) {
		calls++
		outs, _, err := l.infer(ctx, model, in)
		return outs, By{Ref: models.Ref{Name: "m", Version: "2"}}, err
	}
	r := New("m", infer, both)
	for range 2 {
		got, err := r.Image(t.Context(), frame)
		v, verr := numbers(l.asked["m"][0])
		if err != nil || verr != nil || got.Text != "new 1.00" || fmt.Sprint(got.Models) != "[m:2]" || len(got.Seen) != 1 || v[0] != 50 {
			t.Errorf("%q by %v with input %v, %v; want that of the new version alone", got.Text, got.Models, v, err)
		}
	}
	if calls != 4 { // the catalog never tells of the new one
		t.Errorf("%d calls for two items, want 4", calls)
	}
}

// switched tells of version 1, while version 2 answers.
type switched struct {
	*lab
	was models.Manifest
}

func (s switched) Manifest(ref models.Ref) (models.Manifest, error) {
	if ref.Version == "1" {
		return s.was, nil
	}
	return s.lab.manifests[ref.Name], nil
}

// TestTensorsByHand: order, layout, type and normalisation of one pixel.
func TestTensorsByHand(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 1, 2))
	img.SetRGBA(0, 0, color.RGBA{100, 150, 200, 255})
	img.SetRGBA(0, 1, color.RGBA{0, 50, 255, 255})
	for _, tt := range []struct {
		stage string
		dtype models.DType
		shape []int64
		want  []float32
	}{
		{"{tensor: {scale: 1}}", models.FP32, []int64{1, 3, 2, 1}, []float32{100, 0, 150, 50, 200, 255}},
		{"{tensor: {scale: 1, order: bgr}}", models.FP32, []int64{1, 3, 2, 1}, []float32{200, 255, 150, 50, 100, 0}},
		{"{tensor: {scale: 1, layout: nhwc}}", models.FP32, []int64{1, 2, 1, 3}, []float32{100, 150, 200, 0, 50, 255}},
		{"{tensor: {scale: 100, mean: [1, 0.5, 0], std: [1, 2, 4], layout: nhwc}}", models.FP32, []int64{1, 2, 1, 3}, []float32{0, 0.5, 0.5, -1, 0, 0.6375}},
		{"{tensor: {scale: 1, order: grey}}", models.FP32, []int64{1, 1, 2, 1}, []float32{140.75, 58.42}},
		{"{tensor: {scale: 1}}", models.UINT8, []int64{1, 3, 2, 1}, []float32{100, 0, 150, 50, 200, 255}},
		{"{tensor: {scale: 1, mean: 128}}", models.INT8, []int64{1, 3, 2, 1}, []float32{-28, -128, 22, -78, 72, 127}},
		{"{tensor: {scale: 200}}", models.FP16, []int64{1, 3, 2, 1}, []float32{0.5, 0, 0.75, 0.25, 1, 1.2753906}},
	} {
		l := newLab(t)
		l.serve("m", models.TensorSpec{Name: "x", DType: tt.dtype, Shape: tt.shape}, "[{resize: {width: 1, height: 2}}, "+tt.stage+", run, top_k]", fp32("y", []int64{1, 1}, 1))
		if _, err := l.run("m", FrameOf(img)); err != nil {
			t.Errorf("%s: %v", tt.stage, err)
			continue
		}
		got, err := numbers(l.asked["m"][0])
		if err != nil || len(got) != len(tt.want) || l.asked["m"][0].DType != tt.dtype {
			t.Fatalf("%s: %v, %v", tt.stage, got, err)
		}
		for i := range got {
			if !near(float64(got[i]), float64(tt.want[i]), 1e-5) {
				t.Errorf("%s as %s: %v, want %v", tt.stage, tt.dtype, got, tt.want)
				break
			}
		}
	}
}

func TestEveryHalfSurvives(t *testing.T) {
	for h := range 1 << 16 {
		f := halfFloat(uint16(h))
		if f != f {
			if b := halfFloat(halfBits(f)); b == b {
				t.Errorf("%04x is no number, and became %v", h, b)
			}
			continue
		}
		if got := halfBits(f); got != uint16(h) {
			t.Fatalf("%04x is %v, and became %04x", h, f, got)
		}
	}
	for f, want := range map[float32]uint16{1: 0x3c00, -2: 0xc000, 65504: 0x7bff, 65520: 0x7c00, 1e9: 0x7c00, 5.9604645e-8: 1, 2.9802322e-8: 0, 1.0004883: 0x3c00, 1.0014648: 0x3c02} {
		if got := halfBits(f); got != want {
			t.Errorf("%v is %04x, want %04x", f, got, want)
		}
	}
}

// TestBoxesFindTheirWayHome: whatever was cropped, scaled and padded, a place
// on the raster is the place on the frame that its pixel shows.
func TestBoxesFindTheirWayHome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(20, 400).Draw(t, "w"), rapid.IntRange(20, 400).Draw(t, "h")
		// Each pixel holds its own place, so that interpolation gives places too.
		frame := newFrame(w, h)
		for y := range h {
			for x := range w {
				frame.c[0][y*w+x], frame.c[1][y*w+x] = float32(x), float32(y)
			}
		}
		num := func(name string, low, high int) string {
			return fmt.Sprint(rapid.IntRange(low, high).Draw(t, name))
		}
		text := fmt.Sprintf("[{crop: {x: 0.%s, y: 0.%s, width: 0.%s, height: 0.%s}}, ", num("cx", 1, 4), num("cy", 1, 4), num("cw", 3, 5), num("ch", 3, 5))
		text += rapid.SampledFrom([]string{
			"{letterbox: {width: 96, height: 64, filter: bilinear}}]",
			"{letterbox: {width: 64, height: 96, align: corner, filter: bilinear}}]",
			"{resize: {width: 70, height: 50, filter: bilinear}}, {pad: {width: 90, height: 90}}]",
			"{resize: {height: 48, max_width: 300, filter: bilinear}}]",
		}).Draw(t, "stages")
		var list []models.Stage
		if err := yaml.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		j := job{v: value{pic: picture{frame: &frame, view: frame.whole()}}}
		for _, s := range list {
			if err := stages[s.Name](context.Background(), &j, s); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		r := j.v.pic.raster
		for range 5 {
			x, y := rapid.IntRange(0, r.W-1).Draw(t, "x"), rapid.IntRange(0, r.H-1).Draw(t, "y")
			home := j.v.pic.home(box{centre: point{float64(x), float64(y)}, u: point{1, 0}, w: 1, h: 1}, r.W, r.H)
			d := home.centre.sub(j.v.pic.view.centre)
			if math.Abs(d.x) > j.v.pic.view.w/2-1 || math.Abs(d.y) > j.v.pic.view.h/2-1 {
				continue // a bar, or the frame's edge
			}
			shown := point{float64(r.c[0][y*r.W+x]), float64(r.c[1][y*r.W+x])}
			if home.centre.sub(shown).length() > 0.05 {
				t.Fatalf("%s on %d × %d: %d,%d shows %v, and goes home to %v", text, w, h, x, y, shown, home.centre)
			}
		}
	})
}

// TestEveryStageIsCarriedOut: the table of models and that of this package name
// the same stages.
func TestEveryStageIsCarriedOut(t *testing.T) {
	var here []string
	for name := range stages {
		here = append(here, name)
	}
	slices.Sort(here)
	if !reflect.DeepEqual(here, models.StageNames()) {
		t.Errorf("carried out %v\nknown       %v", here, models.StageNames())
	}
}

func TestPipelinesAreFoundByNameOrRefused(t *testing.T) {
	l := newLab(t)
	const stages = "[{resize: {width: 1, height: 1}}, tensor, run, top_k]"
	l.serve("a", picture96(1, 1), stages, fp32("y", []int64{1, 1}, 1))
	l.serve("b", picture96(1, 1), stages, fp32("y", []int64{1, 1}, 1))
	b := l.manifests["b"]
	b.Pipelines[0].Name = "a"
	for name, want := range map[string]string{
		"a": "choose one of a/a, b/a", "a/a": "", "b/a": "", "c": "none that serves declares pipeline c", "b/b": "none that serves declares",
	} {
		_, err := l.run(name, newFrame(1, 1))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
		if strings.Contains(want, "none") && !errors.Is(err, ErrNoModel) {
			t.Errorf("%s: %v counts as a failure, though the model may still come", name, err)
		}
	}
	// A manifest that a newer program pushed: refused when it is loaded.
	b.Pipelines[0].Stages = append([]models.Stage{{Name: "denoise"}}, b.Pipelines[0].Stages...)
	l.manifests["b"] = b
	if _, err := l.run("b/a", newFrame(1, 1)); err == nil || !strings.Contains(err.Error(), `unknown stage "denoise"`) {
		t.Errorf("unknown stage: %v", err)
	}
	if _, err := New("a/a", l.infer, l).Clip(t.Context(), []float32{0}); err == nil || !strings.Contains(err.Error(), "takes image, not sound") {
		t.Errorf("sound: %v", err)
	}
}

// TestAnswerOfAnotherShapeIsAnError, not a crash: the signature leaves
// dimensions free, and a model fills them as it likes.
func TestAnswerOfAnotherShapeIsAnError(t *testing.T) {
	for stages, outs := range map[string][]worker.Tensor{
		"top_k":                    {fp32("y", []int64{2, 2}, 1, 2, 3, 4)},
		"argmax":                   {fp32("y", []int64{1, 0})},
		"{yolo_boxes: {form: v8}}": {fp32("y", []int64{1, 4, 2}, 1, 2, 3, 4, 5, 6, 7, 8)},
		"{yolo_boxes: {form: v5}}": {fp32("y", []int64{1, 2}, 1, 2)},
		"{db_boxes: {}}":           {fp32("y", []int64{1, 2, 1, 1}, 1, 2)},
		"{softmax: {}}, top_k":     {{Name: "y", DType: models.FP32, Shape: []int64{1, 3}, Data: []byte{1, 2}}},
		"{top_k: {output: y}}":     {fp32("z", []int64{1, 1}, 1)},
		"{ssd_boxes: {scores: y, boxes: y, grid: 1, per_cell: 2}}": {fp32("y", []int64{1, 1, 4}, 1, 2, 3, 4)},
	} {
		l := newLab(t)
		l.serve("m", picture96(1, 1), "[{resize: {width: 1, height: 1}}, tensor, run, "+stages+"]", worker.Tensor{Name: "y", DType: models.FP32})
		m := l.manifests["m"]
		m.Signature.Outputs[0].Shape = nil // the exporter declared nothing
		l.manifests["m"], l.answers["m"] = m, outs
		if got, err := l.run("m", newFrame(1, 1)); err == nil || got.Text != "" {
			t.Errorf("%s of %v: %q", stages, outs[0].Shape, got.Text)
		}
	}
}

// FuzzAnswers: whatever a model answers, every stage that reads it ends with
// findings that can be sent, or with an error.
func FuzzAnswers(f *testing.F) {
	readers := []string{
		"softmax, {top_k: {count: 100}}", "{threshold: {above: 0}}", "argmax", "{db_boxes: {}}",
		"{yolo_boxes: {form: v5, min_score: 0}}, nms", "{yolo_boxes: {form: v8, min_score: 0}}, {nms: {method: blend, per_class: false}}",
		"{ssd_boxes: {scores: y, boxes: y, grid: 2, per_cell: 1, min_score: 0}}, {nms: {iou: 0}}",
	}
	f.Add(uint8(3), uint8(1), uint8(4), uint8(5), fp32("", nil, make([]float32, 20)...).Data)
	f.Add(uint8(5), uint8(6), uint8(3), uint8(0), fp32("", nil, make([]float32, 18)...).Data)
	f.Add(uint8(0), uint8(9), uint8(0), uint8(0), []byte{0, 0, 0xc0, 0x7f, 0, 0, 0x80, 0x7f})
	f.Fuzz(func(t *testing.T, which, a, b, c uint8, data []byte) {
		shape := []int64{1, int64(a % 32), int64(b % 32), int64(c % 32)}
		for len(shape) > 1 && shape[len(shape)-1] == 0 {
			shape = shape[:len(shape)-1]
		}
		n := 4
		for _, d := range shape {
			n *= int(d)
		}
		data = append(data[:min(len(data), n):min(len(data), n)], make([]byte, max(n-len(data), 0))...)
		l := newLab(t)
		l.serve("m", picture96(8, 8), "[{letterbox: {width: 8, height: 8}}, tensor, run, "+readers[int(which)%len(readers)]+"]", worker.Tensor{Name: "y", DType: models.FP32})
		m := l.manifests["m"]
		m.Signature.Outputs[0].Shape = nil
		l.manifests["m"], l.answers["m"] = m, []worker.Tensor{{Name: "y", DType: models.FP32, Shape: shape, Data: data}}
		got, err := l.run("m", newFrame(16, 9))
		if err != nil {
			if got.Text != "" || got.Findings != nil {
				t.Fatalf("%+v with %v", got, err)
			}
			return
		}
		for _, x := range got.Findings {
			if !(x.Score >= 0 && x.Score <= 1) {
				t.Fatalf("score %v", x.Score)
			}
			for _, p := range x.Corners {
				if math.IsNaN(p[0]+p[1]) || math.IsInf(p[0]+p[1], 0) {
					t.Fatalf("corner %v", p)
				}
			}
		}
	})
}
