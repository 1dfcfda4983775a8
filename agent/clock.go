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

// now returns milliseconds since boot and Unix milliseconds.
func (c clock) now() (mono, wall int64) {
	return c.uptime().Milliseconds(), c.wall().UnixMilli()
}

// quality says whether the kernel's clock is disciplined (adjtimex status).
func (c clock) quality() wire.TimeQuality {
	if !c.kernel {
		return wire.TimeUnknown
	}
	var tx unix.Timex
	if state, err := unix.Adjtimex(&tx); err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0 {
		return wire.TimeSynced
	}
	return wire.TimeUnknown
}

func (c clock) triple() wire.Clock {
	mono, wall := c.now()
	return wire.Clock{Boot: c.boot, MonoMs: mono, WallMs: wall, Quality: c.quality()}
}
