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
func (s *Sampler) Figures(readings []Reading) health.Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := health.Blank()
	take := func(field health.Field, v float64) {
		if value, refused := health.Check(field, v); refused == nil {
			f[field] = value
		}
	}
	for _, r := range readings {
		if field, plain := plainRoles[r.Metric]; plain {
			take(field, r.Value)
		} else if strings.HasPrefix(r.Metric, string(FanRPM)) {
			i := slices.Index(s.fans, s.fanKeys[r.Metric])
			if i >= 0 && i < health.Fans {
				take(health.RPM1+health.Field(i), r.Value)
			}
		}
	}
	return f
}
