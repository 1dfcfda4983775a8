package pipeline

import (
	"image"
	"image/color"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/models"
)

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }

func TestSmallestRectangleByHand(t *testing.T) {
	s := math.Sqrt2
	tests := []struct {
		name         string
		pts          []point
		centre       point
		long, short  float64
		angleDegrees float64 // of the longer side, 0 to 180
	}{
		{"upright", []point{{0, 0}, {4, 0}, {4, 2}, {0, 2}, {2, 1}}, point{2, 1}, 4, 2, 0},
		{"diamond", []point{{0, -3}, {3, 0}, {1, 2}, {-2, -1}}, point{0.5, -0.5}, 3 * s, 2 * s, 45},
		{"one point", []point{{5, 5}, {5, 5}}, point{5, 5}, 0, 0, 0},
		{"a line", []point{{0, 0}, {3, 4}, {6, 8}}, point{3, 4}, 10, 0, math.Atan2(4, 3) * 180 / math.Pi},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := minAreaBox(tt.pts)
			if !near(b.centre.x, tt.centre.x, 1e-9) || !near(b.centre.y, tt.centre.y, 1e-9) {
				t.Errorf("centre %v, want %v", b.centre, tt.centre)
			}
			u, long, short := b.u, b.w, b.h
			if long < short {
				u, long, short = b.v(), b.h, b.w
			}
			if !near(long, tt.long, 1e-9) || !near(short, tt.short, 1e-9) {
				t.Errorf("sides %v and %v, want %v and %v", long, short, tt.long, tt.short)
			}
			angle := math.Mod(math.Atan2(u.y, u.x)*180/math.Pi+180, 180)
			if !near(angle, tt.angleDegrees, 1e-6) {
				t.Errorf("angle %v, want %v", angle, tt.angleDegrees)
			}
		})
	}
}

// TestSmallestRectangleHoldsAllPoints: whatever the points, they are inside,
// and no rectangle at any of 90 angles is smaller.
func TestSmallestRectangleHoldsAllPoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		coord := rapid.Float64Range(-100, 100)
		pts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) point {
			return point{coord.Draw(t, "x"), coord.Draw(t, "y")}
		}), 3, 30).Draw(t, "points")
		b := minAreaBox(append([]point(nil), pts...))
		for _, p := range pts {
			d := p.sub(b.centre)
			if math.Abs(d.dot(b.u)) > b.w/2+1e-6 || math.Abs(d.dot(b.v())) > b.h/2+1e-6 {
				t.Fatalf("%v lies outside of %+v", p, b)
			}
		}
		for deg := range 90 {
			sin, cos := math.Sincos(float64(deg) * math.Pi / 180)
			if other := extent(pts, point{cos, sin}); other.w*other.h < b.w*b.h-1e-6 {
				t.Fatalf("the rectangle at %d degrees is smaller: %v < %v", deg, other.w*other.h, b.w*b.h)
			}
		}
	})
}

func TestUnclipGrowsByAreaOverPerimeter(t *testing.T) {
	// 100 × 20: distance = 2000 × 1.5 / 240 = 12.5 on each side.
	b := box{u: point{1, 0}, w: 100, h: 20}.unclip(1.5)
	if !near(b.w, 125, 1e-9) || !near(b.h, 45, 1e-9) {
		t.Errorf("got %v × %v, want 125 × 45", b.w, b.h)
	}
}

func TestReadableRunsRightOrDown(t *testing.T) {
	tests := []struct {
		name string
		in   box
		u    point
		w, h float64
	}{
		{"as it is", box{u: point{1, 0}, w: 9, h: 2}, point{1, 0}, 9, 2},
		{"named backwards", box{u: point{-1, 0}, w: 9, h: 2}, point{1, 0}, 9, 2},
		{"named by its short side", box{u: point{0, 1}, w: 2, h: 9}, point{1, 0}, 9, 2},
		{"a column runs down", box{u: point{1, 0}, w: 2, h: 9}, point{0, 1}, 9, 2},
		{"nearly square stays", box{u: point{1, 0}, w: 2, h: 2.9}, point{1, 0}, 2, 2.9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.in.readable()
			if got.u.sub(tt.u).length() > 1e-12 || got.w != tt.w || got.h != tt.h {
				t.Errorf("got %+v, want u %v, %v × %v", got, tt.u, tt.w, tt.h)
			}
		})
	}
}

func TestRowsFollowTheLabel(t *testing.T) {
	// Two lines; the second has two words, the right one listed first.
	upright := []box{
		{centre: point{70, 52}, u: point{1, 0}, w: 30, h: 20},
		{centre: point{20, 50}, u: point{1, 0}, w: 30, h: 20},
		{centre: point{40, 10}, u: point{1, 0}, w: 60, h: 20},
	}
	want := [][]int{{2}, {1, 0}}
	for _, deg := range []float64{0, 8, -8, 90, 180, 187} {
		sin, cos := math.Sincos(deg * math.Pi / 180)
		turned := make([]box, len(upright))
		for i, b := range upright {
			b.centre, b.u = b.centre.turned(sin, cos), b.u.turned(sin, cos)
			turned[i] = b
		}
		if got := rows(turned); !reflect.DeepEqual(got, want) {
			t.Errorf("turned by %v degrees: %v, want %v", deg, got, want)
		}
	}
	if got := rows(nil); got != nil {
		t.Errorf("rows of nothing: %v", got)
	}
}

// ramp is an image whose red is 10·x + y, so that every place has its value.
func ramp(w, h int) Frame {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetRGBA(x, y, color.RGBA{uint8(10*x + y), 0, 0, 255})
		}
	}
	return FrameOf(img)
}

func TestWarpByHand(t *testing.T) {
	p := ramp(8, 6)
	red := func(p Frame) []float32 { return p.c[0] }
	whole := p.warp(p.whole(), 8, 6, "area")
	if !reflect.DeepEqual(red(whole), red(p)) {
		t.Errorf("the whole image at its size changed: %v", red(whole))
	}
	// Pixels (2,1) (3,1) / (2,2) (3,2), turned by half a turn.
	part := box{centre: point{2.5, 1.5}, u: point{1, 0}, w: 2, h: 2}
	for _, tt := range []struct {
		name string
		b    box
		want []float32
	}{
		{"cut", part, []float32{21, 31, 22, 32}},
		{"upside down", part.flipped(), []float32{32, 22, 31, 21}},
		{"a quarter to the right", box{part.centre, point{0, 1}, 2, 2}, []float32{31, 32, 21, 22}},
		{"between pixels", box{point{3, 1.5}, point{1, 0}, 2, 2}, []float32{26, 36, 27, 37}},
	} {
		if got := red(p.warp(tt.b, 2, 2, "area")); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	// Shrinking averages the four, or takes the place between them, or one.
	for filter, want := range map[string]float32{"area": 26.5, "bilinear": 26.5, "nearest": 32} {
		if got := red(p.warp(part, 1, 1, filter)); got[0] != want {
			t.Errorf("shrunk by %s: %v, want %v", filter, got, want)
		}
	}
	// Four rows become one: bilinear sees the two in the middle, area all.
	column := box{centre: point{2, 2.5}, u: point{1, 0}, w: 1, h: 6}
	p.c[0][0*8+2] = 200
	if area, two := red(p.warp(column, 1, 1, "area"))[0], red(p.warp(column, 1, 1, "bilinear"))[0]; two != 22.5 || area < 50 {
		t.Errorf("column: area %v, bilinear %v; want more than 50, and 22.5", area, two)
	}
}

func TestRegionsBecomeBoxes(t *testing.T) {
	// A bar of 20 × 6 pixels, a weak one, and a speck.
	m := probMap{w: 40, h: 30, p: make([]float32, 40*30), threshold: 0.3, boxScore: 0.6, unclip: 1.5, minSide: 3, max: 200}
	fill := func(x0, y0, w, h int, v float32) {
		for y := y0; y < y0+h; y++ {
			for x := x0; x < x0+w; x++ {
				m.p[y*m.w+x] = v
			}
		}
	}
	fill(5, 4, 20, 6, 0.9)
	fill(5, 14, 20, 6, 0.5)
	fill(30, 25, 2, 2, 0.9)
	got := m.boxes()
	if len(got) != 1 {
		t.Fatalf("%d boxes, want 1: %+v", len(got), got)
	}
	// Hull 19 × 5; unclip by 95 × 1.5 / 48.
	d := 2 * 95 * 1.5 / 48
	b := got[0]
	if !near(b.w, 19+d, 1e-9) || !near(b.h, 5+d, 1e-9) || !near(b.centre.x, 14.5, 1e-9) || !near(b.centre.y, 6.5, 1e-9) {
		t.Errorf("box %+v, want %v × %v at (14.5, 6.5)", b, 19+d, 5+d)
	}
}

func TestSizesByHand(t *testing.T) {
	for _, tt := range []struct {
		with         map[string]any
		w, h         float64
		wantW, wantH int
	}{
		{map[string]any{"longest": 960.0, "multiple": 32.0}, 640, 480, 640, 480},
		{map[string]any{"longest": 960.0, "multiple": 32.0}, 1920, 1080, 960, 544}, // 540 rounds to 17 × 32
		{map[string]any{"longest": 960.0, "multiple": 32.0}, 100, 10, 96, 32},
		{map[string]any{"longest": 960.0, "multiple": 32.0}, 10, 3000, 32, 960},
		{map[string]any{"longest": 100.0}, 400, 200, 100, 50},
		{map[string]any{"height": 48.0}, 100, 50, 96, 48},
		{map[string]any{"height": 48.0, "max_width": 200.0}, 1000, 1, 200, 48},
		{map[string]any{"width": 48.0, "max_height": 64.0}, 10, 100, 48, 64},
		{map[string]any{"width": 48.0, "height": 20.0}, 10, 100, 48, 20},
	} {
		if w, h := sizeFor(box{w: tt.w, h: tt.h}, models.Stage{Name: "resize", With: tt.with}); w != tt.wantW || h != tt.wantH {
			t.Errorf("%v of %v × %v: %d × %d, want %d × %d", tt.with, tt.w, tt.h, w, h, tt.wantW, tt.wantH)
		}
	}
}

func TestGreedyReadingByHand(t *testing.T) {
	letters := []string{"A", "B", " "}
	for _, tt := range []struct {
		name  string
		steps []int
		want  string
	}{
		{"repeats are one", []int{1, 1, 2, 2}, "AB"},
		{"a blank parts repeats", []int{1, 0, 1}, "AA"},
		{"space inside, not at the ends", []int{3, 1, 3, 2, 3}, "A B"},
		{"nothing", []int{0, 0}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, last := []float32{}, []float32{}
			for _, s := range tt.steps {
				v := make([]float32, 4)
				v[s] = 0.75
				first, last = append(first, v...), append(append(last, v[1:]...), v[0])
			}
			wantScore := 0.75
			if tt.want == "" {
				wantScore = 0
			}
			text, score := greedy(first, 4, 0, func(c int) string { return letters[c-1] })
			if text != tt.want || score != wantScore {
				t.Errorf("%q, %v; want %q, %v", text, score, tt.want, wantScore)
			}
			if again, _ := greedy(last, 4, 3, func(c int) string { return letters[c] }); again != text {
				t.Errorf("with the blank last: %q, want %q", again, text)
			}
		})
	}
}
