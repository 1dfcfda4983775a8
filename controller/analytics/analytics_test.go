package analytics_test

import (
	"encoding/json"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/controller/analytics"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

var start = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func known(v float64) analytics.Value { return analytics.Value{V: v, Known: true} }

// feed gives one sample every 10 s for some minutes and returns the last index.
type feed struct {
	state analytics.State
	at    time.Time
}

func newFeed(baselineWindows int) *feed {
	return &feed{at: start, state: analytics.State{Rules: analytics.Rules{BaselineWindows: baselineWindows}}}
}

func (f *feed) run(minutes int, x analytics.Sample) (v analytics.Index) {
	for range minutes * 6 {
		x.At = f.at
		f.state, v = analytics.Observe(f.state, x)
		f.at = f.at.Add(10 * time.Second)
	}
	return v
}

// sample with a resistance of (60-25)/20 = 1.75 K/W.
func sample() analytics.Sample {
	return analytics.Sample{Die: known(60), Inlet: known(25), Power: known(20), FanRPM: known(2000)}
}

func near(got, want float64) bool { return math.Abs(got-want) < 1e-9 }

func TestIndexByHand(t *testing.T) {
	dusty := sample()
	dusty.Die = known(63.5) // 38.5/20 = 1.925 K/W, a tenth more
	faster := sample()
	faster.Die, faster.FanRPM = known(53), known(4000) // 28/20 = 1.4 K/W at twice the speed
	moreLoad := sample()
	moreLoad.Die, moreLoad.Power = known(77.5), known(30) // 52.5/30 = 1.75
	warmRoom := sample()
	warmRoom.Die, warmRoom.Inlet = known(70), known(35)
	for _, c := range []struct {
		name  string
		then  analytics.Sample
		wantR float64
		ratio float64
	}{
		{"same again", sample(), 1.75, 1},
		{"dust", dusty, 1.925, 1.1},
		{"a faster fan does not hide dust", faster, 1.4 * math.Pow(2, 0.36), 0.8 * math.Pow(2, 0.36)}, // 0.8 · 1.28343 = 1.02674
		{"more load is no dust", moreLoad, 1.75, 1},
		{"a warm room is no dust", warmRoom, 1.75, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(3)
			f.run(16, sample()) // three windows of five minutes, and the bucket that closes the third
			// Recent keeps five windows; 30 minutes replace them all.
			v := f.run(35, c.then)
			if !v.Known || !near(v.BaselineKPerW, 1.75) || !near(v.ResistanceKPerW, c.wantR) || !near(v.Ratio, c.ratio) {
				t.Fatalf("got %+v, want %.4f K/W, ratio %.4f", v, c.wantR, c.ratio)
			}
		})
	}
}

func TestIndexSaysWhyItIsNotKnown(t *testing.T) {
	without := func(drop func(*analytics.Sample)) analytics.Sample {
		x := sample()
		drop(&x)
		return x
	}
	for _, c := range []struct {
		name    string
		minutes int
		x       analytics.Sample
		reason  string
	}{
		{"first minutes", 2, sample(), "warming up"},
		{"learning", 12, sample(), "learning the baseline: 2 of 3 steady windows"},
		{"no inlet", 30, without(func(x *analytics.Sample) { x.Inlet.Known = false }), "no inlet temperature"},
		{"no inlet, at once", 1, without(func(x *analytics.Sample) { x.Inlet.Known = false }), "no inlet temperature"},
		{"no power", 30, without(func(x *analytics.Sample) { x.Power.Known = false }), "no power reading"},
		{"no die", 30, without(func(x *analytics.Sample) { x.Die.Known = false }), "no die temperature"},
		{"glitch power", 30, without(func(x *analytics.Sample) { x.Power = known(25450) }), "power or temperatures not plausible"},
		{"die as cold as inlet", 30, without(func(x *analytics.Sample) { x.Die = known(25) }), "power or temperatures not plausible"},
		{"fan stopped", 30, without(func(x *analytics.Sample) { x.FanRPM = known(0) }), "fan stopped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newFeed(3).run(c.minutes, c.x)
			if v.Known || v.Ratio != 0 || v.Reason != c.reason {
				t.Fatalf("got %+v, want reason %q", v, c.reason)
			}
		})
	}
}

func TestKnownIndexIsWithdrawn(t *testing.T) {
	noInlet, noFan := sample(), sample()
	noInlet.Inlet.Known, noFan.FanRPM.Known = false, false
	for _, c := range []struct {
		name    string
		x       analytics.Sample
		minutes int
		reason  string
	}{
		{"inlet lost", noInlet, 3, "no inlet temperature"},
		{"fan speed lost", noFan, 7, "no fan speed"},
	} {
		f := newFeed(1)
		if v := f.run(7, sample()); !v.Known {
			t.Fatalf("%s: %+v", c.name, v)
		}
		if v := f.run(c.minutes, c.x); v.Known || v.Reason != c.reason {
			t.Errorf("%s: got %+v", c.name, v)
		}
	}
	f := newFeed(1)
	f.run(7, sample())
	var v analytics.Index
	for i := range 25 * 60 { // load that swings between 10 and 30 W from minute to minute
		x := sample()
		x.Power = known(10 + 20*float64(i%2))
		v = f.run(1, x)
	}
	if v.Known || v.Reason != "no steady load for a day" {
		t.Errorf("unsteady day: %+v", v)
	}
}

func TestWarmingUpBoxDoesNotTeachTheBaseline(t *testing.T) {
	f := newFeed(1)
	for i := range 20 { // the die climbs 2 K a minute
		x := sample()
		x.Die = known(40 + 2*float64(i))
		if v := f.run(1, x); v.Known || v.BaselineKPerW != 0 {
			t.Fatalf("minute %d: %+v", i, v)
		}
	}
}

func TestGapAndLateSamples(t *testing.T) {
	f := newFeed(1)
	f.run(4, sample())
	f.at = f.at.Add(time.Hour)
	if v := f.run(3, sample()); v.Reason != "warming up" {
		t.Errorf("a window must not span a gap: %+v", v)
	}
	before := f.state
	late := sample()
	late.At, late.Die = start, known(120)
	after, _ := analytics.Observe(before, late)
	if !reflect.DeepEqual(after, before) {
		t.Error("a late sample changed the state")
	}
}

func TestHealthWords(t *testing.T) {
	base := sample()
	with := func(change func(*analytics.Sample)) analytics.Sample {
		x := base
		change(&x)
		return x
	}
	dieAt := func(c float64) analytics.Sample { return with(func(x *analytics.Sample) { x.Die = known(c) }) }
	count := func(n float64) analytics.Sample {
		return with(func(x *analytics.Sample) { x.ThrottleCount = known(n) })
	}
	type step struct {
		minutes int
		x       analytics.Sample
		want    analytics.Health
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"ok", []step{{1, base, analytics.OK}}},
		{"warm from 10 K below the limit, until 13 K below", []step{
			{1, dieAt(79.9), analytics.OK}, {1, dieAt(80), analytics.Warm}, {1, dieAt(77), analytics.Warm}, {1, dieAt(76.9), analytics.OK}}},
		{"cooling state", []step{
			{1, with(func(x *analytics.Sample) { x.CoolingState = known(0.1) }), analytics.Throttling},
			{9, base, analytics.Throttling}, {2, base, analytics.OK}}},
		{"a count that stands is history", []step{{1, count(7), analytics.OK}, {1, count(7), analytics.OK}}},
		{"a count that grows", []step{{1, count(7), analytics.OK}, {1, count(8), analytics.Throttling}}},
		{"a count that a reboot reset", []step{{1, count(7), analytics.OK}, {1, count(0), analytics.OK}, {1, count(1), analytics.Throttling}}},
		{"a count that began anew and is not zero", []step{{1, count(7), analytics.OK}, {1, count(3), analytics.Throttling}}},
		{"throttling although the sensor is gone", []step{
			{1, with(func(x *analytics.Sample) { x.Die.Known, x.CoolingState = false, known(1) }), analytics.Throttling}}},
		{"no die", []step{{1, with(func(x *analytics.Sample) { x.Die.Known = false }), analytics.SensorFault}}},
		{"dead chip", []step{{1, dieAt(-89.7), analytics.SensorFault}}},
		{"colder than the room", []step{{1, dieAt(19), analytics.SensorFault}, {1, dieAt(21), analytics.OK}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(1)
			for i, s := range c.steps {
				v := f.run(s.minutes, s.x)
				if v.Health != s.want || (v.HealthReason == "") != (v.Health == analytics.OK) {
					t.Fatalf("step %d: got %q (%s), want %q", i, v.Health, v.HealthReason, s.want)
				}
			}
		})
	}
}

func TestStuckSensorIsFound(t *testing.T) {
	run := func(watts func(minute int) float64) analytics.Index {
		f := newFeed(1)
		var v analytics.Index
		for i := range 7 * 60 {
			x := sample()
			x.Power = known(watts(i))
			v = f.run(1, x)
		}
		return v
	}
	if v := run(func(i int) float64 { return 20 + 8*math.Sin(float64(i)/30) }); v.Health != analytics.SensorFault {
		t.Errorf("a die that ignores the power: %+v", v)
	}
	if v := run(func(int) float64 { return 20 }); v.Health != analytics.OK {
		t.Errorf("a steady box: %+v", v)
	}
}

func TestStateSurvivesJSONAndIsNotShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := analytics.State{Rules: analytics.Rules{BaselineWindows: 2, WindowBuckets: 3}}
		b := a
		at := start
		for range rapid.IntRange(1, 80).Draw(t, "samples") {
			at = at.Add(time.Duration(rapid.IntRange(-20, 90).Draw(t, "seconds")) * time.Second)
			value := func(name string, lo, hi float64) analytics.Value {
				return analytics.Value{V: rapid.Float64Range(lo, hi).Draw(t, name), Known: rapid.IntRange(0, 9).Draw(t, name+" known") > 0}
			}
			x := analytics.Sample{At: at, Die: value("die", 55, 60), Inlet: value("inlet", 20, 25),
				Power: value("power", 18, 22), FanRPM: value("fan", 2000, 2100), ThrottleCount: value("count", 0, 2)}
			data, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			var copied analytics.State
			if err := json.Unmarshal(data, &copied); err != nil {
				t.Fatal(err)
			}
			var va, vb analytics.Index
			a, va = analytics.Observe(a, x)
			if again, _ := json.Marshal(b); string(again) != string(data) {
				t.Fatal("observing one copy changed another")
			}
			b, vb = analytics.Observe(copied, x)
			if va != vb {
				t.Fatalf("after JSON %+v, without %+v", vb, va)
			}
			if va.Known != (va.Reason == "") || va.Known && !(va.Ratio > 0) {
				t.Fatalf("index %+v", va)
			}
		}
	})
}

// The model of the board has another law for flow and fan than the index.
func TestDustOnASimulatedBoardRaisesTheIndex(t *testing.T) {
	busy := 0.5
	var used time.Duration
	board := simboard.New(simboard.Options{Root: t.TempDir(), Name: "dusty", Seed: 3,
		CPU: func() time.Duration { return used }}, slog.New(slog.DiscardHandler))
	defer board.Close()
	s := analytics.State{Rules: analytics.Rules{BaselineWindows: 6}}
	at := start
	run := func(minutes int) (v analytics.Index) {
		for range minutes * 3 {
			board.Step(at)
			truth := board.Truth()
			s, v = analytics.Observe(s, analytics.Sample{At: at, Die: known(truth.DieCelsius), Inlet: known(truth.InletCelsius),
				Power: known(truth.PowerWatts), FanRPM: known(truth.FanRPM)})
			at = at.Add(20 * time.Second)
			used += time.Duration(busy * float64(20*time.Second))
		}
		return v
	}
	if v := run(120); !v.Known || math.Abs(v.Ratio-1) > 0.02 {
		t.Fatalf("clean: %+v", v)
	}
	board.SetAmbient(32)
	if v := run(90); !v.Known || math.Abs(v.Ratio-1) > 0.06 {
		t.Errorf("warm room: %+v", v)
	}
	board.SetAmbient(24)
	board.SetDust(0.8)
	if v := run(90); !v.Known || v.Ratio < 1.15 {
		t.Errorf("dust: %+v", v)
	}
	board.FanStop(true)
	if v := run(30); v.Known || !strings.Contains(v.Reason, "fan stopped") {
		t.Errorf("seized fan: %+v", v)
	}
}

// Two futures of one state, as when a transaction is retried, share no memory.
func TestFuturesOfOneStateAreIndependent(t *testing.T) {
	fresh := analytics.State{Rules: analytics.Rules{BaselineWindows: 3, WindowBuckets: 8}}
	var trail []analytics.State
	for i, s := 0, fresh; i < 80; i++ {
		x := sample()
		x.At, x.Die = start.Add(time.Duration(i)*time.Minute), known(60+float64(i)/10)
		s, _ = analytics.Observe(s, x)
		trail = append(trail, s)
	}
	if n := len(trail[len(trail)-1].Recent); n != 5 {
		t.Fatalf("%d recent windows", n)
	}
	want, err := json.Marshal(trail)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range trail { // leave the trail at every point
		for k := range 20 {
			x := sample()
			x.At, x.Die = start.Add(time.Duration(i+k+1)*time.Minute), known(50)
			s, _ = analytics.Observe(s, x)
		}
		if got, _ := json.Marshal(trail); string(got) != string(want) {
			t.Fatalf("a second future from sample %d on changed the first", i)
		}
	}
}
