package inputs

import (
	"bytes"
	"context"
	"image/jpeg"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/labels"
)

// The frames of the words test: enough to tell 95 % from 90 %, few enough for
// two cores. All seeds differ.
const (
	cleanFrames    = 20
	degradedFrames = 60
	cleanSeed      = 1000
	degradedSeed   = 2000
)

// TestLabelsAreRead reads rendered labels with the real models in real worker
// processes: all clean frames and 95 % of the degraded ones come out right,
// every character, line and order.
func TestLabelsAreRead(t *testing.T) {
	b := startModels(t, ocrFolders)
	r := &labelReader{infer: b.infer, modelFile: b.modelFile}
	for i := range cleanFrames {
		f := labels.Render(cleanSeed+int64(i), labels.Clean)
		if got, want := readFrame(t, r, f), strings.Join(f.Lines, "\n"); got != want {
			t.Errorf("seed %d clean: read %q, want %q", cleanSeed+i, got, want)
		}
	}
	right := 0
	kinds := labels.Degraded()
	for i := range degradedFrames {
		f := labels.Render(degradedSeed+int64(i), kinds[i%len(kinds)])
		if got, want := readFrame(t, r, f), strings.Join(f.Lines, "\n"); got != want {
			t.Logf("seed %d %s: read %q, want %q", degradedSeed+i, f.Kind, got, want)
			continue
		}
		right++
	}
	t.Logf("%d of %d degraded frames right", right, degradedFrames)
	if right*100 < 95*degradedFrames {
		t.Errorf("%d of %d degraded frames right, want 95 %%", right, degradedFrames)
	}
}

func readFrame(t *testing.T, r *labelReader, f labels.Frame) string {
	t.Helper()
	data, err := f.JPEG()
	if err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.read(context.Background(), toPlanes(img))
	if err != nil {
		t.Fatalf("read %s: %v", f.Name, err)
	}
	return got.text
}
