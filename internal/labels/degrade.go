package labels

import (
	"image"
	"image/color"
	"math"
	"math/rand/v2"
)

var cardboardColour = color.RGBA{178, 142, 100, 255}

// cardboard fills img with brown, its grain and a few dark fibres.
func cardboard(img *image.RGBA, rng *rand.Rand) {
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		// Corrugation shows as faint horizontal bands.
		band := 4 * math.Sin(float64(y)/5)
		for x := b.Min.X; x < b.Max.X; x++ {
			d := band + 5*rng.NormFloat64()
			img.SetRGBA(x, y, color.RGBA{
				clamp(float64(cardboardColour.R) + d),
				clamp(float64(cardboardColour.G) + d),
				clamp(float64(cardboardColour.B) + d), 255})
		}
	}
}

func degrade(f *Frame, rng *rand.Rand) {
	switch f.Kind {
	case Tilted:
		angle := 3 + 6*rng.Float64()
		if rng.IntN(2) == 0 {
			angle = -angle
		}
		f.Image = turn(f.Image, angle)
	case UpsideDown:
		f.Image = turn(f.Image, 180+6*rng.Float64()-3)
	case Blurred:
		f.Image = blur(f.Image, 1.4+1.0*rng.Float64())
	case Shaded:
		shade(f.Image, rng)
	case Noisy:
		noise(f.Image, rng, 25+20*rng.Float64())
	case Squeezed:
		f.Quality = 8 + rng.IntN(9)
	}
}

// turn rotates img about its centre by degrees clockwise, bilinear; what comes
// from outside is cardboard.
func turn(img *image.RGBA, degrees float64) *image.RGBA {
	b := img.Bounds()
	out := image.NewRGBA(b)
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	cx, cy := float64(b.Dx()-1)/2, float64(b.Dy()-1)/2
	for y := range b.Dy() {
		for x := range b.Dx() {
			dx, dy := float64(x)-cx, float64(y)-cy
			sx, sy := cos*dx+sin*dy+cx, -sin*dx+cos*dy+cy
			out.SetRGBA(x, y, bilinear(img, sx, sy))
		}
	}
	return out
}

func bilinear(img *image.RGBA, x, y float64) color.RGBA {
	x0, y0 := int(math.Floor(x)), int(math.Floor(y))
	fx, fy := x-float64(x0), y-float64(y0)
	at := func(x, y int) color.RGBA {
		if !(image.Point{X: x, Y: y}).In(img.Bounds()) {
			return cardboardColour
		}
		return img.RGBAAt(x, y)
	}
	a, b, c, d := at(x0, y0), at(x0+1, y0), at(x0, y0+1), at(x0+1, y0+1)
	mix := func(a, b, c, d uint8) uint8 {
		top := float64(a)*(1-fx) + float64(b)*fx
		bottom := float64(c)*(1-fx) + float64(d)*fx
		return clamp(top*(1-fy) + bottom*fy)
	}
	return color.RGBA{mix(a.R, b.R, c.R, d.R), mix(a.G, b.G, c.G, d.G), mix(a.B, b.B, c.B, d.B), 255}
}

// blur is a Gaussian of sigma pixels, one pass along each axis.
func blur(img *image.RGBA, sigma float64) *image.RGBA {
	reach := int(math.Ceil(3 * sigma))
	kernel := make([]float64, 2*reach+1)
	var sum float64
	for i := range kernel {
		d := float64(i - reach)
		kernel[i] = math.Exp(-d * d / (2 * sigma * sigma))
		sum += kernel[i]
	}
	for i := range kernel {
		kernel[i] /= sum
	}
	return convolve(convolve(img, kernel, image.Pt(1, 0)), kernel, image.Pt(0, 1))
}

func convolve(img *image.RGBA, kernel []float64, step image.Point) *image.RGBA {
	b := img.Bounds()
	out := image.NewRGBA(b)
	reach := len(kernel) / 2
	for y := range b.Dy() {
		for x := range b.Dx() {
			var sum [3]float64
			for i, k := range kernel {
				px := min(max(x+(i-reach)*step.X, 0), b.Dx()-1)
				py := min(max(y+(i-reach)*step.Y, 0), b.Dy()-1)
				o := img.PixOffset(px, py)
				for c := range sum {
					sum[c] += k * float64(img.Pix[o+c])
				}
			}
			out.SetRGBA(x, y, color.RGBA{clamp(sum[0]), clamp(sum[1]), clamp(sum[2]), 255})
		}
	}
	return out
}

// shade darkens one side to about a quarter and adds the spot of a lamp.
func shade(img *image.RGBA, rng *rand.Rand) {
	sin, cos := math.Sincos(2 * math.Pi * rng.Float64())
	dark := 0.15 + 0.20*rng.Float64()
	spotX, spotY := Width*rng.Float64(), Height*rng.Float64()
	each(img, func(x, y int, v float64) float64 {
		u, w := float64(x)/Width-0.5, float64(y)/Height-0.5
		side := min(max(0.5+u*cos+w*sin, 0), 1)
		dx, dy := float64(x)-spotX, float64(y)-spotY
		spot := 0.25 * math.Exp(-(dx*dx+dy*dy)/(2*90*90))
		return v * (dark + (1-dark)*side + spot)
	})
}

func noise(img *image.RGBA, rng *rand.Rand, sigma float64) {
	each(img, func(_, _ int, v float64) float64 { return v + sigma*rng.NormFloat64() })
}

// each replaces every colour value of img.
func each(img *image.RGBA, value func(x, y int, v float64) float64) {
	b := img.Bounds()
	for y := range b.Dy() {
		for x := range b.Dx() {
			o := img.PixOffset(x, y)
			for c := range 3 {
				img.Pix[o+c] = clamp(value(x, y, float64(img.Pix[o+c])))
			}
		}
	}
}

func clamp(v float64) uint8 { return uint8(min(max(math.Round(v), 0), 255)) }
