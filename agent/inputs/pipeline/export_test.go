package pipeline

import (
	"context"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// What the tests outside of the package see of it: they use pipelinetest, which
// imports the package.

// InputsOf carries out stages up to run on a part of a frame.
func InputsOf(sig models.Signature, frame Frame, view Box, list ...models.Stage) ([]worker.Tensor, error) {
	j := job{p: plan{manifest: models.Manifest{Signature: sig}}, out: &Reading{},
		v: value{kind: models.KindImage, pic: picture{frame: &frame, view: view}}}
	for _, s := range list {
		if err := stages[s.Name](context.Background(), &j, s); err != nil {
			return nil, err
		}
	}
	return j.v.inputs, nil
}

// WindowOf is the input of a window as the silero models take it.
func WindowOf(clip []float32, at int) worker.Tensor {
	return windowing{input: "input", size: 512, context: 64}.window(clip, at)
}

// Box is a rotated rectangle.
type Box = box

// UprightBox is one that is not rotated.
func UprightBox(x, y, w, h float64) Box {
	return box{centre: point{x, y}, u: point{1, 0}, w: w, h: h}
}

// Flipped is the same upside down.
func (b box) Flipped() box { return b.flipped() }

// Warp cuts a part out.
func (p *Frame) Warp(b Box, w, h int) Frame { return p.warp(b, w, h, "area") }

// Whole is all of it.
func (p *Frame) Whole() Box { return p.whole() }
