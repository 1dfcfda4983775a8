package agent

import (
	"crypto/sha256"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// clock reads the time of this boot and the wall clock together.
type clock struct {
	boot   wire.BootID
	uptime func() time.Duration
	wall   func() time.Time
	kernel bool // the wall clock is the kernel's
	// A box without a clock begins at 1970 after each power cut. Its records are
	// put after the last time that is known (floor, Unix ms), as if it had been
	// that when this process began (floorUp, ms since boot). They say TimeFloor.
	floor, floorUp int64
}

func newClock(opts Options, bootID string) clock {
	sum := sha256.Sum256([]byte(bootID))
	c := clock{boot: wire.BootID(sum[:8]), uptime: opts.Uptime, wall: opts.WallClock, kernel: opts.WallClock == nil}
	if c.kernel {
		c.wall = time.Now
	}
	return c
}

// sinceBoot is CLOCK_BOOTTIME: it counts through suspend, and nobody can set it.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("agent: this kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// notBefore tells of a time that is past.
func (c *clock) notBefore(t time.Time) {
	if ms := t.UnixMilli(); !t.IsZero() && ms > c.floor {
		c.floor, c.floorUp = ms, c.uptime().Milliseconds()
	}
}

// now returns milliseconds since boot and Unix milliseconds.
func (c clock) now() (mono, wall int64) {
	t := c.triple()
	return t.MonoMs, t.WallMs
}

// quality says how far the wall clock can be trusted.
func (c clock) quality() wire.TimeQuality { return c.triple().Quality }

func (c clock) triple() wire.Clock {
	t := wire.Clock{Boot: c.boot, MonoMs: c.uptime().Milliseconds(), WallMs: c.wall().UnixMilli(), Quality: c.disciplined()}
	if least := c.floor + t.MonoMs - c.floorUp; c.floor > 0 && t.Quality != wire.TimeSynced && t.WallMs < least {
		t.WallMs, t.Quality = least, wire.TimeFloor
	}
	return t
}

// disciplined says whether somebody sets the kernel's clock (adjtimex status).
func (c clock) disciplined() wire.TimeQuality {
	if !c.kernel {
		return wire.TimeUnknown
	}
	var tx unix.Timex
	if state, err := unix.Adjtimex(&tx); err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0 {
		return wire.TimeSynced
	}
	return wire.TimeUnknown
}
