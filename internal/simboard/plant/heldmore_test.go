package plant

import (
	"math"
	"slices"
	"testing"
	"time"
)

// The figures are those of the fleets that the bench judges.
func TestEnoughFansWearToTellNinetyFromNinetyFive(t *testing.T) {
	for _, name := range []string{"held6", "held7", "held8", "held9", "held10", "held11"} {
		f := fleet(t, Options{Seed: 20260, Family: name, Boxes: 200})
		worn, told := 0, 0
		for _, b := range f.boxes {
			for _, x := range b.plan.faults {
				// A tenth of the speed is what makers call worn out.
				if x.cause == FanWear && x.top*x.level(min(x.off, f.hours)-1) >= 0.1 {
					worn++
					if b.fit.kit.fitted[rpmGauge] {
						told++
					}
				}
			}
		}
		if worn < 60 || told < 30 || told == worn {
			t.Errorf("%s: %d fans lose a tenth of their speed, %d with a tachometer, want 60 and 30 of them", name, worn, told)
		}
	}
}

func TestOvensWarmTheirRoomWhileTheyBake(t *testing.T) {
	f := fleet(t, Options{Seed: 3, Family: "held7", Boxes: 100, Days: 365, Healthy: true})
	seen := map[string]int{}
	for _, s := range f.sites {
		seen[s.regime.kind]++
		bake, rest, n, m := 0.0, 0.0, 0, 0
		for h, x := range s.room {
			if at := f.time(float64(h)); at.Hour() == 8 && at.Weekday() == time.Wednesday {
				bake, n = bake+float64(x), n+1
			} else if at.Hour() == 8 && at.Weekday() == time.Sunday {
				rest, m = rest+float64(x), m+1
			}
			if s.regime.kind != "unheated" && (x < 8 || x > 50) {
				t.Fatalf("%s (%s) is at %.1f °C in hour %d", s.id, s.regime.kind, x, h)
			}
		}
		k := bake/float64(n) - rest/float64(m)
		if s.regime.kind == "ovens" && (k < 1.5 || k > 14) {
			t.Errorf("%s is %.1f K warmer at eight on a Wednesday than on a Sunday", s.id, k)
		}
		if s.regime.kind != "ovens" && math.Abs(k) > 1.5 {
			t.Errorf("%s (%s) has no oven and differs by %.1f K", s.id, s.regime.kind, k)
		}
	}
	if seen["ovens"] < len(f.sites)/3 || len(seen) < 3 {
		t.Errorf("the sites are %v", seen)
	}
}

func TestCupboardIsWarmedByItsBox(t *testing.T) {
	f := fleet(t, Options{Seed: 1, Family: "held8", Boxes: 40, Days: 9, Healthy: true})
	cupboards, tried := 0, false
	for i, b := range f.boxes {
		if b.site.cupboard > 0 {
			cupboards++
		}
		if b.site.cupboard == 0 || tried || b.start > 0 || !b.fit.live[inletGauge] {
			continue
		}
		tried = true
		mean := func(k float64) (sum float64) {
			site := *b.site
			site.cupboard = k
			b.site = &site
			n := 0.0
			f.Simulate(i, func(x *Row) { sum += x.InletC; n++ })
			return sum / n
		}
		if k := mean(6) - mean(0); k < 2 || k > 6.5 {
			t.Errorf("a cupboard of 6 K warms %s by %.2f K", b.id, k)
		}
	}
	if cupboards < 15 || cupboards > 35 || !tried {
		t.Errorf("%d of 40 boxes stand in cupboards", cupboards)
	}
}

func TestFixedFanTurnsAtOneSpeed(t *testing.T) {
	f := fleet(t, Options{Seed: 5, Family: "held6", Boxes: 60, Days: 20, Healthy: true})
	fixed := 0
	for i, b := range f.boxes {
		if b.sku.ctl.kind != "fixed" || !b.fit.live[rpmGauge] || b.start > 0 || fixed == 2 {
			continue
		}
		fixed++
		var rpm []float64
		f.Simulate(i, func(x *Row) { rpm = append(rpm, x.RPM[0]) })
		slices.Sort(rpm)
		if lo, hi := rpm[len(rpm)/20], rpm[len(rpm)*19/20]; hi-lo > 0.03*hi {
			t.Errorf("%s turns at %.0f to %.0f rpm", b.id, lo, hi)
		}
	}
	if fixed == 0 {
		t.Error("no fixed fan with a tachometer in the fleet")
	}
}

func TestDustSwellsInDampWeeksAndComesWithTheHarvest(t *testing.T) {
	f := fleet(t, Options{Seed: 2, Family: "held7", Boxes: 150, Days: 365})
	mills := 0
	for _, s := range f.sites {
		sum := 0.0
		var all []float64
		for d := range 365 {
			all = append(all, math.Log(s.wet(d)))
			sum += all[d]
		}
		if v := sd(all); v < 0.02 || v > 0.16 || math.Abs(sum/365) > 0.06 {
			t.Errorf("damp of %s varies by %.3f around %.3f", s.id, v, sum/365)
		}
		if s.class == "industrial" || s.class == "workshop" {
			mills++
			if s.harvest < 1.5 {
				t.Errorf("mill %s has %v times the dust in its harvest", s.id, s.harvest)
			}
		} else if s.harvest != 0 {
			t.Errorf("%s of class %s has a harvest", s.id, s.class)
		}
	}
	august := time.Date(2025, 8, 10, 0, 0, 0, 0, time.UTC)
	if n, s := (&site{}), (&site{south: true}); mills == 0 || !n.autumn(august) || s.autumn(august) || !s.autumn(august.AddDate(0, 6, 0)) {
		t.Errorf("%d mills, harvest in August: north %v, south %v", mills, n.autumn(august), s.autumn(august))
	}
}

func TestManyProductsSomeRare(t *testing.T) {
	f := fleet(t, Options{Seed: 20260, Family: "held8", Boxes: 200, Days: 90})
	of, late := map[string]int{}, 0
	for _, b := range f.boxes {
		of[b.sku.id]++
		if b.start > 24*18 {
			late++
		}
		if b.sku.kind == "1u" && !b.fit.kit.fitted[rpmGauge] {
			t.Errorf("%s is a server whose BMC reads no fan", b.id)
		}
	}
	few, many := 200, 0
	for _, n := range of {
		few, many = min(few, n), max(many, n)
	}
	if len(of) < 15 || few > 8 || many < 12 {
		t.Errorf("%d products, of %d to %d boxes", len(of), few, many)
	}
	if late < 30 || late > 110 {
		t.Errorf("%d of 200 boxes came after the first fifth", late)
	}
}

func TestOfficeHoursAndMonthEnds(t *testing.T) {
	monday := time.Date(2025, 1, 6, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		pattern string
		hours   []float64 // at 3, 9, 13, 16 on a Monday
	}{
		{"clinic", []float64{0.1, 0.8, 0.1, 0.8}},
		{"bakery", []float64{0.8, 0.56, 0.56, 0.56}},
		{"reports", []float64{0.1, 0.8, 0.8, 0.8}},
	} {
		l := load{pattern: c.pattern, low: 0.1, high: 0.8, open: 8, close: 18, sunday: true, noise: streamOf(1, "t")}
		for i, hour := range []int{3, 9, 13, 16} {
			near(t, c.pattern, l.week(monday.Add(time.Duration(hour)*time.Hour)), c.hours[i], 1e-9)
		}
		near(t, c.pattern+" at the end of a month", l.asked(0.1, 27*24+3), map[bool]float64{true: 0.8, false: 0.1}[c.pattern == "reports"], 0)
		near(t, c.pattern+" in the middle", l.asked(0.1, 15*24+3), 0.1, 0)
	}
}
