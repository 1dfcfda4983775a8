package inputs

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/models"
)

// go test ./agent/inputs -run GoldenSamples -update-golden
var updateGolden = flag.Bool("update-golden", false, "measure the golden samples of the demo models anew")

// The tolerance holds across processors: kernels differ in the order of their
// sums (AVX2, AVX-512, NEON), which moves these outputs by less than 1e-4.
const (
	goldenAbs  = 1e-3
	goldenRel  = 1e-2
	goldenSize = 300 << 10
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
	} {
		t.Run(folder, func(t *testing.T) {
			w := startWorker(t, assets.File(t, "models", folder, models.ModelFile))
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
	w := startWorker(t, assets.File(t, "models", "silero-vad-6.0.0", models.ModelFile))
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
	wordPlace  = box{centre: point{190, 333}, u: point{1, 0}, w: 138, h: 32}
	digitPlace = box{centre: point{392, 381}, u: point{1, 0}, w: 44, h: 44}
)

func goldenFrame() planes { return toPlanes(labels.Render(1, labels.Clean).Image) }

func detCalls(testing.TB, *worker.Worker) []goldenCall {
	p := goldenFrame()
	return []goldenCall{
		{"a word", []worker.Tensor{detInput(p.warp(wordPlace.grown(20), 96, 64), 96, 64)}},
		{"cardboard", []worker.Tensor{detInput(p.warp(box{point{40, 40}, point{1, 0}, 64, 64}, 64, 64), 64, 64)}},
	}
}

func clsCalls(testing.TB, *worker.Worker) []goldenCall {
	p := goldenFrame()
	return []goldenCall{
		{"upright", []worker.Tensor{lineTensor(p, wordPlace, 96, 96)}},
		{"upside down", []worker.Tensor{lineTensor(p, wordPlace.flipped(), 96, 96)}},
	}
}

func recCalls(testing.TB, *worker.Worker) []goldenCall {
	// One narrow crop: each step of 8 pixels answers 6,625 numbers.
	return []goldenCall{{"digits", []worker.Tensor{lineTensor(goldenFrame(), digitPlace, 48, 48)}}}
}

// vadCalls are two windows in a row: the state of the first goes to the second.
func vadCalls(t testing.TB, w *worker.Worker) []goldenCall {
	clip, err := parseWAV(labels.Clip())
	if err != nil {
		t.Fatal(err)
	}
	const at = sampleRate // amid speech
	state := worker.Tensor{Name: "state", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: make([]byte, 4*vadState)}
	first := vadInputs(clip, at, state)
	_, state.Data, err = vadOutputs(run(t, w, first))
	if err != nil {
		t.Fatal(err)
	}
	return []goldenCall{{"first window", first}, {"next window", vadInputs(clip, at+vadWindow, state)}}
}

// legacyCalls use the older signature: no context, the state in two halves.
func legacyCalls(t testing.TB, w *worker.Worker) []goldenCall {
	clip, err := parseWAV(labels.Clip())
	if err != nil {
		t.Fatal(err)
	}
	const at = sampleRate
	in := fp32([]int64{1, vadWindow}, clip[at:at+vadWindow]...)
	in.Name = "input"
	sr := worker.Tensor{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: binary.LittleEndian.AppendUint64(nil, sampleRate)}
	half := func(name string) worker.Tensor {
		z := fp32([]int64{2, 1, 64}, make([]float32, 128)...)
		z.Name = name
		return z
	}
	return []goldenCall{{"first window", []worker.Tensor{in, sr, half("h"), half("c")}}}
}
