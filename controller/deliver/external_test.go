package deliver

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// TestDeltasOfWeightsInASecondFileAreMadeByTensor: what changed is a matrix that
// only the graph knows the place of, so its rows are predicted.
func TestDeltasOfWeightsInASecondFileAreMadeByTensor(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	check(err)
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), WallClock: time.Now})
	check(err)
	defer db.Close()
	p := New(Options{Store: db, Blobs: blobs}, slog.New(slog.DiscardHandler))
	push := func(version string, weights []float32) blob.Digest {
		folder := filepath.Join(dir, version)
		assets.ExternalModel(t, folder, "weights/w.bin", 0, weights)
		check(os.WriteFile(filepath.Join(folder, models.DescriptionFile), []byte("name: outside\nversion: "+version+"\n"), 0o600))
		m, paths, err := models.Pack(folder)
		check(err)
		for d, path := range paths {
			f, err := os.Open(path)
			check(err)
			check(blobs.Put(f, d))
			check(f.Close())
		}
		check(db.AddModel(t.Context(), blob.Sum([]byte(version)), m))
		f, _ := m.File("weights/w.bin")
		return f.Digest
	}
	rng := rand.New(rand.NewPCG(1, 2))
	weights := make([]float32, 2*assets.ExternalRows*4000)
	for i := range weights {
		weights[i] = float32(rng.NormFloat64())
	}
	base := push("1", weights)
	next := slices.Clone(weights)
	for i := range next { // all rows move alike, as a step of training moves them
		next[i] += float32(i/4000%3+1) * float32(i%4000) * 1e-8
	}
	target := push("2", next)
	tensors, err := p.tensors(t.Context(), target)
	check(err)
	if len(tensors) != 2 || tensors[0].Name != "a" || tensors[1].Off != int64(2*len(weights)) {
		t.Errorf("the file holds %+v", tensors)
	}
	made, err := p.make(t.Context(), store.Pack{Target: target, Base: base})
	check(err)
	if made.State != store.PackReady || made.SizeBytes > 130_000 { // as plain bytes: 136,000
		t.Errorf("the delta is %s with %d bytes: %s", made.State, made.SizeBytes, made.Why)
	}
	if none, err := p.tensors(t.Context(), blob.Sum([]byte("unknown"))); err != nil || none != nil {
		t.Errorf("a file of no version holds %v, %v", none, err)
	}
}
