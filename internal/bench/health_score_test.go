package bench

import (
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/simboard/plant"
)

// The rules by which tickets are held against the truth. They are the same for
// the detectors and for the static rules beside them.
//
//   - A ticket is an interval: made at, open until. It is about heat (resistance,
//     vent, fans), a sensor, a drive or a power supply.
//   - It is true if a fault of its kind was there when it was made or in the
//     week before (windows are a week long), and, for heat, was worth 2 % of
//     resistance or of fan speed. Tickets made while the site's cooling had
//     failed are neither true nor false. All others are false.
//   - A throttled hour that a clean box would not have had is put down to the
//     faults that made at least half of that day's rise; the truth lists it with
//     every fault that was there.
//   - A fault is needed if its rise reached 10 % or it throttled its box. Needed
//     faults are to be found: by a ticket that is open in their visible time.
//     What is there at once (vent, stopped fan) needs one that was made after it
//     began, or is open and says just that.
//   - A fault with which the box fell silent is left out: its hours cannot tell.
//     So are drives and supplies of boxes that do not tell of them.
//   - A fan is worn out when it throttles its box or has lost 20 % of its speed,
//     the worst that vendors call the end of its life.
//   - A cooling has failed when the room got 5 K warmer by it.
const (
	visibleRise = 0.02
	neededRise  = 0.10
	slackDays   = 7
	wornOut     = 0.20 // of the speed
	hotRoom     = 5.0  // K
	day         = 86400
)

type kind int

const (
	aboutHeat kind = iota
	aboutSensor
	aboutDrive
	aboutSupply
)

// ticket is what a monitor asks a technician for.
type ticket struct {
	box       int // index in the truth
	kind      kind
	cause     health.Cause // empty: the rule names none
	fan       bool         // about a fan
	at, until int64        // Unix; until MaxInt64: still open
	forecast  *health.Forecast
}

// watched is what was seen of a box.
type watched struct {
	site      int
	years     float64  // of hours that arrived
	reference bool     // inlet, room or a neighbour's inlet was known
	told      bool     // its rows have the speed of a fan
	from      int64    // first hour
	drive     bool     // told how far its drive is worn
	supply    bool     // told what it takes from the wall
	hours     []uint64 // one bit for each hour since the start that was heard of
}

// silent: less than three hours were heard of in the time of f.
func (w *watched) silent(f *plant.Fault, start int64) bool {
	n := 0
	for h := (f.Onset.Unix() - start + 3599) / 3600; h < int64(len(w.hours))*64 && n < 3; h++ {
		if !f.End.IsZero() && start+h*3600 >= f.End.Unix() {
			break
		}
		n += int(w.hours[h/64] >> (h % 64) & 1)
	}
	return n < 3
}

// share is a number of hits out of tries.
type share struct{ hits, of int }

func (s *share) count(hit bool) {
	s.of++
	if hit {
		s.hits++
	}
}

func (s share) ratio() float64 { return float64(s.hits) / float64(s.of) }

// wilson is the 95 % interval of a share (Wilson 1927).
func (s share) wilson() (low, high float64) {
	const z = 1.96
	n := float64(s.of)
	if n == 0 {
		return 0, 1
	}
	p := s.ratio()
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return max(mid-half, 0), min(mid+half, 1)
}

// poisson is the 95 % interval of a count (Byar's approximation).
func poisson(n int) (low, high float64) {
	const z = 1.96
	k := float64(n)
	if n > 0 {
		low = k * math.Pow(1-1/(9*k)-z/(3*math.Sqrt(k)), 3)
	}
	k++
	return low, k * math.Pow(1-1/(9*k)+z/(3*math.Sqrt(k)), 3)
}

// rate is a count over box-years.
type rate struct {
	n     int
	years float64
}

func (r rate) perYear() float64 { return float64(r.n) / r.years }

// result is all that was counted; results of fleets add up.
type result struct {
	unheard                   int  // faults with which a box fell silent
	heat, bad                 rate // tickets about heat; false ones of any kind
	badWith, badWithout       rate
	badOf                     [aboutSupply + 1]int // false ones by what they are about
	recallWith, recallWithout share
	slowLead, slowPossible    share // slow clogs 14 d before the first throttle
	wearLead, wearPossible    share // worn fans 7 d before
	wearTold, wearSilent      share // those of boxes that tell the speed of their fans, and the others
	calledTold, calledSilent  share // worn fans called so, likewise
	silentDue                 share // silent ones for whose box any ticket about heat was open 7 d before
	silentShown               share // silent ones that had raised the resistance by visibleRise by then
	silentFound               share // and of these those that were ticketed by then
	vent, hvac                share // found
	ventHours, hvacHours      []float64
	hvacBad                   rate
	stuck, drive, supply      share
	causes                    map[plant.Cause]map[health.Cause]int
	interval                  share // forecasts that hold the day
	early, late               int   // throttled before low, after high
	middle                    []float64
}

func newResult() *result { return &result{causes: map[plant.Cause]map[health.Cause]int{}} }

// add takes in the result of another fleet.
func (r *result) add(o *result) {
	r.unheard += o.unheard
	for k, n := range o.badOf {
		r.badOf[k] += n
	}
	r.early, r.late = r.early+o.early, r.late+o.late
	for _, p := range [][2]*rate{{&r.heat, &o.heat}, {&r.bad, &o.bad}, {&r.badWith, &o.badWith}, {&r.badWithout, &o.badWithout}, {&r.hvacBad, &o.hvacBad}} {
		p[0].n, p[0].years = p[0].n+p[1].n, p[0].years+p[1].years
	}
	for _, p := range [][2]*share{
		{&r.recallWith, &o.recallWith}, {&r.recallWithout, &o.recallWithout}, {&r.slowLead, &o.slowLead}, {&r.slowPossible, &o.slowPossible},
		{&r.wearLead, &o.wearLead}, {&r.wearPossible, &o.wearPossible}, {&r.wearTold, &o.wearTold}, {&r.wearSilent, &o.wearSilent},
		{&r.calledTold, &o.calledTold}, {&r.calledSilent, &o.calledSilent},
		{&r.silentDue, &o.silentDue}, {&r.silentShown, &o.silentShown}, {&r.silentFound, &o.silentFound}, {&r.vent, &o.vent}, {&r.hvac, &o.hvac},
		{&r.stuck, &o.stuck}, {&r.drive, &o.drive}, {&r.supply, &o.supply}, {&r.interval, &o.interval},
	} {
		p[0].hits, p[0].of = p[0].hits+p[1].hits, p[0].of+p[1].of
	}
	r.ventHours, r.hvacHours = append(r.ventHours, o.ventHours...), append(r.hvacHours, o.hvacHours...)
	r.middle = append(r.middle, o.middle...)
	for c, row := range o.causes {
		for k, n := range row {
			r.note(c, k, n)
		}
	}
}

// note counts a fault of a cause that was called another.
func (r *result) note(truth plant.Cause, named health.Cause, n int) {
	if r.causes[truth] == nil {
		r.causes[truth] = map[health.Cause]int{}
	}
	r.causes[truth][named] += n
}

// judge scores tickets and incidents against the truth.
func judge(truth *plant.Truth, seen []watched, tickets []ticket, incidents []health.Incident) *result {
	r := newResult()
	byBox := make([][]ticket, len(seen))
	for _, t := range tickets {
		byBox[t.box] = append(byBox[t.box], t)
	}
	for i, w := range seen {
		slices.SortStableFunc(byBox[i], func(a, b ticket) int { return int(min(max(a.at-b.at, -1), 1)) })
		r.judgeTickets(&truth.Boxes[i], &truth.Sites[w.site], w, byBox[i])
		for k := range truth.Boxes[i].Faults {
			r.judgeFault(&truth.Boxes[i], k, truth.Start.Unix(), w, byBox[i])
		}
	}
	r.judgeCooling(truth, seen, incidents)
	return r
}

func (r *result) judgeTickets(b *plant.BoxTruth, site *plant.SiteTruth, w watched, tickets []ticket) {
	split := &r.badWithout
	if w.reference {
		split = &r.badWith
	}
	for _, v := range []*rate{&r.heat, &r.bad, split} {
		v.years += w.years
	}
	for _, t := range tickets {
		if t.kind == aboutHeat {
			r.heat.n++
		}
		if slices.ContainsFunc(b.Faults, func(f plant.Fault) bool { return explains(&f, &t) }) {
			continue
		}
		if t.kind == aboutHeat && slices.ContainsFunc(site.Faults, func(f plant.Fault) bool { return during(&f, t.at, slackDays) }) {
			continue
		}
		r.bad.n++
		r.badOf[t.kind]++
		split.n++
	}
}

func kindOf(c plant.Cause) kind {
	switch c {
	case plant.Stuck:
		return aboutSensor
	case plant.SSD:
		return aboutDrive
	case plant.PSU:
		return aboutSupply
	}
	return aboutHeat
}

func during(f *plant.Fault, at int64, slack int64) bool {
	return at >= f.Onset.Unix() && (f.End.IsZero() || at <= f.End.Unix()+slack*day)
}

// explains: f was there for t.
func explains(f *plant.Fault, t *ticket) bool {
	if kindOf(f.Cause) != t.kind || !during(f, t.at, slackDays) {
		return false
	}
	if t.kind != aboutHeat || f.Cause == plant.FanStop {
		return true
	}
	last := int(t.at/day - f.Onset.Unix()/day)
	for d := max(last-slackDays, 0); d <= last; d++ {
		if visible(f, d) {
			return true
		}
	}
	return false
}

func visible(f *plant.Fault, d int) bool {
	return d >= 0 && (riseOn(f, d) >= visibleRise || d < len(f.Level) && float64(f.Level[d])*f.RPMLoss >= visibleRise)
}

// riseOn is the rise d days after the onset.
func riseOn(f *plant.Fault, d int) float64 {
	if d < 0 || d >= len(f.Rise) {
		return 0
	}
	return float64(f.Rise[d])
}

// throttledBy is the first throttled hour, if it is put down to f. total is
// the rise of the box on each day from start.
func throttledBy(f *plant.Fault, total []float32, start int64) (int64, bool) {
	if f.FirstThrottle == nil {
		return 0, false
	}
	at := f.FirstThrottle.Unix()
	d := int(at/day - start/day)
	return at, d >= 0 && d < len(total) && riseOn(f, int(at/day-f.Onset.Unix()/day)) >= 0.5*float64(total[d])
}

func fanFault(c plant.Cause) bool { return c == plant.FanWear || c == plant.FanStop }

func sudden(c plant.Cause) bool { return c == plant.Vent || c == plant.FanStop }

// finder is the first ticket that finds a fault, or nil.
func finder(f *plant.Fault, tickets []ticket) *ticket {
	for i := range tickets {
		t := &tickets[i]
		if kindOf(f.Cause) != t.kind || t.kind == aboutHeat && t.cause != "" && t.fan && !fanFault(f.Cause) {
			continue
		}
		own := t.cause == "" || t.fan == fanFault(f.Cause)
		if t.at >= f.Onset.Unix() && explains(f, t) {
			return t
		}
		// Of an open ticket the technician knows already.
		if sudden(f.Cause) {
			own = own && (t.cause == "" || t.cause == health.CauseVent || t.cause == health.CauseFanStop)
		}
		if first := firstVisible(f); own && t.kind == aboutHeat && t.at < first && t.until > first && (f.End.IsZero() || f.End.Unix() > first) {
			return t
		}
	}
	return nil
}

func firstVisible(f *plant.Fault) int64 {
	for d := range f.Rise {
		if visible(f, d) {
			return f.Onset.Unix() + int64(d)*day
		}
	}
	return math.MaxInt64
}

func (r *result) judgeFault(b *plant.BoxTruth, k int, start int64, w watched, tickets []ticket) {
	f := &b.Faults[k]
	if w.silent(f, start) {
		r.unheard++
		return
	}
	t := finder(f, tickets)
	switch kindOf(f.Cause) {
	case aboutSensor:
		r.stuck.count(t != nil)
		return
	case aboutDrive:
		if w.drive {
			r.drive.count(t != nil)
		}
		return
	case aboutSupply:
		if w.supply {
			r.supply.count(t != nil)
		}
		return
	}
	if f.Cause == plant.Vent {
		r.vent.count(t != nil)
		if t != nil && t.at >= f.Onset.Unix() {
			r.ventHours = append(r.ventHours, float64(t.at-f.Onset.Unix())/3600)
		}
	}
	throttle, throttled := throttledBy(f, b.Rise, start)
	if end, worn := wornAt(f, throttle, throttled); worn {
		r.judgeWear(f, t, end, w.told)
		if !w.told {
			r.judgeSilent(f, t, tickets, end-7*day)
		}
	}
	if f.Peak() < neededRise && !throttled {
		return
	}
	if w.reference {
		r.recallWith.count(t != nil)
	} else {
		r.recallWithout.count(t != nil)
	}
	if throttled && f.Cause == plant.Clog && f.Variant == "slow" {
		lead(&r.slowLead, &r.slowPossible, f, t, throttle-14*day)
	}
	if t == nil {
		return
	}
	if dominant(b.Faults, k, t.at) {
		r.note(f.Cause, t.cause, 1)
		if f.Cause == plant.FanWear {
			split(w.told, &r.calledTold, &r.calledSilent).count(t.cause == health.CauseFanWear)
		}
	}
	if throttled {
		r.judgeForecast(f, t, throttle)
	}
}

// dominant: no other heat fault of the box was worth more in the week about.
func dominant(all []plant.Fault, k int, at int64) bool {
	most := func(f *plant.Fault) float64 {
		d, top := int(at/day-f.Onset.Unix()/day), 0.0
		for i := d - 3; i <= d+3; i++ {
			top = max(top, riseOn(f, i))
		}
		return top
	}
	for i := range all {
		if i != k && kindOf(all[i].Cause) == aboutHeat && most(&all[i]) > 0.5*most(&all[k]) {
			return false
		}
	}
	return true
}

// lead: was there a ticket in time? possible counts only faults that were worth
// 2 % by then; no index of resistance can see others.
func lead(all, possible *share, f *plant.Fault, t *ticket, by int64) {
	hit := t != nil && t.at <= by
	all.count(hit)
	if firstVisible(f) <= by {
		possible.count(hit)
	}
}

// split is where a fan of a box is counted.
func split(told bool, yes, no *share) *share {
	if told {
		return yes
	}
	return no
}

// judgeForecast holds the forecast of the ticket against the first throttle.
func (r *result) judgeForecast(f *plant.Fault, t *ticket, throttle int64) {
	p := t.forecast
	if p == nil || f.Cause != plant.Clog && f.Cause != plant.Lint && f.Cause != plant.Paste {
		return
	}
	truth := float64(throttle-(int64(p.Day)+1)*day) / day
	if truth <= 0 {
		return
	}
	r.interval.count(p.Low <= math.Ceil(truth) && truth <= p.High)
	switch {
	case math.Ceil(truth) < p.Low:
		r.early++
	case truth > p.High:
		r.late++
	}
	r.middle = append(r.middle, p.Mid-truth)
}

// judgeCooling: two boxes of a site must have been there with a reference, or
// nobody can tell the room from the box.
func (r *result) judgeCooling(truth *plant.Truth, seen []watched, incidents []health.Incident) {
	for s := range truth.Sites {
		site := &truth.Sites[s]
		var own []health.Incident
		for _, in := range incidents {
			if in.Site == site.Site {
				own = append(own, in)
			}
		}
		for k := range site.Faults {
			r.judgeFailure(&site.Faults[k], s, seen, own)
		}
		years := 0.0
		for _, w := range seen {
			if w.site == s {
				years = max(years, w.years)
			}
		}
		r.hvacBad.years += years
		for _, in := range own {
			if !slices.ContainsFunc(site.Faults, func(f plant.Fault) bool { return during(&f, int64(in.Opened), 1) }) {
				r.hvacBad.n++
			}
		}
	}
}

func (r *result) judgeFailure(f *plant.Fault, site int, seen []watched, own []health.Incident) {
	boxes := 0
	for _, w := range seen {
		if w.site == site && w.reference && w.from+21*day <= f.Onset.Unix() {
			boxes++
		}
	}
	if boxes < 2 || f.RoomRiseK < hotRoom {
		return
	}
	best := time.Duration(math.MaxInt64)
	for _, in := range own {
		if during(f, int64(in.Opened), 1) {
			best = min(best, time.Duration(int64(in.Opened)-f.Onset.Unix())*time.Second)
		}
	}
	found := best != math.MaxInt64
	r.hvac.count(found)
	if found {
		r.hvacHours = append(r.hvacHours, best.Hours())
	}
}
