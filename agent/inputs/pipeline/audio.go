package pipeline

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// segment is a stretch of sound, in samples.
type segment struct {
	from, to int
	label    string
	score    float64
}

// windowing is how a clip is cut, all in samples.
type windowing struct {
	input              string
	size, hop, context int
	carried            []models.Stage
}

func windows(_ context.Context, j *job, s models.Stage) error {
	j.v.cut = windowing{input: s.Text("input"), size: s.Whole("size"), hop: s.Whole("hop"), context: s.Whole("context")}
	if j.v.cut.hop == 0 {
		j.v.cut.hop = j.v.cut.size
	}
	return nil
}

func carry(_ context.Context, j *job, s models.Stage) error {
	spec, err := j.input(s)
	if err != nil {
		return err
	}
	j.set(zeros(spec))
	cut := &j.v.cut
	cut.carried = append(cut.carried[:len(cut.carried):len(cut.carried)], s)
	return nil
}

// window is the input for the window that starts at sample at; what lies
// outside of the clip is silence.
func (c windowing) window(clip []float32, at int) worker.Tensor {
	n := c.context + c.size
	data := make([]byte, 4*n)
	for i := range n {
		if k := at - c.context + i; k >= 0 && k < len(clip) {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(clip[k]))
		}
	}
	return worker.Tensor{Name: c.input, DType: models.FP32, Shape: []int64{1, int64(n)}, Data: data}
}

// Bounds of one clip: eight minutes in windows of 16 ms, and what the model may
// answer to all of them.
const (
	maxWindows     = 30000
	maxSeriesBytes = 64 << 20
)

// runWindows runs the model for window after window. A version that takes over
// amid the clip starts it anew, since the state handed on means nothing to it.
func (j *job) runWindows(ctx context.Context) error {
	cut := j.v.cut
	if n := len(j.v.clip) / cut.hop; n > maxWindows {
		return fmt.Errorf("clip has %d windows, at most %d are heard", n, maxWindows)
	}
	inputs := append([]worker.Tensor(nil), j.v.inputs...)
	size := 0
	for at := 0; at < len(j.v.clip); at += cut.hop {
		outs, by, err := j.r.infer(ctx, j.p.ref.Name, append(inputs[:len(inputs):len(inputs)], cut.window(j.v.clip, at)))
		if err != nil {
			return err
		}
		if at > 0 && by.Ref != j.p.ref {
			return &errSwitched{by.Ref}
		}
		if err := j.ran(by); err != nil {
			return err
		}
		for _, s := range cut.carried {
			if err := handOn(inputs, outs, s); err != nil {
				return fmt.Errorf("use answer of %s: %w", by, err)
			}
		}
		for _, t := range outs {
			size += len(t.Data)
		}
		if size > maxSeriesBytes {
			return fmt.Errorf("%s answers a clip with more than %d bytes", by, maxSeriesBytes)
		}
		j.v.series = append(j.v.series, outs)
	}
	j.v.kind = models.KindSeries
	return nil
}

// handOn makes an output an input of the next window.
func handOn(inputs, outs []worker.Tensor, s models.Stage) error {
	for i := range inputs {
		if inputs[i].Name != s.Text("input") {
			continue
		}
		for _, t := range outs {
			if t.Name != s.Text("output") {
				continue
			}
			if len(t.Data) != len(inputs[i].Data) || t.DType != inputs[i].DType {
				return fmt.Errorf("output %q is %s%v, input %q was %s%v", t.Name, t.DType, t.Shape, inputs[i].Name, inputs[i].DType, inputs[i].Shape)
			}
			inputs[i].Data = t.Data
			return nil
		}
	}
	return fmt.Errorf("it has no output %q", s.Text("output"))
}

func segments(_ context.Context, j *job, s models.Stage) error {
	name := s.Text("output")
	if name == "" {
		name = j.p.manifest.Signature.Outputs[0].Name
	}
	probs := make([]float32, 0, len(j.v.series))
	for _, outs := range j.v.series {
		a, err := read(outs, name)
		if err != nil || len(a.v) != 1 || !(a.v[0] >= 0 && a.v[0] <= 1) {
			return fmt.Errorf("%s answers %v %v, want one probability (%v)", j.p.ref, a.shape, a.v, err)
		}
		probs = append(probs, a.v[0])
	}
	ms := func(key string) int { return s.Whole(key) * sampleRate / 1000 }
	r := speechRule{
		start: float32(s.Number("start")), end: float32(s.Number("end")), hop: j.v.cut.hop,
		least: ms("min_length"), silence: ms("min_silence"), padding: ms("padding"),
	}
	j.v.spans = r.segments(probs, len(j.v.clip))
	for i := range j.v.spans {
		seg := &j.v.spans[i]
		seg.label, seg.score = s.Text("label"), r.mean(probs, *seg)
	}
	j.v.text = describe(s.Text("label"), j.v.spans, len(j.v.clip))
	j.v.score = r.sureness(probs, j.v.spans)
	for _, p := range probs {
		class := 0
		if p >= r.start {
			class = 1
		}
		j.out.Seen = append(j.out.Seen, Observation{By: j.p.ref, Score: float64(p), Entropy: math.NaN(), Class: class})
	}
	return nil
}

// speechRule is Silero's get_speech_timestamps: all but the first two in samples.
type speechRule struct {
	start, end                   float32
	hop, least, silence, padding int
}

// segments turns window probabilities into stretches within total samples: one
// starts at r.start and ends after r.silence below r.end; shorter ones than
// r.least are dropped.
func (r speechRule) segments(probs []float32, total int) []segment {
	var out []segment
	speaking, from, quiet := false, 0, -1 // quiet: where the pause began, -1 for none
	keep := func(to int) {
		if to-from >= r.least {
			out = append(out, segment{from: max(from-r.padding, 0), to: min(to+r.padding, total)})
		}
		speaking, quiet = false, -1
	}
	for i, p := range probs {
		at := i * r.hop
		switch {
		case p >= r.start:
			if !speaking {
				speaking, from = true, at
			}
			quiet = -1
		case speaking && p < r.end:
			if quiet < 0 {
				quiet = at
			}
			if at-quiet >= r.silence {
				keep(quiet)
			}
		}
	}
	if speaking {
		if quiet < 0 {
			quiet = total
		}
		keep(quiet)
	}
	return joined(out)
}

// joined merges stretches whose paddings meet.
func joined(segs []segment) []segment {
	var out []segment
	for _, s := range segs {
		if n := len(out); n > 0 && s.from <= out[n-1].to {
			out[n-1].to = s.to
			continue
		}
		out = append(out, s)
	}
	return out
}

// describe is the result's text: "0.35-1.20 s, 1.50-2.90 s; speech 75 % of 3.0 s".
func describe(label string, segs []segment, total int) string {
	seconds := func(n int) float64 { return float64(n) / sampleRate }
	if len(segs) == 0 {
		return fmt.Sprintf("no %s in %.1f s", label, seconds(total))
	}
	var parts []string
	heard := 0
	for _, s := range segs {
		parts = append(parts, fmt.Sprintf("%.2f-%.2f s", seconds(s.from), seconds(s.to)))
		heard += s.to - s.from
	}
	return fmt.Sprintf("%s; %s %.0f %% of %.1f s", strings.Join(parts, ", "), label, 100*float64(heard)/float64(total), seconds(total))
}

// sureness is the mean probability of what was decided for each window.
func (r speechRule) sureness(probs []float32, segs []segment) float64 {
	var sum float64
	for i, p := range probs {
		middle := i*r.hop + r.hop/2
		heard := false
		for _, s := range segs {
			heard = heard || middle >= s.from && middle < s.to
		}
		if !heard {
			p = 1 - p
		}
		sum += float64(p)
	}
	return sum / float64(len(probs))
}

// mean is the mean probability inside a stretch.
func (r speechRule) mean(probs []float32, s segment) float64 {
	var sum float64
	n := 0
	for i, p := range probs {
		if middle := i*r.hop + r.hop/2; middle >= s.from && middle < s.to {
			sum += float64(p)
			n++
		}
	}
	return sum / float64(max(n, 1))
}
