package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// The seeds of the frames; all differ.
const (
	cleanFrames    = 24
	cleanSeed      = 1000
	degradedFrames = 42 // seven of each kind
	degradedSeed   = 2000
)

// labelReader lets the real runner read two cameras as fast as it can: one
// with clean labels, one with degraded ones, each frame at least once.
func labelReader(t *testing.T) []Figure {
	clean, degraded := t.TempDir(), t.TempDir()
	drawFrames(t, clean, cleanFrames, cleanSeed, []labels.Kind{labels.Clean})
	drawFrames(t, degraded, degradedFrames, degradedSeed, labels.Degraded())
	inputs := "inputs:\n"
	for name, path := range map[string]string{"clean": clean, "degraded": degraded} {
		inputs += fmt.Sprintf("  - {name: %s, kind: folder, pipeline: label-reader, path: %s, interval: 1ms}\n", name, path)
	}
	b := startRunner(t, []string{"ocr-det-4.0.0", "ocr-cls-2.0.0", "ocr-rec-4.0.0"}, inputs)
	before, began := b.cost(), time.Now()
	right, seen := map[string]int{}, map[string]int{}
	var latencies []float64
	done := map[string]bool{}
	var after uint64
	eventually(t, "every frame is read", 5*time.Minute, func() bool {
		r, err := b.edge.Results(t.Context(), after, 200)
		check(t, err)
		after = max(after, r.Next)
		for _, rec := range r.Records {
			latencies = append(latencies, rec.LatencyMs)
			if key := rec.Input + rec.Item; !done[key] {
				done[key] = true
				count(rec, right, seen)
			}
		}
		return len(done) == cleanFrames+degradedFrames
	})
	cost, took := b.cost().minus(before), time.Since(began).Seconds()
	share := cost.workers / cost.total
	return []Figure{
		{Name: "frames", Value: float64(len(latencies)) / took, Unit: "1/s"},
		{Name: "latency-p50", Value: median(latencies), Unit: "ms"},
		{Name: "latency-p95", Value: quantile(latencies, 0.95), Unit: "ms"},
		{Name: "worker-share-of-cpu", Value: share, Unit: "ratio", Beside: "of the CPU of runner and workers"},
		{Name: "clean-words", Value: float64(right["clean"]) / float64(seen["clean"]), Unit: "ratio", Goal: Goal{AtLeast: 1}},
		{Name: "degraded-words", Value: float64(right["degraded"]) / float64(seen["degraded"]), Unit: "ratio", Goal: Goal{AtLeast: 0.95}},
	}
}

// count compares the words of one frame with those that are really on it,
// place by place.
func count(r runnerapi.Result, right, seen map[string]int) {
	got := strings.Fields(r.Text)
	for i, word := range strings.Fields(r.Want) {
		seen[r.Input]++
		if i < len(got) && got[i] == word {
			right[r.Input]++
		}
	}
}

// drawFrames fills a folder with frames and the truth about them.
func drawFrames(t *testing.T, dir string, n int, seed int64, kinds []labels.Kind) {
	t.Helper()
	truth := map[string][]string{}
	for i := range n {
		f := labels.Render(seed+int64(i), kinds[i%len(kinds)])
		data, err := f.JPEG()
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, f.Name+".jpg"), data, 0o644))
		truth[f.Name+".jpg"] = f.Lines
	}
	data, err := json.Marshal(truth)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, labels.TruthFile), data, 0o644))
}
