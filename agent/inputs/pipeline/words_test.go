package pipeline_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/inputs/pipelinetest"
	"github.com/edgeherd/edgeherd/internal/labels"
)

// The frames of the words test: with EDGEHERD_PROVE=1 enough to tell 95 % from
// 90 %, else one of each kind, for two cores under the race detector. All seeds
// differ.
const (
	cleanSeed    = 1000
	degradedSeed = 2000
)

func wordFrames() (clean, degraded int) {
	if os.Getenv("EDGEHERD_PROVE") == "" {
		return 2, len(labels.Degraded())
	}
	return 15, 7 * len(labels.Degraded())
}

// TestLabelsAreRead reads rendered labels with the real models in real worker
// processes: all clean frames and 95 % of the degraded ones (of few: all but
// one) come out right, every character, line and order.
func TestLabelsAreRead(t *testing.T) {
	b := pipelinetest.Start(t, "ocr-det-4.0.0", "ocr-cls-2.0.0", "ocr-rec-4.0.0")
	cleanFrames, degradedFrames := wordFrames()
	var frames []labels.Frame // without pixels yet
	for i := range cleanFrames {
		frames = append(frames, labels.Frame{Name: fmt.Sprint(cleanSeed + i), Kind: labels.Clean})
	}
	kinds := labels.Degraded()
	for i := range degradedFrames {
		frames = append(frames, labels.Frame{Name: fmt.Sprint(degradedSeed + i), Kind: kinds[i%len(kinds)]})
	}
	read := make([]string, len(frames))
	want := make([]string, len(frames))
	// Two at a time: one is drawn and decoded here while a model works on the other.
	var g errgroup.Group
	g.SetLimit(2)
	for i, f := range frames {
		g.Go(func() (err error) {
			seed, err := strconv.ParseInt(f.Name, 10, 64)
			if err != nil {
				return err
			}
			drawn := labels.Render(seed, f.Kind)
			want[i] = strings.Join(drawn.Lines, "\n")
			read[i], err = readFrame(pipeline.New("label-reader", b.Infer, b), drawn)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	right := 0
	for i, f := range frames {
		switch {
		case read[i] == want[i] && f.Kind != labels.Clean:
			right++
		case read[i] != want[i] && f.Kind == labels.Clean:
			t.Errorf("seed %s clean: read %q, want %q", f.Name, read[i], want[i])
		case read[i] != want[i]:
			t.Logf("seed %s %s: read %q, want %q", f.Name, f.Kind, read[i], want[i])
		}
	}
	t.Logf("%d of %d degraded frames right", right, degradedFrames)
	if wrong := degradedFrames - right; wrong > max(1, degradedFrames/20) {
		t.Errorf("%d of %d degraded frames right, want 95 %%", right, degradedFrames)
	}
}

func readFrame(r *pipeline.Runner, f labels.Frame) (string, error) {
	data, err := f.JPEG()
	if err != nil {
		return "", err
	}
	p, err := pipeline.DecodeFrame(data)
	if err != nil {
		return "", err
	}
	got, err := r.Image(context.Background(), p)
	return got.Text, err
}
