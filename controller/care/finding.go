package care

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// FindingOf is a finding of internal/health as the API tells it.
func FindingOf(f health.Finding) fleetapi.Finding {
	out := fleetapi.Finding{
		Box: identity.ID(f.Box), Site: f.Site, Family: f.Family, Cause: string(f.Cause), Level: levelOf(f.Level), Confidence: f.Confidence,
		Since: unix(f.Since), Opened: unix(f.Opened), ClosedBy: f.ClosedBy, Forecast: ForecastOf(f.Forecast),
	}
	if f.Closed != 0 {
		out.Closed = new(unix(f.Closed))
	}
	out.Evidence = Evidences(f.Evidence)
	return out
}

// ReadFinding reads a stored finding; false: it is of a newer agent.
func ReadFinding(body []byte) (fleetapi.Finding, bool) {
	var f health.Finding
	if json.Unmarshal(body, &f) != nil {
		return fleetapi.Finding{}, false
	}
	return FindingOf(f), true
}

// Evidences are facts of internal/health as the API tells them.
func Evidences(all []health.Evidence) []fleetapi.Evidence {
	out := []fleetapi.Evidence{}
	for _, e := range all {
		out = append(out, fleetapi.Evidence{Name: e.Name, Value: Number(float64(e.Value)), Text: e.Text, Code: e.Code, Args: e.Args})
	}
	return out
}

// levelOf is a level of internal/health as the API tells it.
func levelOf(l health.Level) fleetapi.Health {
	return [...]fleetapi.Health{fleetapi.HealthHealthy, fleetapi.HealthWatch, fleetapi.HealthTicket, fleetapi.HealthUrgent}[min(l, health.Urgent)]
}

// ForecastOf is a forecast as the API tells it.
func ForecastOf(f *health.Forecast) *fleetapi.HeatForecast {
	if f == nil {
		return nil
	}
	return &fleetapi.HeatForecast{
		Made: time.Unix(int64(f.Day)*86400, 0).UTC(), LowDays: f.Low, MidDays: f.Mid, HighDays: f.High, TripC: f.TripC, TripKnown: f.TripKnown,
	}
}

// Number is a figure for JSON, nil when it is none; a hundredth is enough.
func Number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	v = math.Round(100*v) / 100
	return &v
}

func unix(u health.Unix) time.Time { return time.Unix(int64(u), 0).UTC() }

// Worst is the level of a box with these open findings, and its causes, the
// most urgent first. What a person muted does not count.
func Worst(findings []fleetapi.Finding) (level fleetapi.Health, causes []string) {
	open := slices.DeleteFunc(slices.Clone(findings), func(f fleetapi.Finding) bool { return f.Closed != nil || f.Muted })
	slices.SortStableFunc(open, func(a, b fleetapi.Finding) int {
		return cmp.Or(urgency(b.Level)-urgency(a.Level), cmp.Compare(a.Cause, b.Cause))
	})
	level, causes = fleetapi.HealthHealthy, []string{}
	for _, f := range open {
		level = Worse(level, f.Level)
		if !slices.Contains(causes, f.Cause) {
			causes = append(causes, f.Cause)
		}
	}
	return level, causes
}
