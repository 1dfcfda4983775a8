package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/models"
)

// labelled names class i by the stage's labels, or by its number.
func (j *job) labelled(s models.Stage, i int) string {
	names := s.Texts("labels")
	if file := s.Text("labels_file"); file != "" {
		names = j.p.lines[file]
	}
	if i < len(names) {
		return names[i]
	}
	return strconv.Itoa(i)
}

// shares are the classes of an answer with one item.
func (j *job) shares(s models.Stage) ([]float32, error) {
	a, err := j.output(s.Text("output"))
	if err != nil {
		return nil, err
	}
	if len(a.v) == 0 || len(a.shape) > 0 && a.shape[len(a.shape)-1] != int64(len(a.v)) {
		return nil, fmt.Errorf("the model answers %v, want one item with its classes", a.shape)
	}
	return a.v, nil
}

// ranked are classes from best to worst; what is not a number has no rank.
func ranked(v []float32) []int {
	var order []int
	for i, x := range v {
		if x == x {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(v[b], v[a]) })
	return order
}

func topK(_ context.Context, j *job, s models.Stage) error {
	v, err := j.shares(s)
	if err != nil {
		return err
	}
	order := ranked(v)
	j.see(v, order)
	for _, i := range order[:min(len(order), s.Whole("count"))] {
		if float64(v[i]) >= s.Number("min_score") {
			j.v.classes = append(j.v.classes, class{i, j.labelled(s, i), float64(v[i])})
		}
	}
	return nil
}

func threshold(_ context.Context, j *job, s models.Stage) error {
	v, err := j.shares(s)
	if err != nil {
		return err
	}
	order := ranked(v)
	j.see(v, order)
	for _, i := range order {
		if float64(v[i]) >= s.Number("above") {
			j.v.classes = append(j.v.classes, class{i, j.labelled(s, i), float64(v[i])})
		}
	}
	return nil
}

// see notes an answer of classes for drift.
func (j *job) see(v []float32, order []int) {
	o := Observation{By: j.p.ref, Entropy: entropy(v), Class: -1}
	if len(order) > 0 {
		o.Class, o.Score = order[0], float64(v[order[0]])
	}
	j.out.Seen = append(j.out.Seen, o)
}

// entropy is that of shares that sum to 1, over the largest possible; NaN for
// others.
func entropy(v []float32) float64 {
	var sum, bits float64
	for _, p := range v {
		if p < 0 || p != p {
			return math.NaN()
		}
		sum += float64(p)
		if p > 0 {
			bits -= float64(p) * math.Log2(float64(p))
		}
	}
	if len(v) < 2 || math.Abs(sum-1) > 1e-2 {
		return math.NaN()
	}
	return min(max(bits/math.Log2(float64(len(v))), 0), 1)
}

func argmax(_ context.Context, j *job, s models.Stage) error {
	a, err := j.output(s.Text("output"))
	if err != nil {
		return err
	}
	if len(a.shape) < 2 || a.shape[0] != 1 || a.shape[1] < 1 || len(a.v) == 0 {
		return fmt.Errorf("the model answers %v, want [1 classes …]", a.shape)
	}
	n := int(a.shape[1])
	places := len(a.v) / n
	counts := make([]float32, n)
	for at := range places {
		best := 0
		for c := 1; c < n; c++ {
			if a.v[c*places+at] > a.v[best*places+at] {
				best = c
			}
		}
		counts[best] += 1 / float32(places)
	}
	order := ranked(counts)
	j.see(counts, order)
	for _, i := range order {
		if counts[i] > 0 {
			j.v.classes = append(j.v.classes, class{i, j.labelled(s, i), float64(counts[i])})
		}
	}
	return nil
}

var errCharset = errors.New("the characters do not belong to the model")

// ctc is the greedy reading of a [1 steps classes] answer. The score is the
// mean over the characters kept, 0 for none.
func ctc(_ context.Context, j *job, s models.Stage) error {
	a, err := j.output(s.Text("output"))
	if err != nil {
		return err
	}
	if err := a.dims(1, -1, -1); err != nil {
		return err
	}
	letters := j.p.lines[s.Text("charset")]
	if s.Flag("space") {
		letters = append(letters[:len(letters):len(letters)], " ")
	}
	classes := int(a.shape[2])
	if classes != len(letters)+1 {
		return fmt.Errorf("%w: %d classes, %d characters and the blank", errCharset, classes, len(letters))
	}
	blank, shift := 0, 1
	if s.Text("blank") == "last" {
		blank, shift = classes-1, 0
	}
	j.v.text, j.v.score = greedy(a.v, classes, blank, func(c int) string { return letters[c-shift] })
	j.out.Seen = append(j.out.Seen, Observation{By: j.p.ref, Score: j.v.score, Entropy: math.NaN(), Class: -1})
	return nil
}

func greedy(v []float32, classes, blank int, letter func(int) string) (string, float64) {
	var text strings.Builder
	var sum float64
	kept, last := 0, blank
	for i := 0; i+classes <= len(v); i += classes {
		best := 0
		for c, p := range v[i : i+classes] {
			if p > v[i+best] {
				best = c
			}
		}
		if best != blank && best != last {
			text.WriteString(letter(best))
			sum += float64(v[i+best])
			kept++
		}
		last = best
	}
	if kept == 0 {
		return "", 0
	}
	return strings.TrimSpace(text.String()), sum / float64(kept)
}
