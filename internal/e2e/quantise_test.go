package e2e

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/models/container"
)

// quantisedPush publishes a fine-tune of the voice detector as the version
// before and whole steps, tried in the runner that boxes have.
func quantisedPush(t *testing.T, f *fleet) {
	dir := filepath.Join(f.root, "tuned")
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(f.root, "build", "assets", "models", "silero-vad-6.0.0"))))
	edit(t, filepath.Join(dir, "model.yaml"), "version: 6.0.0", "version: 6.1.0")
	file := filepath.Join(dir, "model.onnx")
	model, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, tuned(t, model), 0o644))
	runs := func(line string, says ...string) {
		t.Helper()
		out := command(t, f.root, line)
		for _, word := range says {
			if !strings.Contains(out, word) {
				t.Errorf("%s says %q, nothing of %q", line, out, word)
			}
		}
	}
	const golden = "golden.json"
	samples := command(t, f.root, "edgeherd-runner golden --library build/assets/onnxruntime/linux-"+runtime.GOARCH+"/libonnxruntime.so.1 --model tuned/model.onnx --samples tuned/"+golden)
	must(t, os.WriteFile(filepath.Join(dir, golden), []byte(samples), 0o644))
	push := "edgeherd model push tuned --base silero-vad:6.0.0 --quantise-delta --library build/assets/onnxruntime/linux-" + runtime.GOARCH + "/libonnxruntime.so.1"
	complain(t, f.root, push+" --levels 32 --tolerance 0", "not pushed", "may differ by 0")
	runs(push, "as good", "bits a weight")
	runs("edgeherd model show silero-vad", "6.1.0 is 6.0.0 and whole steps")
	falsify(t, filepath.Join(dir, golden))
	complain(t, f.root, push, "as trained fail golden.json")
}

// tuned moves every weight by about a thousandth of its tensor's size.
func tuned(t *testing.T, model []byte) []byte {
	t.Helper()
	l, err := container.Read(bytes.NewReader(model), int64(len(model)))
	must(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	for _, s := range l.Spans("") {
		if s.DType != "FP32" || s.Len < 256 {
			continue
		}
		w, sum := model[s.Off:][:s.Len], 0.0
		for i := 0; i < len(w); i += 4 {
			v := float64(math.Float32frombits(binary.LittleEndian.Uint32(w[i:])))
			sum += v * v
		}
		rms := math.Sqrt(4 * sum / float64(len(w)))
		for i := 0; i < len(w); i += 4 {
			v := float64(math.Float32frombits(binary.LittleEndian.Uint32(w[i:])))
			binary.LittleEndian.PutUint32(w[i:], math.Float32bits(float32(v+rng.NormFloat64()*rms*1e-3)))
		}
	}
	return model
}
