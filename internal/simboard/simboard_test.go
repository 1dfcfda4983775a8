package simboard

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/health"
)

var start = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// warm runs a board at one load for two simulated hours and returns the truth.
func warm(t *testing.T, profile string, busy float64, prepare func(*Board)) Truth {
	t.Helper()
	var used time.Duration
	b := New(Options{Root: t.TempDir(), Profile: profile, Name: "box", Seed: 1, CPU: func() time.Duration { return used }},
		slog.New(slog.DiscardHandler))
	defer b.Close()
	if prepare != nil {
		prepare(b)
	}
	for i := range 121 {
		b.Step(start.Add(time.Duration(i) * time.Minute))
		used += time.Duration(busy * float64(time.Minute))
	}
	if err := b.Err(); err != nil {
		t.Fatal(err)
	}
	return b.Truth()
}

func TestEveryProfileIsCoolWhenIdleAndHoldsUnderLoad(t *testing.T) {
	for _, profile := range Profiles() {
		idle, full := warm(t, profile, 0, nil), warm(t, profile, 1, nil)
		t.Logf("%s: idle %+v", profile, idle)
		t.Logf("%s: full %+v", profile, full)
		if rise := idle.DieCelsius - idle.InletCelsius; rise < 3 || rise > 35 {
			t.Errorf("%s idle: rise %.1f K", profile, rise)
		}
		if full.DieCelsius < idle.DieCelsius+15 || full.Throttled {
			t.Errorf("%s at full load: %.1f °C after %.1f °C idle, throttled %v", profile, full.DieCelsius, idle.DieCelsius, full.Throttled)
		}
		if full.FanRPM <= idle.FanRPM {
			t.Errorf("%s: fan %.0f rpm idle, %.0f rpm at full load", profile, idle.FanRPM, full.FanRPM)
		}
	}
}

func TestDustAmbientAndFanFaultsHeatTheDie(t *testing.T) {
	for _, profile := range Profiles() {
		clean := warm(t, profile, 0.6, nil)
		dusty := warm(t, profile, 0.6, func(b *Board) { b.SetDust(1) })
		hot := warm(t, profile, 0.6, func(b *Board) { b.SetAmbient(34) })
		seized := warm(t, profile, 0.6, func(b *Board) { b.FanStop(true) })
		resistance := func(x Truth) float64 { return (x.DieCelsius - x.InletCelsius) / x.PowerWatts }
		t.Logf("%s: K/W clean %.2f at %.0f rpm, dusty %.2f at %.0f rpm, seized %.2f at %.0f °C", profile,
			resistance(clean), clean.FanRPM, resistance(dusty), dusty.FanRPM, resistance(seized), seized.DieCelsius)
		if resistance(dusty) < 1.1*resistance(clean) || dusty.FanRPM <= clean.FanRPM {
			t.Errorf("%s: dust raised K/W from %.2f to %.2f, rpm from %.0f to %.0f", profile,
				resistance(clean), resistance(dusty), clean.FanRPM, dusty.FanRPM)
		}
		// A warm room is no fault: the fan answers it and the resistance falls.
		if hot.DieCelsius <= clean.DieCelsius || resistance(hot) > resistance(clean) {
			t.Errorf("%s: warm room: %+v", profile, hot)
		}
		if seized.FanRPM != 0 || !seized.Throttled {
			t.Errorf("%s: seized fan: %+v", profile, seized)
		}
	}
}

func TestDustGrowsWithSimulatedTime(t *testing.T) {
	b := New(Options{Root: t.TempDir(), DustPerDay: 0.1, TimeScale: 3600}, slog.New(slog.DiscardHandler))
	defer b.Close()
	for i := range 25 {
		b.Step(start.Add(time.Duration(i) * time.Second)) // 24 s are 24 h
	}
	if got := b.Truth().Dust; got < 0.0999 || got > 0.1001 {
		t.Fatalf("dust after a day: %v, want 0.1", got)
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSameSeedWritesTheSameFiles(t *testing.T) {
	run := func(seed uint64) map[string]string {
		dir := t.TempDir()
		b := New(Options{Root: dir, Profile: Jetson, Name: "a", Seed: seed}, slog.New(slog.DiscardHandler))
		defer b.Close()
		for i := range 20 {
			b.Step(start.Add(time.Duration(i) * time.Second))
		}
		return tree(t, dir)
	}
	first, again, other := run(7), run(7), run(8)
	if len(first) < 30 {
		t.Fatalf("%d files", len(first))
	}
	differs := false
	for path, content := range first {
		if again[path] != content {
			t.Errorf("%s: %q, then %q", path, content, again[path])
		}
		differs = differs || other[path] != content
	}
	if !differs {
		t.Error("another seed wrote the same files")
	}
}

func TestRunStepsEverySecondInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		b := New(Options{Root: dir, Name: "bubble"}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		time.Sleep(90*time.Second + time.Millisecond)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.Close()
		if got := tree(t, dir)["/proc/uptime"]; !strings.HasPrefix(got, "90.00 ") {
			t.Fatalf("uptime %q", got)
		}
		if _, err := os.Stat(filepath.Join(dir, mark)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestUnknownProfileIsAnError(t *testing.T) {
	b := New(Options{Root: t.TempDir(), Profile: "toaster"}, slog.New(slog.DiscardHandler))
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "toaster") {
		t.Fatalf("got %v", err)
	}
}

func TestRestartOnTheSameRootBootsAnew(t *testing.T) {
	dir := t.TempDir()
	boot := func(at time.Time) string {
		b := New(Options{Root: dir, Name: "a"}, slog.New(slog.DiscardHandler))
		defer b.Close()
		b.Step(at)
		if err := b.Err(); err != nil {
			t.Fatal(err)
		}
		return tree(t, dir)["/proc/sys/kernel/random/boot_id"]
	}
	if first, second := boot(start), boot(start.Add(time.Hour)); first == second || first == "" {
		t.Fatalf("boot ids %q and %q", first, second)
	}
}

// TestBoardsGiveWhatHealthNeeds: the sensors of an index on all of them, air on
// at least two, and a make that shows them as simulated.
func TestBoardsGiveWhatHealthNeeds(t *testing.T) {
	inlets := 0
	for _, profile := range Profiles() {
		synctest.Test(t, func(t *testing.T) {
			root := t.TempDir()
			began := time.Now()
			log := slog.New(slog.DiscardHandler)
			b := New(Options{Root: root, Profile: profile, Name: "box", Seed: 1, CPU: func() time.Duration { return time.Since(began) / 2 }}, log)
			defer b.Close()
			s := sense.New(sense.Options{Root: root}, log)
			var f health.Figures
			for range 3 {
				b.Step(time.Now())
				readings, err := s.Read(t.Context())
				if err != nil {
					t.Error(err)
				}
				f = s.Figures(readings)
				time.Sleep(10 * time.Second)
			}
			for _, field := range []health.Field{health.Die, health.Power, health.PWM, health.RPM1, health.Throttled, health.Busy} {
				if !f[field].OK() {
					t.Errorf("%s has no figure %d", profile, field)
				}
			}
			if f[health.Inlet].OK() {
				inlets++
			}
			if board := s.Board(); !board.Simulated || !strings.Contains(strings.ToLower(board.Product), "simulated") {
				t.Errorf("%s is not shown as simulated: %+v", profile, board)
			}
		})
	}
	if inlets < 2 {
		t.Errorf("%d boards have a sensor of the air", inlets)
	}
}
