package rollout

import (
	"cmp"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// bounds is what keeps a box that is due from being offered the version: locks,
// freezes, windows, budgets, and how many are told at once.
type bounds struct {
	c       *Course
	now     time.Time
	held    string            // everybody, and why
	windows map[string]string // by time zone: why not now; "" is now
	groups  map[string]*group // by label and value
	pending int               // told, not yet seen to be told
	noted   int               // reasons to wait that changed in this step
}

// maxNoted bounds how many boxes learn in one step why they wait, so that a step
// of a large rollout stays short; the next step tells more.
const maxNoted = 500

type group struct{ size, down int }

func (c *Course) bounds(now time.Time) *bounds {
	b := &bounds{c: c, now: now, held: c.hold, windows: map[string]string{}}
	for _, f := range c.p.Freeze {
		if !now.Before(f.From) && now.Before(f.Until) {
			b.held = fmt.Sprintf("frozen until %s: %s", f.Until.UTC().Format(time.RFC3339), f.Reason)
		}
	}
	if len(c.p.Budgets) > 0 {
		b.groups = map[string]*group{}
	}
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			t, f := &c.r.Waves[i].Targets[j], c.facts[i][j]
			if t.State == fleetapi.TargetOffered && f.DesiredRollout != c.r.ID {
				b.pending++
			}
			b.count(t, f)
		}
	}
	return b
}

func label(t *fleetapi.Target, per string) string {
	switch per {
	case "class":
		return t.Traits.Class
	case "zone":
		return t.Traits.Zone
	}
	return t.Site
}

func (b *bounds) group(t *fleetapi.Target, per string) *group {
	key := per + "=" + label(t, per)
	if b.groups[key] == nil {
		b.groups[key] = &group{}
	}
	return b.groups[key]
}

// down: at work on the version, or silent.
func (b *bounds) down(t *fleetapi.Target, f Fact) bool {
	return b.c.open(t) || (f.Link != "" && f.Link != fleetapi.LinkLive)
}

func (b *bounds) count(t *fleetapi.Target, f Fact) {
	for _, rule := range b.c.p.Budgets {
		g := b.group(t, rule.Per)
		g.size++
		if b.down(t, f) {
			g.down++
		}
	}
}

// take counts a box that was just offered the version.
func (b *bounds) take(t *fleetapi.Target, f Fact) {
	b.pending++
	for _, rule := range b.c.p.Budgets {
		if f.Link == "" || f.Link == fleetapi.LinkLive { // else it counted as down already
			b.group(t, rule.Per).down++
		}
	}
}

// refuse says why a box must wait; full says that its turn comes soon.
func (b *bounds) refuse(t *fleetapi.Target, f Fact) (why string, full bool) {
	switch {
	case b.held != "": // told once, of the wave
		return "", true
	case f.Restore != "":
		return restoreWords(f.Restore), false
	case f.Locked != "":
		return f.Locked, false
	}
	if why := b.window(t.Traits.Zone); why != "" {
		return why, false
	}
	for _, rule := range b.c.p.Budgets {
		g := b.group(t, rule.Per)
		down := g.down
		if f.Link == "" || f.Link == fleetapi.LinkLive {
			down++
		}
		if rule.MaxUnavailable > 0 && down > rule.MaxUnavailable || rule.MinAvailable > 0 && g.size-down < rule.MinAvailable {
			return fmt.Sprintf("the budget of %s %s is used up", rule.Per, label(t, rule.Per)), false
		}
	}
	return "", b.pending >= b.c.p.AtOnce
}

// window says why it is not now, in the time of the site.
func (b *bounds) window(zone string) string {
	if len(b.c.p.Windows) == 0 {
		return ""
	}
	why, known := b.windows[zone]
	if !known {
		why = nextWindow(b.c.p.Windows, zone, b.now)
		b.windows[zone] = why
	}
	return why
}

// nextWindow is empty within a window, and tells of the next one otherwise.
func nextWindow(words []string, zone string, now time.Time) string {
	zone = cmp.Or(zone, "UTC")
	spans, err := site.Spans(fleetapi.SiteEffect{Quiet: words, TimeZone: zone}, now, 8*24*time.Hour)
	if err != nil {
		return err.Error()
	}
	for _, s := range spans {
		if !now.Before(s.Start) && now.Before(s.End) {
			return ""
		}
		if now.Before(s.Start) {
			return "window opens " + inZone(s.Start, zone)
		}
	}
	return "no window within 8 days"
}

func inZone(t time.Time, zone string) string {
	if loc, err := time.LoadLocation(zone); err == nil {
		t = t.In(loc)
	}
	return t.Format("2006-01-02 15:04 MST")
}

// windowsOf checks windows as they are written.
func windowsOf(words []string, zone string) ([]string, error) {
	s := fleetapi.SiteSettings{Quiet: &words}
	if zone != "" {
		s.TimeZone = &zone
	}
	return words, site.Check(s)
}
