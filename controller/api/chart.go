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
	chartSpan = time.Hour           // shown when nothing is asked for
	chartMost = 31 * 24 * time.Hour // one question reads at most this much
	maxMarks  = 500
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
	id, w := identity.ID(in.ID), series.NewWindow(from, to, in.Points)
	buckets := map[string]*series.Buckets{}
	for _, m := range in.Metrics {
		buckets[m] = w.Buckets()
	}
	if b := buckets[metricLatency]; b != nil {
		if err := a.opts.Store.Latencies(ctx, id, from, to, func(s store.Sample) { b.Add(s.UnixMs, s.Value) }); err != nil {
			return fleetapi.SeriesReply{}, err
		}
	}
	if err := a.opts.Store.Samples(ctx, id, from, to, func(startMs int64, s wire.Samples) error {
		collect(buckets, startMs, s)
		return ctx.Err()
	}); err != nil {
		return fleetapi.SeriesReply{}, err
	}
	out := fleetapi.SeriesReply{Series: []fleetapi.Series{}}
	for _, m := range in.Metrics {
		out.Series = append(out.Series, chart(m, from, to, w, buckets[m]))
	}
	out.Marks, err = a.marks(ctx, id, from, to)
	return out, err
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

// collect puts one block of samples into the buckets that ask for its metrics.
func collect(buckets map[string]*series.Buckets, startMs int64, s wire.Samples) {
	column := func(name string) []float64 {
		i := slices.IndexFunc(s.Schema.Metrics, func(m wire.Metric) bool { return m.Name == name })
		if i < 0 {
			return nil
		}
		return s.Values[i]
	}
	for name, b := range buckets {
		values := column(name)
		if name == metricResistance {
			values = resistance(column("temp_die_celsius"), column("temp_inlet_celsius"), column("power_watts"))
		}
		for row, v := range values {
			b.Add(startMs+s.TimesMs[row], v)
		}
	}
}

// resistance is how much warmer than its air a die is for each watt. Rows
// that lack a value or power stay empty.
func resistance(die, inlet, power []float64) []float64 {
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

func chart(metric string, from, to time.Time, w series.Window, b *series.Buckets) fleetapi.Series {
	s := fleetapi.Series{Metric: metric, From: from, To: to, StepSeconds: float64(w.StepMs) / 1000, Points: []fleetapi.Point{}}
	for _, p := range b.Points() {
		s.Points = append(s.Points, fleetapi.Point{UnixMs: p.StartMs, Min: p.Min, Median: p.Median, Max: p.Max, N: p.N})
	}
	return s
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
