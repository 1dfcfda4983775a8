// Package pipelinetest runs demo models for tests of pipelines: each in a worker
// process of its own, with the manifest that a push would sign.
//
// The test binary is its own worker: TestMain calls worker.Main when its second
// argument is "worker".
//
// The one rule a caller can break: Swap replaces a model for calls that start
// afterwards; the old one still answers those under way.
package pipelinetest

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// Bench serves demo models. It is a pipeline.Catalog and has its Infer.
type Bench struct {
	mu     sync.Mutex // guards all below
	models map[string]*served
	all    map[models.Ref]*served
}

type served struct {
	ref      models.Ref
	manifest models.Manifest
	dir      string
	worker   *worker.Worker
}

// Start serves the models of folders in build/assets/models.
func Start(t testing.TB, folders ...string) *Bench {
	t.Helper()
	b := &Bench{models: map[string]*served{}, all: map[models.Ref]*served{}}
	for _, f := range folders {
		b.Swap(t, f)
	}
	return b
}

// Swap serves another version of a model, or one more model.
func (b *Bench) Swap(t testing.TB, folder string) {
	t.Helper()
	dir := assets.Model(t, folder)
	m, _, err := models.Pack(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := Worker(t, filepath.Join(dir, models.ModelFile))
	s := &served{models.Ref{Name: m.Name, Version: m.Version, Digest: blob.Sum([]byte(folder))}, m, dir, w}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.models[m.Name], b.all[s.ref] = s, s
}

// Worker runs one model file until the test ends.
func Worker(t testing.TB, model string) *worker.Worker {
	t.Helper()
	w, err := worker.Start(context.Background(), worker.Options{Library: assets.Library(t), Model: model}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Error(err)
		}
	})
	return w
}

func (b *Bench) find(model string) (*served, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.models[model]; ok {
		return s, nil
	}
	return nil, pipeline.ErrNoModel
}

// Infer is a pipeline.Infer.
func (b *Bench) Infer(ctx context.Context, model string, in []worker.Tensor) ([]worker.Tensor, pipeline.By, error) {
	s, err := b.find(model)
	if err != nil {
		return nil, pipeline.By{}, err
	}
	out, err := s.worker.Infer(ctx, in, nil)
	return out, pipeline.By{Ref: s.ref}, err
}

// Serving lists what serves.
func (b *Bench) Serving() ([]models.Ref, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []models.Ref
	for _, s := range b.models {
		out = append(out, s.ref)
	}
	slices.SortFunc(out, func(a, b models.Ref) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Manifest is that of a version which serves or did.
func (b *Bench) Manifest(ref models.Ref) (models.Manifest, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.all[ref]; ok {
		return s.manifest, nil
	}
	return models.Manifest{}, pipeline.ErrNoModel
}

// File is the path of a file of such a version.
func (b *Bench) File(ref models.Ref, path string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s, ok := b.all[ref]; ok {
		return filepath.Join(s.dir, path), nil
	}
	return "", pipeline.ErrNoModel
}
