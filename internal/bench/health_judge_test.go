package bench

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/simboard/plant"
)

var judged = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func onDay(d float64) time.Time { return judged.Add(time.Duration(d * float64(24*time.Hour))) }

func unixDay(d float64) int64 { return onDay(d).Unix() }

// grown is a fault whose rise goes evenly from 0 on day from to top on day to,
// and then stays until the end of 100 days.
func grown(c plant.Cause, from, to int, top float64) plant.Fault {
	f := plant.Fault{Cause: c, Onset: onDay(float64(from)), Full: top}
	for d := from; d < 100; d++ {
		x := 1.0 // there at once
		if to > from {
			x = min(float64(d-from)/float64(to-from), 1)
		}
		f.Level, f.Rise = append(f.Level, float32(x)), append(f.Rise, float32(x*top))
	}
	return f
}

func throttles(f plant.Fault, d float64) plant.Fault {
	at := onDay(d)
	f.FirstThrottle = &at
	return f
}

func ends(f plant.Fault, d float64) plant.Fault {
	f.End = onDay(d)
	return f
}

// one judges a single box of 100 days.
func one(faults []plant.Fault, tickets ...ticket) *result {
	truth := &plant.Truth{Start: judged, Days: 100, Sites: []plant.SiteTruth{{Site: "s"}}, Boxes: []plant.BoxTruth{{Box: "b", Site: "s", Faults: faults, Rise: make([]float32, 100)}}}
	for d := range truth.Boxes[0].Rise {
		for i := range faults {
			truth.Boxes[0].Rise[d] += float32(riseOn(&faults[i], d-int(faults[i].Onset.Sub(judged).Hours()/24)))
		}
	}
	seen := []watched{{years: 0.27, reference: true, from: judged.Unix(), hours: make([]uint64, 38)}}
	for i := range seen[0].hours {
		seen[0].hours[i] = math.MaxUint64
	}
	return judge(truth, seen, tickets, nil)
}

func heat(at, until float64, c health.Cause) ticket {
	return ticket{cause: c, fan: c == health.CauseFanWear, at: unixDay(at), until: unixDay(until)}
}

func TestTicketIsTrueOnlyWhenItsFaultIsThere(t *testing.T) {
	clog := grown(plant.Clog, 20, 60, 0.4) // 2 % on day 22
	wear := grown(plant.FanWear, 20, 60, 0.05)
	wear.RPMLoss = 0.3
	tests := []struct {
		name   string
		faults []plant.Fault
		ticket ticket
		bad    int
	}{
		{"no fault", nil, heat(30, 40, health.CauseAirflow), 1},
		{"while it is there", []plant.Fault{clog}, heat(30, 40, health.CauseAirflow), 0},
		{"whatever cause it names", []plant.Fault{clog}, heat(30, 40, health.CausePaste), 0},
		{"before it began", []plant.Fault{clog}, heat(10, 40, health.CauseAirflow), 1},
		{"before it was worth anything", []plant.Fault{clog}, heat(20.5, 40, health.CauseAirflow), 1},
		{"within a week of its end", []plant.Fault{ends(clog, 50)}, heat(56, 60, health.CauseAirflow), 0},
		{"later than that", []plant.Fault{ends(clog, 50)}, heat(58, 60, health.CauseAirflow), 1},
		{"a fan that lost 2 % of its speed", []plant.Fault{wear}, heat(25, 40, health.CauseFanWear), 0},
		{"of another kind", []plant.Fault{clog}, ticket{kind: aboutDrive, cause: health.CauseDrive, at: unixDay(30)}, 1},
	}
	for _, tt := range tests {
		if r := one(tt.faults, tt.ticket); r.bad.n != tt.bad {
			t.Errorf("%s: %d false tickets, want %d", tt.name, r.bad.n, tt.bad)
		}
	}
}

func TestNeededFaultsAreToBeFound(t *testing.T) {
	clog, vent := grown(plant.Clog, 20, 60, 0.4), ends(grown(plant.Vent, 50, 50, 0.5), 52)
	tests := []struct {
		name    string
		faults  []plant.Fault
		tickets []ticket
		want    share
	}{
		{"too small to matter", []plant.Fault{grown(plant.Clog, 20, 60, 0.08)}, nil, share{0, 0}},
		{"small but it throttles", []plant.Fault{throttles(grown(plant.Clog, 20, 60, 0.08), 58)}, nil, share{0, 1}},
		{"missed", []plant.Fault{clog}, nil, share{0, 1}},
		{"found", []plant.Fault{clog}, []ticket{heat(40, 50, health.CauseAirflow)}, share{1, 1}},
		{"by a ticket that was open before", []plant.Fault{clog}, []ticket{heat(15, 50, health.CauseAirflow)}, share{1, 1}},
		{"a ticket that closed before it showed", []plant.Fault{clog}, []ticket{heat(15, 21, health.CauseAirflow)}, share{0, 1}},
		{"a fan ticket finds no dust", []plant.Fault{clog}, []ticket{heat(40, 50, health.CauseFanWear)}, share{0, 1}},
		{"an old ticket finds no vent", []plant.Fault{vent}, []ticket{heat(40, 60, health.CauseAirflow)}, share{0, 1}},
		{"a throttle that another fault made", []plant.Fault{throttles(grown(plant.Clog, 20, 60, 0.05), 50.5), throttles(vent, 50.5)}, []ticket{heat(50.2, 51, health.CauseVent)}, share{1, 1}},
	}
	for _, tt := range tests {
		if r := one(tt.faults, tt.tickets...); r.recallWith != tt.want {
			t.Errorf("%s: found %v, want %v", tt.name, r.recallWith, tt.want)
		}
	}
}

func TestLeadsAndDelays(t *testing.T) {
	slow := throttles(grown(plant.Clog, 20, 60, 0.4), 55)
	slow.Variant = "slow"
	wear := grown(plant.FanWear, 20, 60, 0.05)
	wear.RPMLoss = 0.4 // 20 % lost on day 40
	for _, tt := range []struct {
		at   float64
		slow share
		wear share
	}{{32, share{1, 1}, share{1, 1}}, {40.9, share{1, 1}, share{0, 1}}, {41.1, share{0, 1}, share{0, 1}}} {
		if got := one([]plant.Fault{slow}, heat(tt.at, 90, health.CauseAirflow)).slowLead; got != tt.slow {
			t.Errorf("slow clog ticketed on day %v: %v, want %v", tt.at, got, tt.slow)
		}
		if got := one([]plant.Fault{wear}, heat(tt.at, 90, health.CauseFanWear)).wearLead; got != tt.wear {
			t.Errorf("worn fan ticketed on day %v: %v, want %v", tt.at, got, tt.wear)
		}
	}
	for _, told := range []bool{true, false} {
		r := newResult()
		end, _ := wornAt(&wear, 0, false)
		r.judgeWear(&wear, &ticket{at: unixDay(32)}, end, told)
		if want := (share{1, 1}); *split(told, &r.wearTold, &r.wearSilent) != want || *split(!told, &r.wearTold, &r.wearSilent) != (share{}) {
			t.Errorf("fan of a box that tells its speed (%v): %v told, %v silent", told, r.wearTold, r.wearSilent)
		}
	}
	for _, c := range []struct {
		top   float64 // 7 days before its end the fan made 0.325 of it
		until float64 // of a ticket for dust made before
		want  [3]share
	}{{0.05, 90, [3]share{{1, 1}, {0, 1}, {0, 0}}}, {0.1, 30, [3]share{{0, 1}, {1, 1}, {0, 1}}}} {
		worn := grown(plant.FanWear, 20, 60, c.top)
		worn.RPMLoss = 0.4
		r := newResult()
		r.judgeSilent(&worn, nil, []ticket{heat(10, c.until, health.CauseAirflow)}, unixDay(33))
		if got := [3]share{r.silentDue, r.silentShown, r.silentFound}; got != c.want {
			t.Errorf("silent fan that raises the resistance to %v: due, shown, found %v, want %v", c.top, got, c.want)
		}
	}
	r := one([]plant.Fault{ends(grown(plant.Vent, 50, 50, 0.5), 52)}, heat(50.25, 52, health.CauseVent))
	if !reflect.DeepEqual(r.ventHours, []float64{6}) {
		t.Errorf("vent found after %v h, want 6", r.ventHours)
	}
}

func TestForecastHoldsTheDayOrDoesNot(t *testing.T) {
	fault := throttles(grown(plant.Clog, 20, 60, 0.4), 55.5)
	for _, tt := range []struct {
		low, high   float64
		hold        share
		early, late int
	}{{10, 20, share{1, 1}, 0, 0}, {17, 20, share{0, 1}, 1, 0}, {5, 12, share{0, 1}, 0, 1}} {
		x := heat(40, 90, health.CauseAirflow)
		x.forecast = &health.Forecast{Day: int32(unixDay(39) / day), Low: tt.low, Mid: 15, High: tt.high}
		if r := one([]plant.Fault{fault}, x); r.interval != tt.hold || r.early != tt.early || r.late != tt.late {
			t.Errorf("%v to %v days: %v, early %d, late %d", tt.low, tt.high, r.interval, r.early, r.late)
		}
	}
}

func TestCausesAreComparedWhereOneFaultRules(t *testing.T) {
	clog, paste := grown(plant.Clog, 20, 60, 0.4), grown(plant.Paste, 20, 60, 0.3)
	r := one([]plant.Fault{clog}, heat(40, 50, health.CausePaste))
	if got := r.causes[plant.Clog][health.CausePaste]; got != 1 {
		t.Errorf("%v, want one clog called paste", r.causes)
	}
	if r := one([]plant.Fault{clog, paste}, heat(40, 50, health.CausePaste)); len(r.causes) != 0 {
		t.Errorf("two faults at once are compared: %v", r.causes)
	}
}

func TestFailedCoolingNeedsTwoBoxesAndFiveKelvin(t *testing.T) {
	fault := ends(plant.Fault{Cause: plant.HVAC, Onset: onDay(50), RoomRiseK: 8}, 51)
	for _, tt := range []struct {
		name  string
		boxes int
		kelvin,
		at float64
		want share
		bad  int
	}{
		{"found", 2, 8, 50.25, share{1, 1}, 0}, {"one box", 1, 8, 50.25, share{0, 0}, 0}, {"hardly warm", 2, 3, 50.25, share{0, 0}, 0},
		{"an incident without a cause", 2, 8, 70, share{0, 1}, 1},
	} {
		fault.RoomRiseK = tt.kelvin
		truth := &plant.Truth{Start: judged, Days: 100, Sites: []plant.SiteTruth{{Site: "s", Faults: []plant.Fault{fault}}}}
		var seen []watched
		for range tt.boxes {
			truth.Boxes = append(truth.Boxes, plant.BoxTruth{Site: "s"})
			seen = append(seen, watched{years: 0.27, reference: true, from: judged.Unix()})
		}
		r := judge(truth, seen, nil, []health.Incident{{Site: "s", Opened: health.Unix(unixDay(tt.at))}})
		if r.hvac != tt.want || r.hvacBad.n != tt.bad {
			t.Errorf("%s: %v, %d false; want %v, %d", tt.name, r.hvac, r.hvacBad.n, tt.want, tt.bad)
		}
	}
}

func TestFaultThatSilencesTheBoxIsLeftOut(t *testing.T) {
	w := watched{hours: make([]uint64, 38)}
	w.hours[0] = math.MaxUint64
	stop := plant.Fault{Cause: plant.FanStop, Onset: judged.Add(62 * time.Hour)}
	if !w.silent(&stop, judged.Unix()) {
		t.Error("two hours were heard of; that is silence")
	}
	stop.Onset = judged.Add(60 * time.Hour)
	if w.silent(&stop, judged.Unix()) {
		t.Error("four hours were heard of; that is enough")
	}
}

func TestIntervalsOfSharesAndCounts(t *testing.T) {
	if low, high := (share{8, 10}).wilson(); math.Abs(low-0.49) > 0.005 || math.Abs(high-0.943) > 0.005 {
		t.Errorf("8 of 10: %.3f to %.3f, want 0.490 to 0.943", low, high)
	}
	if low, high := poisson(10); math.Abs(low-4.8) > 0.1 || math.Abs(high-18.4) > 0.1 {
		t.Errorf("10: %.2f to %.2f, want 4.8 to 18.4", low, high)
	}
	if low, high := poisson(0); low != 0 || math.Abs(high-3.69) > 0.1 {
		t.Errorf("0: %.2f to %.2f, want 0 to 3.7", low, high)
	}
}

// TestTicketsOfGroupsAreHeldAgainstWhatTheirBoxesHave: four boxes at each of four
// sites, those of the first risen as they are said to be, or not.
func TestTicketsOfGroupsAreHeldAgainstWhatTheirBoxesHave(t *testing.T) {
	for _, tt := range []struct {
		name      string
		said, was float64 // percent; rise
		bad       int
		right     int
		dusty     share
	}{
		{"as dusty as was said", 8, 0.08, 0, 1, share{1, 1}},
		{"said, but it is not", 8, 0, 1, 0, share{}},
		{"too little to be looked for, but there", 8, 0.03, 0, 1, share{}},
		{"not said", 0, 0.08, 0, 0, share{0, 1}},
	} {
		truth := plant.Truth{Start: judged, Days: 40}
		days := &stands{day: map[int32][]care.Member{}}
		f := &healthFleet{}
		for site := range 4 {
			name := fmt.Sprint("s", site)
			truth.Sites = append(truth.Sites, plant.SiteTruth{Site: name})
			for box := range 4 {
				b := plant.BoxTruth{Box: fmt.Sprint(name, "b", box), Site: name, SKU: "x", Rise: make([]float32, 40)}
				for d := range 40 {
					m := care.Member{Box: identity.ID(b.Box), Name: b.Box, Site: name, SKU: "x"}
					if site == 0 {
						b.Rise[d], m.Percent = float32(tt.was), tt.said
					}
					day := int32(judged.Unix()/day) + int32(d)
					days.day[day] = append(days.day[day], m)
				}
				truth.Boxes = append(truth.Boxes, b)
				f.seen = append(f.seen, watched{site: site, years: 40 / 365.25})
			}
		}
		f.truth = truth
		if g := f.grouped(days, nil, nil); g.site.n != tt.bad || g.siteRight != tt.right || g.dusty != tt.dusty || g.sku.n+g.skuRight != 0 {
			t.Errorf("%s: %+v", tt.name, g)
		}
	}
}
