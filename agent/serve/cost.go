package serve

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuClock keeps the reported CPU time from going backwards.
type cpuClock struct{ last time.Duration }

// cpuSeconds is the CPU time of this process and of all workers, ended ones
// included. The kernel adds a child to RUSAGE_CHILDREN when it is reaped, so
// children are read before the living: one that ends in between is missing
// from this reading, never in it twice, and the clock bridges the gap.
func (s *Server) cpuSeconds() time.Duration {
	total := rusage(syscall.RUSAGE_SELF) + rusage(syscall.RUSAGE_CHILDREN)
	for _, v := range s.known() {
		if v.ext != nil {
			if u, err := v.usage(); err == nil {
				total += u.CPU
			}
		}
		for _, w := range v.workers() {
			u, err := w.Usage()
			if err != nil {
				continue
			}
			select {
			case <-w.Done():
			default:
				total += u.CPU
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cpu.last = max(s.cpu.last, total)
	return s.cpu.last
}

func rusage(who int) time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(who, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// ownRSS is VmRSS of this process: the second number of statm, in pages.
func ownRSS() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
