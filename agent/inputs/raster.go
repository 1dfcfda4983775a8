package inputs

import (
	"image"
	"image/draw"
	"math"
)

// planes is an image as three planes of floats 0 to 255, in the order blue,
// green, red, as OpenCV decodes: the PP-OCR models were trained on that order,
// although the detector's means are those of red, green, blue.
type planes struct {
	w, h int
	c    [3][]float32
}

func newPlanes(w, h int) planes {
	p := planes{w: w, h: h}
	for i := range p.c {
		p.c[i] = make([]float32, w*h)
	}
	return p
}

func toPlanes(img image.Image) planes {
	b := img.Bounds()
	rgba, ok := img.(*image.RGBA)
	if !ok {
		rgba = image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
		draw.Draw(rgba, rgba.Bounds(), img, b.Min, draw.Src)
	}
	p := newPlanes(b.Dx(), b.Dy())
	for y := range p.h {
		o := rgba.PixOffset(rgba.Rect.Min.X, rgba.Rect.Min.Y+y)
		for x := range p.w {
			i := y*p.w + x
			p.c[0][i] = float32(rgba.Pix[o+2])
			p.c[1][i] = float32(rgba.Pix[o+1])
			p.c[2][i] = float32(rgba.Pix[o])
			o += 4
		}
	}
	return p
}

// sampler is where and how much to read for one bilinear value; places outside
// the image take its nearest pixel.
type sampler struct {
	i  [4]int
	wt [4]float32
}

func (p *planes) at(pt point) sampler {
	x := min(max(pt.x, 0), float64(p.w-1))
	y := min(max(pt.y, 0), float64(p.h-1))
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, p.w-1), min(y0+1, p.h-1)
	fx, fy := float32(x-float64(x0)), float32(y-float64(y0))
	return sampler{
		i:  [4]int{y0*p.w + x0, y0*p.w + x1, y1*p.w + x0, y1*p.w + x1},
		wt: [4]float32{(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy},
	}
}

func (s *sampler) read(c []float32) float32 {
	return c[s.i[0]]*s.wt[0] + c[s.i[1]]*s.wt[1] + c[s.i[2]]*s.wt[2] + c[s.i[3]]*s.wt[3]
}

// warp cuts the rotated rectangle b out of p and scales it to w × h. Each
// output pixel averages as many bilinear samples as input pixels fall onto it
// along each axis, so that shrinking does not drop thin strokes.
func (p *planes) warp(b box, w, h int) planes {
	out := newPlanes(w, h)
	stepU, stepV := b.u.scale(b.w/float64(w)), b.v().scale(b.h/float64(h))
	// Bounded: a huge box shrunk to a line needs no more to be legible.
	const maxSamples = 8
	nu := min(max(int(math.Round(b.w/float64(w))), 1), maxSamples)
	nv := min(max(int(math.Round(b.h/float64(h))), 1), maxSamples)
	share := 1 / float32(nu*nv)
	corner := b.corners()[0]
	for y := range h {
		for x := range w {
			var sum [3]float32
			for j := range nv {
				for i := range nu {
					du := float64(x) + (float64(i)+0.5)/float64(nu)
					dv := float64(y) + (float64(j)+0.5)/float64(nv)
					s := p.at(corner.add(stepU.scale(du)).add(stepV.scale(dv)))
					for c := range sum {
						sum[c] += s.read(p.c[c])
					}
				}
			}
			for c := range sum {
				out.c[c][y*w+x] = sum[c] * share
			}
		}
	}
	return out
}

// whole is the box that covers all of p. A pixel reaches half its size beyond
// its centre.
func (p *planes) whole() box {
	return box{
		centre: point{float64(p.w-1) / 2, float64(p.h-1) / 2},
		u:      point{1, 0}, w: float64(p.w), h: float64(p.h),
	}
}
