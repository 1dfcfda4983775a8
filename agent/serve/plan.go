package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

const (
	// minGain is what a batch must save of ONNX Runtime's CPU time per item to
	// be worth the larger memory: below it is noise of the measurement.
	minGain = 1.15
	// planRounds are measured of each size; the least counts.
	planRounds = 3
	// planBudget bounds the measurement of one model.
	planBudget = 3 * time.Second
	maxItems   = 32
)

var errNoAxes = errors.New("the model has no free dimension to put requests together along")

// measureBatches finds along which axes requests can share a run, proves it
// with the golden samples, and measures what that saves. The result is in
// p.Batches, and in the plan when there is a gain.
func (v *version) measureBatches(ctx context.Context, golden models.Golden, p *runnerapi.Probe) (batching, error) {
	w, err := v.worker(ctx)
	if err != nil {
		return batching{}, err
	}
	b, err := findAxes(ctx, w, golden)
	if err != nil {
		return batching{}, err
	}
	began := time.Now()
	for size := 1; size <= maxItems && time.Since(began) < planBudget; size *= 2 {
		least := time.Duration(-1)
		for range planRounds {
			cost, err := w.Run(ctx, &worker.Batch{Requests: sample(golden, size), Axes: b.Axes})
			if err != nil {
				return batching{}, fmt.Errorf("measure a batch of %d: %w", size, err)
			}
			if least < 0 || cost.CPU < least {
				least = cost.CPU
			}
		}
		p.Batches = append(p.Batches, runnerapi.BatchCost{Items: size, CPUSecondsPerItem: least.Seconds() / float64(size)})
	}
	p.MaxBatch = worthwhile(p.Batches)
	if p.MaxBatch == 0 {
		return batching{}, nil
	}
	b.MaxItems = int64(p.MaxBatch)
	return b, nil
}

// worthwhile is the size of batches that saves most, 0 when none saves enough.
// A larger one costs latency too, so it must be clearly better.
func worthwhile(costs []runnerapi.BatchCost) int {
	const clearly = 0.97
	size, best := 0, 0.0
	for i, c := range costs {
		switch {
		case i == 0:
			best = c.CPUSecondsPerItem / minGain / clearly
		case c.CPUSecondsPerItem <= best*clearly:
			size, best = c.Items, c.CPUSecondsPerItem
		}
	}
	return size
}

// sample is a batch of n golden inputs, in turn.
func sample(golden models.Golden, n int) []*worker.Request {
	var all []*worker.Request
	for i := range n {
		all = append(all, &worker.Request{In: goldenInputs(golden.Cases[i%len(golden.Cases)])})
	}
	return all
}

// findAxes guesses the axes and proves them: the inputs' are their first free
// dimensions, the outputs' those that double with two requests. Every output
// must then be what it is alone.
func findAxes(ctx context.Context, w *worker.Worker, golden models.Golden) (batching, error) {
	sig := w.Signature()
	b := batching{}
	found := false
	for _, in := range sig.Inputs {
		axis := -1
		for i, d := range in.Shape {
			if d < 0 {
				axis, found = i, true
				break
			}
		}
		if in.DType == models.BYTES {
			return b, fmt.Errorf("input %q is BYTES", in.Name)
		}
		b.Axes.In = append(b.Axes.In, axis)
	}
	if !found {
		return b, errNoAxes
	}
	one, other := sample(golden, 2)[0], sample(golden, 2)[1]
	alone := sample(golden, 1)[0]
	if err := errors.Join(w.Check(one), w.Check(other)); err != nil {
		return b, err
	}
	if !b.Axes.Fits(one, other) {
		other = sample(golden, 1)[0]
	}
	// Without axes for outputs the first run gives all of them to each request.
	b.Axes.Out = make([]int, len(sig.Outputs))
	for i := range b.Axes.Out {
		b.Axes.Out[i] = -1
	}
	if _, err := w.Run(ctx, &worker.Batch{Requests: []*worker.Request{alone}}); err != nil {
		return b, err
	}
	if _, err := w.Run(ctx, &worker.Batch{Requests: []*worker.Request{one, other}, Axes: b.Axes}); err != nil {
		return b, fmt.Errorf("two requests together: %w", err)
	}
	for i, o := range one.Out {
		if sig.Outputs[i].DType == models.BYTES {
			return b, fmt.Errorf("output %q is BYTES", o.Name)
		}
		axis, err := doubled(alone.Out[i].Shape, o.Shape)
		if err != nil {
			return b, fmt.Errorf("output %q: %w", o.Name, err)
		}
		b.Axes.Out[i] = axis
	}
	return b, provesAxes(ctx, w, golden, b.Axes)
}

// doubled is the one dimension that two items make twice as long as one.
func doubled(one, two []int64) (int, error) {
	axis := -1
	for i := range one {
		if len(one) == len(two) && two[i] == one[i] {
			continue
		}
		if len(one) != len(two) || axis >= 0 || two[i] != 2*one[i] {
			axis = -1
			break
		}
		axis = i
	}
	if axis < 0 {
		return 0, fmt.Errorf("shape is %v for one request and %v for two", one, two)
	}
	return axis, nil
}

// provesAxes compares the parts of a batch with the golden outputs.
func provesAxes(ctx context.Context, w *worker.Worker, golden models.Golden, axes worker.Axes) error {
	const size = 3 // odd, so that a swap of two halves shows
	all := sample(golden, size)
	for _, r := range all {
		if err := w.Check(r); err != nil {
			return err
		}
		if !axes.Fits(all[0], r) {
			return nil // cases of several shapes: two of one shape have run
		}
	}
	if _, err := w.Run(ctx, &worker.Batch{Requests: all, Axes: axes}); err != nil {
		return fmt.Errorf("%d requests together: %w", size, err)
	}
	for i, r := range all {
		c := golden.Cases[i%len(golden.Cases)]
		for _, want := range c.Outputs {
			for _, got := range r.Out {
				if got.Name != want.Name {
					continue
				}
				spec := models.TensorSpec{Name: got.Name, DType: got.DType, Shape: got.Shape}
				if err := want.Check(spec, got.Data); err != nil {
					return fmt.Errorf("%d requests together, golden case %q: %w", size, c.Name, err)
				}
			}
		}
	}
	return nil
}
