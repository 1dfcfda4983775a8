package inputs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// TestMain makes the test binary its own worker process, and the process that
// is killed while it fills an outbox.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "fill-outbox" {
		fmt.Fprintln(os.Stderr, fillOutbox(os.Args[2]))
		os.Exit(1)
	}
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		if err := worker.Main(context.Background(), nil, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// repoRoot is the nearest directory upwards with a go.mod.
func repoRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("no go.mod above the test's directory")
	return ""
}

func testLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// bench runs models, each in its own worker process.
type bench struct {
	workers map[string]*worker.Worker
	refs    map[string]models.Ref
	dirs    map[string]string
}

// startModels runs the models of folders in build/assets/models, by name.
func startModels(t testing.TB, folders map[string]string) *bench {
	t.Helper()
	b := &bench{map[string]*worker.Worker{}, map[string]models.Ref{}, map[string]string{}}
	for name, folder := range folders {
		model := assets.File(t, "models", folder, models.ModelFile)
		b.workers[name] = startWorker(t, model)
		b.refs[name] = models.Ref{Name: name, Version: folder[len(name)+1:], Digest: blob.Sum([]byte(folder))}
		b.dirs[name] = filepath.Dir(model)
	}
	return b
}

func startWorker(t testing.TB, model string) *worker.Worker {
	t.Helper()
	lib := assets.Library(t)
	w, err := worker.Start(context.Background(), worker.Options{Library: lib, Model: model}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (b *bench) infer(ctx context.Context, model string, in []worker.Tensor) ([]worker.Tensor, models.Ref, error) {
	w, ok := b.workers[model]
	if !ok {
		return nil, models.Ref{}, fmt.Errorf("model %s is not active", model)
	}
	out, err := w.Infer(ctx, in, nil)
	return out, b.refs[model], err
}

func (b *bench) modelFile(model, path string) (string, error) {
	return filepath.Join(b.dirs[model], path), nil
}

var ocrFolders = map[string]string{
	detModel: "ocr-det-4.0.0", clsModel: "ocr-cls-2.0.0", recModel: "ocr-rec-4.0.0",
}
