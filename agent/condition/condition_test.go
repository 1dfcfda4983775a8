package condition

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// bench is a box with a spool that a test can break.
type bench struct {
	t      *testing.T
	opts   Options
	c      *Condition
	events []wire.Event // in the spool
	cursor []byte
	broken error // Deliver fails before it appends
	dies   bool  // the process dies after Deliver has appended
	now    time.Time
	mono   time.Duration
	rng    *rand.Rand
	clog   func(days float64) float64 // relative rise of the resistance
	period time.Duration
}

var day0 = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: day0, mono: time.Hour, rng: rand.New(rand.NewPCG(1, 2)), clog: func(float64) float64 { return 0 }, period: 5 * time.Minute}
	b.opts = Options{
		Path: filepath.Join(t.TempDir(), "health.json"), Box: "box", Site: "shop", SKU: "ACME X1", Boot: "boot-1",
		Floor:   time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
		Cursor:  func() ([]byte, error) { return b.cursor, nil },
		Deliver: b.deliver,
	}
	b.open()
	return b
}

func (b *bench) open() { b.c = Open(b.opts, slog.New(slog.DiscardHandler)) }

func (b *bench) deliver(cursor []byte, events []wire.Event) error {
	if b.broken != nil {
		return b.broken
	}
	if _, err := wire.EncodeEvents(events); err != nil {
		b.t.Fatalf("the spool would refuse the events: %v", err)
	}
	b.cursor, b.events = cursor, append(b.events, events...)
	if b.dies {
		return errors.New("killed")
	}
	return nil
}

// figures are those of a simple box: load by the hour, a fan that follows it.
func (b *bench) figures() health.Figures {
	days := b.now.Sub(day0).Hours() / 24
	hour := float64(b.now.Hour()) + float64(b.now.Minute())/60
	f := health.Blank()
	power := 18 + 8*math.Sin(hour/24*2*math.Pi) + 3*math.Sin(days*1.7)
	inlet := 24 + 2*math.Cos((hour-15)/24*2*math.Pi)
	duty := 0.35 + 0.012*(power-10)
	rise := power * 1.1 * math.Pow(duty/0.5, -0.36) * (1 + b.clog(days))
	noise := func(sd float64) float64 { return sd * b.rng.NormFloat64() }
	f[health.Die], f[health.Inlet] = health.Value(inlet+rise+noise(0.2)), health.Value(inlet+noise(0.1))
	f[health.Board] = health.Value(inlet + 0.4*rise + noise(0.1))
	f[health.Power], f[health.PWM] = health.Value(power+noise(0.2)), health.Value(duty)
	f[health.RPM1] = health.Value(4000*duty + noise(10))
	f[health.Throttled] = 0
	return f
}

func (b *bench) step(d time.Duration) error {
	b.now, b.mono = b.now.Add(d), b.mono+d
	return b.c.Observe(Reading{At: Moment{b.mono, b.now, true}, V: b.figures(), TripC: 95})
}

func (b *bench) run(d time.Duration) {
	b.t.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		if err := b.step(b.period); err != nil {
			b.t.Fatal(err)
		}
	}
}

// hours are the starts of the hours in the spool, in order.
func (b *bench) hours() []int64 {
	b.t.Helper()
	var out []int64
	for _, e := range b.events {
		if e.Type != wire.EventHours {
			continue
		}
		var body wire.HoursBody
		if err := json.Unmarshal(e.Body, &body); err != nil {
			b.t.Fatal(err)
		}
		for _, text := range body.Hours {
			var h health.Hour
			if err := h.UnmarshalText([]byte(text)); err != nil {
				b.t.Fatal(err)
			}
			out = append(out, h.Start)
		}
	}
	return out
}

func (b *bench) findings() []health.Finding {
	b.t.Helper()
	var out []health.Finding
	for _, e := range b.events {
		if e.Type == wire.EventFinding {
			var f health.Finding
			if err := json.Unmarshal(e.Body, &f); err != nil {
				b.t.Fatal(err)
			}
			if e.Text == "" || strings.Contains(e.Text, "%!") {
				b.t.Errorf("text %q", e.Text)
			}
			out = append(out, f)
		}
	}
	return out
}

// mustBeOnce wants every hour from the first to the last once, in order.
func (b *bench) mustBeOnce(from, to time.Time) {
	b.t.Helper()
	hours := b.hours()
	for i, h := range hours {
		if i > 0 && h <= hours[i-1] {
			b.t.Errorf("hour %s after %s", time.Unix(h, 0).UTC(), time.Unix(hours[i-1], 0).UTC())
		}
	}
	for t := from; t.Before(to); t = t.Add(time.Hour) {
		if !slices.Contains(hours, t.Unix()) {
			b.t.Errorf("hour %s is missing", t)
		}
	}
}

func TestADustyBoxSaysSoOnceAndIsFollowedByRestarts(t *testing.T) {
	b := newBench(t)
	b.clog = func(d float64) float64 { return max(0, d-10) * 0.012 }
	b.period = 10 * time.Minute
	for range 27 {
		b.run(7 * time.Hour) // restarts wander through the hours
		b.run(20 * time.Minute)
		if err := b.c.Close(); err != nil {
			t.Fatal(err)
		}
		b.open()
		b.run(16 * time.Hour)
		b.open() // killed: the readings of this hour are lost, no hour is doubled
	}
	if hours := b.hours(); len(hours) < 26*23 {
		t.Errorf("%d hours", len(hours))
	}
	b.mustBeOnce(day0, day0)
	var said []string
	for _, f := range b.findings() {
		said = append(said, string(f.Cause)+" "+f.Level.String())
	}
	if !slices.Contains(said, "airflow ticket") || len(said) > 5 {
		t.Errorf("findings: %q", said)
	}
	r, err := Read(b.opts.Path)
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Cause != health.CauseAirflow || r.Reference != "inlet" || r.Rise < 6 {
		t.Errorf("report %+v, %v", r, err)
	}
}

func TestCleanStopsLoseNoReading(t *testing.T) {
	b := newBench(t)
	b.run(90 * time.Minute)
	for range 20 {
		if err := b.c.Close(); err != nil {
			t.Fatal(err)
		}
		b.open()
		b.run(25 * time.Minute)
	}
	b.run(time.Hour)
	b.mustBeOnce(day0, b.now.Truncate(time.Hour).Add(-time.Hour))
	for _, e := range b.events {
		var body wire.HoursBody
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		for _, text := range body.Hours {
			var h health.Hour
			if err := h.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if h.Samples < 11 { // 12 readings an hour; the first hour has 11
				t.Errorf("hour %s has %d readings", time.Unix(h.Start, 0).UTC(), h.Samples)
			}
		}
	}
}

// TestNoCrashLosesOrDoublesAnHour kills the process after the file was written
// and before the spool has it, after the spool has it, and lets the spool refuse.
func TestNoCrashLosesOrDoublesAnHour(t *testing.T) {
	for _, how := range []string{"after the file", "after the spool", "spool refuses", "disk refuses"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t)
			armed, crashed := false, 0
			b.opts.OnSave = func() error {
				if armed && how == "after the file" {
					crashed++
					return errors.New("killed")
				}
				return nil
			}
			b.open()
			b.run(time.Hour)
			for i := range 30 {
				// Up to the last reading before the hour is over, then into the crash.
				for b.now.Add(5*time.Minute).Truncate(time.Hour) == b.now.Truncate(time.Hour) {
					if err := b.step(5 * time.Minute); err != nil {
						t.Fatal(err)
					}
				}
				armed = true
				b.dies = how == "after the spool"
				dir := filepath.Dir(b.opts.Path)
				switch how {
				case "spool refuses":
					b.broken = errors.New("disk full")
				case "disk refuses":
					if err := os.Rename(dir, dir+"-away"); err != nil {
						t.Fatal(err)
					}
				}
				if err := b.step(5 * time.Minute); err == nil {
					t.Fatalf("%d: nothing broke", i)
				}
				if how == "spool refuses" || how == "disk refuses" {
					for range 12 + i%3*12 { // up to three hours of it
						b.step(5 * time.Minute)
					}
				}
				armed, b.dies, b.broken = false, false, nil
				if how == "disk refuses" { // what a kill loses then was never promised
					if err := os.Rename(dir+"-away", dir); err != nil {
						t.Fatal(err)
					}
				} else {
					b.open()
				}
				b.run(time.Hour)
			}
			b.run(2 * time.Hour)
			b.mustBeOnce(day0, b.now.Truncate(time.Hour))
			if crashed == 0 && strings.HasPrefix(how, "after the file") {
				t.Error("no crash")
			}
		})
	}
}

func TestAFileThatWasLostBeginsAnewInTheSpool(t *testing.T) {
	b := newBench(t)
	b.run(30 * time.Hour)
	n := len(b.hours())
	b.opts.Path = filepath.Join(t.TempDir(), "health.json") // the cursor of the old one is higher
	b.open()
	b.run(5 * time.Hour)
	if got := len(b.hours()) - n; got < 4 {
		t.Errorf("%d hours reached the spool", got)
	}
	b.mustBeOnce(day0, day0)
}

func TestHoursAreMadeOnlyOfATimeThatIsBelieved(t *testing.T) {
	b := newBench(t)
	wrong := func(n int, wall func() time.Time) {
		for range n {
			b.now, b.mono = b.now.Add(5*time.Minute), b.mono+5*time.Minute
			if err := b.c.Observe(Reading{At: Moment{b.mono, wall(), false}, V: b.figures()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	in1970 := func() time.Time { return time.Unix(int64(b.mono.Seconds()), 0) }
	wrong(50, in1970)
	if len(b.events) > 0 || b.c.Report().Trouble == "" {
		t.Fatalf("hours of 1970: %v; trouble %q", b.hours(), b.c.Report().Trouble)
	}
	b.c.SetClock(b.mono, b.now.Add(-30*365*24*time.Hour)) // a controller that is in 1996 itself
	wrong(30, in1970)
	if len(b.events) > 0 {
		t.Fatal("a controller's clock from before this box was made was believed")
	}
	b.c.SetClock(b.mono, b.now)
	from := b.now.Truncate(time.Hour)
	wrong(60, in1970)
	b.mustBeOnce(from, b.now.Truncate(time.Hour))
	if b.hours()[0] != from.Unix() || b.c.Report().Trouble != "" {
		t.Errorf("first hour %v, want %v", b.hours()[0], from.Unix())
	}
	n := len(b.hours())
	b.opts.Boot, b.mono = "boot-2", 0 // the fix was of another boot
	b.open()
	wrong(30, in1970)
	if len(b.hours()) != n {
		t.Error("a fix was believed beyond its boot")
	}
}

func TestALeapOfTheClockMakesNoHourTwice(t *testing.T) {
	b := newBench(t)
	b.run(10 * time.Hour)
	b.now = b.now.Add(-3 * time.Hour) // set back
	b.run(8 * time.Hour)
	b.mustBeOnce(day0, day0)
	b.now = b.now.Add(400 * 24 * time.Hour) // a battery that holds nonsense
	b.run(3 * time.Hour)
	b.now = b.now.Add(-400 * 24 * time.Hour)
	n := len(b.hours())
	b.run(12 * time.Hour)
	if got := len(b.hours()) - n; got < 9 {
		t.Errorf("%d hours after the clock came back from a future", got)
	}
	if last := b.c.state.Box.Last.Start; last != b.now.Truncate(time.Hour).Add(-time.Hour).Unix() {
		t.Errorf("last hour %s at %s", time.Unix(last, 0).UTC(), b.now)
	}
}

func TestChangesAreAppliedOnce(t *testing.T) {
	b := newBench(t)
	facts := Facts{Models: "a:1", BIOS: "1.0"}
	observe := func(n int) {
		for range n {
			b.now, b.mono = b.now.Add(5*time.Minute), b.mono+5*time.Minute
			if err := b.c.Observe(Reading{At: Moment{b.mono, b.now, true}, V: b.figures(), Facts: facts}); err != nil {
				t.Fatal(err)
			}
		}
	}
	kinds := func() (out []string) {
		for _, c := range b.c.state.Box.Changes {
			out = append(out, c.Kind)
		}
		return out
	}
	observe(13)
	if got := kinds(); len(got) != 0 {
		t.Errorf("what is known for the first time is no change: %q", got)
	}
	facts.Models = "a:2"
	observe(1)
	b.open() // killed before the hour was written: seen again, applied to the state without it
	observe(14)
	b.open()
	observe(14)
	facts.BIOS, facts.PowerMode = "", "15W" // unknown is no change
	observe(14)
	visit := wire.Care{V: 1, Changes: []wire.CareChange{
		{At: b.now.Unix(), Kind: health.Visit}, {At: b.now.Unix(), Kind: health.Rollout, Detail: "the box has seen it"},
	}}
	for range 3 {
		b.c.SetCare(visit)
		observe(14)
		b.open()
	}
	if got := kinds(); !slices.Equal(got, []string{health.Rollout, health.Visit}) {
		t.Errorf("changes %q", got)
	}
}

func TestCareGivesPriorTripAndAir(t *testing.T) {
	b := newBench(t)
	prior, err := json.Marshal(health.Shipped(health.AirRPM, health.LoadPower))
	if err != nil {
		t.Fatal(err)
	}
	b.c.SetCare(wire.Care{V: 1, Prior: prior, TripC: 91, RoomC: 21.5, NeighbourC: 23, AtMs: day0.UnixMilli(), Mates: 3, MatesRise: 0.01})
	b.run(70 * time.Minute)
	if b.c.prior == nil || b.c.prior.Air != health.AirRPM || b.c.state.Care.TripC != 91 || b.c.state.Care.Mates != (health.Mates{N: 3, R: 0.01}) {
		t.Errorf("prior %+v, told %+v", b.c.prior, b.c.state.Care)
	}
	if v := b.c.state.Box.Last.V; v[health.Room] != 21.5 || v[health.Neighbour] != 23 {
		t.Errorf("air of the site: %v, %v", v[health.Room], v[health.Neighbour])
	}
	b.run(4 * time.Hour)
	if v := b.c.state.Box.Last.V; v[health.Room].OK() {
		t.Error("the word of four hours ago is still believed")
	}
	b.c.SetCare(wire.Care{V: 1, Prior: []byte("{")})
	b.run(10 * time.Minute)
	if b.c.prior != nil {
		t.Error("a broken prior is in use")
	}
}

func TestMutedFindingsAreKeptBackUntilTheMuteEnds(t *testing.T) {
	s := state{Box: health.New("box", "", ""), Reported: map[string]health.Finding{}}
	at := day0.Unix()
	s.Care.Mutes = []Mute{{Family: "resistance", Until: health.Unix(at + 100)}}
	f := health.Finding{Family: "resistance", Cause: health.CauseAirflow, Level: health.Watch, Opened: 5}
	open := func(l health.Level) []health.Finding {
		f.Level = l
		s.Box.Open = []health.Finding{f}
		return s.Box.Open
	}
	for _, step := range []struct {
		name string
		out  []health.Finding
		at   int64
		want int
	}{
		{"muted", open(health.Ticket), at, 0},
		{"still muted", nil, at + 50, 0},
		{"the mute has ended", nil, at + 100, 1},
		{"said already", nil, at + 200, 0},
	} {
		if got := s.news(step.out, step.at); len(got) != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
	}
	s.Care.Mutes[0].Until = health.Unix(at + 1000)
	if got := s.news(open(health.Urgent), at+300); len(got) != 1 {
		t.Errorf("urgent was kept back: %v", got)
	}
	s.Box.Open = nil
	f.Closed = health.Unix(at + 400)
	if got := s.news([]health.Finding{f}, at+400); len(got) != 1 || got[0].Closed == 0 {
		t.Errorf("the end was kept back: %v", got)
	}
	if got := s.news([]health.Finding{f}, at+500); len(got) != 0 {
		t.Errorf("the end of what nobody heard of: %v", got)
	}
	s.news(open(health.Urgent), at+600)
	s.Box.Open = nil // as a move of the box leaves it
	if got := s.news(nil, at+700); len(got) != 1 || got[0].ClosedBy != "moved" {
		t.Errorf("after a move: %v", got)
	}
}

func TestOtherHardwareIsLearntAnew(t *testing.T) {
	b := newBench(t)
	b.period = 15 * time.Minute
	b.run(9 * 24 * time.Hour)
	if b.c.state.Box.Base == nil {
		t.Fatal("no baseline after nine days")
	}
	n := len(b.hours())
	b.opts.SKU = "ACME X2"
	b.open()
	if b.c.state.Box.Base != nil {
		t.Error("the disk went to another box with the baseline of the first")
	}
	b.run(3 * time.Hour)
	if len(b.hours()) <= n {
		t.Error("no hours any more")
	}
	b.mustBeOnce(day0, day0)
}

func TestADamagedFileIsBegunAnew(t *testing.T) {
	b := newBench(t)
	b.run(3 * time.Hour)
	n := len(b.hours())
	if err := os.WriteFile(b.opts.Path, []byte(`{"version":1,"state":{"box":{"Learn":[7`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.run(3 * time.Hour)
	if len(b.hours()) < n+2 {
		t.Error("no hours after the file was damaged")
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "first full hour") {
		t.Errorf("no file: %v", err)
	}
}

// TestTheStateOfABoxWithAnySensorsIsKept: a figure that is missing must not
// become a number that has no JSON.
func TestTheStateOfABoxWithAnySensorsIsKept(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var fitted [32]bool
		for f := range fitted {
			fitted[f] = rng.IntN(3) > 0
		}
		fitted[health.Die] = seed != 0
		box := health.New("box", "", "")
		b := &bench{t: t, now: day0, rng: rng, clog: func(d float64) float64 { return max(0, d-9) * 0.01 }}
		var hours health.Aggregator
		for b.now.Sub(day0) < 30*24*time.Hour {
			b.now = b.now.Add(15 * time.Minute)
			v := b.figures()
			for f := range v {
				if !fitted[f] || rng.IntN(200) == 0 {
					v[f] = health.Missing()
				}
			}
			if h, ok := hours.Add(&health.Sample{Time: b.now, V: v}); ok {
				out := health.Advance(box, &h, health.Env{})
				if _, err := json.Marshal(out); err != nil {
					t.Fatalf("seed %d, %s: findings: %v", seed, b.now, err)
				}
				if h.Start/3600%11 != 0 {
					continue
				}
				if _, err := json.Marshal(box); err != nil {
					t.Fatalf("seed %d, %s: %v", seed, b.now, err)
				}
			}
		}
	}
}

func TestANumberWithoutJSONCostsTheBaselineOnly(t *testing.T) {
	b := newBench(t)
	b.run(3 * time.Hour)
	b.c.state.Box.StepLevel = math.NaN()
	b.run(3 * time.Hour)
	b.mustBeOnce(day0, b.now.Truncate(time.Hour))
	if b.c.state.Box.First < day0.Add(2*time.Hour).Unix() {
		t.Error("the state was not begun anew")
	}
}

// TestAMonthOfFullHoursFitsIntoEvents, when a spool took nothing for so long.
func TestAMonthOfFullHoursFitsIntoEvents(t *testing.T) {
	h := health.Hour{Start: day0.Unix()}
	for f := range h.V {
		h.V[f] = 1.5
	}
	text, err := h.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	b := batch{Hours: slices.Repeat([]string{string(text)}, maxHours+1)}
	b.bound()
	events, err := b.events(Moment{Wall: day0})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range events {
		var body wire.HoursBody
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		n += len(body.Hours)
		if _, err := wire.EncodeEvents([]wire.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	if n != maxHours {
		t.Errorf("%d hours, want %d", n, maxHours)
	}
}
