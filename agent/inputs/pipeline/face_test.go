package pipeline_test

import (
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/inputs/pipelinetest"
	"github.com/edgeherd/edgeherd/models"
)

// drawFace draws a face of radius r at x, y, in the simplest shading that a
// detector of faces takes for one: nobody's picture needs to lie in the tree.
func drawFace(w, h, x, y, r int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for py := range h {
		for px := range w {
			img.Set(px, py, shade(float64(px-x)/float64(r), float64(py-y)/float64(r)))
		}
	}
	return img
}

// shade is the colour at a place in radii from the middle of the face.
func shade(u, v float64) color.RGBA {
	in := func(cx, cy, rx, ry float64) float64 { return math.Hypot((u-cx)/rx, (v-cy)/ry) }
	mix := func(c color.RGBA, k float64) color.RGBA {
		f := func(b uint8) uint8 { return uint8(min(max(float64(b)*k, 0), 255)) }
		return color.RGBA{f(c.R), f(c.G), f(c.B), 255}
	}
	skin := color.RGBA{224, 172, 140, 255}
	a := math.Abs(u)
	eye := math.Hypot((a-0.36)/0.17, (v+0.12)/0.09)
	switch {
	case in(0, 0, 0.82, 1.08) > 1: // hair, neck, shoulders, wall
		switch {
		case in(0, -0.18, 0.95, 1.12) < 1 && v < 0.35:
			return color.RGBA{52, 38, 30, 255}
		case a < 0.42 && v > 0.5 && v < 1.5:
			return mix(skin, 0.72)
		case v > 1.25 && a < 1.9-0.5*(2-v):
			return color.RGBA{60, 80, 120, 255}
		}
		return color.RGBA{178, 186, 190, 255}
	case v < -0.62-0.1*math.Cos(2*u): // fringe
		return color.RGBA{52, 38, 30, 255}
	case math.Hypot((a-0.36)/0.075, (v+0.12)/0.085) < 1:
		return color.RGBA{30, 24, 22, 255}
	case eye < 1:
		return color.RGBA{240, 238, 235, 255}
	case math.Abs(v+0.32-0.08*(a-0.36)) < 0.045 && a > 0.16 && a < 0.58: // brows
		return color.RGBA{62, 44, 34, 255}
	case math.Hypot((a-0.09)/0.05, (v-0.27)/0.035) < 1: // nostrils
		return mix(skin, 0.5)
	case in(0, 0.55, 0.3, 0.035) < 1: // between the lips
		return color.RGBA{110, 40, 40, 255}
	case in(0, 0.55, 0.32, 0.1) < 1:
		return color.RGBA{188, 96, 92, 255}
	}
	// Cheeks turn away from the light; sockets and the side of the nose lie in shade.
	light := 1.06 - 0.38*in(-0.12, -0.1, 1, 1.2)*in(-0.12, -0.1, 1, 1.2)
	light -= 0.2 * math.Exp(-eye*eye/3)
	light -= 0.16 * math.Exp(-math.Pow((u-0.12)/0.06, 2)) * math.Exp(-math.Pow((v-0.08)/0.22, 2))
	light += 0.1 * math.Exp(-math.Pow(u/0.07, 2)) * math.Exp(-math.Pow((v-0.1)/0.2, 2))
	light -= 0.15 * math.Exp(-math.Pow((v-0.72)/0.06, 2)) * math.Exp(-u*u/0.06)
	return mix(skin, light)
}

// documented is a catalog in which a model declares what the document shows.
type documented struct {
	*pipelinetest.Bench
	pipelines []models.Pipeline
}

func (d documented) Manifest(ref models.Ref) (models.Manifest, error) {
	m, err := d.Bench.Manifest(ref)
	m.Pipelines = d.pipelines
	return m, err
}

// TestFacesAreFoundByConfigurationAlone: by that of docs/pipelines.md; no line
// of code knows BlazeFace.
func TestFacesAreFoundByConfigurationAlone(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repoRoot(t), "docs", "pipelines.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml face-detect\n")
	block, _, _ = strings.Cut(block, "```")
	var doc struct{ Pipelines []models.Pipeline }
	if err := yaml.Unmarshal([]byte(block), &doc); err != nil {
		t.Fatal(err)
	}
	b := documented{pipelinetest.Start(t, "face-detect-1.2.0"), doc.Pipelines}
	r := pipeline.New("faces", b.Infer, b)
	for _, place := range []struct{ x, y, r int }{{160, 120, 60}, {220, 110, 60}, {110, 130, 50}} {
		got, err := r.Image(t.Context(), pipeline.FrameOf(drawFace(320, 240, place.x, place.y, place.r)))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Findings) != 1 {
			t.Fatalf("face at %v: found %q, want one", place, got.Text)
		}
		f := got.Findings[0]
		x, y := (f.Corners[0][0]+f.Corners[2][0])/2, (f.Corners[0][1]+f.Corners[2][1])/2
		side := f.Corners[2][0] - f.Corners[0][0]
		if f.Label != "face" || f.Score < 0.8 || math.Hypot(x-float64(place.x), y-float64(place.y)) > float64(place.r)/2 || side < float64(place.r) || side > 2.5*float64(place.r) {
			t.Errorf("face at %v: %s", place, got.Text)
		}
	}
	wall := pipeline.FrameOf(drawFace(320, 240, -500, -500, 40))
	if got, err := r.Image(t.Context(), wall); err != nil || got.Text != "nothing found" || len(got.Findings) != 0 {
		t.Errorf("a bare wall: %q, %v", got.Text, err)
	}
}
