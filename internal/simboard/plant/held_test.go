package plant

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHeldFamiliesLieOutsideTheDevRanges(t *testing.T) {
	all := families()
	known := map[string]map[string]bool{}
	for _, name := range []string{"dev0", "dev1", "dev2"} {
		for kind, choices := range all[name].Structure {
			if known[kind] == nil {
				known[kind] = map[string]bool{}
			}
			for _, c := range choices {
				known[kind][c.Name] = true
			}
		}
	}
	mechanisms := map[string]string{} // the first family that has a structure or an extra range
	inTurn := slices.SortedFunc(slices.Values(Families()), func(a, b string) int { return cmp.Or(len(a)-len(b), cmp.Compare(a, b)) })
	for _, name := range inTurn {
		for _, m := range mechanismsOf(all[name]) {
			if mechanisms[m] == "" {
				mechanisms[m] = name
			}
		}
	}
	age := func(name string) int { return slices.Index(inTurn, name) }
	for _, name := range slices.DeleteFunc(slices.Clone(inTurn), func(x string) bool { return !strings.HasPrefix(x, "held") }) {
		outside, unknown := 0, map[string]bool{}
		for key, s := range all[name].Spans {
			beyond := true
			for _, dev := range []string{"dev0", "dev1", "dev2"} {
				d, ok := all[dev].Spans[key]
				beyond = beyond && (!ok || s.Lo > d.Hi || s.Hi < d.Lo)
			}
			if beyond {
				outside++
			}
		}
		for kind, choices := range all[name].Structure {
			for _, c := range choices {
				if !known[kind][c.Name] {
					unknown[kind] = true
				}
			}
		}
		if outside < 8 || len(unknown) < 2 {
			t.Errorf("%s has %d ranges outside all of dev and %d structures unknown there, want 8 and 2", name, outside, len(unknown))
		}
		late, last := 0, 0
		for _, m := range mechanismsOf(all[name]) {
			if age(mechanisms[m]) > age("held2") {
				late++
			}
			if age(mechanisms[m]) > age("held5") {
				last++
			}
		}
		if age(name) > age("held2") && late < 10 {
			t.Errorf("%s has %d mechanisms that held0 to held2 lack, want 10", name, late)
		}
		if age(name) > age("held5") && last < 7 {
			t.Errorf("%s has %d mechanisms that held0 to held5 lack, want 7", name, last)
		}
	}
}

// mechanismsOf are the structures and the ranges of a family.
func mechanismsOf(f recipe) []string {
	all := slices.Collect(maps.Keys(f.Spans))
	for kind, choices := range f.Structure {
		for _, c := range choices {
			all = append(all, kind+" "+c.Name)
		}
	}
	return all
}

func TestFanCurveWithAStallHasOneWorkingPoint(t *testing.T) {
	for _, b := range []float64{1, 2, 2.7} {
		h := hardware{fans: 1, phi: 0.75, bulge: b, filterShare: 0.4, strength: 1}
		last := 1.0
		for phi := 0.01; phi <= 1; phi += 0.01 {
			x := h.head(phi)
			if x >= last {
				t.Fatalf("bulge %v: head rises to %.4f at %.2f of free flow: two flows would fit one pressure", b, x, phi)
			}
			near(t, "flow against a head", h.against(1-x), phi, 1e-6)
			last = x
		}
		c := clean()
		near(t, "clean flow at full speed", h.flow(&c, 1), 1, 1e-6)
		c.filter, c.chassis = 6, 6
		y := h.flow(&c, 1)
		near(t, "pressure where fan and system meet", h.head(0.75*y)/h.head(0.75), 6*(0.4*y+0.6*y*y), 1e-6)
	}
}

func TestThinAirCoolsLess(t *testing.T) {
	h := hardware{fans: 1, phi: 0.6, airPerWatt: 0.1, airShare: 0.5, convExp: 0.7, rJC: 0.2, rTIM: 0.1, rConv: 0.4, strength: 1}
	c, low := clean(), h
	low.lift(1)
	if low != h {
		t.Errorf("sea level changes a box to %+v", low)
	}
	low.lift(0.8)
	sea, high := h.resistance(&c, 1, 40), low.resistance(&c, 1, 40)
	near(t, "resistance at 1,900 m", high, 0.3+0.4*math.Pow(0.8, -0.7)+0.05/0.8, 1e-9)
	near(t, "resistance at sea level", sea, 0.75, 1e-9)
	f := fleet(t, Options{Seed: 1, Family: "held5", Boxes: 200, Days: 2})
	hills := 0
	for _, s := range f.sites {
		if s.density < 0.75 || s.density > 1 {
			t.Errorf("air of %s has density %.2f", s.id, s.density)
		}
		if s.density < 1 {
			hills++
		}
	}
	if hills < len(f.sites)/5 || hills > len(f.sites)*3/5 {
		t.Errorf("%d of %d sites lie in the hills", hills, len(f.sites))
	}
}

// roomsOf gathers the hours of rooms by their regime.
func roomsOf(t *testing.T, family string) (rooms map[string][]float64, away map[string][]float64) {
	f := fleet(t, Options{Seed: 3, Family: family, Boxes: 150, Days: 365, Healthy: true})
	rooms, away = map[string][]float64{}, map[string][]float64{}
	for _, s := range f.sites {
		day, night, n, m := 0.0, 0.0, 0, 0
		for h, x := range s.room {
			at := f.time(float64(h))
			rooms[s.regime.kind] = append(rooms[s.regime.kind], float64(x))
			switch {
			case at.Weekday() == time.Sunday && at.Hour() >= 6:
				night += float64(x)
				n++
			case at.Weekday() == time.Wednesday && at.Hour() >= 10 && at.Hour() < 20:
				day += float64(x)
				m++
			}
		}
		away[s.regime.kind] = append(away[s.regime.kind], night/float64(n)-day/float64(m))
	}
	return rooms, away
}

func TestRoomsFollowTheirRegime(t *testing.T) {
	south, sunday := roomsOf(t, "held3")
	north, _ := roomsOf(t, "held4")
	if a, b := sd(south["conditioned"]), sd(north["unheated"]); a > 1.8 || b < 5 {
		t.Errorf("a conditioned room varies by %.1f K and an unheated one by %.1f K, want at most 1.8 and at least 5", a, b)
	}
	for _, kind := range []string{"set-back", "week-end"} {
		if n := len(sunday[kind]); n == 0 || slices.Max(sunday[kind]) < 4 {
			t.Errorf("Sundays of warm countries with cooling of kind %s are warmer by %v K, want more than 4 somewhere", kind, sunday[kind])
		}
	}
	if cold := slices.Min(north["unheated"]); cold < -25 || cold > 2 {
		t.Errorf("an unheated room falls to %.1f °C", cold)
	}
	for kind, x := range south {
		if lo, hi := slices.Min(x), slices.Max(x); lo < 8 || hi > 48 {
			t.Errorf("%s rooms of warm countries are %.1f to %.1f °C", kind, lo, hi)
		}
	}
}

func TestFirmwareTakesTheHigherOfTwoCurves(t *testing.T) {
	c := control{kind: "either", tLo: 40, tHi: 80, dMin: 0.2, byInlet: 0.015}
	near(t, "cool die, hot inlet", c.either(&point{die: 40, inlet: 40}), 0.8, 1e-9)
	near(t, "hot die, cool inlet", c.either(&point{die: 80, inlet: 20}), 1, 1e-9)
	c.quiet = true
	near(t, "quiet at half way", c.curve(60), 0.2+0.8/4, 1e-9)
}

func TestSouthernSummerIsInJanuary(t *testing.T) {
	january := time.Date(2025, 1, 15, 0, 0, 0, 0, time.UTC)
	n, s := site{}, site{south: true}
	if n.summer(january) > -0.9 || s.summer(january) < 0.9 {
		t.Errorf("January is %.2f in the north and %.2f in the south", n.summer(january), s.summer(january))
	}
}

func TestProppedDoorPullsTheRoomOutdoors(t *testing.T) {
	g := regime{open: []window{{100, 130}}, share: []float64{0.3}}
	noon, night := time.Date(2025, 1, 6, 12, 0, 0, 0, time.UTC), time.Date(2025, 1, 6, 2, 0, 0, 0, time.UTC)
	near(t, "in the day", g.propped(110, noon, 10), 3, 1e-9)
	near(t, "at night", g.propped(110, night, 10), 0, 0)
	near(t, "later", g.propped(130, noon, 10), 0, 0)
}

func TestMatsShedWithoutAnybodyCleaning(t *testing.T) {
	f := fleet(t, Options{Seed: 4, Family: "held4", Boxes: 30, Days: 300})
	sheds := 0
	for i, b := range f.boxes {
		b.plan.actions = slices.DeleteFunc(b.plan.actions, func(a action) bool { return a.do != shed })
		if len(b.plan.actions) == 0 {
			continue
		}
		for _, a := range b.plan.actions {
			r := runner{f: f, b: b, x: 0.8}
			r.do(a, a.hour)
			if r.x >= 0.8 || r.x < 0.3 {
				t.Errorf("dust goes from 0.8 to %.2f", r.x)
			}
			sheds++
		}
		if sheds < 5 {
			if n := len(f.Simulate(i, nil).Cleanings); n > 0 {
				t.Errorf("%s has %d cleanings though nobody came", b.id, n)
			}
		}
	}
	if sheds == 0 {
		t.Error("no mat shed")
	}
}

func TestMeteredLinkOpensEveryFourHours(t *testing.T) {
	f := fleet(t, Options{Seed: 6, Family: "held3", Boxes: 20, Days: 9})
	rows := 0
	for i, b := range f.boxes {
		if b.site.backfill != "metered" {
			continue
		}
		f.Simulate(i, func(x *Row) {
			if rows++; x.Arrived.Hour()%4 != 0 {
				t.Fatalf("a row arrives at %v", x.Arrived)
			}
		})
	}
	if rows == 0 {
		t.Error("no metered link in the fleet")
	}
}

func TestThermistorsDriftAndFeelTheirBoard(t *testing.T) {
	kit := sensorKit{drift: 0.4, offset: span{}}
	kit.fitted[inletGauge], kit.fitted[dieGauge], kit.step[inletGauge], kit.step[dieGauge] = true, true, 0.001, 0.001
	var inlet, die []float64
	for i := range 400 {
		s := kit.fit(streamOf(uint64(i), "t").rng(), uint64(i))
		at := row{index: i, hour: 8760, root: 1e6}
		inlet = append(inlet, s.reading(inletGauge, 20, 0, at)-20)
		die = append(die, s.reading(dieGauge, 60, 0, at)-60)
	}
	near(t, "sd of an inlet after a year", sd(inlet), 0.4, 0.06)
	near(t, "sd of a die after a year", sd(die), 0.08, 0.02)

	f := fleet(t, Options{Seed: 2, Family: "held4", Boxes: 12, Days: 3, Healthy: true})
	for i, b := range f.boxes {
		if !b.fit.live[inletGauge] {
			continue
		}
		mean := func(coupling float64) float64 {
			own := *b.fit.kit
			own.coupling, own.drift = coupling, 0
			b.fit.kit = &own
			sum, n := 0.0, 0
			f.Simulate(i, func(x *Row) { sum += x.InletC; n++ })
			return sum / float64(n)
		}
		if d := mean(0.1) - mean(0); d < 0.1 || d > 4 {
			t.Errorf("%s: an inlet that feels a tenth of its board's rise reads %.2f K more", b.id, d)
		}
		return
	}
	t.Error("no inlet in the fleet")
}

func TestTemperaturesStayPlausible(t *testing.T) {
	for _, name := range []string{"held3", "held4", "held5", "held6", "held7", "held8", "held9", "held10", "held11"} {
		f := fleet(t, Options{Seed: 12, Family: name, Boxes: 15, Days: 60, Start: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)})
		for i, b := range f.boxes {
			out, rows := 0, 0
			f.Simulate(i, func(x *Row) {
				// One reading in 60,000 is a sentinel; a dangling board header reads nothing else.
				ok := x.DieC > -15 && x.DieC < b.hw.trip+shutDown+6 && !(x.InletC < -25 || x.InletC > 65 || x.ExhaustC > 100)
				ok = ok && !(x.PowerW < 0.5 || x.PowerW > 600 || x.NVMeC > 115) && !(x.DieC < x.InletC-4)
				if rows++; !ok {
					out++
				}
			})
			if out > 2+rows/2000 {
				t.Errorf("%s %s (%s): %d of %d rows are beyond nature", name, b.id, b.sku.kind, out, rows)
			}
		}
	}
}

func TestLoadsFollowTheirPattern(t *testing.T) {
	monday := time.Date(2025, 1, 6, 0, 0, 0, 0, time.UTC)
	l := load{pattern: "batch", low: 0.1, high: 0.8, period: 6, run: 2}
	busy := 0
	for h := range 24 {
		if l.week(monday.Add(time.Duration(h)*time.Hour)) == 0.8 {
			busy++
		}
	}
	if busy != 8 {
		t.Errorf("a batch of 2 in 6 hours runs %d hours a day", busy)
	}
	l.pattern = "traffic"
	rush, noon, night := l.week(monday.Add(8*time.Hour)), l.week(monday.Add(12*time.Hour)), l.week(monday.Add(3*time.Hour))
	if !(rush > noon && noon > night && night > 0) {
		t.Errorf("traffic is %.2f in the rush hour, %.2f at noon and %.2f at night", rush, noon, night)
	}
	l = load{growth: 0.2, noise: streamOf(1, "t")}
	near(t, "growth over a year", l.drift(8760+500)-(&load{noise: l.noise}).drift(8760+500), 0.2*9260/8760, 1e-9)
}
