package pipeline

import (
	"cmp"
	"math"
	"slices"
)

// point is a place in an image, in pixels; pixel (0, 0) has its centre there.
type point struct{ x, y float64 }

func (p point) add(q point) point     { return point{p.x + q.x, p.y + q.y} }
func (p point) sub(q point) point     { return point{p.x - q.x, p.y - q.y} }
func (p point) scale(f float64) point { return point{p.x * f, p.y * f} }
func (p point) dot(q point) float64   { return p.x*q.x + p.y*q.y }
func (p point) cross(q point) float64 { return p.x*q.y - p.y*q.x }
func (p point) length() float64       { return math.Hypot(p.x, p.y) }
func (p point) turned(sin, cos float64) point {
	return point{cos*p.x - sin*p.y, sin*p.x + cos*p.y}
}

// box is a rotated rectangle. The text runs along u; v points to the next line
// below. Angles are clockwise on the screen, since y grows downwards.
type box struct {
	centre point
	u      point   // unit vector along the width
	w, h   float64 // pixels
}

func (b box) v() point { return point{-b.u.y, b.u.x} }

// corners are top left, top right, bottom right and bottom left, as the text
// is read.
func (b box) corners() [4]point {
	u, v := b.u.scale(b.w/2), b.v().scale(b.h/2)
	c := b.centre
	return [4]point{c.sub(u).sub(v), c.add(u).sub(v), c.add(u).add(v), c.sub(u).add(v)}
}

// flipped is the same rectangle read upside down.
func (b box) flipped() box {
	b.u = b.u.scale(-1)
	return b
}

// grown adds d pixels on each of the four sides.
func (b box) grown(d float64) box {
	b.w += 2 * d
	b.h += 2 * d
	return b
}

// unclip undoes the shrinking of text regions that the detector was trained
// with: it moves each side outwards by area × ratio / perimeter (Vatti clipping
// in DB, arXiv:1911.08947 §3; on a rectangle the clipped polygon's smallest
// rectangle is just the grown one).
func (b box) unclip(ratio float64) box {
	return b.grown(b.w * b.h * ratio / (2 * (b.w + b.h)))
}

// readable turns the rectangle so that its text runs to the right, or downwards
// where the region is at least 1.5 times as high as wide (PaddleOCR's rule for
// a vertical line, which it then turns by 90 degrees to the left).
func (b box) readable() box {
	// Of the four ways to name the sides, take u nearest to the x axis.
	if math.Abs(b.u.x) < math.Abs(b.u.y) {
		b.u, b.w, b.h = b.v(), b.h, b.w
	}
	if b.u.x < 0 {
		b = b.flipped()
	}
	if b.h >= 1.5*b.w {
		b.u, b.w, b.h = b.v(), b.h, b.w
	}
	return b
}

// convexHull is Andrew's monotone chain: counter-clockwise in a frame with y
// upwards, no three points on a line. It sorts pts.
func convexHull(pts []point) []point {
	slices.SortFunc(pts, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.x, b.x), cmp.Compare(a.y, b.y))
	})
	pts = slices.Compact(pts)
	if len(pts) < 3 {
		return pts
	}
	hull := make([]point, 0, 2*len(pts))
	half := func(p point, floor int) {
		for len(hull) >= floor+2 {
			a, b := hull[len(hull)-2], hull[len(hull)-1]
			if b.sub(a).cross(p.sub(b)) > 0 {
				break
			}
			hull = hull[:len(hull)-1]
		}
		hull = append(hull, p)
	}
	for _, p := range pts {
		half(p, 0)
	}
	floor := len(hull) - 1
	for _, p := range slices.Backward(pts[:len(pts)-1]) {
		half(p, floor)
	}
	return hull[:len(hull)-1]
}

// minAreaBox is the smallest rectangle, at any angle, around pts. One of its
// sides lies along a side of the convex hull, so trying each is enough.
func minAreaBox(pts []point) box {
	hull := convexHull(pts)
	switch len(hull) {
	case 0:
		return box{u: point{1, 0}}
	case 1:
		return box{centre: hull[0], u: point{1, 0}}
	}
	best, bestArea := box{}, math.Inf(1)
	for i, p := range hull {
		side := hull[(i+1)%len(hull)].sub(p)
		u := side.scale(1 / side.length())
		b := extent(hull, u)
		if area := b.w * b.h; area < bestArea {
			best, bestArea = b, area
		}
	}
	return best
}

// extent is the rectangle with direction u around pts.
func extent(pts []point, u point) box {
	v := point{-u.y, u.x}
	minU, maxU, minV, maxV := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, p := range pts {
		a, b := p.dot(u), p.dot(v)
		minU, maxU = min(minU, a), max(maxU, a)
		minV, maxV = min(minV, b), max(maxV, b)
	}
	return box{
		centre: u.scale((minU + maxU) / 2).add(v.scale((minV + maxV) / 2)),
		u:      u,
		w:      maxU - minU,
		h:      maxV - minV,
	}
}

// rows groups boxes into rows of text, top to bottom, and each row left to
// right. The page is first turned back by the mean direction of the boxes
// (weighted by width: long lines know the angle best), so that a tilted or
// upside-down label is read in its own order. Two boxes share a row when their
// centres differ by less than half the smaller height. It returns indices.
func rows(boxes []box) [][]int {
	if len(boxes) == 0 {
		return nil
	}
	var dir point
	for _, b := range boxes {
		dir = dir.add(b.u.scale(b.w))
	}
	if dir.length() == 0 {
		dir = point{1, 0}
	}
	dir = dir.scale(1 / dir.length())
	places := make([]point, len(boxes))
	order := make([]int, len(boxes))
	for i, b := range boxes {
		places[i] = b.centre.turned(-dir.y, dir.x)
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(places[i].y, places[j].y) })
	var out [][]int
	for _, i := range order {
		if n := len(out); n > 0 {
			last := out[n-1][len(out[n-1])-1]
			if places[i].y-places[last].y < min(boxes[i].h, boxes[last].h)/2 {
				out[n-1] = append(out[n-1], i)
				continue
			}
		}
		out = append(out, []int{i})
	}
	for _, row := range out {
		slices.SortStableFunc(row, func(i, j int) int { return cmp.Compare(places[i].x, places[j].x) })
	}
	return out
}
