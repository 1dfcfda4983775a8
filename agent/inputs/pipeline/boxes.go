package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/models"
)

// maxCandidates bounds the boxes before nms, which compares each with each.
const maxCandidates = 3000

// candidates collects boxes above a score; of too many the best stay.
type candidates struct {
	j     *job
	s     models.Stage
	least float64
	all   []found
}

func (j *job) candidates(s models.Stage) *candidates {
	return &candidates{j: j, s: s, least: s.Number("min_score")}
}

// place is a box in shares of the raster: its centre and size.
type place struct{ cx, cy, w, h float64 }

// add takes a box with the score of a class.
func (c *candidates) add(p place, score float64, index int) {
	cx, cy, w, h := p.cx, p.cy, p.w, p.h
	// Written so that what is not a number fails.
	if !(score >= c.least && w > 0 && h > 0 && w <= 10 && h <= 10 && math.Abs(cx) <= 10 && math.Abs(cy) <= 10) {
		return
	}
	b := box{centre: point{cx - 0.5, cy - 0.5}, u: point{1, 0}, w: w, h: h} // pixel centres of a 1 × 1 grid
	c.all = append(c.all, found{box: c.j.v.pic.home(b, 1, 1), class: class{index, c.j.labelled(c.s, index), score}})
}

// done hands the boxes on, best first.
func (c *candidates) done() {
	slices.SortStableFunc(c.all, func(a, b found) int { return cmp.Compare(b.class.score, a.class.score) })
	c.j.v.boxes = c.all[:min(len(c.all), maxCandidates)]
}

func yoloBoxes(_ context.Context, j *job, s models.Stage) error {
	a, err := j.output(s.Text("output"))
	if err != nil {
		return err
	}
	if err := a.dims(1, -1, -1); err != nil {
		return err
	}
	// n boxes of k numbers, the next number step apart and the next box stride.
	n, k, head := int(a.shape[1]), int(a.shape[2]), 5
	step, stride := 1, k
	if s.Text("form") == "v8" {
		n, k, head = k, n, 4
		step, stride = n, 1
	}
	if k <= head {
		return fmt.Errorf("the model answers %v, want more than %d numbers a box", a.shape, head)
	}
	r, err := j.sized()
	if err != nil {
		return err
	}
	w, h := float64(r.W), float64(r.H)
	out := j.candidates(s)
	for i := range n {
		get := func(q int) float64 { return float64(a.v[i*stride+q*step]) }
		best := head
		for q := head + 1; q < k; q++ {
			if get(q) > get(best) {
				best = q
			}
		}
		score := get(best)
		if head == 5 {
			score *= get(4)
		}
		out.add(place{get(0) / w, get(1) / h, get(2) / w, get(3) / h}, score, best-head)
	}
	out.done()
	return nil
}

func ssdBoxes(_ context.Context, j *job, s models.Stage) error {
	out := j.candidates(s)
	from := 0
	for i, name := range s.Texts("scores") {
		scores, err := j.output(name)
		if err != nil {
			return err
		}
		boxes, err := j.output(s.Texts("boxes")[i])
		if err != nil {
			return err
		}
		if err := scores.dims(1, -1, -1); err != nil {
			return err
		}
		if err := boxes.dims(1, scores.shape[1], -1); err != nil || boxes.shape[2] < 4 {
			return fmt.Errorf("the model answers %v boxes to %v scores", boxes.shape, scores.shape)
		}
		n := int(scores.shape[1])
		anchors, err := j.anchors(s, i, from, n)
		if err != nil {
			return err
		}
		from += n
		out.ssd(scores, boxes, anchors)
	}
	out.done()
	return nil
}

// anchors are those of output i, which has n that start at from in the file.
func (j *job) anchors(s models.Stage, i, from, n int) ([][4]float32, error) {
	if file := s.Text("anchors_file"); file != "" {
		all := j.p.anchors[file]
		if from+n > len(all) {
			return nil, fmt.Errorf("the model answers %d boxes, %s has %d anchors", from+n, file, len(all))
		}
		return all[from : from+n], nil
	}
	side, cells := int(s.Numbers("grid")[i]), int(s.Numbers("per_cell")[i])
	if side*side*cells != n {
		return nil, fmt.Errorf("the model answers %d boxes, the grid has %d", n, side*side*cells)
	}
	out := make([][4]float32, 0, n)
	for y := range side {
		for x := range side {
			for range cells {
				out = append(out, [4]float32{(float32(x) + 0.5) / float32(side), (float32(y) + 0.5) / float32(side), 1, 1})
			}
		}
	}
	return out, nil
}

func (c *candidates) ssd(scores, boxes answer, anchors [][4]float32) {
	classes, width := int(scores.shape[2]), int(boxes.shape[2])
	first := 0
	if c.s.Flag("background") {
		first = 1
	}
	scale, variance := c.s.Number("scale"), c.s.Numbers("variance")
	exp := c.s.Text("coding") == "exp"
	for i, a := range anchors {
		best := first
		row := scores.v[i*classes : (i+1)*classes]
		for q := first; q < classes; q++ {
			if row[q] > row[best] {
				best = q
			}
		}
		if best >= classes {
			continue
		}
		score := row[best]
		if c.s.Flag("sigmoid") {
			score = logistic(score)
		}
		get := func(q int) float64 { return float64(boxes.v[i*width+q]) }
		ax, ay, aw, ah := float64(a[0]), float64(a[1]), float64(a[2]), float64(a[3])
		if exp {
			c.add(place{ax + get(0)*variance[0]*aw, ay + get(1)*variance[0]*ah,
				aw * math.Exp(get(2)*variance[1]), ah * math.Exp(get(3)*variance[1])}, float64(score), best-first)
			continue
		}
		c.add(place{ax + get(0)/scale*aw, ay + get(1)/scale*ah, get(2) / scale * aw, get(3) / scale * ah}, float64(score), best-first)
	}
}

// overlap is the area two upright boxes share over the one they cover.
func overlap(a, b box) float64 {
	alo, ahi := a.bounds()
	blo, bhi := b.bounds()
	w, h := min(ahi.x, bhi.x)-max(alo.x, blo.x), min(ahi.y, bhi.y)-max(alo.y, blo.y)
	if w <= 0 || h <= 0 {
		return 0
	}
	area := func(lo, hi point) float64 { return (hi.x - lo.x) * (hi.y - lo.y) }
	return w * h / (area(alo, ahi) + area(blo, bhi) - w*h)
}

func nms(_ context.Context, j *job, s models.Stage) error {
	boxes := j.v.boxes
	slices.SortStableFunc(boxes, func(a, b found) int { return cmp.Compare(b.class.score, a.class.score) })
	var out []found
	gone := make([]bool, len(boxes))
	for i, b := range boxes {
		if gone[i] {
			continue
		}
		if len(out) == s.Whole("max") {
			break
		}
		group := []found{b}
		for k := i + 1; k < len(boxes); k++ {
			if gone[k] || s.Flag("per_class") && boxes[k].index != b.index || overlap(b.box, boxes[k].box) <= s.Number("iou") {
				continue
			}
			gone[k] = true
			group = append(group, boxes[k])
		}
		if s.Text("method") == "blend" {
			b.box = blend(group)
		}
		out = append(out, b)
	}
	j.v.boxes = out
	for _, b := range out {
		j.out.Seen = append(j.out.Seen, Observation{By: j.p.ref, Score: b.class.score, Entropy: math.NaN(), Class: b.index})
	}
	return nil
}

// blend is the mean of boxes weighted by score, in the direction of the first.
func blend(group []found) box {
	out := box{u: group[0].u}
	var sum float64
	for _, b := range group {
		k := b.class.score
		out.centre = out.centre.add(b.centre.scale(k))
		out.w, out.h, sum = out.w+b.w*k, out.h+b.h*k, sum+k
	}
	if sum == 0 {
		return group[0].box
	}
	out.centre, out.w, out.h = out.centre.scale(1/sum), out.w/sum, out.h/sum
	return out
}

func filter(_ context.Context, j *job, s models.Stage) error {
	labels := s.Texts("labels")
	j.v.boxes = slices.DeleteFunc(j.v.boxes, func(b found) bool {
		return b.class.score < s.Number("min_score") || min(b.w, b.h) < s.Number("min_side") || labels != nil && !slices.Contains(labels, b.label)
	})
	slices.SortStableFunc(j.v.boxes, func(a, b found) int { return cmp.Compare(b.class.score, a.class.score) })
	j.v.boxes = j.v.boxes[:min(len(j.v.boxes), s.Whole("max"))]
	return nil
}

// turn turns the boxes that are upside down. Short lines look alike both ways
// up; where the model is not sure, the majority of the sure ones decides, since
// a label has one right way up.
func turn(ctx context.Context, j *job, s models.Stage) error {
	turns := make([]int, len(j.v.boxes)) // 1 upright, −1 not, 0 unsure
	vote := 0
	for i, b := range j.v.boxes {
		got, err := j.r.call(ctx, s.Text("model"), j.v.pic.frame, b.box, j.out)
		if err != nil {
			return err
		}
		for _, c := range got.classes {
			switch {
			case !(c.score > s.Number("sure")):
			case c.label == s.Text("upright"):
				turns[i] = 1
			case c.label == s.Text("flipped"):
				turns[i] = -1
			}
		}
		vote += turns[i]
	}
	for i := range j.v.boxes {
		if turns[i] < 0 || turns[i] == 0 && vote < 0 {
			j.v.boxes[i].box = j.v.boxes[i].flipped()
		}
	}
	return nil
}

func each(ctx context.Context, j *job, s models.Stage) error {
	for i := range j.v.boxes {
		b := &j.v.boxes[i]
		view := b.grown(s.Number("grow") * min(b.w, b.h))
		if view.w < 1 || view.h < 1 {
			continue
		}
		got, err := j.r.call(ctx, s.Text("model"), j.v.pic.frame, view, j.out)
		if err != nil {
			return err
		}
		switch {
		case got.kind == models.KindText:
			b.text, b.textScore = got.text, got.score
		case len(got.classes) > 0:
			b.text, b.textScore = got.classes[0].label, got.classes[0].score
		}
	}
	return nil
}

// lines reads the page: rows from top to bottom, each from left to right.
func lines(_ context.Context, j *job, s models.Stage) error {
	boxes := make([]box, len(j.v.boxes))
	for i, b := range j.v.boxes {
		boxes[i] = b.box
	}
	var all []string
	var kept []found
	var sum float64
	for _, row := range rows(boxes) {
		var words []string
		for _, i := range row {
			b := j.v.boxes[i]
			if b.text == "" || !(b.textScore >= s.Number("min_score")) {
				continue
			}
			words, kept = append(words, b.text), append(kept, b)
			sum += b.textScore
		}
		if len(words) > 0 {
			all = append(all, strings.Join(words, " "))
		}
	}
	j.v.boxes, j.v.text, j.v.score = kept, strings.Join(all, "\n"), 0
	if len(kept) > 0 {
		j.v.score = sum / float64(len(kept))
	}
	return nil
}
