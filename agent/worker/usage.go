package worker

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what the worker process has cost so far.
type Usage struct {
	PID          int
	CPU          time.Duration // user and system time since the start of the process
	RSSBytes     int64         // VmRSS, 0 after the end; shared tensors that were touched count
	PeakRSSBytes int64         // VmHWM
	DataBytes    int64         // private memory above the bare runtime, as Options.MaxDataBytes counts it; 0 after the end
}

// Usage reads the kernel's account of the process. After its end it holds the
// final CPU time and the last peak that was read.
func (w *Worker) Usage() (Usage, error) {
	u := Usage{PID: w.cmd.Process.Pid}
	err := u.read(w.loaded.DataBytes)
	select {
	case <-w.done:
		s := w.cmd.ProcessState
		return Usage{PID: u.PID, CPU: s.UserTime() + s.SystemTime(), PeakRSSBytes: w.peakRSS.Load()}, nil
	default:
	}
	if err != nil {
		return Usage{}, fmt.Errorf("usage of worker process %d: %w", u.PID, err)
	}
	w.peakRSS.Store(u.PeakRSSBytes)
	return u, nil
}

// cpuTime reads the CPU clock of another process: its inverted id and
// CPUCLOCK_SCHED = 2 (clock_getcpuclockid(3)); /proc/PID/stat counts in ticks
// of 10 ms only.
func cpuTime(pid int) (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid)<<3|2, &t)
	return time.Duration(t.Nano()), err
}

// UsageOf is the usage of another process of this user.
func UsageOf(pid int) (Usage, error) {
	u := Usage{PID: pid}
	if err := u.read(0); err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	return u, nil
}

// read takes the kernel's account; bare is the private memory not to count.
func (u *Usage) read(bare int64) error {
	var err error
	if u.CPU, err = cpuTime(u.PID); err != nil {
		return err
	}
	status := fmt.Sprintf("/proc/%d/status", u.PID)
	rss, err := statusKiB(status, "VmRSS:")
	if err != nil {
		return err
	}
	peak, err := statusKiB(status, "VmHWM:")
	if err != nil {
		return err
	}
	data, err := statusKiB(status, "VmData:")
	u.RSSBytes, u.PeakRSSBytes, u.DataBytes = rss*1024, peak*1024, max(data*1024-bare, 0)
	return err
}

// tail keeps the last output of the process to explain a crash.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// tailBytes holds a Go crash report with its first lines.
const tailBytes = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - tailBytes; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

// reason is the line that a Go or C++ runtime prints when it gives up, else
// the last line.
func (t *tail) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(t.buf)) {
		line = strings.TrimSpace(line)
		for _, start := range []string{"terminate called", "fatal error:", "panic:", "SIG", "runtime:"} {
			if strings.HasPrefix(line, start) {
				return line
			}
		}
		if line != "" {
			last = line
		}
	}
	return last
}
