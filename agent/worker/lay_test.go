package worker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// TestWeightsInAnotherFileAreFoundByTheNameInTheGraph: both files lie in one
// folder under other names, as a box stores them.
func TestWeightsInAnotherFileAreFoundByTheNameInTheGraph(t *testing.T) {
	for _, c := range []struct {
		name string
		skip int64
	}{{"model.onnx.data", 0}, {"weights/part-1.bin", 0}, {"large.bin", 3 << 30}} {
		t.Run(c.name, func(t *testing.T) {
			dir, blobs, temporary := t.TempDir(), t.TempDir(), t.TempDir()
			t.Setenv("TMPDIR", temporary)
			assets.ExternalModel(t, dir, c.name, c.skip, slices.Repeat([]float32{0.5}, 2*assets.ExternalRows*4))
			graph, data := filepath.Join(blobs, "c0ffee"), filepath.Join(blobs, "decade")
			if err := errors.Join(os.Rename(filepath.Join(dir, "model.onnx"), graph), os.Rename(filepath.Join(dir, c.name), data)); err != nil {
				t.Fatal(err)
			}
			w := start(t, Options{Model: graph, Files: map[string]string{c.name: data}})
			got, err := w.Infer(t.Context(), []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{1, assets.ExternalRows}, Data: ramp(assets.ExternalRows)}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			// Each y is the sum of all x, times 4 columns of 0.5 · 0.5.
			if y := float(got[0].Data, 0); y < -14.81 || y > -14.79 {
				t.Errorf("y is %v, want -14.8", y)
			}
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("links stay: %v, %v", left, err)
			}
		})
	}
}
