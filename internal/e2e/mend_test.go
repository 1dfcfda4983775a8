package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// TestADamagedModelMendsItself: a bit of a model flips on the disk of a box while it
// is off. Nobody touches the box afterwards.
func TestADamagedModelMendsItself(t *testing.T) {
	root := checkout(t)
	shortTrials(t, root)
	f, _ := startFleet(t, root, "--boxes", "1")
	eventually(t, 5*time.Minute, "the box serves", func() error {
		_, _, err := infer(t.Context(), f.oip["box-1"], jsonRequest(), 0)
		return err
	})
	settled(t, f)
	f.stop(t)
	model, err := os.ReadFile(filepath.Join(root, "build", "assets", "models", "silero-vad-5.0.0", "model.onnx"))
	must(t, err)
	path := filepath.Join(f.data, "boxes", "box-1", "agent", "blobs", "sha256", blob.Sum(model).Hex())
	spoilt := append([]byte(nil), model...)
	spoilt[len(spoilt)/2] ^= 1
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, spoilt, 0o444))

	f, _ = startFleet(t, root, "--boxes", "1")
	eventually(t, 5*time.Minute, "the box serves the model again", func() error {
		if _, _, err := infer(t.Context(), f.oip["box-1"], jsonRequest(), 0); err != nil {
			return err
		}
		all, err := f.boxes(t)
		if err != nil {
			return err
		}
		for _, m := range all["box-1"].Models {
			if m.RunningDigest != m.DesiredDigest || m.Phase != "active" || m.Err != "" {
				return fmt.Errorf("%s:%s is %s, %s", m.Name, m.DesiredVersion, m.Phase, m.Err)
			}
		}
		return nil
	})
	now, err := os.ReadFile(path)
	must(t, err)
	if blob.Sum(now) != blob.Sum(model) {
		t.Error("the file on the disk is not the model")
	}
	all, err := f.boxes(t)
	must(t, err)
	events, err := f.client.Events(t.Context(), all["box-1"].ID, 1000)
	must(t, err)
	told := false
	for _, e := range events.Items {
		told = told || strings.Contains(e.Text, "silero-vad:5.0.0 fetching: of its files, model.onnx is damaged on the disk, it is fetched again")
	}
	if !told {
		t.Error("no event tells of the damage")
	}
	f.stop(t)
	audit(t, f.data)
}
