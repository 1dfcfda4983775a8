package blackbox

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bits of /sys/class/watchdog/watchdogN/bootstatus (linux/watchdog.h).
const (
	bootOverheat  = 0x01 // WDIOF_OVERHEAT
	bootPowerLow  = 0x10 // WDIOF_POWERUNDER
	bootCardReset = 0x20 // WDIOF_CARDRESET
)

// Clues are what hardware and kernel say of the last reset.
type Clues struct {
	BootStatus  uint64  // of all watchdogs
	ResetReason string  // of the power controller of a Tegra, "" elsewhere
	Crashes     []Crash // that the kernel kept in pstore
	// Gap is from the last record to the start of this boot; negative: unknown.
	Gap time.Duration
	// LimitC is where the die throttles, 0 when unknown.
	LimitC float64
}

// Crash is a dump of the kernel's log.
type Crash struct {
	Kind string // panic, memory or heat
	Line string // the line that says so
}

// Look reads the clues below root. Dumps from before since are of an earlier
// reset; with a zero since, those that somebody put into an archive may be.
func Look(root string, since time.Time) Clues {
	c := Clues{Gap: -1}
	for _, path := range glob(root, "sys/class/watchdog/watchdog*/bootstatus") {
		if v, err := strconv.ParseUint(text(path, 64), 0, 64); err == nil {
			c.BootStatus |= v
		}
	}
	for _, pattern := range []string{"sys/devices/platform/*pmc*/reset_reason", "sys/devices/platform/*/*pmc*/reset_reason"} {
		for _, path := range glob(root, pattern) {
			if reason := text(path, 64); reason != "" {
				c.ResetReason = reason
			}
		}
	}
	dumps := []string{"sys/fs/pstore/*"}
	if !since.IsZero() {
		dumps = append(dumps, "var/lib/systemd/pstore/*", "var/lib/systemd/pstore/*/*")
	}
	for _, pattern := range dumps {
		for _, path := range glob(root, pattern) {
			var st syscall.Stat_t
			if syscall.Stat(path, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
				continue
			}
			if made := time.Unix(st.Mtim.Unix()); !since.IsZero() && made.Before(since) {
				continue
			}
			if crash, ok := crashOf(text(path, 256<<10)); ok {
				c.Crashes = append(c.Crashes, crash)
			}
		}
	}
	return c
}

// crashOf looks for the line of a kernel log that tells why it ended.
func crashOf(dump string) (Crash, bool) {
	for _, kind := range []struct{ kind, says string }{
		{"heat", "critical temperature reached"},
		{"heat", "HARDWARE PROTECTION shutdown (Temperature"},
		{"memory", "panic - not syncing: Out of memory"},
		{"memory", "panic - not syncing: System is deadlocked on memory"},
		{"panic", "Kernel panic"},
	} {
		for line := range strings.Lines(dump) {
			if strings.Contains(line, kind.says) {
				return Crash{kind.kind, strings.TrimSpace(line[:min(len(line), 200)])}, true
			}
		}
	}
	return Crash{}, false
}

// counts are the files of the counters that a record holds.
type counts struct {
	vmstat string
	low    []string // under-voltage events of a Tegra
	sags   []string // of a Raspberry Pi: 1 while the voltage is too low
	pi     []string // bit 0 says so as well, on kernels without the former

	pending map[string]chan string // asked, and not answered yet
	events  map[string]uint32      // what low said last
}

// patience with a driver. What hangs must not keep readings from the record.
const patience = 250 * time.Millisecond

// ask reads a driver's file, "" when it cannot be read or not soon. It is not
// asked again before it has come back.
func (c counts) ask(path string) string {
	said, asked := c.pending[path]
	if !asked {
		said = make(chan string, 1)
		c.pending[path] = said
		go func() { said <- text(path, 64) }()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case s := <-said:
			delete(c.pending, path)
			return s
		case <-timer.C:
			return ""
		}
	}
	select {
	case s := <-said:
		delete(c.pending, path)
		return s
	default:
		return ""
	}
}

func findCounts(root string) counts {
	return counts{
		vmstat: filepath.Join(root, "proc/vmstat"),
		low:    glob(root, "sys/devices/platform/soctherm-oc-event/hwmon/hwmon*/oc1_event_cnt"),
		sags: slices.DeleteFunc(glob(root, "sys/class/hwmon/hwmon*/in0_lcrit_alarm"), func(path string) bool {
			return text(filepath.Join(filepath.Dir(path), "name"), 64) != "rpi_volt"
		}),
		pi:      glob(root, "sys/devices/platform/soc*/soc*:firmware/get_throttled"),
		pending: map[string]chan string{}, events: map[string]uint32{},
	}
}

func (c counts) oomKills() uint32 {
	_, rest, _ := strings.Cut(text(c.vmstat, 32<<10), "\noom_kill ")
	digits, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.ParseUint(digits, 10, 32)
	return uint32(n)
}

func (c counts) lowVolts() uint32 {
	var sum uint32
	for _, path := range c.low {
		// One that does not answer says what it said before: a step up from zero
		// would be an event that never was.
		if n, err := strconv.ParseUint(c.ask(path), 10, 32); err == nil {
			c.events[path] = uint32(n)
		}
		sum += c.events[path]
	}
	return sum
}

// sagging tells whether the supply's voltage is too low now.
func (c counts) sagging() bool {
	for _, path := range c.sags {
		if c.ask(path) == "1" {
			return true
		}
	}
	for _, path := range c.pi {
		if bits, err := strconv.ParseUint(strings.TrimPrefix(c.ask(path), "0x"), 16, 32); err == nil && bits&1 != 0 {
			return true
		}
	}
	return false
}

func glob(root, pattern string) []string {
	paths, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns are ours and well formed
	return paths
}

// text reads the start of a file of sysfs or procfs without Go's poller, which
// files that answer EAGAIN would block for ever.
func text(path string, most int) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	var out []byte
	buf := make([]byte, 4096)
	for len(out) < most {
		n, err := syscall.Read(fd, buf)
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			break
		}
		out = append(out, buf[:n]...)
	}
	return strings.TrimSpace(string(out[:min(len(out), most)]))
}

// systemdStops asks systemd whether the system is on its way down.
func systemdStops() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "systemctl", "is-system-running").Output() // its exit code tells the state as well
	return strings.TrimSpace(string(out)) == "stopping"
}
