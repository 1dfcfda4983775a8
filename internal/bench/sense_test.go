package bench

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
)

// senseCost is what reading 60 sensors every 10 s costs an agent: CPU time of
// the process per read, against the 10 s in which one is made, and memory that
// stays, against a process without a Sampler. The files are of tmpfs or of a
// disk's cache; reading a real chip adds what its bus takes, which is waiting
// and not CPU.
func senseCost(t *testing.T) []Figure {
	const sensors, reads = 60, 600
	root := t.TempDir()
	for chip := range 6 {
		dir := filepath.Join(root, "sys/class/hwmon", fmt.Sprintf("hwmon%d", chip))
		check(t, os.MkdirAll(dir, 0o755))
		check(t, os.WriteFile(filepath.Join(dir, "name"), fmt.Appendf(nil, "chip%d\n", chip), 0o644))
		for i := range sensors / 6 {
			name := filepath.Join(dir, fmt.Sprintf("temp%d", i+1))
			check(t, os.WriteFile(name+"_input", fmt.Appendf(nil, "%d\n", 30_000+1000*chip+100*i), 0o644))
			check(t, os.WriteFile(name+"_label", fmt.Appendf(nil, "Sensor %d\n", i), 0o644))
		}
	}
	before := held()
	s := sense.New(sense.Options{Root: root}, slog.New(slog.DiscardHandler))
	read := func() {
		list, err := s.Read(t.Context())
		for _, r := range list {
			if _, ok := s.DieLimitCelsius(); ok || r.Value == 0 {
				t.Fatalf("%v", r)
			}
		}
		if len(list) != sensors || err != nil {
			t.Fatalf("%d readings, %v", len(list), err)
		}
		s.Figures(list)
	}
	read() // finds the sensors
	cpu := cpuTime(t)
	for range reads {
		read()
	}
	perRead := float64(cpuTime(t)-cpu) / reads
	kept := held() - before
	runtime.KeepAlive(s)
	const period = 10 * time.Second
	return []Figure{
		{Name: "cpu", Value: 100 * perRead / float64(period), Unit: "% core", Goal: Goal{AtMost: 0.3}},
		{Name: "read", Value: perRead / 1e6, Unit: "ms"},
		{Name: "memory", Value: kept / (1 << 20), Unit: "MiB", Goal: Goal{AtMost: 3}},
	}
}

// held is the memory of the process that is in use: heap and stacks.
func held() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	check(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
