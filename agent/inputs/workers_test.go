package inputs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
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

func testLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

var ocrFolders = []string{"ocr-det-4.0.0", "ocr-cls-2.0.0", "ocr-rec-4.0.0"}
