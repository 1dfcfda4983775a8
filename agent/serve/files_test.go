package serve

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// external publishes a model whose weights, all alike, are in a second file.
func (b *box) external(version string, weight float32) (models.Ref, models.Manifest) {
	b.t.Helper()
	dir := b.t.TempDir()
	assets.ExternalModel(b.t, dir, "model.onnx.data", 0, slices.Repeat([]float32{weight}, 2*assets.ExternalRows*4))
	description := "name: outside\nversion: " + version + "\n"
	if err := os.WriteFile(filepath.Join(dir, models.DescriptionFile), []byte(description), 0o600); err != nil {
		b.t.Fatal(err)
	}
	m, paths, err := models.Pack(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			b.t.Fatal(err)
		}
		b.put(data)
	}
	return b.sign(m, b.key), m
}

// answersTo gives the model ones and returns its first number: four products.
func (b *box) answersTo(want string) {
	b.t.Helper()
	ones := "1" + strings.Repeat(",1", assets.ExternalRows-1)
	r := b.post("/v2/models/outside/infer", []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1,16],"data":[`+ones+`]}]}`))
	if r.status != 200 || !strings.HasPrefix(string(r.Outputs[0].Data), "["+want+",") {
		b.t.Errorf("got %d %+v, want [%s,…", r.status, r.Outputs, want)
	}
}

// TestVersionsWithOneGraphServeTheirOwnWeights: what is kept of a graph must not
// be taken for that of the same graph with other weights.
func TestVersionsWithOneGraphServeTheirOwnWeights(t *testing.T) {
	b := newBox(t, func(o *Options) { o.State = t.TempDir() })
	first, m1 := b.external("1", 0.5)
	second, m2 := b.external("2", 0.25)
	if g1, _ := m1.File(models.ModelFile); !slices.Contains(m2.Files, g1) {
		t.Fatal("the graphs differ")
	}
	for range 2 { // the second time with what is kept from the first
		b.ready(first)
		b.answersTo("16")
		b.ready(second)
		b.answersTo("4")
	}
	data, _ := m1.File("model.onnx.data")
	if err := os.WriteFile(b.blobs.Path(data.Digest), make([]byte, data.SizeBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	b.activate(first)
	if st := b.status(first); st.State == runnerapi.ModelReady || !strings.Contains(st.Err, "model.onnx.data") {
		t.Errorf("with damaged weights: %s: %s", st.State, st.Err)
	}
}

// TestADamagedVariantIsToldWhileAnotherServes, so that the agent mends it; then the box
// goes to it at once.
func TestADamagedVariantIsToldWhileAnotherServes(t *testing.T) {
	b := newBox(t, nil)
	ref := b.laddered("1", []int{48, 1}, []float64{2, 2})
	if p, err := b.edge.Probe(t.Context(), ref); err != nil || !p.OK {
		t.Fatalf("probe %+v, %v", p, err)
	}
	b.ready(ref)
	b.serves(ref, "v0")
	path := b.blobs.Path(blob.Sum(sines(1)))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		if err := errors.Join(os.Remove(path), os.WriteFile(path, data, 0o444)); err != nil {
			t.Fatal(err)
		}
	}
	write(append([]byte{whole[0] ^ 1}, whole[1:]...))
	b.heat(1)
	b.eventually("the damage is told", func() bool { return b.status(ref).Damaged })
	if m := b.status(ref); m.State != runnerapi.ModelReady || m.Variant != "v0" || !strings.Contains(m.Err, "damaged on this box") {
		t.Errorf("status %+v", m)
	}
	write(whole)
	if _, err := b.edge.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.serves(ref, "v1")
	if m := b.status(ref); m.Damaged || m.Err != "" {
		t.Errorf("mended: %+v", m)
	}
}
