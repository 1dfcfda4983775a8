package agent

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/fan"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// deafGuard takes everything.
type deafGuard struct{ io.Writer }

func (deafGuard) Close() error { return nil }

// TestAFanPolicyIsFollowedAndTold, and counts as a change of the box's set-up.
func TestAFanPolicyIsFollowedAndTold(t *testing.T) {
	w := newWorld(t)
	root := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("sys/class/dmi/id/sys_vendor", "ACME")
	put("sys/class/dmi/id/product_name", "X1")
	for name, text := range map[string]string{"name": "nct6798", "pwm2": "77", "pwm2_enable": "5", "fan2_input": "1200"} {
		put("sys/class/hwmon/hwmon0/"+name, text)
	}
	up := time.Hour
	other := fan.Policy{SKU: "ACME X2", Chip: "nct6798", PWM: 2, Raise: []fan.Point{{Celsius: 50, Duty: 1}}}
	ours := fan.Policy{SKU: "ACME X1", Chip: "nct6798", PWM: 2, Raise: []fan.Point{{Celsius: 50, Duty: 0.5}}}
	a, err := Open(Options{
		State: w.state, Root: root, NoSync: true, Runner: runnerapi.NewClient(w.runner), Uptime: func() time.Duration { return up },
		Fans: []fan.Policy{other, ours}, FanGuard: func([]byte) (io.WriteCloser, error) { return deafGuard{io.Discard}, nil },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.spool.Close() })
	if mode := a.facts().PowerMode; mode != "fan raised by policy" {
		t.Errorf("set-up %q", mode)
	}
	warm := []sense.Reading{{Metric: string(sense.TempDie), Value: 60}}
	for range 61 { // ten minutes to learn, then the raise
		up += 10 * time.Second
		a.driveFan(warm)
	}
	mode, err := os.ReadFile(filepath.Join(root, "sys/class/hwmon/hwmon0/pwm2_enable"))
	if err != nil || string(mode) != "1\n" {
		t.Errorf("mode %q, %v", mode, err)
	}
	a.fan.Close()
	var states []string
	for _, e := range eventsOf(t, a) {
		var body wire.FanBody
		if e.Type == wire.EventFan && json.Unmarshal(e.Body, &body) == nil {
			states = append(states, body.Fan+" "+body.State)
		}
	}
	if len(states) != 2 || states[0] != "nct6798/pwm2 raised" || states[1] != "nct6798/pwm2 firmware" {
		t.Errorf("told %q", states)
	}
}
