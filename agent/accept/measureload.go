package accept

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

const (
	callers    = 2                // at once: one runs while the other's tensors travel
	answerWait = 30 * time.Second // for one inference
	// The load ends at this many K above where the die throttles, or at 100 °C:
	// firmware that does not protect the box is no reason to cook it.
	aboveLimit  = 3
	plainStop   = 100
	leastTick   = 250 * time.Millisecond
	mostTick    = 5 * time.Second
	curvePoints = 240
)

// models are what serves and shall be tried: all, or the one that was named.
func (t *test) models(ctx context.Context) (found []models.Ref, runner bool) {
	s, ok := t.status(ctx)
	for _, m := range s.Models {
		if m.State == runnerapi.ModelReady && (t.opts.Model == "" || t.opts.Model == m.Name || t.opts.Model == m.Name+":"+m.Version) {
			found = append(found, m.Ref)
		}
	}
	return found, ok
}

// tryAnswers has the runner run the known samples of models that serve.
func (t *test) tryAnswers(ctx context.Context, refs []models.Ref) (out []answers) {
	for i, ref := range refs {
		t.tell(Event{Level: t.level, Step: "golden", Done: float64(i) / float64(len(refs))})
		a := answers{model: ref.Name + ":" + ref.Version}
		p, err := t.opts.Runner.Probe(ctx, ref)
		switch {
		case ctx.Err() != nil:
			return out
		case err != nil:
			a.err = err.Error()
		default:
			a.passed, a.total, a.err = p.GoldenPassed, p.GoldenTotal, p.Err
		}
		out = append(out, a)
	}
	return out
}

// samples reads the known samples of a model from the box's own store.
func (t *test) samples(ref models.Ref) (models.Golden, error) {
	blobs, err := blob.Open(filepath.Join(t.opts.State, "blobs"))
	if err != nil {
		return models.Golden{}, err
	}
	envelope, err := blobs.ReadAll(ref.Digest, trust.MaxEnvelopeBytes)
	if err != nil {
		return models.Golden{}, fmt.Errorf("read manifest of %s: %w", ref, err)
	}
	payload, err := t.opts.Identity.Keyring.OpenListed(trust.TypeModel, envelope) // it serves, so it was allowed
	if err != nil {
		return models.Golden{}, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	m, err := models.DecodeManifest(payload)
	if err != nil {
		return models.Golden{}, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	f, ok := m.File(models.GoldenFile)
	if !ok {
		return models.Golden{}, errors.New("the model has no known samples")
	}
	return models.ReadGolden(blobs.Path(f.Digest))
}

// sustain runs one model without a pause and records heat and speed.
func (t *test) sustain(ctx context.Context, refs []models.Ref) (l loaded, curve curve) {
	l.wanted = t.opts.LoadFor
	var golden models.Golden
	err := errors.New("no model serves")
	var ref models.Ref
	for _, ref = range refs {
		if golden, err = t.samples(ref); err == nil {
			break
		}
	}
	if err != nil {
		if len(refs) > 0 {
			l.model, l.fault = ref.Name+":"+ref.Version, err.Error()
		}
		return l, curve
	}
	l.model = ref.Name + ":" + ref.Version
	ctx, stop := context.WithTimeout(ctx, t.opts.LoadFor)
	defer stop()
	var count counter
	var work sync.WaitGroup
	for range callers {
		work.Go(func() { t.call(ctx, ref, golden, &count) })
	}
	t.watch(ctx, stop, &count, &l, &curve)
	stop()
	work.Wait()
	l.runs, l.wrong, l.fault, l.p95 = count.runs, count.wrong, count.fault, count.quantile(0.95)
	l.early, l.late = curve.pace()
	return l, curve
}

// call asks again and again until ctx is done.
func (t *test) call(ctx context.Context, ref models.Ref, golden models.Golden, count *counter) {
	best := ""
	for i := 0; ctx.Err() == nil; i++ {
		c := golden.Cases[i%len(golden.Cases)]
		one, stop := context.WithTimeout(ctx, answerWait)
		began := time.Now()
		got, err := t.opts.Runner.Infer(one, ref, c.Inputs)
		took := time.Since(began)
		stop()
		if ctx.Err() != nil {
			return // cut short by the end of the load
		}
		if i == 0 {
			best = got.Variant
		}
		// Of a hot box another variant may answer, with tolerances of its own.
		if err == nil && got.Variant == best {
			err = right(c, got)
		}
		count.note(took, err)
		if err != nil && !wait(ctx, 100*time.Millisecond) { // a runner that is gone is not asked in a loop
			return
		}
	}
}

func right(c models.GoldenCase, got runnerapi.Inferred) error {
	for _, want := range c.Outputs {
		i := slices.IndexFunc(got.Outputs, func(o runnerapi.Output) bool { return o.Name == want.Name })
		if i < 0 {
			return fmt.Errorf("case %q: output %q is missing", c.Name, want.Name)
		}
		if err := want.Check(got.Outputs[i].TensorSpec, got.Outputs[i].Data); err != nil {
			return fmt.Errorf("case %q: %w", c.Name, err)
		}
	}
	return nil
}

// watch reads the sensors until ctx is done, and ends the load when it is too hot.
func (t *test) watch(ctx context.Context, stop func(), count *counter, l *loaded, curve *curve) {
	began := time.Now()
	defer func() { l.took = time.Since(began) }()
	tick := time.NewTicker(min(max(t.opts.LoadFor/curvePoints, leastTick), mostTick))
	defer tick.Stop()
	limit, known := t.sampler.DieLimitCelsius()
	if limit += aboveLimit; !known {
		limit = plainStop
	}
	var throttled []float64
	last, lastRuns := began, 0
	for {
		select {
		case <-ctx.Done():
			if len(throttled) > 0 {
				share := 0.0
				for _, v := range throttled {
					share += v / float64(len(throttled))
				}
				l.throttled = &share
			}
			return
		case <-tick.C:
		}
		readings, _ := t.sampler.Read(context.WithoutCancel(ctx)) // the last read counts as well
		now, runs := time.Now(), count.so()
		p := point{at: now.Sub(began), rate: float64(runs-lastRuns) / now.Sub(last).Seconds()}
		last, lastRuns = now, runs
		for _, r := range readings {
			switch name, _, _ := strings.Cut(r.Metric, "{"); {
			case r.Metric == string(sense.TempDie):
				p.die = &r.Value
				if l.dieMax == nil || r.Value > *l.dieMax {
					l.dieMax = &r.Value
				}
			case r.Metric == string(sense.TempInlet):
				p.inlet = &r.Value
			case r.Metric == string(sense.Power):
				p.power = &r.Value
			case r.Metric == string(sense.Throttled):
				throttled = append(throttled, r.Value)
			case sense.Metric(name) == sense.FanRPM && p.fan == nil:
				p.fan = &r.Value
			}
		}
		curve.add(p)
		t.tell(Event{Level: t.level, Step: "inference", Done: p.at.Seconds() / t.opts.LoadFor.Seconds(), Die: p.die, Rate: p.rate})
		if p.die != nil && *p.die >= limit {
			l.stoppedAt = *p.die
			stop()
		}
	}
}

// counter counts inferences and how long they took, in steps of 2 %.
type counter struct {
	mu          sync.Mutex // guards the fields below
	runs, wrong int
	fault       string
	steps       map[int]int
}

const stepRatio = 1.02

func (c *counter) note(took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	if err != nil {
		c.wrong++
		if c.fault == "" {
			c.fault = err.Error()
		}
		return
	}
	if c.steps == nil {
		c.steps = map[int]int{}
	}
	c.steps[int(math.Log(max(1, float64(took.Microseconds())))/math.Log(stepRatio))]++
}

func (c *counter) so() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs - c.wrong
}

// quantile is the time that the share q of the right answers took at most.
func (c *counter) quantile(q float64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var keys []int
	for k := range c.steps {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	seen := 0
	for _, k := range keys {
		if seen += c.steps[k]; float64(seen) >= q*float64(c.runs-c.wrong) {
			return time.Duration(math.Pow(stepRatio, float64(k+1)) * float64(time.Microsecond))
		}
	}
	return 0
}

// point is the box at one moment under load.
type point struct {
	at                     time.Duration
	die, inlet, fan, power *float64
	rate                   float64 // inferences/s since the point before
}

type curve struct{ points []point }

func (c *curve) add(p point) {
	if len(c.points) < acceptance.MaxPoints {
		c.points = append(c.points, p)
	}
}

// pace is the speed of the second and of the last quarter: the first warms up.
func (c *curve) pace() (early, late float64) {
	n := len(c.points) / 4
	if n == 0 {
		return 0, 0
	}
	for i := range n {
		early += c.points[n+i].rate / float64(n)
		late += c.points[len(c.points)-n+i].rate / float64(n)
	}
	return early, late
}

// series are the curve as a report has it; what was never read is left out.
func (c *curve) series() (seconds []float64, out []acceptance.Course) {
	round := func(x float64) float64 { return math.Round(x*100) / 100 }
	for _, p := range c.points {
		seconds = append(seconds, round(p.at.Seconds()))
	}
	for _, s := range []struct {
		name, unit string
		of         func(point) *float64
	}{
		{"die", "°C", func(p point) *float64 { return p.die }},
		{"inlet", "°C", func(p point) *float64 { return p.inlet }},
		{"fan", "rpm", func(p point) *float64 { return p.fan }},
		{"power", "W", func(p point) *float64 { return p.power }},
		{"inference", "1/s", func(p point) *float64 { return &p.rate }},
	} {
		values, any := make([]*float64, len(c.points)), false
		for i, p := range c.points {
			if v := s.of(p); v != nil {
				r := round(*v)
				values[i], any = &r, true
			}
		}
		if any {
			out = append(out, acceptance.Course{Name: s.name, Unit: s.unit, Values: values})
		}
	}
	return seconds, out
}
