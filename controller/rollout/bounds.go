package rollout

import (
	"cmp"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// bounds is what keeps a box that is due from being offered the version: locks,
// freezes, windows, budgets, and how many are told at once.
type bounds struct {
	c       *Course
	now     time.Time
	held    phrase.Phrase            // everybody, and why
	windows map[string]phrase.Phrase // by time zone: why not now; empty is now
	groups  map[groupKey]*group
	pending int // told, not yet seen to be told
	working int // told, no result yet
	ramp    int // most of them
	draws   draws
	noted   int // reasons to wait that changed in this step
}

// maxNoted bounds how many boxes learn in one step why they wait, so that a step
// of a large rollout stays short; the next step tells more.
const maxNoted = 500

// groupKey is a budget by its number, and the value that its boxes share.
type groupKey struct {
	rule  int
	value string
}

type group struct {
	size, down int
	working    int     // at work on the version
	hot        int     // of those that are not at work
	watts      float64 // of all that are heard
}

// heated says why one more box at work is too much; empty: it is not.
func (g *group) heated(rule Budget, name string) phrase.Phrase {
	if watts := g.watts + rule.TryWatts*float64(g.working+1); rule.MaxWatts > 0 && watts > rule.MaxWatts {
		return phrase.Of("would-draw", "%s would draw %.0f W, the policy allows %.0f W", rule.of(name), watts, rule.MaxWatts)
	}
	if n := g.hot + g.working + 1; rule.MaxHot > 0 && n > rule.MaxHot {
		return phrase.Of("has-hot", "%s has %s above %.0f °C and %d at work, the policy allows %d", rule.of(name), boxes(g.hot), rule.Hot, g.working, rule.MaxHot)
	}
	return phrase.Phrase{}
}

// of names the group of a budget: "site berlin".
func (b Budget) of(value string) phrase.Phrase {
	switch b.Per {
	case "class":
		return phrase.Of("trait-class", "class %s", value)
	case "site":
		return phrase.Of("trait-site", "site %s", value)
	case "zone":
		return phrase.Of("of-zone", "zone %s", value)
	}
	return phrase.Plain(b.Per + " " + value)
}

// isHot: of what was heard. A box at work counts as such.
func isHot(rule Budget, f Fact) bool { return f.Heat != nil && f.Heat.Die > rule.Hot }

func (c *Course) bounds(now time.Time) *bounds {
	b := &bounds{c: c, now: now, held: BoxSays(c.hold), windows: map[string]phrase.Phrase{}}
	for _, f := range c.p.Freeze {
		if !now.Before(f.From) && now.Before(f.Until) {
			b.held = phrase.Of("frozen", "frozen until %s: %s", f.Until.UTC().Format(time.RFC3339), f.Reason)
		}
	}
	if len(c.p.Budgets) > 0 {
		b.groups = map[groupKey]*group{}
	}
	var seen *sightings
	if c.p.Admission != nil {
		seen = &sightings{version: c.r.Target.Version}
	}
	succeeded := 0
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			t, f := &c.r.Waves[i].Targets[j], c.facts[i][j]
			switch {
			case c.open(t):
				b.working++
			case t.State == fleetapi.TargetSucceeded:
				succeeded++
			}
			if t.State == fleetapi.TargetOffered && f.DesiredRollout != c.r.ID {
				b.pending++
			}
			b.count(t, f)
			seen.take(t, f, now)
		}
	}
	b.draws, b.ramp = seen.draws(c.r.Draws), c.p.Ramp.limit(succeeded)
	return b
}

func label(t *fleetapi.Target, per string) string {
	switch per {
	case "class":
		return t.Traits.Class
	case "zone":
		return t.Traits.Zone
	case "site":
		return t.Site
	}
	return t.Traits.Labels[strings.TrimPrefix(per, "label.")]
}

// bound says whether a box is in a group of the rule at all: one without the
// label is in none.
func bound(t *fleetapi.Target, rule Budget) bool {
	_, labelled := rule.key()
	return !labelled || label(t, rule.Per) != ""
}

func (b *bounds) group(t *fleetapi.Target, rule int) *group {
	key := groupKey{rule, label(t, b.c.p.Budgets[rule].Per)}
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
	for i, rule := range b.c.p.Budgets {
		if !bound(t, rule) {
			continue
		}
		g := b.group(t, i)
		g.size++
		if b.down(t, f) {
			g.down++
		}
		switch {
		case b.c.open(t) && t.State != fleetapi.TargetScheduled:
			g.working++
		case f.Link == fleetapi.LinkLive && isHot(rule, f):
			g.hot++
		}
		if f.Link == fleetapi.LinkLive && f.Heat != nil {
			g.watts += f.Heat.Watts
		}
	}
}

// take counts a box that was just offered the version.
func (b *bounds) take(t *fleetapi.Target, f Fact) {
	b.pending++
	b.working++
	for i, rule := range b.c.p.Budgets {
		if !bound(t, rule) {
			continue
		}
		g := b.group(t, i)
		g.working++
		if f.Link == "" || f.Link == fleetapi.LinkLive { // else it counted as down already
			g.down++
		}
		if f.Link == fleetapi.LinkLive && isHot(rule, f) {
			g.hot--
		}
	}
}

// refuse says why a box must wait; full says that its turn comes soon.
func (b *bounds) refuse(t *fleetapi.Target, f Fact) (why phrase.Phrase, full bool) {
	switch {
	case b.held.Text != "": // told once, of the wave
		return why, true
	case f.Restore != "":
		return restoreWords(f.Restore), false
	case f.Locked != "":
		return heard(f.Locked, t.Waits, t.WaitsSaid), false
	}
	if why := b.window(t.Traits.Zone); why.Text != "" {
		return why, false
	}
	for i, rule := range b.c.p.Budgets {
		if !bound(t, rule) {
			continue
		}
		g := b.group(t, i)
		down := g.down
		if f.Link == "" || f.Link == fleetapi.LinkLive {
			down++
		}
		if rule.MaxUnavailable > 0 && down > rule.MaxUnavailable || rule.MinAvailable > 0 && g.size-down < rule.MinAvailable {
			return phrase.Of("budget-used", "the budget of %s is used up", rule.of(label(t, rule.Per))), false
		}
		rest := *g // without the box itself, if it is hot already
		if f.Link == fleetapi.LinkLive && isHot(rule, f) {
			rest.hot--
		}
		if why := rest.heated(rule, label(t, rule.Per)); why.Text != "" {
			return why, false
		}
	}
	if b.pending >= b.c.p.AtOnce || b.working >= b.ramp {
		return why, true
	}
	return b.cool(t, f), false
}

// window says why it is not now, in the time of the site.
func (b *bounds) window(zone string) phrase.Phrase {
	if len(b.c.p.Windows) == 0 {
		return phrase.Phrase{}
	}
	why, known := b.windows[zone]
	if !known {
		why = nextWindow(b.c.p.Windows, zone, b.now)
		b.windows[zone] = why
	}
	return why
}

// nextWindow is empty within a window, and tells of the next one otherwise.
func nextWindow(words []string, zone string, now time.Time) phrase.Phrase {
	zone = cmp.Or(zone, "UTC")
	spans, err := site.Spans(fleetapi.SiteEffect{Quiet: words, TimeZone: zone}, now, 8*24*time.Hour)
	if err != nil {
		return phrase.Plain(err.Error())
	}
	for _, s := range spans {
		if !now.Before(s.Start) && now.Before(s.End) {
			return phrase.Phrase{}
		}
		if now.Before(s.Start) {
			return phrase.Of("window-opens", "window opens %s", inZone(s.Start, zone))
		}
	}
	return phrase.Of("no-window", "no window within 8 days")
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
