package worker

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// oomScore makes the kernel's out-of-memory killer prefer a worker, which is
// restarted with its model, over the runner and the agent (range -1000..1000).
const oomScore = "500"

func joinNamed(what string, errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// restrict sets niceness and processors of all threads of this process: on
// Linux both belong to the thread, and new threads take them from their creator.
func restrict(nice int, cpus []int) error {
	if nice == 0 && len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, n := range cpus {
		set.Set(n)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("set priority: %w", err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set niceness %d: %w", nice, err)
		}
		if len(cpus) == 0 {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("run on processors %v only: %w", cpus, err)
		}
	}
	return nil
}

// preferForOOM is best effort: some containers mount /proc read-only.
func preferForOOM() {
	if f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString(oomScore)
		_ = f.Close()
	}
}

// limitData sets RLIMIT_DATA so that the model may use max bytes of private
// memory on top of what the process holds now. The Go runtime and the stacks of
// its threads count as data too (about 100 MB reserved, 5 MB resident), which
// is why the limit is relative.
//
// It returns what the process held before.
func limitData(max uint64) (int64, error) {
	if max > 0 {
		startThreads(8)
	}
	now, err := statusKiB("/proc/self/status", "VmData:")
	if err != nil {
		return 0, fmt.Errorf("limit memory: %w", err)
	}
	now *= 1024
	if max == 0 {
		return now, nil
	}
	limit := uint64(now) + max
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return now, fmt.Errorf("limit memory to %d bytes: %w", limit, err)
	}
	return now, nil
}

// startThreads makes the Go scheduler create n threads, which it then keeps for
// reuse: a thread that cannot get its stack under the limit would be fatal.
func startThreads(n int) {
	var ready, done sync.WaitGroup
	ready.Add(n)
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			ready.Wait()
		})
	}
	done.Wait()
}

// statusKiB reads one "Key:  123 kB" line of a /proc/*/status file.
func statusKiB(path, key string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			return strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no line %s", path, key)
}
