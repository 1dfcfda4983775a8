package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func version(t *testing.T, number, name, selector, body string) config.Version {
	t.Helper()
	docs, err := boxconfig.ReadAll("f", []byte("kind: BoxConfig\nname: "+name+"\nselector: '"+selector+"'\n"+body))
	if err != nil {
		t.Fatal(err)
	}
	v, err := config.New(docs[0], number)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func box(name string, labels map[string]string) fleetapi.Box {
	return fleetapi.Box{ID: identity.ID("d-" + name), Name: name, Site: "berlin", Labels: labels}
}

var docks = map[string]string{"role": "dock"}

// told is a box's settings after a version was dealt to it.
func told(t *testing.T, b fleetapi.Box, was *wire.DesiredConfig, v config.Version, lib config.Library) *wire.DesiredConfig {
	t.Helper()
	lib[v.Ref.String()] = v
	next, err := config.Deal(b, was, wire.DesiredDocument{Name: v.Name, Version: v.Ref.Version, Digest: v.Ref.Digest}, lib, nil)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// TestBoxesThatChange: those that are to have a version and have not, those that
// have one and shall not, those whose facts have changed, those that gave up.
func TestBoxesThatChange(t *testing.T) {
	lib := config.Library{}
	first := version(t, "1", "dock", `label:"role=dock"`, `runner: {inputs: [{name: c, kind: folder, pipeline: p, path: '/{{ .Labels.role }}/{{ label "line" "0" }}'}]}`)
	second := version(t, "2", "dock", `label:"role=dock"`, `runner: {inputs: [{name: c, kind: folder, pipeline: p, path: "/new"}]}`)
	gone := config.Version{Gone: true}
	gone.Name, gone.Ref.Name, gone.Ref.Version = "dock", "dock", "3"
	lib[first.Ref.String()], lib[second.Ref.String()], lib[gone.Ref.String()] = first, second, gone
	plain := box("plain", docks)
	has := told(t, plain, nil, first, lib)
	failed := plain
	failed.Config = &fleetapi.BoxSettings{Documents: []fleetapi.BoxDocument{{Name: "dock", Version: "1", Phase: "rolled_back"}}}
	moved := box("moved", map[string]string{"role": "dock", "line": "7"})
	other := box("other", nil)
	out := told(t, other, has, second, lib)
	for name, c := range map[string]struct {
		box  fleetapi.Box
		was  *wire.DesiredConfig
		v    config.Version
		want string // of the path afterwards; "-": the box does not change
	}{
		"new":                            {plain, nil, first, "/dock/0"},
		"has it":                         {plain, has, first, "-"},
		"gave it up":                     {failed, has, first, "/dock/0"},
		"another version":                {plain, has, second, "/new"},
		"a label has changed":            {moved, has, first, "/dock/7"},
		"not for it":                     {other, nil, first, "-"},
		"not for it any more":            {other, has, second, ""},
		"not for it, and out already":    {other, out, second, "-"},
		"for it again":                   {plain, out, second, "/new"},
		"withdrawn":                      {plain, has, gone, ""},
		"withdrawn, and it never had it": {plain, nil, gone, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			got := config.Changes([]fleetapi.Box{c.box}, func(fleetapi.Box) *wire.DesiredConfig { return c.was }, []config.Version{c.v}, lib, func(fleetapi.Box, string) bool { return true })
			path := "-"
			if len(got) == 1 {
				if got[0].Err != nil {
					t.Fatal(got[0].Err)
				}
				s, err := boxconfig.Parse(got[0].Now.Content)
				if err != nil {
					t.Fatal(err)
				}
				path, _ = s["runner.inputs[c].path"].(string)
			}
			if path != c.want {
				t.Errorf("path %q, want %q", path, c.want)
			}
		})
	}
}

// TestABoxThatCannotTakeADocumentIsNamed: with the reason, and it keeps what it has.
func TestABoxThatCannotTakeADocumentIsNamed(t *testing.T) {
	lib := config.Library{}
	secret := version(t, "1", "cam", `name != ""`, `runner: {inputs: [{name: c, kind: http, pipeline: p, url: http://x, token_file: "secret:cam-{{ .Site }}"}]}`)
	label := version(t, "1", "lab", `name != ""`, `agent: {proxy: "http://{{ .Labels.line }}"}`)
	half := version(t, "1", "half", `name != ""`, `runner: {inputs: [{name: d, min_score: 0.5}]}`)
	for _, v := range []config.Version{secret, label, half} {
		lib[v.Ref.String()] = v
	}
	b := box("b", nil)
	for name, c := range map[string]struct {
		v    config.Version
		want string
	}{
		"no secret": {secret, "runner.inputs[c].token_file names secret cam-berlin, which the box is not to have; set it: edgeherd secret set cam-berlin"},
		"no label":  {label, `the box has no label "line"`},
		"half":      {half, "runner.inputs[d]: kind is required"},
	} {
		changes := config.Changes([]fleetapi.Box{b}, func(fleetapi.Box) *wire.DesiredConfig { return nil }, []config.Version{c.v}, lib, func(fleetapi.Box, string) bool { return false })
		groups, refused := config.Groups(changes)
		if len(groups) != 0 || len(refused) != 1 || refused[0].Name != "b" || !strings.Contains(refused[0].Why, c.want) {
			t.Errorf("%s: %+v %+v", name, groups, refused)
		}
		next, err := config.Deal(b, nil, wire.DesiredDocument{Name: c.v.Name, Version: "1"}, lib, func(string) bool { return false })
		if err == nil || next.Documents[0].Fault == "" || string(next.Content) != "{}" {
			t.Errorf("%s: %+v, %v", name, next, err)
		}
	}
}

func TestBoxesWithTheSameChangeStandTogether(t *testing.T) {
	lib := config.Library{}
	was := version(t, "1", "a", `name != ""`, `agent: {trial: 5s, seal_period: 2m, probation: 2m, first_delay: 1s, sense_period: 9s}`)
	now := version(t, "2", "a", `name != ""`, `agent: {trial: 6s, seal_period: 2m, probation: 2m, first_delay: 1s, sense_period: 9s}`)
	lib[was.Ref.String()], lib[now.Ref.String()] = was, now
	desired := map[identity.ID]*wire.DesiredConfig{}
	var boxes []fleetapi.Box
	for i := range 7 {
		b := box(fmt.Sprint("b", i), nil)
		if boxes = append(boxes, b); i != 3 {
			desired[b.ID] = told(t, b, nil, was, lib)
		}
	}
	groups, refused := config.Groups(config.Changes(boxes, func(b fleetapi.Box) *wire.DesiredConfig { return desired[b.ID] }, []config.Version{now}, lib, always))
	if len(refused) != 0 || len(groups) != 2 || len(groups[0].Boxes) != 6 || groups[1].Boxes[0].Name != "b3" {
		t.Fatalf("%+v", groups)
	}
	want := "@@ -3 +3 @@\n agent.seal_period: 2m\n agent.sense_period: 9s\n-agent.trial: 5s\n+agent.trial: 6s\n"
	if groups[0].Diff != want {
		t.Errorf("%s\nwant %s", groups[0].Diff, want)
	}
	if strings.Count(groups[1].Diff, "\n+") != 5 || !strings.HasPrefix(groups[1].Diff, "@@ -1 +1 @@\n") {
		t.Error(groups[1].Diff)
	}
}

func always(fleetapi.Box, string) bool { return true }

func TestDocumentsThatContradictAreNamed(t *testing.T) {
	a := version(t, "1", "a", `name != ""`, `agent: {trial: 5s}`)
	b := version(t, "4", "b", `label:"role=dock"`, `agent: {trial: 6s}`)
	boxes := []fleetapi.Box{box("x", nil), box("y", docks)}
	err := config.Contradictions(boxes, map[string]config.Version{"a": a, "b": b})
	if err == nil || !strings.Contains(err.Error(), "y: documents a:1 and b:4 both set agent.trial at priority 0") {
		t.Error(err)
	}
	if err := config.Contradictions(boxes[:1], map[string]config.Version{"a": a, "b": b}); err != nil {
		t.Error(err)
	}
}

// TestEverySettingSaysWhereItComesFrom: default, document, the file on the box.
func TestEverySettingSaysWhereItComesFrom(t *testing.T) {
	b := box("b", nil)
	b.Config = &fleetapi.BoxSettings{Local: []string{"agent.seal_period=2m0s", "agent.server", "runner.inputs[own]"}}
	settings := boxconfig.Settings{"agent.trial": "5s", "agent.seal_period": "3m", "runner.inputs[own].path": "/x"}
	got := config.Explain(b, settings, map[string]string{"agent.trial": "a:1", "agent.seal_period": "b:2", "runner.inputs[own].path": "a:1"})
	find := func(path string) string {
		i := slices.IndexFunc(got, func(s fleetapi.Setting) bool { return s.Path == path })
		if i < 0 {
			return "absent"
		}
		return got[i].Value + "|" + got[i].From + "|" + got[i].Over
	}
	for path, want := range map[string]string{
		"agent.trial":             "5s|a:1|30s",
		"agent.sense_period":      "10s|default|",
		"agent.seal_period":       "2m0s|the file on the box|3m of b:2",
		"agent.server":            "(not told)|the file on the box|auto",
		"runner.inputs[own]":      "(not told)|the file on the box|",
		"runner.inputs[own].path": "absent",
	} {
		if got := find(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
