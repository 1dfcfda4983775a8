package worker_test

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/agent/worker/onnxtest"
)

// TestConformsToONNX runs the ONNX project's own test data, each model in its
// own worker process: about 1000 processes in 15 s on two cores.
func TestConformsToONNX(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a thousand processes")
	}
	library := worker.RuntimeLibrary(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	onnxtest.Suite(t, onnxtest.Data(t), runtime.GOMAXPROCS(0), func(ctx context.Context, model string) (onnxtest.Session, error) {
		return worker.Start(ctx, worker.Options{Library: library, Model: model}, log)
	})
}
