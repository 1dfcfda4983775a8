// Package simboard simulates the hardware of a box: a thermal model that
// writes the files which a Linux kernel would show below sys and proc, so that
// the agent reads it with the same code as a real machine.
//
// Vocabulary: a profile is a kind of box (wall-mount, itx, jetson); a step
// moves the model to a point in time and writes the files that changed. Dust
// is a factor: 0 is a clean filter, 1 a filter that passes about a third of
// the air. The model has a die, a heat sink, a filter, a fan on a firmware
// curve, an inlet with a day curve, and a firmware that throttles.
//
// Below Options.Root it keeps sys, proc and etc/edgeherd-simulated, the mark
// by which every program knows that the readings are not real. Files are
// replaced by a rename below the root, so a reader sees the old or the new
// value; they are not synced, since they are no state and are written anew at
// every start.
//
// The one rule a caller can break: one Board per root, and only Run or Step
// drives it, not both.
package simboard

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// The profiles.
const (
	WallMount = "wall-mount" // x86 without accelerator, one fan behind a dust filter
	ITX       = "itx"        // x86 desktop board, Ryzen, quiet fan
	Jetson    = "jetson"     // Orin NX class: thermal zones, INA3221, pwm fan
)

// Options configure a Board.
type Options struct {
	Root    string // directory to write below; made if missing
	Profile string // default WallMount
	Name    string // serial number and part of the seed
	Seed    uint64 // of the sensor noise and of small differences between boxes
	// CPU is the cumulative CPU time of the load on this board; nil means idle.
	CPU func() time.Duration
	// FullCPU is how many host cores of that load count as fully busy; default 1.
	FullCPU float64
	// Ambient is the daily mean of the room in °C; default 24. 3 K more in the
	// afternoon, 3 K less at night.
	Ambient    float64
	DustPerDay float64 // growth of the dust factor per simulated day; default 0
	TimeScale  float64 // simulated seconds per second, for heat, dust and day; default 1
	// ClockOffset is how wrong the board's wall clock is; default 0.
	ClockOffset time.Duration
}

// Board is one simulated board.
type Board struct {
	opts    Options // never changes after New, like the two below
	log     *slog.Logger
	profile profile

	mu      sync.Mutex // guards everything below
	model   model
	rng     *rand.Rand
	root    *os.Root
	written map[string]string // content of each file, to write only what changed
	started time.Time
	stepped time.Time
	// refreshed is when all files were last written.
	refreshed time.Time
	cpu       time.Duration
	busySum   float64 // cpu seconds on all simulated CPUs, for proc/stat
	err       error   // the first failure; ends Run
}

// Truth is the state of the model, without the noise of sensors.
type Truth struct {
	DieCelsius, HeatsinkCelsius, InletCelsius float64
	PowerWatts, FanRPM, FanDuty               float64
	Dust                                      float64
	Throttled                                 bool
	// Slowed is the share of its speed that a throttled board has lost.
	Slowed float64
}

// New makes a board. It writes nothing before the first Step.
func New(opts Options, log *slog.Logger) *Board {
	if opts.Profile == "" {
		opts.Profile = WallMount
	}
	if opts.Ambient == 0 {
		opts.Ambient = 24
	}
	if opts.TimeScale <= 0 {
		opts.TimeScale = 1
	}
	if opts.FullCPU <= 0 {
		opts.FullCPU = 1
	}
	h := fnv.New64a()
	h.Write([]byte(opts.Name))
	b := &Board{
		opts: opts, log: log, written: map[string]string{},
		rng: rand.New(rand.NewPCG(opts.Seed, h.Sum64())),
	}
	var known bool
	if b.profile, known = profileOf(opts.Profile); !known {
		b.err = fmt.Errorf("simulated board %s: profile %q is none of %v", opts.Name, opts.Profile, Profiles())
		return b
	}
	// Two boxes of one kind differ by a few percent in paste and fan.
	b.profile.physics.coldPlate *= 1 + 0.03*b.rng.NormFloat64()
	b.profile.physics.fanMaxRPM *= 1 + 0.02*b.rng.NormFloat64()
	b.model = newModel(b.profile.physics, opts.Ambient)
	return b
}

// Profiles lists the kinds of board.
func Profiles() []string { return []string{WallMount, ITX, Jetson} }

// Run steps the board every second until ctx is done.
func (b *Board) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		b.Step(time.Now())
		if err := b.Err(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Err is the first failure to write, or an unknown profile.
func (b *Board) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Step moves the board to now and writes what changed. The first Step only
// starts the clock; a step backwards moves nothing.
func (b *Board) Step(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	if b.started.IsZero() {
		b.started, b.stepped, b.cpu = now, now, b.cpuTime()
	}
	elapsed := now.Sub(b.stepped).Seconds()
	busy := 0.0
	if elapsed > 0 {
		used := b.cpuTime()
		busy = min(max((used-b.cpu).Seconds()/elapsed/b.opts.FullCPU, 0), 1)
		b.cpu, b.stepped = used, now
		b.model.inlet = b.inletAt(now)
		b.model.dust += b.opts.DustPerDay * elapsed * b.opts.TimeScale / 86400
		b.model.advance(elapsed*b.opts.TimeScale, busy)
		b.busySum += elapsed * busy * float64(b.profile.cpus)
	}
	if err := b.write(now, busy); err != nil {
		b.err = fmt.Errorf("simulated board %s: %w", b.opts.Name, err)
		b.log.Error("simulated board stopped", "device", b.opts.Name, "err", err)
	}
}

func (b *Board) cpuTime() time.Duration {
	if b.opts.CPU == nil {
		return 0
	}
	return b.opts.CPU()
}

// SetDust sets the dust factor: 0 clean, 1 badly clogged.
func (b *Board) SetDust(f float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.model.dust = max(f, 0)
}

// SetAmbient sets the daily mean of the room in °C.
func (b *Board) SetAmbient(celsius float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opts.Ambient = celsius
}

// FanStop seizes the fan, or frees it.
func (b *Board) FanStop(stopped bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.model.seized = stopped
}

// Truth tells the state of the model.
func (b *Board) Truth() Truth {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &b.model
	return Truth{
		DieCelsius: m.die, HeatsinkCelsius: m.sink, InletCelsius: m.inlet,
		PowerWatts: m.power, FanRPM: m.rpm(), FanDuty: m.duty, Dust: m.dust, Throttled: m.slowed > 0,
		Slowed: slowPower * m.slowed,
	}
}

// Close frees the handle of the root directory. A later Step opens it again.
func (b *Board) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.root == nil {
		return nil
	}
	err := b.root.Close()
	b.root, b.written = nil, map[string]string{}
	return err
}
