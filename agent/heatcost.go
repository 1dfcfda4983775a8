package agent

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

const (
	// powerEvery is how often power is read while it is measured.
	powerEvery = 250 * time.Millisecond
	// settleShare of a window passes before it counts: sensors lag behind.
	settleShare = 0.5
	// leastWatts is what a variant must draw on top to be told from noise.
	leastWatts = 0.2
)

// fromCPU says that processor time stands for the heat.
const fromCPU = "cpu"

// measureHeat finds out what each variant of a candidate draws: the power of the
// box while it computes without pause, against that before and after. What is
// not seen above the noise is told as such. A box that is hot is not made hotter.
func (a *Agent) measureHeat(ctx context.Context, ref models.Ref, p *runnerapi.Probe) error {
	source := powerSource(a.sampler.Sensors())
	heat := runnerapi.Heat{}
	before := power{}
	if source != fromCPU && a.opts.HeatWindow > 0 && !a.eased.Load() {
		before = a.power(ctx, a.opts.HeatWindow)
	}
	var runs []exercise
	for _, v := range p.Variants {
		heat[v.Name] = runnerapi.VariantHeat{HeatFrom: fromCPU}
		if v.Skipped != "" || !before.known() || a.eased.Load() {
			continue
		}
		e, err := a.exercise(ctx, ref, v.Name)
		if err != nil {
			return err
		}
		runs = append(runs, e)
	}
	if len(runs) > 0 {
		after := a.power(ctx, a.opts.HeatWindow)
		for _, e := range runs {
			heat[e.variant] = e.heat(before, after, source)
		}
	}
	if len(heat) == 0 {
		return nil
	}
	vs, err := a.opts.Runner.SetHeat(ctx, ref, heat)
	if err == nil {
		p.Variants = vs
	}
	return err
}

// exercise is what one variant did while its power was read.
type exercise struct {
	variant string
	done    runnerapi.Exercised
	busy    power
}

func (a *Agent) exercise(ctx context.Context, ref models.Ref, variant string) (exercise, error) {
	e := exercise{variant: variant}
	wait, err := a.opts.Runner.Exercise(ctx, ref, runnerapi.Exercise{Variant: variant, Seconds: a.opts.HeatWindow.Seconds()})
	if err != nil {
		return e, err
	}
	e.busy = a.power(ctx, a.opts.HeatWindow)
	e.done, err = wait()
	return e, err
}

// heat is the power on top of the mean of before and after. Three standard errors
// of all of it must be less than that, else no sensor could tell.
func (e exercise) heat(before, after power, source string) runnerapi.VariantHeat {
	if !e.busy.known() || !after.known() || e.done.Items == 0 || e.done.Seconds <= 0 {
		return runnerapi.VariantHeat{HeatFrom: fromCPU}
	}
	watts := e.busy.mean() - (before.mean()+after.mean())/2
	noise := math.Sqrt(e.busy.variance() + (before.variance()+after.variance())/4)
	if watts < max(leastWatts, 3*noise) {
		return runnerapi.VariantHeat{HeatFrom: fromCPU}
	}
	return runnerapi.VariantHeat{Watts: watts, JoulesPerItem: watts * e.done.Seconds / float64(e.done.Items), HeatFrom: source}
}

// power is a series of readings in watts.
type power []float64

func (p power) known() bool { return len(p) >= 2 }

func (p power) mean() float64 {
	sum := 0.0
	for _, v := range p {
		sum += v
	}
	return sum / float64(len(p))
}

// variance is that of the mean.
func (p power) variance() float64 {
	mean, sum := p.mean(), 0.0
	for _, v := range p {
		sum += (v - mean) * (v - mean)
	}
	return sum / float64(len(p)-1) / float64(len(p))
}

// power reads the power of the box for so long. A counter of energy tells at each
// reading the mean since the one before, so nothing in between is missed.
func (a *Agent) power(ctx context.Context, window time.Duration) (p power) {
	tick := time.NewTicker(min(powerEvery, window/4))
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < window; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		readings, err := a.sampler.Read(ctx)
		if err != nil && errors.Is(err, ctx.Err()) {
			return nil
		}
		if float64(time.Since(began)) < settleShare*float64(window) {
			continue
		}
		for _, r := range readings {
			if r.Metric == string(sense.Power) {
				p = append(p, r.Value)
			}
		}
	}
	return p
}

// powerSource names the sensor that stands for the power of the box, or fromCPU.
func powerSource(sensors []sense.Sensor) string {
	for _, s := range sensors {
		if s.Metric != sense.Power || s.Label != "" {
			continue
		}
		switch {
		case strings.HasPrefix(s.Key, "rapl/"):
			return "rapl"
		case strings.Contains(s.Key, "ina3221"):
			return "ina3221"
		}
		return "board"
	}
	return fromCPU
}
