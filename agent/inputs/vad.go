package inputs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// How Silero VAD 5 and 6 are called at 16 kHz (silero_vad/utils_vad.py): windows
// of 512 samples with the last 64 of the window before, and a state handed on.
const (
	vadWindow  = 512
	vadContext = 64
	vadState   = 2 * 1 * 128
)

// The rules of its get_speech_timestamps, in its default values.
const (
	speechStart   = 0.5
	speechEnd     = 0.35
	minSpeech     = 250 * sampleRate / 1000 // samples
	minSilence    = 100 * sampleRate / 1000
	speechPadding = 30 * sampleRate / 1000
)

// segment is a stretch of speech, in samples.
type segment struct{ from, to int }

// errSwitched: another version of the model answered in the middle of a clip;
// the state handed on means nothing to it.
var errSwitched = errors.New("model was switched in the middle of a clip")

// voiceActivity tells when somebody speaks in a clip.
type voiceActivity struct{ infer Infer }

func (v *voiceActivity) read(ctx context.Context, clip []float32) (reading, error) {
	probs, by, err := v.probabilities(ctx, clip)
	if errors.Is(err, errSwitched) {
		probs, by, err = v.probabilities(ctx, clip)
	}
	if err != nil {
		return reading{}, err
	}
	out := reading{models: []string{by.String()}}
	segs := segments(probs, len(clip))
	out.text = describe(segs, len(clip))
	out.score = sureness(probs, segs)
	return out, nil
}

// probabilities returns how likely each window is speech.
func (v *voiceActivity) probabilities(ctx context.Context, clip []float32) ([]float32, models.Ref, error) {
	var by models.Ref
	if len(clip) == 0 {
		return nil, by, errors.New("clip is empty")
	}
	probs := make([]float32, 0, len(clip)/vadWindow+1)
	state := worker.Tensor{Name: "state", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: make([]byte, 4*vadState)}
	for at := 0; at < len(clip); at += vadWindow {
		outs, ref, err := v.infer(ctx, vadModel, vadInputs(clip, at, state))
		if err != nil {
			return nil, by, fmt.Errorf("run %s: %w", vadModel, err)
		}
		if at > 0 && ref != by {
			return nil, by, fmt.Errorf("%w: %s and %s", errSwitched, by, ref)
		}
		by = ref
		p, next, err := vadOutputs(outs)
		if err != nil {
			return nil, by, fmt.Errorf("use answer of %s: %w", by, err)
		}
		probs = append(probs, p)
		state.Data = next
	}
	return probs, by, nil
}

// vadInputs builds the call for the window that starts at sample at; what lies
// outside the clip is silence.
func vadInputs(clip []float32, at int, state worker.Tensor) []worker.Tensor {
	data := make([]byte, 4*(vadContext+vadWindow))
	for i := range vadContext + vadWindow {
		if k := at - vadContext + i; k >= 0 && k < len(clip) {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(clip[k]))
		}
	}
	return []worker.Tensor{
		{Name: "input", DType: models.FP32, Shape: []int64{1, vadContext + vadWindow}, Data: data},
		state,
		{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: binary.LittleEndian.AppendUint64(nil, sampleRate)},
	}
}

func vadOutputs(outs []worker.Tensor) (p float32, state []byte, err error) {
	found := false
	for _, t := range outs {
		switch t.Name {
		case "output":
			v, err := floats(t)
			if err != nil || len(v) != 1 || !(v[0] >= 0 && v[0] <= 1) {
				return 0, nil, fmt.Errorf("output is %v%v %v, want one probability", t.DType, t.Shape, v)
			}
			p, found = v[0], true
		case "stateN":
			state = t.Data
		}
	}
	if !found || len(state) != 4*vadState {
		return 0, nil, fmt.Errorf("%d outputs without a probability and a state of %d numbers", len(outs), vadState)
	}
	return p, state, nil
}

// segments turns window probabilities into stretches of speech within total
// samples: it starts above speechStart and ends after minSilence below
// speechEnd; stretches shorter than minSpeech are dropped.
func segments(probs []float32, total int) []segment {
	var out []segment
	speaking, from, quiet := false, 0, -1 // quiet: where the pause began, -1 for none
	keep := func(to int) {
		if to-from >= minSpeech {
			out = append(out, segment{max(from-speechPadding, 0), min(to+speechPadding, total)})
		}
		speaking, quiet = false, -1
	}
	for i, p := range probs {
		at := i * vadWindow
		switch {
		case p >= speechStart:
			if !speaking {
				speaking, from = true, at
			}
			quiet = -1
		case speaking && p < speechEnd:
			if quiet < 0 {
				quiet = at
			}
			if at-quiet >= minSilence {
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
func describe(segs []segment, total int) string {
	seconds := func(n int) float64 { return float64(n) / sampleRate }
	if len(segs) == 0 {
		return fmt.Sprintf("no speech in %.1f s", seconds(total))
	}
	var parts []string
	speech := 0
	for _, s := range segs {
		parts = append(parts, fmt.Sprintf("%.2f-%.2f s", seconds(s.from), seconds(s.to)))
		speech += s.to - s.from
	}
	return fmt.Sprintf("%s; speech %.0f %% of %.1f s", strings.Join(parts, ", "), 100*float64(speech)/float64(total), seconds(total))
}

// sureness is the mean probability of what was decided for each window.
func sureness(probs []float32, segs []segment) float64 {
	var sum float64
	for i, p := range probs {
		middle := i*vadWindow + vadWindow/2
		speech := false
		for _, s := range segs {
			speech = speech || middle >= s.from && middle < s.to
		}
		if !speech {
			p = 1 - p
		}
		sum += float64(p)
	}
	return sum / float64(len(probs))
}
