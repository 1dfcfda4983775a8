package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// Probe loads a candidate beside what serves, runs its golden samples and
// measures it. One that passes stays warm for the switch; one that fails is
// unloaded. Fault and measurement are in the answer, never an error.
func (s *Server) Probe(ctx context.Context, ref models.Ref) runnerapi.Probe {
	p := runnerapi.Probe{Ref: ref}
	s.dropCandidates(func(v *version) bool { return v.ref.Name == ref.Name && v.ref.Digest != ref.Digest })
	v, err := s.load(ctx, ref, s.blobs())
	if err != nil {
		p.Err, p.Damaged = err.Error(), errors.Is(err, errDamaged)
		return p
	}
	if !v.acquire() {
		p.Err = fmt.Sprintf("model %s was unloaded while it was probed", ref)
		return p
	}
	defer v.release()
	if !v.best(ctx) {
		p.Err = fmt.Sprintf("the best variant of model %s did not serve in time to be probed", ref)
		return p
	}
	defer v.endProbe()
	v.mu.Lock()
	p.LoadSeconds = v.loadTime.Seconds()
	v.mu.Unlock()
	err = v.prove(ctx, &p)
	if u, usageErr := v.usage(); usageErr == nil {
		p.PeakRSSBytes = u.PeakRSSBytes
	}
	if err != nil {
		p.Err = err.Error()
		s.dropCandidates(func(o *version) bool { return o == v })
		return p
	}
	p.OK = true
	return p
}

// drop unloads a candidate. A version that serves, or is not there, stays.
func (s *Server) drop(digest blob.Digest) {
	s.dropCandidates(func(v *version) bool { return v.ref.Digest == digest })
}

func (s *Server) dropCandidates(match func(*version) bool) {
	// A switch that is under way may be about to use the candidate.
	s.switching.Lock()
	defer s.switching.Unlock()
	t := s.table.Load()
	for _, v := range s.known() {
		if match(v) && !t.serves(v) {
			s.forget(v)
		}
	}
}

// known lists loaded and loading versions by name and version.
func (s *Server) known() []*version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.versions), func(a, b *version) int {
		return cmp.Or(cmp.Compare(a.ref.Name, b.ref.Name), cmp.Compare(a.ref.Version, b.ref.Version))
	})
}

// blobs is the store that active.json names.
func (s *Server) blobs() string {
	var active runnerapi.Active
	journal := durable.Journal{Path: s.opts.Active, Version: runnerapi.ActiveVersion}
	if found, err := journal.Load(&active); err == nil && found && active.Blobs != "" {
		return active.Blobs
	}
	return s.blobsBeside()
}

// prove runs the golden samples. A model without any passes untried.
func (v *version) prove(ctx context.Context, p *runnerapi.Probe) error {
	if v.isOpenAI() {
		return v.provePrompts(ctx, p)
	}
	path, err := v.source.path(models.GoldenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	golden, err := models.ReadGolden(path)
	if err != nil {
		return err
	}
	p.GoldenTotal = len(golden.Cases)
	if err := golden.Fits(v.signature()); err != nil {
		return err
	}
	// The first inference allocates and is not what the model costs.
	if _, err := v.infer(ctx, &call{inputs: goldenInputs(golden.Cases[0])}); err != nil {
		return fmt.Errorf("golden case %q: %w", golden.Cases[0].Name, err)
	}
	here := golden.For(v.hardware())
	var faults []error
	took := make([]time.Duration, 0, len(golden.Cases))
	for _, c := range here.Cases {
		began := time.Now()
		err := v.answers(ctx, c)
		took = append(took, time.Since(began))
		if err != nil {
			faults = append(faults, fmt.Errorf("golden case %q: %w", c.Name, err))
		}
	}
	if err := verdict(p, took, faults, "golden cases"); err != nil {
		return err
	}
	if v.ext == nil {
		v.measure(ctx, golden, p)
	}
	return nil
}

// verdict sums up the samples of a kind, at least one: what each took, and the
// faults of those that failed.
func verdict(p *runnerapi.Probe, took []time.Duration, faults []error, kind string) error {
	p.GoldenPassed = p.GoldenTotal - len(faults)
	slices.Sort(took)
	p.SecondsPerItem = took[len(took)/2].Seconds()
	if len(faults) > 0 {
		return fmt.Errorf("%d of %d %s fail, the first: %w", len(faults), p.GoldenTotal, kind, faults[0])
	}
	return nil
}

// measure finds out what a batch saves and what memory the model needs, and
// keeps it. A model that takes no batches is as good as any other.
func (v *version) measure(ctx context.Context, golden models.Golden, p *runnerapi.Probe) {
	plan, err := v.measureBatches(ctx, golden.For(v.hardware()), p)
	if err != nil {
		v.log.Info("requests for the model are not put together", "err", err)
	}
	v.queue.set(plan)
	u, err := v.usage()
	if err != nil {
		return // the worker has died, which the caller learns from elsewhere
	}
	rungs := v.measureLadder(ctx, golden)
	p.Variants = rungs
	v.mu.Lock()
	opts := v.opts
	v.rungs, v.plans[0] = rungs, plan
	v.mu.Unlock()
	r, _ := v.measured.read(opts)
	r.Model, r.Batching, r.DataBytes, r.Ladder = v.ref.Digest, plan, u.DataBytes, rungs
	if err := v.measured.write(opts, r); err != nil {
		v.log.Warn("the model will be measured again", "err", err)
	}
}

// hardware is what the version computes on now.
func (v *version) hardware() models.Hardware {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.w == nil {
		return models.Hardware{}
	}
	return hardwareOf(v.w)
}

func hardwareOf(w *worker.Worker) models.Hardware {
	return models.Hardware{Provider: w.Runtime().Provider, Arch: runtime.GOARCH}
}

// answers runs one case and compares its outputs.
func (v *version) answers(ctx context.Context, c models.GoldenCase) error {
	ask := call{inputs: goldenInputs(c)}
	for _, w := range c.Outputs {
		ask.outputs = append(ask.outputs, wanted{name: w.Name})
	}
	out, err := v.infer(ctx, &ask)
	if err != nil {
		return err
	}
	return isRight(c, out)
}

func goldenInputs(c models.GoldenCase) []worker.Tensor {
	var in []worker.Tensor
	for _, g := range c.Inputs {
		in = append(in, worker.Tensor{Name: g.Name, DType: g.DType, Shape: g.Shape, Data: g.Data})
	}
	return in
}

func goldenOutputs(c models.GoldenCase) (names []string) {
	for _, o := range c.Outputs {
		names = append(names, o.Name)
	}
	return names
}
