package rollout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/models"
)

// maxWaves bounds a policy, not counting the tail.
const maxWaves = 100

// ErrNoTargets says that the filter matches no box.
var ErrNoTargets = errors.New("no box matches the filter")

// ErrNobody says that every box that matches the filter is left out.
var ErrNobody = errors.New("no box can take the version")

// Order is what a plan is made of.
type Order struct {
	ID      string
	Request fleetapi.PlanRequest
	Kind    string
	Target  models.Ref
	Bytes   int64 // download of a box that has nothing yet
	// Sizes is the download of each box; none: Bytes.
	Sizes map[identity.ID]int64
	Boxes []fleetapi.Box
	Zones map[string]string // time zones of sites; none: UTC
	// Rates are what lines of sites carry, in bytes per second; none: unknown.
	Rates map[string]int64
	// Draws is what boxes draw that run the version already, by class; see DrawsOf.
	Draws []fleetapi.Draw
	// Unfit says why boxes cannot take the version at all.
	Unfit map[identity.ID]phrase.Phrase
	Now   time.Time
}

// Plan fixes the waves of a rollout. The first wave takes boxes that were heard
// from just now, one after the other from different sites, so that one bad
// site or one dead uplink cannot decide it. What is planned is what runs.
func Plan(o Order) (fleetapi.Rollout, error) {
	if len(o.Boxes) == 0 {
		return fleetapi.Rollout{}, ErrNoTargets
	}
	p, err := PolicyOf(o.Request)
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	if len(o.Request.Waves) == 0 {
		o.Request.Waves = p.Waves
	}
	fit, later, skipped := o.sort(p)
	if len(fit)+len(later) == 0 {
		return fleetapi.Rollout{}, fmt.Errorf("%w: %s: %s", ErrNobody, skipped[0].Name, skipped[0].Why)
	}
	sizes, err := waveSizes(p.Waves, len(fit))
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	missing, err := o.unreported(p, slices.Concat(fit, later))
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	r := fleetapi.Rollout{ID: o.ID, State: fleetapi.RolloutDraft, Request: o.Request, Target: o.Target, Kind: o.Kind, BytesPerBox: o.Bytes, Draws: o.Draws, Created: o.Now, Warnings: []string{}}
	warned(&r, missing...)
	order := spread(fit, p.recent(o.Now))
	for _, n := range sizes {
		w := fleetapi.Wave{State: fleetapi.WaveWaiting, Targets: []fleetapi.Target{}}
		for _, b := range order[:n] {
			w.Targets = append(w.Targets, o.target(p, b))
		}
		order = order[n:]
		r.Waves = append(r.Waves, w)
	}
	if len(later) > 0 {
		tail := fleetapi.Wave{State: fleetapi.WaveWaiting, Tail: true}
		for _, b := range later {
			tail.Targets = append(tail.Targets, o.target(p, b))
		}
		r.Waves = append(r.Waves, tail)
	}
	o.warn(&r, p, len(fit), len(order))
	r.Sheet = o.sheet(r, p, skipped)
	n := 0
	for _, w := range r.Waves {
		n += len(w.Targets)
	}
	waves := phrase.Of("n-waves", "%d waves", len(r.Waves))
	if len(r.Waves) == 1 {
		waves.Text = "one wave"
	}
	sentence := phrase.Of("planned", "Planned: %s to %s in %s", o.Target.String(), boxes(n), waves)
	r.Sentence, r.SentenceSaid = sentence.Text, sentence.Beside()
	if have := o.have(r); have > 0 {
		warned(&r, phrase.Of("have-it", "%d of %s run %s already", have, boxes(n), o.Target.Version))
	}
	return r, nil
}

// warned adds warnings, in English and for other languages.
func warned(r *fleetapi.Rollout, all ...phrase.Phrase) {
	for _, p := range all {
		r.Warnings = append(r.Warnings, p.Text)
		p.Text = ""
		r.WarningsSaid = append(r.WarningsSaid, p)
	}
}

// have counts targets that run a version of the same name already.
func (o Order) have(r fleetapi.Rollout) (n int) {
	for _, w := range r.Waves {
		for _, t := range w.Targets {
			if t.Traits.Version == o.Target.Version {
				n++
			}
		}
	}
	return n
}

// sort parts boxes into those that go in waves, those that come last and those
// that get nothing, and says why.
func (o Order) sort(p Policy) (fit, later []fleetapi.Box, skipped []fleetapi.PlanSkip) {
	skipped = []fleetapi.PlanSkip{}
	for _, b := range o.Boxes {
		rule, why := o.judge(p, b)
		switch rule {
		case "go":
			fit = append(fit, b)
			continue
		case "later":
			later = append(later, b)
		}
		skipped = append(skipped, fleetapi.PlanSkip{Box: b.ID, Name: b.Name, Why: why.Text, WhySaid: why.Beside(), Later: rule == "later"})
	}
	return fit, later, skipped
}

// diskShare is what must stay free on the disk of a box: none of it is ours.
const diskShare = 1.1

func (o Order) judge(p Policy, b fleetapi.Box) (rule string, why phrase.Phrase) {
	if why := o.Unfit[b.ID]; why.Text != "" {
		return "skip", why
	}
	if free, ok := b.Latest["disk_free_bytes"]; ok && free.Value < diskShare*float64(o.Bytes) {
		return "skip", phrase.Of("little-disk", "too little disk: %s free, %s needed", bytesText(free.Value), bytesText(diskShare*float64(o.Bytes)))
	}
	needs := func() phrase.Phrase {
		return phrase.Of("needs-care", "needs care (%s): %s", levelWords(b.Health), causeWords(b.Thermal.Causes))
	}
	if b.Health == fleetapi.HealthUrgent && p.Health.Urgent != "go" {
		return p.Health.Urgent, needs()
	}
	if b.Health == fleetapi.HealthTicket && p.Health.Ticket != "go" {
		return p.Health.Ticket, needs()
	}
	if die, ok := b.Latest["temp_die_celsius"]; ok && p.Health.MaxDie > 0 && die.Value > p.Health.MaxDie {
		return "later", phrase.Of("too-hot", "no thermal headroom: %.0f °C, the policy allows %.0f °C", die.Value, p.Health.MaxDie)
	}
	if p.Admission == nil {
		return "go", why
	}
	return o.admit(*p.Admission, b)
}

func levelWords(h fleetapi.Health) phrase.Phrase {
	if h == fleetapi.HealthUrgent {
		return phrase.Of("level-urgent", "urgent")
	}
	return phrase.Of("level-ticket", "ticket")
}

// causeWords are the causes that were found, by the codes that they have.
func causeWords(causes []string) phrase.Phrase {
	if len(causes) == 0 {
		return phrase.Of("see-findings", "see its findings")
	}
	all := phrase.Word(causes[0])
	for _, cause := range causes[1:] {
		all = phrase.Of("listed", "%s, %s", all, phrase.Word(cause))
	}
	return all
}

func (o Order) target(p Policy, b fleetapi.Box) fleetapi.Target {
	t := fleetapi.Target{Box: b.ID, Name: b.Name, Site: b.Site, State: fleetapi.TargetScheduled, Traits: fleetapi.Traits{
		Class: b.Inventory.Class, Arch: b.Inventory.Arch, Zone: cmp.Or(o.Zones[b.Site], "UTC"), Dust: dust(b.Thermal), Ambient: ambient(b),
	}}
	for _, rule := range p.Budgets {
		if key, ok := rule.key(); ok && b.Labels[key] != "" {
			if t.Traits.Labels == nil {
				t.Traits.Labels = map[string]string{}
			}
			t.Traits.Labels[key] = b.Labels[key]
		}
	}
	switch {
	case o.Kind == fleetapi.KindAgent:
		t.Traits.Version = b.Inventory.Agent
	case o.Kind != fleetapi.KindConfig:
		for _, m := range b.Models {
			if m.Name == o.Target.Name {
				t.Traits.Version = m.RunningVersion
			}
		}
	case b.Config != nil:
		for _, d := range b.Config.Documents {
			if d.Name == o.Target.Name {
				t.Traits.Version = d.Running
			}
		}
	}
	return t
}

// TargetOf is a box that joins a rollout after its plan.
func (c *Course) TargetOf(b fleetapi.Box, zone string) fleetapi.Target {
	return Order{Kind: c.r.Kind, Target: c.r.Target, Zones: map[string]string{b.Site: zone}}.target(c.p, b)
}

// dusty is the rise of thermal resistance from which on a box counts as dusty.
const dusty = 15 // percent

func dust(t fleetapi.Thermal) string {
	switch {
	case !t.Known:
		return "unknown"
	case t.Percent >= dusty:
		return "dusty"
	}
	return "clean"
}

// ambient is the temperature of the inlet, else of the room, in steps of 5 °C.
func ambient(b fleetapi.Box) string {
	for _, name := range []string{"temp_inlet_celsius", "temp_room_celsius"} {
		if v, ok := b.Latest[name]; ok {
			low := int(v.Value/5) * 5
			return fmt.Sprintf("%d-%d °C", low, low+5)
		}
	}
	return ""
}

func (o Order) warn(r *fleetapi.Rollout, p Policy, fit, left int) {
	if left > 0 {
		warned(r, phrase.Of("in-no-wave", "%d of %d matching boxes are in no wave; add a wave \"rest\"", left, fit))
	}
	if silent := countSilent(o.Boxes); silent > 0 {
		warned(r, phrase.Of("silent-now", "%d of %d boxes are silent now; they get the version when they are back", silent, len(o.Boxes)))
	}
	for _, i := range p.Approve {
		if i > len(r.Waves) {
			warned(r, phrase.Of("approval-late", "wave %d wants an approval, but there are %d waves", i, len(r.Waves)))
		}
	}
	if least := p.Gates.MinSample; p.Gates.ErrorLimit > 0 && len(r.Waves[0].Targets) < least {
		warned(r, phrase.Of("first-wave-small", "the first wave has %s, fewer than the least sample of %d: its share of bad boxes counts only at its end", boxes(len(r.Waves[0].Targets)), least))
	}
}

// waveSizes turns "1", "25%" and "rest" into numbers of boxes. Percentages are
// of all boxes, rounded up, and never take more than is left.
func waveSizes(words []string, n int) ([]int, error) {
	if len(words) > maxWaves {
		return nil, fmt.Errorf("%d waves; at most %d", len(words), maxWaves)
	}
	var sizes []int
	left := n
	for _, word := range words {
		var size int
		switch pct, isPct := strings.CutSuffix(word, "%"); {
		case word == "rest":
			size = left
		case isPct:
			p, err := strconv.ParseFloat(pct, 64)
			if err != nil || !(p > 0 && p <= 100) {
				return nil, fmt.Errorf("wave %q: want a percentage above 0 and up to 100", word)
			}
			size = int((p*float64(n) + 99.999999) / 100)
		default:
			k, err := strconv.Atoi(word)
			if err != nil || k < 1 {
				return nil, fmt.Errorf("wave %q: want a number of boxes, a percentage such as 25%%, or rest", word)
			}
			size = k
		}
		size = min(size, left)
		left -= size
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// recent says which boxes are fit to be the first.
func (p Policy) recent(now time.Time) func(fleetapi.Box) bool {
	return func(b fleetapi.Box) bool {
		if p.SeenWithin == 0 {
			return b.Link == fleetapi.LinkLive
		}
		return b.LastSeen != nil && now.Sub(*b.LastSeen) <= time.Duration(p.SeenWithin)
	}
}

// spread orders boxes: recent ones first, then in turn from every site.
func spread(boxes []fleetapi.Box, recent func(fleetapi.Box) bool) []fleetapi.Box {
	type seat struct {
		box  fleetapi.Box
		late bool
		turn int
	}
	out := make([]seat, len(boxes))
	for i, b := range boxes {
		out[i] = seat{box: b, late: !recent(b)}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].box.Name < out[j].box.Name })
	turn := map[string]int{}
	for _, late := range []bool{false, true} {
		for i := range out {
			if out[i].late == late {
				out[i].turn = turn[out[i].box.Site]
				turn[out[i].box.Site]++
			}
		}
	}
	slices.SortStableFunc(out, func(a, b seat) int {
		if a.late != b.late {
			if b.late {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.turn, b.turn)
	})
	sorted := make([]fleetapi.Box, len(out))
	for i, s := range out {
		sorted[i] = s.box
	}
	return sorted
}

func countSilent(boxes []fleetapi.Box) int {
	n := 0
	for _, b := range boxes {
		if b.Link != fleetapi.LinkLive {
			n++
		}
	}
	return n
}
