package fleettest_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/condition"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/fleettest"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/simboard"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// dustyBoard drives the board of b until the returned function is called, with
// the load of working days and a filter that clogs.
func dustyBoard(t *testing.T, b *fleettest.Box, period time.Duration, dust func(days float64) float64) (stop func()) {
	began := time.Now()
	var cpu time.Duration
	board := simboard.New(simboard.Options{
		Root: b.Root(), Profile: simboard.WallMount, Name: b.Name, CPU: func() time.Duration { return cpu },
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(period)
		defer tick.Stop()
		for {
			days := time.Since(began).Hours() / 24
			hour := math.Mod(days*24, 24)
			busy := 0.35 + 0.25*math.Sin((hour-8)/24*2*math.Pi)
			cpu += time.Duration(busy * float64(period))
			board.SetDust(dust(days))
			board.Step(time.Now())
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
		if err := board.Err(); err != nil {
			t.Error(err)
		}
		board.Close()
	}
}

// TestADustyBoxIsKnownToTheController: weeks of a box that clogs, whose agent is
// stopped and killed on the way, and that nobody hears of when the finding is
// made. The controller is told of it once. The clean time before is judged
// without an agent around it; EDGEHERD_PROVE=1 takes two months, all with it, and
// with the controller there for most of them.
func TestADustyBoxIsKnownToTheController(t *testing.T) {
	learnt, days, away, period := 13, 6, 0, 15*time.Minute
	// Drag grows with the square: the resistance rises by the day from day 7 on.
	dust := func(d float64) float64 { return 0.5 * math.Sqrt(min(max(0, d-7)/12, 1)) }
	if os.Getenv("EDGEHERD_PROVE") != "" {
		learnt, days, away, period = 0, 60, 40, 5*time.Minute
		dust = func(d float64) float64 { return max(0, d-30) * 0.03 }
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.New(t, 1)
		b := f.Boxes[0]
		b.Runner.Rest()
		stop := dustyBoard(t, b, period, dust)
		if learnt > 0 {
			learn(t, f, b, time.Duration(learnt)*24*time.Hour, period)
		}
		b.Tune = func(o *agent.Options) {
			o.SensePeriod, o.SealPeriod, o.ResultPeriod = period, time.Hour, 6*time.Hour
		}
		restart := func(killed bool) {
			path := agent.HealthPath(b.State())
			file, err := os.ReadFile(path)
			if err != nil && killed {
				t.Fatal(err)
			}
			if err := b.StopAgent(); err != nil {
				t.Fatal(err)
			}
			if killed { // what a clean stop writes was never written
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.StartAgent()
		}
		if learnt > 0 {
			b.StartAgent()
			f.StartController()
		} else {
			restart(false)
		}
		level := health.Healthy
		for day := 0; day < days && level < health.Ticket; day++ {
			time.Sleep(3*time.Hour + 23*time.Minute)
			if day == away {
				f.StopController()
			}
			restart(day%2 == 0)
			time.Sleep(20*time.Hour + 37*time.Minute)
			r, err := condition.Read(agent.HealthPath(b.State()))
			if err != nil {
				t.Fatal(err)
			}
			level = r.Level
		}
		f.StartController()
		time.Sleep(20 * time.Minute) // a link that was down for days waits up to five
		if said := findings(t, f, b); said["airflow ticket"]+said["airflow urgent"] != 1 || len(said) > 2 {
			t.Errorf("findings at the controller: %v, level at the box %s", said, level)
		}
		stop()
		f.Close()
	})
}

// learn lets package condition judge the box for a while, with neither agent nor
// controller, and leaves its state to the agent.
func learn(t *testing.T, f *fleettest.Fleet, b *fleettest.Box, span, period time.Duration) {
	t.Helper()
	if err := b.StopAgent(); err != nil {
		t.Fatal(err)
	}
	f.StopController()
	sampler := sense.New(sense.Options{Root: b.Root(), StateDir: b.State()}, slog.New(slog.DiscardHandler))
	board := sampler.Board()
	var cursor []byte
	c := condition.Open(condition.Options{
		Path: agent.HealthPath(b.State()), Box: b.Name, Site: "site-1", SKU: board.Vendor + " " + board.Product, Boot: "before",
		Deliver: func(now []byte, _ []wire.Event) error { cursor = now; return nil }, Cursor: func() ([]byte, error) { return cursor, nil },
	}, slog.New(slog.DiscardHandler))
	for began := time.Now(); time.Since(began) < span; time.Sleep(period) {
		readings, err := sampler.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		r := condition.Reading{At: condition.Moment{Mono: time.Since(began), Wall: time.Now(), Synced: true}, V: sampler.Figures(readings), TripC: 95}
		if err := c.Observe(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r := c.Report(); r.Level > health.Watch || r.Reference != "inlet" {
		t.Fatalf("after %s: %+v", span, r)
	}
}

// findings counts the findings in the controller's list of events.
func findings(t *testing.T, f *fleettest.Fleet, b *fleettest.Box) map[string]int {
	t.Helper()
	events, err := f.API.Events(context.Background(), b.ID, 1000)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]int{}
	for _, e := range events.Items {
		var finding health.Finding
		if e.Type != wire.EventFinding {
			continue
		}
		if err := json.Unmarshal([]byte(e.Body), &finding); err != nil {
			t.Fatal(err)
		}
		said[string(finding.Cause)+" "+finding.Level.String()]++
	}
	return said
}
