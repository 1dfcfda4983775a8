package api

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The two metrics that no box sends: they are computed from what it does send.
const (
	metricLatency    = "inference_latency_seconds"
	metricResistance = "thermal_resistance_kelvin_per_watt"
)

const (
	chartSpan  = time.Hour                // shown when nothing is asked for
	chartExact = 31 * 24 * time.Hour      // longer ones are made of hourly values
	chartMost  = 3 * 366 * 24 * time.Hour // one question reads at most this much
	maxMarks   = 500
	// minPowerWatts below which a resistance is a quotient of noise.
	minPowerWatts = 1
)

type seriesInput struct {
	ID      string    `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
	Metrics []string  `query:"metrics" required:"true" minItems:"1" maxItems:"16" doc:"names, joined by commas" example:"[\"temp_die_celsius\"]"`
	From    time.Time `query:"from" doc:"RFC 3339; default an hour before to"`
	To      time.Time `query:"to" doc:"RFC 3339; default now"`
	Points  int       `query:"points" minimum:"2" maximum:"2000" default:"400" doc:"about how many buckets"`
}

func (a *API) boxSeries(ctx context.Context, in *seriesInput) (fleetapi.SeriesReply, error) {
	if err := a.mustKnow(ctx, in.ID); err != nil {
		return fleetapi.SeriesReply{}, err
	}
	from, to, err := a.chartTimes(in.From, in.To)
	if err != nil {
		return fleetapi.SeriesReply{}, err
	}
	id, hourly := identity.ID(in.ID), a.byHours(from, to)
	unit := time.Second
	if hourly {
		unit = time.Hour
	}
	w := series.NewWindow(from, to, in.Points, unit)
	if hourly { // a rollup is of a whole hour
		w = w.Whole()
	}
	curves := make([]store.Curve, len(in.Metrics))
	for i, m := range in.Metrics {
		curves[i] = curve(m)
	}
	points, err := a.opts.Store.Chart(ctx, id, w, curves, hourly)
	if err != nil {
		return fleetapi.SeriesReply{}, err
	}
	out := fleetapi.SeriesReply{Series: []fleetapi.Series{}}
	for i, m := range in.Metrics {
		if m == metricLatency {
			b := w.Buckets()
			if err := a.opts.Store.Latencies(ctx, id, from, to, func(s store.Sample) { b.Add([]int64{s.UnixMs}, []float64{s.Value}) }); err != nil {
				return fleetapi.SeriesReply{}, err
			}
			points[i] = b.Points()
		}
		s := fleetapi.Series{Metric: m, From: from, To: to, StepSeconds: float64(w.StepMs) / 1000, Hourly: hourly && m != metricLatency, Points: []fleetapi.Point{}}
		for _, p := range points[i] {
			s.Points = append(s.Points, fleetapi.Point{UnixMs: p.StartMs, Min: p.Min, Median: p.Median, Max: p.Max, N: p.N})
		}
		out.Series = append(out.Series, s)
	}
	out.Marks, err = a.marks(ctx, id, from, to)
	return out, err
}

// byHours says whether a chart is made of hourly values: when it is long, or
// begins before the time of which samples are left.
func (a *API) byHours(from, to time.Time) bool {
	kept := a.opts.SamplesFor
	return to.Sub(from) > chartExact || kept > 0 && from.Before(a.opts.WallClock().Add(-kept))
}

// curve is how a metric is read; metricLatency is not among the samples.
func curve(metric string) store.Curve {
	if metric == metricResistance {
		return store.Curve{Metrics: []string{"temp_die_celsius", "temp_inlet_celsius", "power_watts"}, Of: resistance}
	}
	return store.Curve{Metrics: []string{metric}}
}

// chartTimes fills in the defaults and bounds what is read.
func (a *API) chartTimes(from, to time.Time) (time.Time, time.Time, error) {
	if to.IsZero() {
		to = a.opts.WallClock()
	}
	if from.IsZero() {
		from = to.Add(-chartSpan)
	}
	switch {
	case !from.Before(to):
		return from, to, badRequest("", "from %s is not before to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	case to.Sub(from) > chartMost:
		return from, to, badRequest(fmt.Sprintf("Ask for at most %d days at once.", int(chartMost.Hours())/24), "the time from %s to %s is too long", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return from.UTC(), to.UTC(), nil
}

// resistance is how much warmer than its air a die is for each watt. Rows
// that lack a value or power stay empty.
func resistance(columns [][]float64) []float64 {
	die, inlet, power := columns[0], columns[1], columns[2]
	if die == nil || inlet == nil || power == nil {
		return nil
	}
	out := make([]float64, len(die))
	for i := range die {
		out[i] = math.NaN()
		if power[i] >= minPowerWatts {
			out[i] = (die[i] - inlet[i]) / power[i]
		}
	}
	return out
}

// marks are the events of a chart's time, oldest first.
func (a *API) marks(ctx context.Context, id identity.ID, from, to time.Time) ([]fleetapi.Mark, error) {
	events, err := a.opts.Store.Events(ctx, id, from, to, maxMarks)
	if err != nil {
		return nil, err
	}
	out := make([]fleetapi.Mark, 0, len(events))
	for _, e := range slices.Backward(events) {
		if e.Type != wire.EventRunning { // the phase before it says the same
			out = append(out, fleetapi.Mark{UnixMs: e.Time.UnixMilli(), Type: e.Type, Text: e.Text})
		}
	}
	return out, nil
}
