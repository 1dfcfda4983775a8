package pipeline

import (
	"context"
	"math"

	"github.com/edgeherd/edgeherd/models"
)

// probMap is the detector's answer: how likely each pixel is text.
type probMap struct {
	w, h int
	p    []float32
	// A place above threshold is text; a box of which the mean is below boxScore
	// is none; boxes grow by unclip; sides below minSide (pixels of the map) are
	// specks.
	threshold         float32
	boxScore, minSide float64
	unclip            float64
	max               int
}

func dbBoxes(_ context.Context, j *job, s models.Stage) error {
	a, err := j.output(s.Text("output"))
	if err != nil {
		return err
	}
	if err := a.dims(1, 1, -1, -1); err != nil {
		return err
	}
	m := probMap{
		w: int(a.shape[3]), h: int(a.shape[2]), p: a.v, threshold: float32(s.Number("above")), boxScore: s.Number("min_score"),
		unclip: s.Number("unclip"), minSide: s.Number("min_side"), max: s.Whole("max"),
	}
	for _, b := range m.boxes() {
		b.box = j.v.pic.home(b.box, m.w, m.h)
		j.v.boxes = append(j.v.boxes, b)
		j.out.Seen = append(j.out.Seen, Observation{By: j.p.ref, Score: b.class.score, Entropy: math.NaN(), Class: -1})
	}
	return nil
}

// boxes finds the regions of text in map coordinates.
func (m probMap) boxes() []found {
	var out []found
	for _, region := range m.regions() {
		b := minAreaBox(region)
		// The hull runs through pixel centres: half a pixel is missing on each
		// side. PaddleOCR's contours are the same, so its limits fit.
		mean := m.mean(b)
		if min(b.w, b.h) < m.minSide || !(mean >= m.boxScore) { // a mean may be no number
			continue
		}
		b = b.unclip(m.unclip)
		if min(b.w, b.h) < m.minSide+2 {
			continue
		}
		out = append(out, found{box: b.readable(), class: class{score: mean}})
		if len(out) == m.max {
			break
		}
	}
	return out
}

// regions are the 8-connected components of pixels above the threshold, each as
// the pixels at its border rows: the first and the last of every row, which is
// all that a convex hull needs.
func (m probMap) regions() [][]point {
	seen := make([]bool, len(m.p))
	var out [][]point
	var stack []int
	for start, v := range m.p {
		if v <= m.threshold || seen[start] {
			continue
		}
		ends := map[int][2]int{} // row → first and last column
		seen[start] = true
		stack = append(stack[:0], start)
		for len(stack) > 0 {
			i := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			x, y := i%m.w, i/m.w
			if e, ok := ends[y]; ok {
				ends[y] = [2]int{min(e[0], x), max(e[1], x)}
			} else {
				ends[y] = [2]int{x, x}
			}
			for ny := max(y-1, 0); ny <= min(y+1, m.h-1); ny++ {
				for nx := max(x-1, 0); nx <= min(x+1, m.w-1); nx++ {
					if n := ny*m.w + nx; m.p[n] > m.threshold && !seen[n] {
						seen[n] = true
						stack = append(stack, n)
					}
				}
			}
		}
		var pts []point
		for y, e := range ends {
			pts = append(pts, point{float64(e[0]), float64(y)}, point{float64(e[1]), float64(y)})
		}
		out = append(out, pts)
	}
	return out
}

// mean is the mean probability inside b.
func (m probMap) mean(b box) float64 {
	reach := point{math.Abs(b.u.x)*b.w/2 + math.Abs(b.u.y)*b.h/2, math.Abs(b.u.y)*b.w/2 + math.Abs(b.u.x)*b.h/2}
	x0, x1 := max(int(b.centre.x-reach.x), 0), min(int(math.Ceil(b.centre.x+reach.x)), m.w-1)
	y0, y1 := max(int(b.centre.y-reach.y), 0), min(int(math.Ceil(b.centre.y+reach.y)), m.h-1)
	var sum float64
	var n int
	for y := y0; y <= y1; y++ {
		for x := x0; x <= x1; x++ {
			d := point{float64(x), float64(y)}.sub(b.centre)
			if math.Abs(d.dot(b.u)) <= b.w/2+1e-6 && math.Abs(d.dot(b.v())) <= b.h/2+1e-6 {
				sum += float64(m.p[y*m.w+x])
				n++
			}
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}
