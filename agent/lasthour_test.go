package agent

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/condition"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestTheCauseOfAResetIsToldOnce, by the agent of the boot after it, however
// often that one starts and whatever its disk does.
func TestTheCauseOfAResetIsToldOnce(t *testing.T) {
	w := newWorld(t)
	root := t.TempDir()
	open := func(boot string) *Agent {
		t.Helper()
		path := filepath.Join(root, "proc/sys/kernel/random/boot_id")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(boot+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Open(Options{State: w.state, Root: root, NoSync: true, Runner: runnerapi.NewClient(w.runner)}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.spool.Close() })
		a.condition.SetClock(a.clock.uptime(), time.Now())
		if err := a.condition.Observe(condition.Reading{At: a.moment()}); err != nil {
			t.Fatal(err)
		}
		return a
	}
	hot := []sense.Reading{
		{Metric: string(sense.TempDie), Value: 104}, {Metric: string(sense.Throttled), Value: 1}, {Metric: string(sense.MemUsed), Value: 0.5},
		{Metric: string(sense.RailVolts) + "{ina3221/VDD_IN}", Value: 18.9}, {Metric: string(sense.RailVolts) + "{ina3221/VDD_SOC}", Value: 5},
	}
	a := open("first")
	a.record(hot)
	a.spool.Close() // dies
	if len(a.resets(t)) > 0 {
		t.Fatal("a first boot was explained")
	}
	a = open("second")
	full := a.spool
	full.Close()
	a.record(hot) // the disk takes nothing
	a = open("second")
	for range 3 {
		a.record(hot)
	}
	a.spool.Close()
	a = open("second")
	a.record(hot)
	resets := a.resets(t)
	if len(resets) != 1 || resets[0].Cause != wire.ResetThermal || resets[0].AtMs == 0 {
		t.Errorf("told %+v", resets)
	}
	if s := a.sampleOf(hot); s.Die != 104 || s.Volts != 18.9 || s.Memory != 0.5 || s.Inlet == s.Inlet {
		t.Errorf("sample %+v", s)
	}
}

// resets are the causes that wait in the spool; of a closed one there are none.
func (a *Agent) resets(t *testing.T) []wire.ResetBody {
	t.Helper()
	if _, err := a.spool.Cursor(resetCursor); err != nil {
		return nil
	}
	var out []wire.ResetBody
	for _, e := range eventsOf(t, a) {
		if e.Type != wire.EventReset {
			continue
		}
		var body wire.ResetBody
		if err := json.Unmarshal(e.Body, &body); err != nil {
			t.Fatal(err)
		}
		out = append(out, body)
	}
	return out
}
