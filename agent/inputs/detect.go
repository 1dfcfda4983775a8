package inputs

import (
	"fmt"
	"math"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// How PaddleOCR runs its PP-OCRv4 detector (tools/infer/predict_det.py and
// ppocr/postprocess/db_postprocess.py; the values are its defaults).
const (
	detLimitSide  = 960 // the longer side is shrunk to this, never enlarged
	detMultiple   = 32
	detThreshold  = 0.3 // a pixel above is text
	detBoxScore   = 0.6 // a region's mean below is not
	detUnclip     = 1.5
	detMinSide    = 3.0 // pixels of the map, before unclip
	detMaxRegions = 200 // a label has tens of lines; more is noise
)

// The means and deviations of ImageNet, by plane.
var (
	detMean = [3]float32{0.485, 0.456, 0.406}
	detStd  = [3]float32{0.229, 0.224, 0.225}
)

// detSize is the size that the detector sees for a w × h image.
func detSize(w, h int) (int, int) {
	ratio := min(1, detLimitSide/float64(max(w, h)))
	side := func(n int) int {
		return max(detMultiple, int(math.Round(float64(n)*ratio/detMultiple))*detMultiple)
	}
	return side(w), side(h)
}

// detInput scales p to w × h and normalises it.
func detInput(p planes, w, h int) worker.Tensor {
	if w != p.w || h != p.h {
		p = p.warp(p.whole(), w, h)
	}
	return imageTensor(p, w, func(c int, v float32) float32 {
		return (v/255 - detMean[c]) / detStd[c]
	})
}

// probMap is the detector's answer: how likely each pixel is text.
type probMap struct {
	w, h int
	p    []float32
}

func newProbMap(t worker.Tensor) (probMap, error) {
	if t.DType != models.FP32 || len(t.Shape) != 4 || t.Shape[0] != 1 || t.Shape[1] != 1 {
		return probMap{}, fmt.Errorf("text detector answers %s%v, want FP32[1 1 h w]", t.DType, t.Shape)
	}
	v, err := floats(t)
	if err != nil {
		return probMap{}, err
	}
	return probMap{w: int(t.Shape[3]), h: int(t.Shape[2]), p: v}, nil
}

// boxes finds the regions of text in map coordinates.
func (m probMap) boxes() []box {
	var out []box
	for _, region := range m.regions() {
		b := minAreaBox(region)
		// The hull runs through pixel centres: half a pixel is missing on each
		// side. PaddleOCR's contours are the same, so its limits fit.
		if min(b.w, b.h) < detMinSide || m.mean(b) < detBoxScore {
			continue
		}
		b = b.unclip(detUnclip)
		if min(b.w, b.h) < detMinSide+2 {
			continue
		}
		out = append(out, b.readable())
		if len(out) == detMaxRegions {
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
		if v <= detThreshold || seen[start] {
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
					if n := ny*m.w + nx; m.p[n] > detThreshold && !seen[n] {
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

// rescaled maps b from a w × h map to an image of toW × toH. The two factors
// differ by the rounding to multiples of 32 only, so the rectangle stays one.
func (b box) rescaled(w, h, toW, toH int) box {
	fx, fy := float64(toW)/float64(w), float64(toH)/float64(h)
	u := point{b.u.x * fx, b.u.y * fy}
	v := point{b.v().x * fx, b.v().y * fy}
	return box{
		// Pixel centres: -0.5 is the edge of the image at every scale.
		centre: point{(b.centre.x+0.5)*fx - 0.5, (b.centre.y+0.5)*fy - 0.5},
		u:      u.scale(1 / u.length()),
		w:      b.w * u.length(),
		h:      b.h * v.length(),
	}
}
