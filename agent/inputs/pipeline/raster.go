package pipeline

import (
	"image"
	"image/draw"
	"math"
)

// Frame is a picture as three planes of floats 0 to 255: red, green, blue.
type Frame struct {
	W, H int
	c    [3][]float32
}

func newFrame(w, h int) Frame {
	p := Frame{W: w, H: h}
	for i := range p.c {
		p.c[i] = make([]float32, w*h)
	}
	return p
}

// FrameOf takes a decoded picture over.
func FrameOf(img image.Image) Frame {
	b := img.Bounds()
	rgba, ok := img.(*image.RGBA)
	if !ok {
		rgba = image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
		draw.Draw(rgba, rgba.Bounds(), img, b.Min, draw.Src)
	}
	p := newFrame(b.Dx(), b.Dy())
	for y := range p.H {
		row := rgba.Pix[rgba.PixOffset(rgba.Rect.Min.X, rgba.Rect.Min.Y+y):]
		p.fillRow(y, row, 4)
	}
	return p
}

// fillRow takes a row of pixels of step bytes each, red first.
func (p *Frame) fillRow(y int, pix []byte, step int) {
	for x := range p.W {
		i, o := y*p.W+x, x*step
		p.c[0][i] = float32(pix[o])
		p.c[1][i] = float32(pix[o+1])
		p.c[2][i] = float32(pix[o+2])
	}
}

// Look tells how bright the frame is, 0 to 255, and how sharp: the variance of
// its Laplacian, which falls when a lens is soiled or out of focus.
func (p *Frame) Look() (brightness, sharpness float64) {
	g := p.grey()
	var sum float64
	for _, v := range g {
		sum += float64(v)
	}
	brightness = sum / float64(max(len(g), 1))
	var n, mean, m2 float64 // Welford's
	for y := 1; y < p.H-1; y++ {
		for x := 1; x < p.W-1; x++ {
			i := y*p.W + x
			l := float64(g[i-1] + g[i+1] + g[i-p.W] + g[i+p.W] - 4*g[i])
			n++
			d := l - mean
			mean += d / n
			m2 += d * (l - mean)
		}
	}
	return brightness, m2 / max(n, 1)
}

func (p *Frame) fill(v float32) {
	for _, c := range p.c {
		for i := range c {
			c[i] = v
		}
	}
}

// sampler is where and how much to read for one bilinear value; places outside
// the image take its nearest pixel.
type sampler struct {
	i  [4]int
	wt [4]float32
}

func (p *Frame) at(pt point) sampler {
	x := min(max(pt.x, 0), float64(p.W-1))
	y := min(max(pt.y, 0), float64(p.H-1))
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, p.W-1), min(y0+1, p.H-1)
	fx, fy := float32(x-float64(x0)), float32(y-float64(y0))
	return sampler{
		i:  [4]int{y0*p.W + x0, y0*p.W + x1, y1*p.W + x0, y1*p.W + x1},
		wt: [4]float32{(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy},
	}
}

func (s *sampler) read(c []float32) float32 {
	return c[s.i[0]]*s.wt[0] + c[s.i[1]]*s.wt[1] + c[s.i[2]]*s.wt[2] + c[s.i[3]]*s.wt[3]
}

// warp cuts the rotated rectangle b out of p and scales it to w × h. With the
// filter area each output pixel averages as many bilinear samples as input
// pixels fall onto it along each axis, so that shrinking drops no thin strokes.
func (p *Frame) warp(b box, w, h int, filter string) Frame {
	out := newFrame(w, h)
	stepU, stepV := b.u.scale(b.w/float64(w)), b.v().scale(b.h/float64(h))
	nu, nv := 1, 1
	if filter == "area" {
		// Bounded: a huge box shrunk to a line needs no more to be legible.
		const maxSamples = 8
		nu = min(max(int(math.Round(b.w/float64(w))), 1), maxSamples)
		nv = min(max(int(math.Round(b.h/float64(h))), 1), maxSamples)
	}
	share := 1 / float32(nu*nv)
	corner := b.corners()[0]
	for y := range h {
		for x := range w {
			var sum [3]float32
			for j := range nv {
				for i := range nu {
					du := float64(x) + (float64(i)+0.5)/float64(nu)
					dv := float64(y) + (float64(j)+0.5)/float64(nv)
					pt := corner.add(stepU.scale(du)).add(stepV.scale(dv))
					if filter == "nearest" {
						pt = point{math.Round(pt.x), math.Round(pt.y)}
					}
					s := p.at(pt)
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
func (p *Frame) whole() box {
	return box{
		centre: point{float64(p.W-1) / 2, float64(p.H-1) / 2},
		u:      point{1, 0}, w: float64(p.W), h: float64(p.H),
	}
}

// picture is what the image stages hand on: a view, and once one of them has
// scaled it, the raster that covers it.
type picture struct {
	frame *Frame
	view  box
	// cover is the part of the frame under raster; it is larger than view where
	// bars were added.
	raster *Frame
	cover  box
}

// scaled makes the raster, w × h over the whole view.
func (p *picture) scaled(w, h int, filter string) {
	r := p.frame
	if w != r.W || h != r.H || p.view != r.whole() {
		warped := r.warp(p.view, w, h, filter)
		r = &warped
	}
	p.raster, p.cover = r, p.view
}

// framed puts the raster onto a larger one at x, y.
func (p *picture) framed(w, h, x, y int, value float32) {
	was := *p.raster
	if w == was.W && h == was.H {
		return
	}
	out := newFrame(w, h)
	out.fill(value)
	for c := range out.c {
		for row := range was.H {
			copy(out.c[c][(y+row)*w+x:], was.c[c][row*was.W:(row+1)*was.W])
		}
	}
	// A raster's pixel is sx × sy of the frame.
	sx, sy := p.cover.w/float64(was.W), p.cover.h/float64(was.H)
	corner := p.cover.corners()[0].sub(p.cover.u.scale(float64(x) * sx)).sub(p.cover.v().scale(float64(y) * sy))
	cover := box{u: p.cover.u, w: float64(w) * sx, h: float64(h) * sy}
	cover.centre = corner.add(cover.u.scale(cover.w / 2)).add(cover.v().scale(cover.h / 2))
	p.raster, p.cover = &out, cover
}

// home maps a box from a w × h grid over the raster to the frame. The two
// factors differ little, so a rotated rectangle stays one.
func (p *picture) home(b box, w, h int) box {
	fx, fy := p.cover.w/float64(w), p.cover.h/float64(h)
	turn := func(x, y float64) point { return p.cover.u.scale(x * fx).add(p.cover.v().scale(y * fy)) }
	u, v := turn(b.u.x, b.u.y), turn(b.v().x, b.v().y)
	return box{
		// Pixel centres: -0.5 is the edge at every scale.
		centre: p.cover.corners()[0].add(turn(b.centre.x+0.5, b.centre.y+0.5)),
		u:      u.scale(1 / u.length()),
		w:      b.w * u.length(),
		h:      b.h * v.length(),
	}
}
