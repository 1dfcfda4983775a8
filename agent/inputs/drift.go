package inputs

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// maxSketches bounds what is sketched at once: inputs times versions.
const maxSketches = 256

// sketchKey names a sketch: an input, a model version, an hour of UTC.
type sketchKey struct {
	hour         int64 // Unix time of its start
	input, model string
}

// sketches counts what models see and answer until it is time to send it.
type sketches struct {
	mu  sync.Mutex // guards all below
	all map[sketchKey]*drift.Sketch
}

// look counts one item, at the time now.
func (s *sketches) look(now time.Time, input string, frame *pipeline.Frame, r pipeline.Reading) {
	var brightness, sharpness float64
	if frame != nil {
		brightness, sharpness = frame.Look()
	}
	hour := now.Truncate(time.Hour).Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[sketchKey]*drift.Sketch{}
	}
	for _, model := range r.Models {
		key := sketchKey{hour, input, model}
		sk := s.all[key]
		if sk == nil {
			if len(s.all) >= maxSketches {
				continue
			}
			sk = &drift.Sketch{}
			s.all[key] = sk
		}
		sk.Item(len(r.Findings))
		if frame != nil {
			sk.Frame(brightness, sharpness)
		}
		for _, o := range r.Seen {
			if o.By.String() == model {
				sk.Answer(o.Score, o.Entropy, o.Class)
			}
		}
	}
}

// take empties the sketches into results.
func (s *sketches) take(now time.Time) []runnerapi.Result {
	s.mu.Lock()
	all := s.all
	s.all = nil
	s.mu.Unlock()
	var out []runnerapi.Result
	for key, sk := range all {
		out = append(out, runnerapi.Result{
			UnixMs: now.UnixMilli(), Input: key.input, Pipeline: drift.Pipeline,
			Item: time.Unix(key.hour, 0).UTC().Format(drift.HourLayout), Text: sk.Text(), Models: []string{key.model},
		})
	}
	slices.SortFunc(out, func(a, b runnerapi.Result) int {
		return cmp.Or(cmp.Compare(a.Item, b.Item), cmp.Compare(a.Input, b.Input), cmp.Compare(a.Models[0], b.Models[0]))
	})
	return out
}
