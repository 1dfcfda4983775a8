package fleettest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/update"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// supervise starts agents again that ended to begin anew.
func (f *Fleet) supervise() {
	for _, b := range f.Boxes {
		select {
		case <-b.agent.done:
			if !errors.Is(b.agent.err, update.ErrRestart) {
				f.T.Fatalf("agent of %s ended: %v", b.Name, b.agent.err)
			}
			b.StartAgent()
		default:
		}
	}
}

// follows waits until a rollout is in a state.
func (f *Fleet) follows(id string, state fleetapi.RolloutState, most time.Duration) fleetapi.Rollout {
	f.T.Helper()
	f.Until("rollout "+id+" is "+string(state), most, func() bool {
		f.supervise()
		return f.Rollout(id).State == state
	})
	return f.Rollout(id)
}

func (f *Fleet) label(b *Box, name, value string) {
	f.T.Helper()
	if _, err := f.API.SetLabels(context.Background(), b.ID, fleetapi.LabelChange{Labels: map[string]string{name: value}}); err != nil {
		f.T.Fatal(err)
	}
}

// apply stores a document and starts a rollout of its version.
func (f *Fleet) apply(text string, waves ...string) fleetapi.Rollout {
	f.T.Helper()
	ctx := context.Background()
	got, err := f.API.ApplyConfigs(ctx, fleetapi.ConfigRequest{Files: []fleetapi.ConfigFile{{Name: "test.yaml", Text: text}}})
	if err != nil {
		f.T.Fatal(err)
	}
	ref := got.Documents[0].Name + ":" + got.Documents[0].Version
	plan, err := f.API.Plan(ctx, fleetapi.PlanRequest{Config: ref, Waves: waves})
	if err != nil {
		f.T.Fatal(err)
	}
	r, err := f.API.Act(ctx, plan.ID, "start")
	if err != nil {
		f.T.Fatal(err)
	}
	return r
}

// runnerHas is what the fleet sets in the runner of a box.
func (b *Box) runnerHas() string {
	var file struct{ State runnerapi.Settings }
	text, err := os.ReadFile(filepath.Join(b.State(), "models", runnerapi.SettingsFile))
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	var line bytes.Buffer
	if err == nil {
		err = json.Compact(&line, file.State.Content)
	}
	if err != nil {
		return err.Error()
	}
	return line.String()
}

const dock = `kind: BoxConfig
name: dock-cameras
selector: label:"role=dock"
agent:
  sense_period: 5s
runner:
  inputs:
    - name: dock
      kind: folder
      pipeline: label-reader
      path: "/srv/{{ .Box.Name }}"
      min_score: 0.6
`

// TestSettingsReachBoxesByLabelInWaves: the boxes with the label get a camera
// and a threshold, filled in for each; a version that does not work on the first
// box halts, and that box follows the one of before again by itself.
func TestSettingsReachBoxesByLabelInWaves(t *testing.T) {
	story(t, 4, func(f *Fleet) {
		settled(f)
		for _, b := range f.Boxes[:3] {
			f.label(b, "role", "dock")
		}
		r := f.apply(dock, "1", "rest")
		if len(r.Waves) != 2 || len(r.Waves[0].Targets) != 1 || len(r.Waves[1].Targets) != 2 || r.Kind != fleetapi.KindConfig {
			t.Fatalf("plan: %+v", r)
		}
		f.follows(r.ID, fleetapi.RolloutDone, time.Hour)
		for _, b := range f.Boxes[:3] {
			if got, want := b.runnerHas(), `{"inputs":[{"kind":"folder","min_score":0.6,"name":"dock","path":"/srv/`+b.Name+`","pipeline":"label-reader"}]}`; got != want {
				t.Errorf("%s: %s, want %s", b.Name, got, want)
			}
		}
		if _, err := os.Stat(filepath.Join(f.Boxes[3].State(), "config.json")); err == nil {
			t.Error("the box without the label has settings")
		}
		e, err := f.API.ExplainConfig(context.Background(), f.Boxes[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		from := map[string]string{}
		for _, s := range e.Settings {
			from[s.Path] = s.Value + " of " + s.From
		}
		if from["agent.sense_period"] != "5s of dock-cameras:1" || from["agent.seal_period"] != "1m of default" || e.Config.State != fleetapi.ConfigCurrent {
			t.Errorf("%v %+v", from, e.Config)
		}

		bad := f.apply(strings.Replace(dock, "/srv/{{", "/missing/{{", 1), "1", "rest")
		bad = f.follows(bad.ID, fleetapi.RolloutHalted, time.Hour)
		failed := bad.Waves[0].Targets[0]
		if failed.State != fleetapi.TargetFailed || !strings.Contains(failed.Err, "input dock: open /missing/"+failed.Name) || failed.Phase != "rolled_back" {
			t.Errorf("the first box: %+v", failed)
		}
		for _, b := range f.Boxes[:3] {
			if got := b.runnerHas(); !strings.Contains(got, "/srv/"+b.Name) {
				t.Errorf("%s follows %s", b.Name, got)
			}
		}
		cameLater(f, f.Boxes[3])
	})
}

// cameLater gives a box a label and takes it away again: without another apply
// it gets the version that went through, not the one that halted, and loses it.
func cameLater(f *Fleet, b *Box) {
	f.T.Helper()
	settings := func() *fleetapi.BoxSettings {
		f.supervise()
		v, err := f.API.Box(context.Background(), b.ID)
		if err != nil {
			f.T.Fatal(err)
		}
		return v.Config
	}
	f.label(b, "role", "dock")
	if s := settings(); s == nil || len(s.Pending) != 1 || s.Pending[0].Version != "1" {
		f.T.Errorf("before it has them: %+v", s)
	}
	f.Until(b.Name+" has the version that went through", time.Hour, func() bool {
		s := settings()
		return strings.Contains(b.runnerHas(), "/srv/"+b.Name) && s.State == fleetapi.ConfigCurrent && len(s.Pending) == 0
	})
	f.label(b, "role", "")
	f.Until(b.Name+" has nothing of it any more", time.Hour, func() bool {
		s := settings()
		return b.runnerHas() == "{}" && s.State == fleetapi.ConfigCurrent && len(s.Pending) == 0
	})
	list, err := f.API.AllRollouts(context.Background())
	if err != nil {
		f.T.Fatal(err)
	}
	late := 0
	for _, r := range list.Items {
		if r.Late {
			late++
		}
	}
	if late != 2 {
		f.T.Errorf("%d rollouts for one box that came and went; want 2", late)
	}
}
