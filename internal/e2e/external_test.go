package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
)

// weightsOutside brings a model with external data to all boxes, and then a
// fine-tune of it, whose graph is the same file.
func weightsOutside(t *testing.T, f *fleet) {
	const data = "model.onnx.data"
	rng := rand.New(rand.NewPCG(7, 7))
	weights := make([]float32, 2*assets.ExternalRows*20_000)
	for i := range weights {
		weights[i] = float32(rng.NormFloat64()) / 100
	}
	dir := filepath.Join(f.root, "outside")
	library := " --library build/assets/onnxruntime/linux-" + runtime.GOARCH + "/libonnxruntime.so.1 "
	write := func(version string) {
		t.Helper()
		must(t, os.RemoveAll(dir))
		assets.ExternalModel(t, dir, data, 0, weights)
		must(t, os.WriteFile(filepath.Join(dir, models.DescriptionFile), []byte("name: outside\nversion: "+version+"\n"), 0o644))
		samples, err := json.Marshal(models.Golden{V: 1, Cases: []models.GoldenCase{{
			Name:    "rising",
			Inputs:  []models.GoldenInput{{TensorSpec: spec("x"), Data: rising()}},
			Outputs: []models.GoldenWant{{TensorSpec: spec("y"), Data: make([]byte, 4*assets.ExternalRows), Abs: 1e-3, Rel: 0.01}},
		}}})
		must(t, err)
		golden := filepath.Join(dir, models.GoldenFile)
		must(t, os.WriteFile(golden, samples, 0o644))
		answers := command(t, f.root, "edgeherd-runner golden"+library+"--model outside/model.onnx --samples outside/golden.json")
		must(t, os.WriteFile(golden, []byte(answers), 0o644))
	}
	serves := func(version string) {
		t.Helper()
		if r := f.rollPatiently(t, "outside:"+version); r.State != fleetapi.RolloutDone {
			t.Fatalf("rollout of %s is %s: %s", version, r.State, r.Sentence)
		}
		for name, base := range f.oip {
			body := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,16],"data":[1` + strings.Repeat(",1", assets.ExternalRows-1) + `]}]}`
			resp, err := http.Post(base+"/v2/models/outside/versions/"+version+"/infer", "application/json", strings.NewReader(body))
			must(t, err)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s answers %s", name, resp.Status)
			}
		}
	}

	write("1.0.0")
	must(t, os.Rename(filepath.Join(dir, data), filepath.Join(dir, "away")))
	complain(t, f.root, "edgeherd model push outside", `keeps tensor "b" in the file model.onnx.data, which is not there`)
	must(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, data)))
	command(t, f.root, "edgeherd model push outside")
	serves("1.0.0")

	for i := range weights {
		weights[i] += float32(rng.NormFloat64()) / 100_000
	}
	write("1.1.0")
	out := command(t, f.root, "edgeherd model push outside --base outside:1.0.0 --quantise-delta"+library)
	if !strings.Contains(out, "as good") || !strings.Contains(out, "bits a weight") {
		t.Errorf("the push says %q", out)
	}
	eventually(t, 5*time.Minute, "the delta of the weights is made", func() error {
		diff, err := f.client.ModelDiff(t.Context(), "outside", "1.0.0", "1.1.0")
		if err != nil {
			return err
		}
		for _, file := range diff.Files {
			switch {
			case file.Path == models.ModelFile && file.Change != "same":
				return fmt.Errorf("the graph is %s", file.Change)
			case file.Path == data && file.Delta.State != "ready":
				return errors.New(file.Delta.State + " " + file.Delta.Why)
			case file.Path == data && file.DownloadBytes > file.SizeBytes/5:
				return fmt.Errorf("%d of %d bytes are fetched", file.DownloadBytes, file.SizeBytes)
			}
		}
		return nil
	})
	serves("1.1.0")
}

func spec(name string) models.TensorSpec {
	return models.TensorSpec{Name: name, DType: models.FP32, Shape: []int64{1, assets.ExternalRows}}
}

func rising() (all []byte) {
	for i := range assets.ExternalRows {
		all = binary.LittleEndian.AppendUint32(all, math.Float32bits(float32(i)/10))
	}
	return all
}
