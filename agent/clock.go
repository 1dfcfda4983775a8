package agent

import (
	"crypto/sha256"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// clock reads the time of this boot and the wall clock together.
type clock struct {
	boot wire.BootID
	// base and start tie the monotonic part of time.Time to the time since boot.
	base  int64
	start time.Time
	wall  func() time.Time
}

func newClock(opts Options, bootID string) clock {
	sum := sha256.Sum256([]byte(bootID))
	return clock{boot: wire.BootID(sum[:8]), base: opts.Uptime().Milliseconds(), start: time.Now(), wall: opts.WallClock}
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
	return c.base + time.Since(c.start).Milliseconds(), c.wall().UnixMilli()
}

// quality says whether the kernel's clock is disciplined (adjtimex status).
func (c clock) quality() wire.TimeQuality {
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
