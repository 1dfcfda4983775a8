package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// TestDemoFleet lives through the days of one fleet, in order. The steps build
// upon one another, so the first that fails ends it.
func TestDemoFleet(t *testing.T) {
	root := checkout(t)
	shortTrials(t, root)
	var f *fleet
	for _, step := range []struct {
		promise string
		run     func(t *testing.T)
	}{
		{"UpReadsLabels", func(t *testing.T) { upReadsLabels(t, f) }},
		{"BoxTestsItselfAsTheGuideSays", func(t *testing.T) { boxTestsItself(t, f) }},
		{"SettingsReachBoxesAsTheGuideSays", func(t *testing.T) { settingsReachBoxes(t, f) }},
		{"SecondUpIsRefused", func(t *testing.T) { secondUpIsRefused(t, f) }},
		{"InferenceInJSONAndBinaryAgree", func(t *testing.T) { inferenceAgrees(t, f) }},
		{"ReadmeCommandsWorkAndNoRequestFailsMeanwhile", func(t *testing.T) { readmeUnderLoad(t, f) }},
		{"ModelThatFailsItsSamplesHaltsInWaveOne", func(t *testing.T) { badModelHalts(t, f) }},
		{"QuantisedWeightsArePushedIfTheyAnswerAsWell", func(t *testing.T) { quantisedPush(t, f) }},
		{"WeightsInASecondFileReachBoxesAndServe", func(t *testing.T) { weightsOutside(t, f) }},
		{"AgentUpdatesItself", func(t *testing.T) { agentUpdates(t, f) }},
		{"BrokenAgentGivesWayAndHalts", func(t *testing.T) { brokenAgentHalts(t, f) }},
		{"KillsLoseAndDoubleNothing", func(t *testing.T) { killsLoseNothing(t, f) }},
		{"RestartKeepsPortsAndPushesNothing", func(t *testing.T) { f = restartKeeps(t, f) }},
		{"TakenPortIsReplaced", func(t *testing.T) { takenPort(t, f) }},
	} {
		if f == nil {
			var took time.Duration
			f, took = startFleet(t, root)
			t.Logf("first useful page after %s; a quiet machine needs less than 15 s", took.Round(100*time.Millisecond))
		}
		if !t.Run(step.promise, step.run) {
			t.Fatalf("%s failed, what follows has no ground", step.promise)
		}
	}
}

// shortTrials makes trial and probation of the boxes shorter, by the file that
// people would change.
func shortTrials(t *testing.T, root string) {
	t.Helper()
	const config = "trial: 4s\nprobation: 2s\nsense_period: 2s\nseal_period: 6s\nmin_free_bytes: 1000000\nmeasure_heat: false\n"
	for _, name := range []string{"box-1", "box-2", "box-3"} {
		dir := filepath.Join(root, "edgeherd-data", "boxes", name)
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "agent.yaml"), []byte(config), 0o644))
	}
}

func upReadsLabels(t *testing.T, f *fleet) {
	eventually(t, time.Minute, "three live boxes read labels", func() error {
		all, err := f.boxes(t)
		if err != nil {
			return err
		}
		for name, b := range all {
			if b.Link != fleetapi.LinkLive || !b.Simulated || b.Health == fleetapi.HealthUrgent || b.Reads.Checked < 3 {
				return fmt.Errorf("%s: link %s, simulated %t, health %s, reads %+v", name, b.Link, b.Simulated, b.Health, b.Reads)
			}
		}
		if len(all) != 3 {
			return fmt.Errorf("%d boxes", len(all))
		}
		return nil
	})
	all, err := f.boxes(t)
	must(t, err)
	for name, b := range all {
		t.Logf("%s: %d of %d labels right", name, b.Reads.Right, b.Reads.Checked)
		if b.Reads.Right*10 < b.Reads.Checked*9 {
			t.Errorf("%s read %d of %d labels right", name, b.Reads.Right, b.Reads.Checked)
		}
	}
}

func boxTestsItself(t *testing.T, f *fleet) {
	example(t, filepath.Join("docs", "acceptance.md"), "yaml", filepath.Join(f.root, "delivery.yaml"))
	readmeCommands(t, f, filepath.Join("docs", "acceptance.md"))
	for file, start := range map[string]string{"acceptance.pdf": "%PDF-", "acceptance.html": "<!doctype html>\n<html lang=\"en\""} {
		text, err := os.ReadFile(filepath.Join(f.root, file))
		if err != nil || !strings.HasPrefix(string(text), start) {
			t.Errorf("%s begins with %.60q: %v", file, text, err)
		}
	}
}

func secondUpIsRefused(t *testing.T, f *fleet) {
	out, err := runs(t, f.root, "edgeherd up")
	if err == nil || !strings.Contains(out, "already") || !strings.Contains(out, "--data") {
		t.Errorf("a second up on the same folder: %v\n%s", err, out)
	}
	f.allWell(t, time.Minute, time.Time{})
}

func inferenceAgrees(t *testing.T, f *fleet) {
	for name, base := range f.oip {
		_, a, err := infer(t.Context(), base, jsonRequest(), 0)
		must(t, err)
		body, header := binaryRequest()
		_, b, err := infer(t.Context(), base, body, header)
		must(t, err)
		if diff := a - b; a <= 0 || a >= 1 || diff > 1e-6 || diff < -1e-6 {
			t.Errorf("%s: silence is speech with %g in JSON, %g in binary", name, a, b)
		}
	}
}

func readmeUnderLoad(t *testing.T, f *fleet) {
	l := startLoad(f.oip["box-2"])
	readmeCommands(t, f, "README.md")
	settled(t, f)
	l.end(t, "5.0.0", "6.0.0")
	f.allServe(t, "6.0.0")
	list, err := f.client.Model(t.Context(), "silero-vad")
	must(t, err)
	for _, v := range list.Versions {
		if strings.Contains(v.Version, "legacy") {
			t.Errorf("the refused version is registered: %s", v.Version)
		}
	}
	readmeCommands(t, f, filepath.Join("docs", "operations.md"))
	settled(t, f)
}

// settled waits until no rollout of a model or an agent runs and requires that
// all are done. The step of the settings halts one of its own on purpose.
func settled(t *testing.T, f *fleet) {
	t.Helper()
	list, err := f.client.AllRollouts(t.Context())
	must(t, err)
	done := map[string]bool{}
	var late []fleetapi.Rollout
	for _, r := range list.Items {
		if r.State == fleetapi.RolloutDraft || r.Kind == fleetapi.KindConfig {
			continue
		}
		switch r = f.rollout(t, r.ID, time.Minute); {
		case r.State == fleetapi.RolloutDone:
			done[r.Target.String()] = true
		case slow(r):
			late = append(late, r)
		default:
			t.Errorf("rollout of %s is %s: %s", r.Target, r.State, r.Sentence)
		}
	}
	for _, r := range late {
		if done[r.Target.String()] {
			continue
		}
		if r = f.rollPatiently(t, r.Target.String()); r.State != fleetapi.RolloutDone {
			t.Errorf("rollout of %s is %s again: %s", r.Target, r.State, r.Sentence)
		}
		done[r.Target.String()] = true
	}
}

// slow says that a rollout was halted because a box answered late, as it does
// when others keep this machine busy.
func slow(r fleetapi.Rollout) bool {
	return r.State == fleetapi.RolloutHalted && strings.Contains(r.Sentence, "it is slow")
}

// rollPatiently rolls out a model that is as fast as the one before, and again
// where a busy machine has made it look slow.
func (f *fleet) rollPatiently(t *testing.T, target string) (r fleetapi.Rollout) {
	t.Helper()
	for range 4 {
		if r = f.roll(t, target, time.Minute); !slow(r) {
			break
		}
		t.Logf("this machine is busy: %s", r.Sentence)
	}
	return r
}

func serving(b fleetapi.Box, model string) string {
	for _, m := range b.Models {
		if m.Name == model {
			return m.RunningVersion
		}
	}
	return ""
}

// allServe requires that every box says it serves a version of the voice
// detector. A box that has just started says so within its first look.
func (f *fleet) allServe(t *testing.T, version string) {
	t.Helper()
	eventually(t, time.Minute, "silero-vad "+version+" serves", func() error {
		all, err := f.boxes(t)
		for name, b := range all {
			if v := serving(b, "silero-vad"); v != version {
				err = errors.Join(err, fmt.Errorf("%s serves %q", name, v))
			}
		}
		return err
	})
}

// badModelHalts pushes a version whose golden samples ask for an answer that
// the model does not give.
func badModelHalts(t *testing.T, f *fleet) {
	dir := filepath.Join(f.root, "bad")
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(f.root, "build", "assets", "models", "silero-vad-6.0.0"))))
	edit(t, filepath.Join(dir, "model.yaml"), "version: 6.0.0", "version: 6.0.1")
	falsify(t, filepath.Join(dir, "golden.json"))
	command(t, f.root, "edgeherd model push bad")
	l := startLoad(f.oip["box-1"])
	r := f.roll(t, "silero-vad:6.0.1", time.Minute)
	l.end(t, "6.0.0")
	if r.State != fleetapi.RolloutHalted || r.Waves[0].State != fleetapi.WaveHalted {
		t.Errorf("rollout is %s, its first wave %s: %s", r.State, r.Waves[0].State, r.Sentence)
	}
	for _, target := range r.Waves[1].Targets {
		if target.State != fleetapi.TargetScheduled {
			t.Errorf("%s of wave 2 is %s", target.Name, target.State)
		}
	}
	if !strings.Contains(r.Waves[0].Targets[0].Err, "golden") {
		t.Errorf("the reason does not name the golden samples: %q", r.Waves[0].Targets[0].Err)
	}
	f.allServe(t, "6.0.0")
	// The fleet goes on with what it has.
	if r := f.rollPatiently(t, "silero-vad:6.0.0"); r.State != fleetapi.RolloutDone {
		t.Errorf("going back is %s: %s", r.State, r.Sentence)
	}
}

func edit(t *testing.T, file, old, now string) {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), old, now)), 0o644))
}

// falsify replaces the first expected tensor of every golden sample by ones.
func falsify(t *testing.T, file string) {
	t.Helper()
	var g map[string]any
	must(t, readJSON(file, &g))
	for _, c := range g["cases"].([]any) {
		outputs := c.(map[string]any)["outputs"].([]any)
		// 0.5 in little-endian FP32: silence is no half speech.
		outputs[0].(map[string]any)["data"] = "AAAAPw=="
	}
	data, err := json.Marshal(g)
	must(t, err)
	must(t, os.WriteFile(file, data, 0o644))
}

// agentBinary builds an agent that calls itself version.
func agentBinary(t *testing.T, f *fleet, version string) string {
	t.Helper()
	out := filepath.Join(f.root, "agent-"+version)
	must(t, goBuild(out, "edgeherd-agent", version))
	return out
}

func (f *fleet) pushAgent(t *testing.T, version, file string) {
	t.Helper()
	command(t, f.root, "edgeherd release push --version "+version+" --agent-binary linux/$(go env GOARCH)="+file)
}

func agentUpdates(t *testing.T, f *fleet) {
	f.pushAgent(t, "2.0.0", agentBinary(t, f, "2.0.0"))
	l := startLoad(f.oip["box-1"])
	r := f.roll(t, "--release 2.0.0", 2*time.Minute)
	l.end(t)
	if r.State != fleetapi.RolloutDone {
		t.Fatalf("rollout of the release is %s: %s", r.State, r.Sentence)
	}
	f.onAgent(t, "2.0.0", "b")
}

// onAgent requires that every box runs a version of the agent in a slot.
func (f *fleet) onAgent(t *testing.T, version, slot string) {
	t.Helper()
	eventually(t, time.Minute, "agents are "+version, func() error {
		all, err := f.boxes(t)
		for name, b := range all {
			if b.Link != fleetapi.LinkLive || b.Inventory.Agent != version || b.Inventory.Slot != slot {
				err = errors.Join(err, fmt.Errorf("%s is %s, agent %s in slot %s", name, b.Link, b.Inventory.Agent, b.Inventory.Slot))
			}
		}
		return err
	})
}

func brokenAgentHalts(t *testing.T, f *fleet) {
	garbage := filepath.Join(f.root, "garbage")
	must(t, os.WriteFile(garbage, []byte(strings.Repeat("this is no program\n", 100_000)), 0o755))
	f.pushAgent(t, "3.0.0", garbage)
	l := startLoad(f.oip["box-1"])
	r := f.roll(t, "--release 3.0.0", 2*time.Minute)
	l.end(t)
	if r.State != fleetapi.RolloutHalted {
		t.Errorf("rollout of a broken release is %s: %s", r.State, r.Sentence)
	}
	f.onAgent(t, "2.0.0", "b")
	f.allWell(t, time.Minute, time.Time{})
}

func killsLoseNothing(t *testing.T, f *fleet) {
	rounds, patience := 1, time.Minute
	if os.Getenv("EDGEHERD_PROVE") != "" {
		// The launcher slows down an agent that keeps dying, to five minutes.
		rounds, patience = 30, 7*time.Minute
	}
	for round := range rounds {
		box := func(shift int) string { return fmt.Sprintf("box-%d/", (round+shift)%3+1) }
		for _, words := range [][]string{
			{"edgeherd", "server", "run"},
			{"run --config", box(0) + "agent.yaml"},
			{"edgeherd-runner run", box(1) + "runner.yaml"},
			{"edgeherd-runner", "worker"},
		} {
			p, err := f.find(words...)
			must(t, err)
			now := time.Now()
			must(t, syscall.Kill(p.pid, syscall.SIGKILL))
			t.Logf("killed %d: %.80s", p.pid, p.line)
			eventually(t, time.Minute, "a new process in its place", func() error {
				again, err := f.find(words...)
				if err == nil && again.pid == p.pid {
					err = errors.New("the old one lives")
				}
				return err
			})
			f.allWell(t, patience, now)
		}
	}
	all, err := f.boxes(t)
	must(t, err)
	f.stop(t)
	total := audit(t, f.data)
	shown := int64(0)
	for _, b := range all {
		shown += b.Reads.Total
	}
	if int64(total) < shown {
		t.Errorf("pages showed %d results, the database has %d", shown, total)
	}
	t.Logf("%d results, each once", total)
}

func restartKeeps(t *testing.T, old *fleet) *fleet {
	before := rolloutsStored(t, old.data)
	f, took := startFleet(t, old.root)
	t.Logf("page after %s", took.Round(100*time.Millisecond))
	if !slices.Equal(f.ports, old.ports) {
		t.Errorf("ports changed from %v to %v", old.ports, f.ports)
	}
	f.allWell(t, time.Minute, time.Now())
	f.onAgent(t, "2.0.0", "b")
	f.allServe(t, "6.0.0")
	f.stop(t)
	if after := rolloutsStored(t, f.data); !slices.Equal(after, before) {
		t.Errorf("rollouts before the restart %v, after it %v", before, after)
	}
	return f
}
