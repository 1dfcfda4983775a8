package condition

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// damage changes about one number in a thousand, and cuts a few lists.
func damage(rng *rand.Rand, v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = damage(rng, x[k])
		}
	case []any:
		for i := range x {
			x[i] = damage(rng, x[i])
		}
		if rng.IntN(500) == 0 {
			return x[:rng.IntN(len(x)+1)]
		}
	case float64:
		if rng.IntN(1000) == 0 {
			return []any{0, -1, 1, 100, 1e9, -1e9, int64(1) << 62, nil}[rng.IntN(8)]
		}
	}
	return v
}

// TestAFileWithWrongNumbersEndsNoAgent: it would start again with the same file.
func TestAFileWithWrongNumbersEndsNoAgent(t *testing.T) {
	b := newBench(t)
	b.period = time.Hour / 2
	b.clog = func(d float64) float64 { return max(0, d-6) * 0.02 }
	b.run(8 * 24 * time.Hour)
	if err := b.c.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(b.opts.Path)
	if err != nil {
		t.Fatal(err)
	}
	now, mono := b.now, b.mono
	for seed := range uint64(6) {
		var file map[string]any
		if err := json.Unmarshal(good, &file); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		file["state"] = damage(rng, file["state"])
		bad, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.opts.Path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		b.now, b.mono, b.events, b.cursor = now, mono, nil, nil
		b.open()
		b.run(3 * time.Hour)
		if len(b.hours()) == 0 {
			t.Errorf("seed %d: no hours any more", seed)
		}
	}
}

func TestAControllerThatIsWrongCostsNoBaseline(t *testing.T) {
	b := newBench(t)
	b.c.SetCare(wire.Care{V: 1, Changes: []wire.CareChange{{At: b.now.Unix(), Kind: health.Visit}}})
	if err := b.c.Observe(Reading{At: Moment{b.mono, time.Unix(3600, 0), false}, V: b.figures()}); err != nil {
		t.Fatal(err)
	}
	if n := len(b.c.state.Box.Changes); n != 0 {
		t.Errorf("%d changes were dated by a clock in 1970", n)
	}
	b.run(5 * time.Minute)
	if n := len(b.c.state.Box.Changes); n != 1 {
		t.Errorf("%d changes after the clock was set, want the visit", n)
	}
	for i := range 20 {
		var changes []wire.CareChange
		for j := range wire.MaxCareChanges {
			changes = append(changes, wire.CareChange{At: b.now.Unix() - int64(i*1000+j), Kind: health.Visit})
		}
		changes[0].At, changes[0].Kind = b.now.AddDate(70, 0, 0).Unix(), health.Moved
		changes[1].At, changes[1].Kind = b.now.UnixMilli(), health.Moved
		changes[2].At, changes[2].Kind = math.MinInt64, health.Moved
		b.c.SetCare(wire.Care{V: 1, TripC: 3, Changes: changes})
		b.run(5 * time.Minute)
	}
	s := &b.c.state
	if s.Care.TripC != 0 || s.Box.First != day0.Unix() || len(s.Applied) > maxChanges || len(s.Box.Changes) > maxChanges {
		t.Errorf("trip point %v, learns since %v, %d applied, %d waiting", s.Care.TripC, s.Box.First, len(s.Applied), len(s.Box.Changes))
	}
	p := health.Shipped(health.AirRPM, health.LoadPower)
	for name, spoil := range map[string]func(){
		"slope": func() { p.Slopes.Air = 1e300 }, "curve": func() { p.Slopes.Air = -0.3; p.Curve[3] = 1e30 }, "spread": func() { p.Curve[3] = 0; p.Sigma = -1 },
	} {
		p = health.Shipped(health.AirRPM, health.LoadPower)
		spoil()
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		b.c.SetCare(wire.Care{V: 1, Prior: raw})
		b.run(5 * time.Minute)
		if b.c.prior != nil {
			t.Errorf("%s: the prior is in use", name)
		}
	}
}

// TestAFindingWithoutJSONIsDroppedAndHoursGoOn.
func TestAFindingWithoutJSONIsDroppedAndHoursGoOn(t *testing.T) {
	b := newBench(t)
	b.run(3 * time.Hour)
	bad, good := health.Finding{Family: "step", Confidence: math.NaN()}, health.Finding{Family: "fan1-stop", Cause: health.CauseFanStop}
	b.c.state.Reported["step"] = bad
	b.c.state.Next.Findings = append(b.c.state.Next.Findings, bad, good)
	b.run(3 * time.Hour)
	b.mustBeOnce(day0, b.now.Truncate(time.Hour))
	if said := b.findings(); len(said) != 1 || said[0].Family != good.Family {
		t.Errorf("findings %+v", said)
	}
}

func TestABoardThatDoesNotSayWhatItIsKeepsItsBaseline(t *testing.T) {
	b := newBench(t)
	b.run(3 * time.Hour)
	first := b.c.state.Box.First
	b.opts.SKU = ""
	b.open()
	if b.c.state.Box.First != first || b.c.state.Box.SKU != "ACME X1" {
		t.Errorf("learns since %d as %q, want since %d", b.c.state.Box.First, b.c.state.Box.SKU, first)
	}
}
