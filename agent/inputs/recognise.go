package inputs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// The shapes that the classifier and the recogniser were trained with
// (PaddleOCR tools/infer/predict_cls.py and predict_rec.py).
const (
	lineHeight   = 48
	clsWidth     = 192
	clsSure      = 0.9
	recMinWidth  = 320
	recMaxWidth  = 2560 // a line of about 200 characters
	minLineScore = 0.5  // below, PaddleOCR drops the line
)

// imageTensor lays p out as 1 × 3 × h × width, with zeros to the right of p.
func imageTensor(p planes, width int, value func(c int, v float32) float32) worker.Tensor {
	data := make([]byte, 3*p.h*width*4)
	for c := range p.c {
		for y := range p.h {
			o := ((c*p.h + y) * width) * 4
			for x := range p.w {
				v := value(c, p.c[c][y*p.w+x])
				binary.LittleEndian.PutUint32(data[o+4*x:], math.Float32bits(v))
			}
		}
	}
	return worker.Tensor{Name: "x", DType: models.FP32, Shape: []int64{1, 3, int64(p.h), int64(width)}, Data: data}
}

// lineTensor cuts b out of p, 48 pixels high and as wide as its aspect asks,
// between min and max, and normalises it to −1…1.
func lineTensor(p planes, b box, minWidth, maxWidth int) worker.Tensor {
	w := min(max(int(math.Ceil(lineHeight*b.w/b.h)), 1), maxWidth)
	crop := p.warp(b, w, lineHeight)
	return imageTensor(crop, max(w, minWidth), func(_ int, v float32) float32 { return v/127.5 - 1 })
}

// floats reads an FP32 tensor whose shape and data agree.
func floats(t worker.Tensor) ([]float32, error) {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	if t.DType != models.FP32 || n < 0 || int64(len(t.Data)) != 4*n {
		return nil, fmt.Errorf("tensor %s is %s%v with %d bytes", t.Name, t.DType, t.Shape, len(t.Data))
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return out, nil
}

// turn is what the classifier says of a line.
type turn int

const (
	unsure     turn = 0
	upright    turn = 1
	upsideDown turn = -1
)

// lineTurn reads the classifier's answer: probabilities of 0 and of 180 degrees.
func lineTurn(t worker.Tensor) (turn, error) {
	p, err := floats(t)
	if err != nil {
		return unsure, err
	}
	switch {
	case len(p) != 2:
		return unsure, fmt.Errorf("angle classifier answers %v, want [1 2]", t.Shape)
	case p[1] > clsSure:
		return upsideDown, nil
	case p[0] > clsSure:
		return upright, nil
	}
	return unsure, nil
}

// alphabet is what the recogniser's classes mean: class 0 is blank, then the
// characters of its keys file, then the space.
type alphabet []string

func readAlphabet(path string) (alphabet, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read characters of the recogniser: %w", err)
	}
	keys := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n")
	if len(keys) < 2 {
		return nil, fmt.Errorf("read characters of the recogniser: %s has %d lines", path, len(keys))
	}
	return append(append(alphabet{""}, keys...), " "), nil
}

var errAlphabet = errors.New("the recogniser's characters do not belong to its model")

// decode is CTC's greedy reading of a [1 steps classes] tensor: the best class
// of each step, repeats dropped, blanks dropped. The score is the mean over the
// characters kept, 0 for none.
func (a alphabet) decode(t worker.Tensor) (string, float64, error) {
	p, err := floats(t)
	if err != nil {
		return "", 0, err
	}
	if len(t.Shape) != 3 || t.Shape[0] != 1 {
		return "", 0, fmt.Errorf("recogniser answers %v, want [1 steps classes]", t.Shape)
	}
	classes := int(t.Shape[2])
	if classes != len(a) {
		return "", 0, fmt.Errorf("%w: %d classes, %d characters", errAlphabet, classes, len(a))
	}
	var text strings.Builder
	var sum float64
	var kept int
	last := 0
	for i := 0; i+classes <= len(p); i += classes {
		best := 0
		for c, v := range p[i : i+classes] {
			if v > p[i+best] {
				best = c
			}
		}
		if best != 0 && best != last {
			text.WriteString(a[best])
			sum += float64(p[i+best])
			kept++
		}
		last = best
	}
	if kept == 0 {
		return "", 0, nil
	}
	return strings.TrimSpace(text.String()), sum / float64(kept), nil
}
