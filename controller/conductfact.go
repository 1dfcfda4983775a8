package controller

import (
	"encoding/json"
	"math"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// factOf collects what rollout r must know of one box.
func factOf(r fleetapi.Rollout, b store.Box, ages map[string]int, now time.Time) rollout.Fact {
	f := rollout.Fact{Link: registry.View(b, now).Link}
	if b.State == store.StateRetired || b.State == store.StateRevoked {
		f.Gone = string(b.State)
	}
	switch r.Kind {
	case fleetapi.KindConfig:
		configFact(&f, r, b)
	case fleetapi.KindAgent:
		if a := b.Desired.Agent; a != nil {
			f.Desired, f.DesiredRollout = a.Digest, a.Rollout
		}
		f.Running, f.Version = digestOf(b.Inventory.AgentRelease), b.Inventory.Agent
	default:
		for _, m := range b.Desired.Models {
			if m.Name == r.Target.Name {
				f.Desired, f.DesiredRollout = m.Digest, m.Rollout
			}
		}
		for _, m := range b.Running.Models {
			if m.Name == r.Target.Name {
				f.Running, f.Version = digestOf(m.Digest), m.Version
			}
		}
	}
	switch {
	case b.Awaits:
		f.Restore = rollout.RestoreAwaits
	case b.Ahead():
		f.Restore = rollout.RestoreAhead
	}
	f.Newer = f.DesiredRollout != r.ID && younger(f.DesiredRollout, r, ages)
	for _, p := range b.Phases {
		if p.Digest == r.Target.Digest.String() && p.Rollout == r.ID {
			f.Phase, f.Err = p.Phase, p.Err
			f.Probe, f.Disk = probeOf(p), bodyOf(p).Disk
		} else if !f.Running.IsZero() && f.Running != r.Target.Digest && p.Digest == f.Running.String() {
			if was := probeOf(p); was != nil {
				f.Was = was
			}
		}
	}
	f.Heat = heatOf(b)
	return f
}

// younger says whether something that a box was told came after rollout r was
// planned: another rollout, or a person who kept what the box runs.
func younger(other string, r fleetapi.Rollout, ages map[string]int) bool {
	if at, ok := rollout.AdoptedAt(other); ok {
		return at.After(r.Created)
	}
	return ages[other] > ages[r.ID]
}

// heatOf is how warm a box is at which load, in steps that are worth a look;
// nil: it reports nothing of it.
func heatOf(b store.Box) *fleetapi.Heat {
	var h fleetapi.Heat
	known := false
	get := func(metric string, step float64) float64 {
		v, ok := b.Latest.Get(metric)
		known = known || ok
		return step * math.Round(v.Value/step)
	}
	h.Die, h.Watts, h.Throttles = get("temp_die_celsius", 2), get("power_watts", 5), get("throttle_count", 1)
	if !known {
		return nil
	}
	h.Busy = get("cpu_busy_ratio", 0.1)
	h.RiseKelvin = h.Die
	die, _ := b.Latest.Get("temp_die_celsius")
	if inlet, ok := b.Latest.Get("temp_inlet_celsius"); ok {
		h.RiseKelvin = 2 * math.Round((die.Value-inlet.Value)/2)
	}
	return &h
}

// admissionFact adds what the headroom of a box is predicted from. Its power is
// taken to the watt: 5 W are much for a small box.
func admissionFact(f *rollout.Fact, b store.Box) {
	if h, ok := care.ReadHeat(b.Heat); ok {
		f.Cooling = h.Cooling
	}
	if watts, ok := b.Latest.Get("power_watts"); ok && f.Heat != nil {
		f.Heat.Watts = math.Round(watts.Value)
	}
}

// digestOf reads a digest that a box reported; nonsense is none.
func digestOf(text string) blob.Digest {
	d, err := blob.ParseDigest(text)
	if err != nil {
		return blob.Digest{}
	}
	return d
}

func probeOf(p store.Phase) *fleetapi.Probe {
	body := bodyOf(p)
	if len(body.Probe) == 0 {
		return nil
	}
	var probe fleetapi.Probe
	if json.Unmarshal(body.Probe, &probe) != nil {
		return nil
	}
	return &probe
}

// bodyOf is what a box said of a phase; nonsense is nothing.
func bodyOf(p store.Phase) (body wire.PhaseBody) {
	if json.Unmarshal([]byte(p.Body), &body) != nil {
		return wire.PhaseBody{}
	}
	return body
}
