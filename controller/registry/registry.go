// Package registry judges boxes: it turns what is stored of a box into what
// people and rollouts see of it, and finds boxes by filter. It is pure.
//
// Vocabulary: link says when the box was last heard, health how its hardware
// is, update whether it runs what it shall run. The three are independent
// formulas over stored facts and the present time, and none hides another: a
// silent box keeps the health it had, with its age.
//
// The one rule a caller can break: judge with the controller's clock, never
// with a time that a box sent.
package registry

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// How long after the last message a box counts as late and as silent. A box
// with an open session is live: the broker ends sessions that miss keep-alives.
const (
	lateAfter   = 2 * time.Minute
	silentAfter = 10 * time.Minute
)

// View returns box b as people see it at now.
func View(b store.Box, now time.Time) fleetapi.Box {
	v := fleetapi.Box{
		ID: b.ID, Name: b.Name, Site: b.Site, State: string(b.State), Labels: b.Labels, Simulated: b.Inventory.Simulated,
		Inventory: b.Inventory, Buffer: b.Buffer, Latest: map[string]fleetapi.Value{},
		DesiredGeneration: b.Desired.Generation, RunningGeneration: b.Running.Generation,
		Reads: fleetapi.Reads{Total: b.Reads.Total, Checked: b.Reads.Checked, Right: b.Reads.Right},
	}
	if b.LastSeenMs > 0 {
		t := time.UnixMilli(b.LastSeenMs).UTC()
		v.LastSeen = &t
	}
	for name, l := range b.Latest.All() {
		v.Latest[name] = fleetapi.Value{Value: l.Value, Time: time.UnixMilli(l.TimeMs).UTC()}
	}
	v.Link = link(b, now)
	v.Health, v.Thermal = heat(b)
	v.Models = modelsOf(b)
	v.Config = settingsOf(b)
	v.Update = update(v, b)
	return v
}

func link(b store.Box, now time.Time) fleetapi.Link {
	age := now.Sub(time.UnixMilli(b.LastSeenMs))
	switch {
	case b.LastSeenMs == 0:
		return fleetapi.LinkNever
	case b.Connected || age < lateAfter:
		return fleetapi.LinkLive
	case age < silentAfter:
		return fleetapi.LinkLate
	}
	return fleetapi.LinkSilent
}

// heat says how urgent it is to look after a box, and how dirty it is.
func heat(b store.Box) (fleetapi.Health, fleetapi.Thermal) {
	t := fleetapi.Thermal{Causes: []string{}, ReasonCode: fleetapi.ReasonNoHours, Reason: "no hours yet: an agent sends its first one after an hour"}
	level := fleetapi.HealthUnknown
	if h, ok := care.ReadHeat(b.Heat); ok {
		level, t = fleetapi.HealthHealthy, thermal(h)
	}
	if len(b.Findings) == 0 {
		return level, t
	}
	var found []fleetapi.Finding
	for _, row := range b.Findings {
		if f, ok := row.Finding(); ok {
			found = append(found, f)
		}
	}
	worst, causes := care.Worst(found)
	t.Causes = causes
	for _, f := range found {
		if f.Forecast != nil && (t.LowDays == nil || f.Forecast.LowDays < *t.LowDays) {
			t.LowDays, t.HighDays = &f.Forecast.LowDays, &f.Forecast.HighDays
		}
	}
	return care.Worse(level, worst), t
}

func thermal(h care.Heat) fleetapi.Thermal {
	t := fleetapi.Thermal{Causes: []string{}, Reference: h.Reference, Cooling: h.Cooling}
	switch {
	case !h.Judged:
		t.ReasonCode, t.Reason = fleetapi.ReasonLearning, "learning the clean box: it takes a week of steady load"
		if at := time.Unix(h.FirstHour, 0).UTC(); h.FirstHour > 0 {
			t.Reason += ", since " + at.Format(time.DateOnly)
			t.LearningSince = &at
		}
		if l := h.Learning; l != nil {
			t.Reason += fmt.Sprintf(" (day %d of %d, %d of %d steady hours)", l.Days, l.OfDays, l.Hours, l.OfHours)
			t.Learning = &fleetapi.Learning{Days: l.Days, OfDays: l.OfDays, Hours: l.Hours, OfHours: l.OfHours}
		}
	case h.Percent == nil:
		t.ReasonCode, t.Reason = fleetapi.ReasonIdle, "no steady load for a day"
	default:
		t.Known, t.Percent = true, *h.Percent
	}
	if h.Sigma != nil {
		t.Sigma = *h.Sigma
	}
	if f := h.Forecast; f != nil {
		t.LowDays, t.HighDays = &f.LowDays, &f.HighDays
	}
	return t
}

// modelsOf joins what shall serve with what serves, by model name.
func modelsOf(b store.Box) []fleetapi.BoxModel {
	at := map[string]*fleetapi.BoxModel{}
	get := func(name string) *fleetapi.BoxModel {
		if at[name] == nil {
			at[name] = &fleetapi.BoxModel{Name: name}
		}
		return at[name]
	}
	for _, d := range b.Desired.Models {
		m := get(d.Name)
		m.DesiredVersion, m.DesiredDigest = d.Version, d.Digest
		for _, p := range b.Phases {
			if p.Digest == d.Digest.String() && p.Rollout == d.Rollout {
				m.Phase, m.Err = p.Phase, p.Err
			}
		}
	}
	for _, r := range b.Running.Models {
		m := get(r.Name)
		m.RunningVersion = r.Version
		if d, err := blob.ParseDigest(r.Digest); err == nil {
			m.RunningDigest = d
		}
	}
	out := make([]fleetapi.BoxModel, 0, len(at))
	for _, name := range slices.Sorted(maps.Keys(at)) {
		m := at[name]
		if b.Buffer.Disk != "" && m.Err == "" && m.DesiredDigest != m.RunningDigest {
			m.Err = "the box cannot tell how far it is: its disk takes no writes: " + b.Buffer.Disk + "; make room on the disk of its state folder, then it goes on by itself"
		}
		out = append(out, *m)
	}
	return out
}

// failedPhase reports whether a phase means that the box gave the version up.
func failedPhase(phase string) bool {
	return phase == "failed" || phase == "refused" || phase == "rolled_back"
}

func update(v fleetapi.Box, b store.Box) fleetapi.Update {
	if v.Link == fleetapi.LinkNever {
		return fleetapi.UpdateUnknown
	}
	switch {
	case b.Awaits:
		return fleetapi.UpdateAwaits
	case b.Ahead():
		return fleetapi.UpdateConflict
	}
	state := fleetapi.UpdateCurrent
	for _, m := range v.Models {
		switch {
		case m.DesiredDigest == m.RunningDigest:
		case failedPhase(m.Phase):
			return fleetapi.UpdateFailed
		default:
			state = fleetapi.UpdateUpdating
		}
	}
	if a := b.Desired.Agent; a != nil && a.Digest.String() != b.Inventory.AgentRelease {
		last := "" // phases are in the order of their times; a later try counts
		for _, p := range b.Phases {
			if p.Digest == a.Digest.String() {
				last = p.Phase
			}
		}
		if failedPhase(last) {
			return fleetapi.UpdateFailed
		}
		state = fleetapi.UpdateUpdating
	}
	if v.Config != nil && v.Config.State != fleetapi.ConfigCurrent {
		if v.Config.State == fleetapi.ConfigFailed {
			return fleetapi.UpdateFailed
		}
		state = fleetapi.UpdateUpdating
	}
	if state == fleetapi.UpdateUpdating && v.Link == fleetapi.LinkSilent {
		return fleetapi.UpdateUnknown
	}
	return state
}
