package loadgen

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of CPU times in /proc; it is 100 Hz on every Linux
// that Go runs on.
const clockTick = 10 * time.Millisecond

// Process is a process that is watched through /proc.
type Process struct{ PID int }

// CPU is the user and system time it has spent.
func (p Process) CPU() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return 0, fmt.Errorf("watch controller: %w", err)
	}
	// The second field is the name in parentheses and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("watch controller: its stat is too short")
	}
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("watch controller: %w", err)
		}
		ticks += time.Duration(n)
	}
	return ticks * clockTick, nil
}

// RSS is its VmRSS in bytes.
func (p Process) RSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, fmt.Errorf("watch controller: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("watch controller: it has ended")
}

// loadAverage is the load of the machine over the last minute.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return load
}

// descriptors raises the limit of open files of this process to need, as far
// as the system allows, and says what stands in the way.
func descriptors(need uint64) error {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if have.Cur >= need {
		return nil
	}
	want := unix.Rlimit{Cur: need, Max: max(have.Max, need)} // root may raise both
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err == nil {
		return nil
	}
	want = unix.Rlimit{Cur: have.Max, Max: have.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", have.Max, err)
	}
	if have.Max >= need {
		return nil
	}
	return fmt.Errorf("%d open files are needed and this user may have %d: at most %d devices, or raise the hard limit (`ulimit -Hn %d` as root, LimitNOFILE= in systemd; fs.nr_open must allow it); the controller needs as many", need, have.Max, have.Max-spareFiles, need)
}

// spareFiles is what the process opens besides one socket a device.
const spareFiles = 200

// memory is what this process uses for objects and stacks.
func memory() int64 {
	runtime.GC()
	runtime.GC() // the first may leave what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
