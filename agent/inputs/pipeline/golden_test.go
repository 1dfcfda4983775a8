package pipeline_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/inputs/pipelinetest"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/models"
	"go.yaml.in/yaml/v3"
)

// go test ./agent/inputs/pipeline -run GoldenSamples -update-golden
var updateGolden = flag.Bool("update-golden", false, "measure the golden samples of the demo models anew")

// The tolerance holds across processors: kernels differ in the order of their
// sums (AVX2, AVX-512, NEON), which moves these outputs by less than 1e-4.
const (
	goldenAbs  = 1e-3
	goldenRel  = 1e-2
	goldenSize = 350 << 10
)

// TestGoldenSamplesHold runs the committed golden samples of each demo model.
func TestGoldenSamplesHold(t *testing.T) {
	for folder, inputs := range map[string]func(testing.TB, *worker.Worker) []goldenCall{
		"ocr-det-4.0.0":     detCalls,
		"ocr-cls-2.0.0":     clsCalls,
		"ocr-rec-4.0.0":     recCalls,
		"silero-vad-5.0.0":  vadCalls,
		"silero-vad-6.0.0":  vadCalls,
		"silero-vad-legacy": legacyCalls,
		"face-detect-1.2.0": faceCalls,
	} {
		t.Run(folder, func(t *testing.T) {
			w := pipelinetest.Worker(t, assets.File(t, "models", folder, models.ModelFile))
			path := filepath.Join(repoRoot(t), "models", "demo", folder, models.GoldenFile)
			if *updateGolden {
				writeGolden(t, path, w, inputs(t, w))
			}
			g, err := models.ReadGolden(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Fits(w.Signature()); err != nil {
				t.Fatal(err)
			}
			for _, c := range g.Cases {
				for i, got := range run(t, w, tensors(c)) {
					if err := c.Outputs[i].Check(spec(got), got.Data); err != nil {
						t.Errorf("case %q: %v", c.Name, err)
					}
				}
			}
		})
	}
}

// TestGoldenSamplesTellTheVersionsApart: the samples of one version of the voice
// model fail on the other, or they would not notice a mixed-up file.
func TestGoldenSamplesTellTheVersionsApart(t *testing.T) {
	w := pipelinetest.Worker(t, assets.File(t, "models", "silero-vad-6.0.0", models.ModelFile))
	g, err := models.ReadGolden(filepath.Join(repoRoot(t), "models", "demo", "silero-vad-5.0.0", models.GoldenFile))
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for _, c := range g.Cases {
		for i, got := range run(t, w, tensors(c)) {
			if c.Outputs[i].Check(spec(got), got.Data) != nil {
				wrong++
			}
		}
	}
	if wrong == 0 {
		t.Error("version 6 passes the golden samples of version 5")
	}
}

type goldenCall struct {
	name string
	in   []worker.Tensor
}

func spec(t worker.Tensor) models.TensorSpec {
	return models.TensorSpec{Name: t.Name, DType: t.DType, Shape: t.Shape}
}

func tensors(c models.GoldenCase) []worker.Tensor {
	var in []worker.Tensor
	for _, g := range c.Inputs {
		in = append(in, worker.Tensor{Name: g.Name, DType: g.DType, Shape: g.Shape, Data: g.Data})
	}
	return in
}

func run(t testing.TB, w *worker.Worker, in []worker.Tensor) []worker.Tensor {
	t.Helper()
	out, err := w.Infer(context.Background(), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func writeGolden(t *testing.T, path string, w *worker.Worker, calls []goldenCall) {
	g := models.Golden{V: models.GoldenVersion}
	for _, call := range calls {
		c := models.GoldenCase{Name: call.name}
		for _, in := range call.in {
			c.Inputs = append(c.Inputs, models.GoldenInput{TensorSpec: spec(in), Data: in.Data})
		}
		for _, out := range run(t, w, call.in) {
			c.Outputs = append(c.Outputs, models.GoldenWant{TensorSpec: spec(out), Data: out.Data, Abs: goldenAbs, Rel: goldenRel})
		}
		g.Cases = append(g.Cases, c)
	}
	data, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > goldenSize {
		t.Fatalf("%s would have %d bytes, at most %d", path, len(data), goldenSize)
	}
	if err := durable.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Places on the label of seed 1, in pixels of its frame, as the detector finds them.
var (
	wordPlace  = pipeline.UprightBox(190, 333, 138, 32)
	digitPlace = pipeline.UprightBox(392, 381, 44, 44)
)

func goldenFrame() pipeline.Frame { return pipeline.FrameOf(labels.Render(1, labels.Clean).Image) }

// stagesOf reads stages as model.yaml has them.
func stagesOf(t testing.TB, text string) []models.Stage {
	t.Helper()
	var out []models.Stage
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func inputsOf(t testing.TB, w *worker.Worker, frame pipeline.Frame, view pipeline.Box, stages string) []worker.Tensor {
	t.Helper()
	in, err := pipeline.InputsOf(w.Signature(), frame, view, stagesOf(t, stages)...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func detCalls(t testing.TB, w *worker.Worker) []goldenCall {
	p := goldenFrame()
	const stages = "[{resize: {longest: 960, multiple: 32}}, {tensor: {order: bgr, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}]"
	word, blank := p.Warp(pipeline.UprightBox(190, 333, 178, 72), 96, 64), p.Warp(pipeline.UprightBox(40, 40, 64, 64), 64, 64)
	return []goldenCall{
		{"a word", inputsOf(t, w, word, word.Whole(), stages)},
		{"cardboard", inputsOf(t, w, blank, blank.Whole(), stages)},
	}
}

func clsCalls(t testing.TB, w *worker.Worker) []goldenCall {
	const stages = "[{resize: {height: 48, max_width: 96}}, {pad: {width: 96, value: 127.5}}, {tensor: {order: bgr, scale: 127.5, mean: 1}}]"
	return []goldenCall{
		{"upright", inputsOf(t, w, goldenFrame(), wordPlace, stages)},
		{"upside down", inputsOf(t, w, goldenFrame(), wordPlace.Flipped(), stages)},
	}
}

func recCalls(t testing.TB, w *worker.Worker) []goldenCall {
	// One narrow crop: each step of 8 pixels answers 6,625 numbers.
	const stages = "[{resize: {height: 48, max_width: 48}}, {tensor: {order: bgr, scale: 127.5, mean: 1}}]"
	return []goldenCall{{"digits", inputsOf(t, w, goldenFrame(), digitPlace, stages)}}
}

// vadCalls are two windows in a row: the state of the first goes to the second.
func vadCalls(t testing.TB, w *worker.Worker) []goldenCall {
	clip, err := pipeline.ParseWAV(labels.Clip())
	if err != nil {
		t.Fatal(err)
	}
	const at = 16000 // amid speech
	state := worker.Tensor{Name: "state", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: make([]byte, 4*2*128)}
	sr := worker.Tensor{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: binary.LittleEndian.AppendUint64(nil, 16000)}
	first := []worker.Tensor{pipeline.WindowOf(clip, at), state, sr}
	for _, out := range run(t, w, first) {
		if out.Name == "stateN" {
			state.Data = out.Data
		}
	}
	return []goldenCall{{"first window", first}, {"next window", []worker.Tensor{pipeline.WindowOf(clip, at+512), state, sr}}}
}

// legacyCalls use the older signature: no context, the state in two halves.
func legacyCalls(t testing.TB, _ *worker.Worker) []goldenCall {
	clip, err := pipeline.ParseWAV(labels.Clip())
	if err != nil {
		t.Fatal(err)
	}
	in := pipeline.WindowOf(clip, 16000)
	in.Shape, in.Data = []int64{1, 512}, in.Data[4*64:]
	sr := worker.Tensor{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: binary.LittleEndian.AppendUint64(nil, 16000)}
	half := func(name string) worker.Tensor {
		return worker.Tensor{Name: name, DType: models.FP32, Shape: []int64{2, 1, 64}, Data: make([]byte, 4*128)}
	}
	return []goldenCall{{"first window", []worker.Tensor{in, sr, half("h"), half("c")}}}
}

func faceCalls(t testing.TB, w *worker.Worker) []goldenCall {
	const stages = "[{letterbox: {width: 128, height: 128, value: 0}}, {tensor: {layout: nhwc, scale: 127.5, mean: 1}}]"
	p := pipeline.FrameOf(drawFace(320, 240, 160, 120, 60))
	return []goldenCall{{"a drawn face", inputsOf(t, w, p, p.Whole(), stages)}}
}
