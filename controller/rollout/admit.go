package rollout

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// What a policy says of boxes with too little headroom, and of those of which
// nothing can be predicted.
const (
	admitBox   = "admit"
	skipBox    = "skip"
	deferBox   = "defer"
	cheaperOne = "cheaper" // refused: see check
)

func (a *Admission) check() error {
	switch {
	case a == nil:
		return nil
	case a.Else == cheaperOne:
		return errors.New(`else "cheaper": a rollout brings one version and knows of no cheaper one; write skip or defer, and roll the cheaper model out to those boxes`)
	case a.Else != skipBox && a.Else != deferBox:
		return fmt.Errorf("else %q: want skip or defer", a.Else)
	case a.Unknown != admitBox && a.Unknown != skipBox:
		return fmt.Errorf("unknown %q: want admit or skip", a.Unknown)
	case !(a.Headroom >= 0 && a.Headroom <= 100):
		return fmt.Errorf("headroom of %v K: want 0 to 100", a.Headroom)
	}
	return nil
}

// Headroom is how many kelvin a die at celsius stays below limit when the box
// draws watts more and each makes the die kelvinPerWatt warmer.
func Headroom(celsius, watts, kelvinPerWatt, limit float64) float64 {
	return limit - (celsius + watts*kelvinPerWatt)
}

// draw is what is known of the power of the version on boxes of one class.
type draw struct {
	change float64 // W, measured here before and after the offer
	rose   int     // on so many boxes
	watts  float64 // W, of boxes that ran it before
	ran    int
	ratio  float64 // of the times that its trials and those of the version before took
	tried  int
}

type draws map[string]draw

// more is by how many watts a box comes to draw more, and how that is known;
// empty: it is not. now is what it draws, busy the share of its CPU at work.
func (d draw) more(now, busy float64) (watts float64, how phrase.Phrase) {
	switch {
	case d.rose > 0:
		return d.change, phrase.Of("watts-rose", "measured on %s of its class", boxes(d.rose))
	case now <= 0:
		return 0, how
	case d.ran > 0:
		return d.watts - now, phrase.Of("watts-measured", "%.0f W measured on %s of its class", d.watts, boxes(d.ran))
	case d.tried > 0:
		return now * busy * (d.ratio - 1), phrase.Of("watts-estimated", "estimated from the trials of %s of its class", boxes(d.tried))
	}
	return 0, how
}

// sightings gather in one look at the targets what the version draws; nil: nobody asks.
type sightings struct {
	version       string // of the rollout
	rises, ratios map[string][]float64
}

const (
	// enoughSeen of a class: more make no better median.
	enoughSeen = 101
	// settles is how long the power of a box is not believed after a switch: its
	// samples come every 10 s, in blocks.
	settles = 5 * time.Minute
)

func (s *sightings) take(t *fleetapi.Target, f Fact, now time.Time) {
	if s == nil || t.Offered == nil {
		return
	}
	note := func(into *map[string][]float64, v float64) {
		if *into == nil {
			*into = map[string][]float64{}
		}
		if class := t.Traits.Class; len((*into)[class]) < enoughSeen {
			(*into)[class] = append((*into)[class], v)
		}
	}
	ranIt := t.Before.Digest.IsZero() && t.Traits.Version == s.version
	if t.State == fleetapi.TargetSucceeded && !ranIt && t.Changed != nil && now.Sub(*t.Changed) >= settles &&
		t.Base != nil && t.Base.Watts > 0 && f.Heat != nil && f.Heat.Watts > 0 {
		note(&s.rises, f.Heat.Watts-t.Base.Watts)
	}
	if t.Probe != nil && f.Was != nil && t.Probe.SecondsPerItem > 0 && f.Was.SecondsPerItem > 0 {
		note(&s.ratios, t.Probe.SecondsPerItem/f.Was.SecondsPerItem)
	}
}

func (s *sightings) draws(known []fleetapi.Draw) draws {
	out := drawsOf(known)
	if s == nil {
		return out
	}
	for class, v := range s.rises {
		d := out[class]
		d.change, d.rose = middle(v), len(v)
		out[class] = d
	}
	for class, v := range s.ratios {
		d := out[class]
		d.ratio, d.tried = middle(v), len(v)
		out[class] = d
	}
	return out
}

func drawsOf(known []fleetapi.Draw) draws {
	out := draws{}
	for _, k := range known {
		out[k.Class] = draw{watts: k.Watts, ran: k.Boxes}
	}
	return out
}

func middle(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// DrawsOf is what boxes draw that run a version of a model, by class.
func DrawsOf(all []fleetapi.Box, model, version string) []fleetapi.Draw {
	seen := map[string][]float64{}
	for i := range all {
		b := &all[i]
		if cool := b.Thermal.Cooling; cool == nil || cool.Watts <= 0 || !runs(b, model, version) {
			continue
		}
		seen[b.Inventory.Class] = append(seen[b.Inventory.Class], b.Thermal.Cooling.Watts)
	}
	var out []fleetapi.Draw
	for class, v := range seen {
		out = append(out, fleetapi.Draw{Class: class, Watts: middle(v), Boxes: len(v)})
	}
	slices.SortFunc(out, func(a, b fleetapi.Draw) int {
		if a.Class < b.Class {
			return -1
		}
		return 1
	})
	return out
}

func runs(b *fleetapi.Box, model, version string) bool {
	return slices.ContainsFunc(b.Models, func(m fleetapi.BoxModel) bool { return m.Name == model && m.RunningVersion == version })
}

// warm is what is predicted of one box.
type warm struct {
	die, more, per, limit float64
	how                   phrase.Phrase // the watts are known
	assumed               bool          // the limit
	unknown               phrase.Phrase // why nothing is predicted; else empty
}

// predict says how warm a box gets; hot: at its hottest of the last day, if that
// is warmer than now.
func predict(h *fleetapi.Heat, cool *fleetapi.Cooling, d draw, hot bool) warm {
	if cool == nil {
		cool = &fleetapi.Cooling{}
	}
	if h == nil {
		h = &fleetapi.Heat{}
	}
	w := warm{die: h.Die, per: cool.KelvinPerWatt, limit: cool.LimitCelsius, assumed: cool.LimitAssumed}
	if hot || w.die == 0 {
		w.die = max(w.die, cool.HotCelsius)
	}
	now := cool.Watts
	if now <= 0 {
		now = h.Watts
	}
	w.more, w.how = d.more(now, h.Busy)
	switch {
	case w.die <= 0:
		w.unknown = phrase.Of("die-unknown", "it reports no die temperature")
	case w.per <= 0:
		w.unknown = phrase.Of("resistance-unknown", "its thermal resistance is not known")
	case w.limit <= 0:
		w.unknown = phrase.Of("limit-unknown", "it is not known where it throttles")
	case w.how.Text == "" && now <= 0:
		w.unknown = phrase.Of("power-unknown", "it reports no power")
	case w.how.Text == "":
		w.unknown = phrase.Of("draw-unknown", "what the version draws on its class is not known")
	}
	return w
}

func (w warm) headroom() float64 { return Headroom(w.die, w.more, w.per, w.limit) }

func (w warm) words(a Admission) phrase.Phrase {
	least := math.Floor(w.headroom())
	if w.assumed {
		return phrase.Of("headroom-assumed", "%.0f K of headroom, the policy wants %.0f K: %.0f °C and %+.0f W (%s) at %.2f K/W, the limit is assumed to be %.0f °C",
			least, a.Headroom, w.die, w.more, w.how, w.per, w.limit)
	}
	return phrase.Of("headroom", "%.0f K of headroom, the policy wants %.0f K: %.0f °C and %+.0f W (%s) at %.2f K/W, it throttles at %.0f °C",
		least, a.Headroom, w.die, w.more, w.how, w.per, w.limit)
}

// skip says why a target is not to get the version at all; empty: it is.
func (b *bounds) skip(t *fleetapi.Target, f Fact) phrase.Phrase {
	a := b.c.p.Admission
	if a == nil || f.Running == b.c.r.Target.Digest {
		return phrase.Phrase{}
	}
	w := predict(f.Heat, f.Cooling, b.draws[t.Traits.Class], true)
	switch {
	case w.unknown.Text != "" && a.Unknown == skipBox:
		return phrase.Of("skipped-for", "skipped: %s", headroomUnknown(w.unknown))
	case w.unknown.Text == "" && a.Else == skipBox && w.headroom() < a.Headroom:
		return phrase.Of("skipped-for", "skipped: %s", w.words(*a))
	}
	return phrase.Phrase{}
}

func headroomUnknown(why phrase.Phrase) phrase.Phrase {
	return phrase.Of("headroom-unknown", "its headroom is not known: %s", why)
}

// cool says why a target waits for its cool hours; empty: it does not.
func (b *bounds) cool(t *fleetapi.Target, f Fact) (why phrase.Phrase) {
	a := b.c.p.Admission
	if a == nil || a.Else != deferBox || f.Running == b.c.r.Target.Digest {
		return why
	}
	var hours [24]bool
	if f.Cooling != nil {
		hours = f.Cooling.CoolHours
	}
	d := b.draws[t.Traits.Class]
	w := predict(f.Heat, f.Cooling, d, true)
	if w.unknown.Text != "" || w.headroom() >= a.Headroom {
		return why
	}
	next, here := nextCool(hours, b.now)
	if !here {
		return phrase.Of("cool-from", "%s; waits for its cool hours, from %s", w.words(*a), inZone(next, t.Traits.Zone))
	}
	if w = predict(f.Heat, f.Cooling, d, false); w.headroom() >= a.Headroom {
		return why
	}
	return phrase.Of("cool-later", "%s; waits to be cooler", w.words(*a))
}

// nextCool is when the next of the cool hours begins, and whether it is one
// now. Where they are not known any hour may be.
func nextCool(hours [24]bool, now time.Time) (next time.Time, here bool) {
	if hours == ([24]bool{}) || hours[now.UTC().Hour()] {
		return now, true
	}
	next = now.UTC().Truncate(time.Hour)
	for !hours[next.Hour()] {
		next = next.Add(time.Hour)
	}
	return next, false
}

// admit judges a box when it is planned, by what is known then.
func (o Order) admit(a Admission, b fleetapi.Box) (rule string, why phrase.Phrase) {
	if runs(&b, o.Target.Name, o.Target.Version) {
		return "go", why
	}
	h := fleetapi.Heat{Die: b.Latest["temp_die_celsius"].Value, Watts: b.Latest["power_watts"].Value, Busy: b.Latest["cpu_busy_ratio"].Value}
	w := predict(&h, b.Thermal.Cooling, drawsOf(o.Draws)[b.Inventory.Class], true)
	switch {
	case w.unknown.Text != "" && a.Unknown == skipBox:
		return "skip", headroomUnknown(w.unknown)
	case w.unknown.Text != "" || w.headroom() >= a.Headroom:
		return "go", why
	case a.Else == deferBox:
		if next, here := nextCool(b.Thermal.Cooling.CoolHours, o.Now); !here {
			return "later", phrase.Of("cool-from", "%s; waits for its cool hours, from %s", w.words(a), inZone(next, o.Zones[b.Site]))
		}
		return "later", phrase.Of("cool-hours", "%s; waits for its cool hours", w.words(a))
	}
	return "skip", w.words(a)
}
