package sense

import (
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/health"
)

// plainRoles are the figures of internal/health that have a metric of their own.
var plainRoles = map[string]health.Field{
	string(TempDie): health.Die, string(TempInlet): health.Inlet, string(TempBoard): health.Board,
	string(TempSSD): health.NVMe, string(TempExhaust): health.Exhaust, string(TempRoom): health.Room,
	string(Power): health.Power, string(FanDuty): health.PWM, string(Throttled): health.Throttled,
	string(CPUFreq): health.Clock, string(CPUBusy): health.Busy,
}

// Figures sorts the readings of one Read by what they stand for. What was not
// read, and what cannot be true, is missing. Fans keep their number for as long
// as the Sampler's StateDir is kept: RPM1 is the fan of fan_rpm, the others
// follow in the order in which they were first seen to turn.
//
// Of several drives the most worn counts, and the errors of all; of several
// power supplies the sum of their watts, the share that works, and the slowest
// fan. As long as one drive of them is silent there are no figures of drives: a
// sum without it would be an improvement that never was.
func (s *Sampler) Figures(readings []Reading) health.Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := health.Blank()
	take := func(field health.Field, v float64) {
		if value, refused := health.Check(field, v); refused == nil {
			f[field] = value
		}
	}
	several := map[Metric][]float64{}
	for _, r := range readings {
		name, _, _ := strings.Cut(r.Metric, "{")
		if field, plain := plainRoles[r.Metric]; plain {
			take(field, r.Value)
		} else if name == string(FanRPM) {
			i := slices.Index(s.fans, s.fanKeys[r.Metric])
			if i >= 0 && i < health.Fans {
				take(health.RPM1+health.Field(i), r.Value)
			}
		} else {
			several[Metric(name)] = append(several[Metric(name)], r.Value)
		}
	}
	for metric, as := range parts {
		if values := several[metric]; len(values) > 0 && !(as.drive && s.drivesSilent) {
			take(as.field, as.scale*as.of(values))
		}
	}
	return f
}

// parts are the figures that several parts of a box have together.
var parts = map[Metric]struct {
	field health.Field
	drive bool
	scale float64
	of    func([]float64) float64
}{
	DiskWear:   {health.NVMeUsed, true, 100, slices.Max[[]float64]},
	DiskSpare:  {health.NVMeSpare, true, 100, slices.Min[[]float64]},
	DiskErrors: {health.NVMeErrors, true, 1, total},
	SupplyIn:   {health.PSUIn, false, 1, total},
	SupplyOut:  {health.PSUOut, false, 1, total},
	SupplyOK:   {health.PSUOK, false, 1, average},
	SupplyFan:  {health.PSUFan, false, 1, slices.Min[[]float64]},
}

func total(values []float64) (sum float64) {
	for _, v := range values {
		sum += v
	}
	return sum
}

func average(values []float64) float64 { return total(values) / float64(len(values)) }
