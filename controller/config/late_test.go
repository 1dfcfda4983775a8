package config

import (
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// went is a rollout of a document that all its boxes were in.
func went(version string, state fleetapi.RolloutState) past {
	return past{id: "r-" + version, name: "dock", version: version, state: state, whole: true, ended: noon, request: fleetapi.PlanRequest{Filter: `label:"role=dock"`}}
}

func lateWent(version string, good, bad int, ago time.Duration) past {
	p := went(version, fleetapi.RolloutHalted)
	p.late, p.good, p.bad, p.ended = true, good, bad, noon.Add(-ago)
	return p
}

// TestWhatStandsForBoxesThatComeLater: the newest version that went through to
// all, as long as nothing is under way and boxes do well with it.
func TestWhatStandsForBoxesThatComeLater(t *testing.T) {
	part := went("2", fleetapi.RolloutDone)
	part.whole = false
	newest := store.Document{Name: "dock", Version: "2", Body: "…"}
	for name, c := range map[string]struct {
		newest store.Document
		all    []past
		want   string // version; "": none
		why    bool
	}{
		"nothing was rolled out":         {newest, nil, "", false},
		"it went through":                {newest, []past{went("2", fleetapi.RolloutDone), went("1", fleetapi.RolloutDone)}, "2", false},
		"the newest one halted":          {newest, []past{went("2", fleetapi.RolloutHalted), went("1", fleetapi.RolloutDone)}, "1", false},
		"it was given up":                {newest, []past{went("2", fleetapi.RolloutCanceled)}, "", false},
		"it is under way":                {newest, []past{went("2", fleetapi.RolloutRunning), went("1", fleetapi.RolloutDone)}, "1", true},
		"it is paused, the first one":    {newest, []past{went("2", fleetapi.RolloutPaused)}, "2", true},
		"it went to some of its boxes":   {newest, []past{part, went("1", fleetapi.RolloutDone)}, "1", false},
		"it was taken back":              {newest, []past{went("1", fleetapi.RolloutDone), went("2", fleetapi.RolloutDone)}, "1", false},
		"it was withdrawn":               {store.Document{Name: "dock", Version: "3"}, []past{went("2", fleetapi.RolloutDone)}, "", false},
		"it was for nobody":              {store.Document{Name: "dock", Version: "3", Body: "…", Waits: true}, []past{went("2", fleetapi.RolloutDone)}, "3", false},
		"it was for nobody, then halted": {store.Document{Name: "dock", Version: "3", Body: "…", Waits: true}, []past{went("3", fleetapi.RolloutHalted)}, "", false},
		"two late boxes went back":       {newest, []past{lateWent("2", 0, 1, 0), lateWent("2", 0, 1, 0), went("2", fleetapi.RolloutDone)}, "2", false},
		"three late boxes went back":     {newest, []past{lateWent("2", 0, 1, 0), lateWent("2", 0, 2, 0), went("2", fleetapi.RolloutDone)}, "2", true},
		"… with one well between":        {newest, []past{lateWent("2", 0, 2, 0), lateWent("2", 1, 0, 0), lateWent("2", 0, 2, 0), went("2", fleetapi.RolloutDone)}, "2", false},
		"… and it was applied again":     {newest, []past{went("2", fleetapi.RolloutDone), lateWent("2", 0, 3, 0), went("2", fleetapi.RolloutDone)}, "2", false},
		"… two days ago":                 {newest, []past{lateWent("2", 0, 3, 48*time.Hour), went("2", fleetapi.RolloutDone)}, "2", false},
	} {
		t.Run(name, func(t *testing.T) {
			version, s, ok := stand(c.newest, c.all, noon)
			if version != c.want || ok != (c.want != "") || ok && (s.Why != "") != c.why {
				t.Errorf("version %q %v, why %q", version, ok, s.Why)
			}
		})
	}
}

func standing(t *testing.T, version, selector, body string) Standing {
	t.Helper()
	docs, err := boxconfig.ReadAll("f.yaml", []byte("kind: BoxConfig\nname: dock\nselector: "+selector+"\n"+body))
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(docs[0], version)
	if err != nil {
		t.Fatal(err)
	}
	return Standing{Version: v, filters: []registry.Filter[fleetapi.Box]{v.filter}, left: map[identity.ID]bool{}}
}

// TestWhatABoxLacks: what it is to have, what it is not to have any more, what
// its labels have changed; never another version of what it has.
func TestWhatABoxLacks(t *testing.T) {
	body := `runner: {inputs: [{name: c, kind: folder, pipeline: p, path: '/{{ label "line" "0" }}'}]}`
	one := standing(t, "1", `'label:"role=dock"'`, body)
	two := standing(t, "2", `'label:"role=dock"'`, body)
	secret := standing(t, "1", `'label:"role=dock"'`, `runner: {inputs: [{name: c, kind: http, pipeline: p, url: http://x, token_file: "secret:cam"}]}`)
	left := one
	left.left = map[identity.ID]bool{"d-a": true}
	lib := Library{"dock:1": one.Version, "dock:2": two.Version}
	box := func(labels map[string]string) fleetapi.Box { return fleetapi.Box{ID: "d-a", Name: "a", Labels: labels} }
	docks := map[string]string{"role": "dock"}
	has, err := Deal(box(docks), nil, wire.DesiredDocument{Name: "dock", Version: "1", Digest: one.Ref.Digest}, lib, nil)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := Deal(box(nil), has, wire.DesiredDocument{Name: "dock", Version: "1", Digest: one.Ref.Digest}, lib, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		box  fleetapi.Box
		was  *wire.DesiredConfig
		s    Standing
		want string
	}{
		"it joined":                        {box(docks), nil, one, "gets 1"},
		"it has it":                        {box(docks), has, one, ""},
		"it has another version":           {box(docks), has, two, ""},
		"it is not for it":                 {box(nil), nil, one, ""},
		"it is not for it any more":        {box(nil), has, one, "loses 1"},
		"… in the version that it has":     {box(nil), has, two, "loses 1"},
		"it lost it":                       {box(nil), lost, one, ""},
		"it is for it again":               {box(docks), lost, two, "gets 2"},
		"a label of its text has changed":  {box(map[string]string{"role": "dock", "line": "7"}), has, two, "gets 1"},
		"a label that it does not ask for": {box(map[string]string{"role": "dock", "room": "7"}), has, one, ""},
		"people left it out":               {box(docks), nil, left, ""},
		"its secret is not there":          {box(docks), nil, secret, "waits: runner.inputs[c].token_file names secret cam, which the box is not to have; set it: edgeherd secret set cam --box, --site or --label"},
	} {
		t.Run(name, func(t *testing.T) {
			lib := Library{"dock:1": one.Version, "dock:2": two.Version, c.s.Version.Ref.String(): c.s.Version}
			got := ""
			for _, l := range LateOf(c.box, c.was, []Standing{c.s}, lib, func(string) bool { return false }) {
				switch {
				case l.Why != "":
					got += "waits: " + l.Why
				case l.Out:
					got += "loses " + l.Has.Ref.Version
				default:
					got += "gets " + l.Has.Ref.Version
				}
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for selector, want := range map[string]string{`health = "ticket"`: "health", `label:"a" AND NOT (temp_die > 80)`: "temp_die", `label:"health" OR site = "x"`: ""} {
		f, err := registry.ParseFilter(selector)
		if got := f.Uses(passing...); err != nil || got != want {
			t.Errorf("%s: %q, %v", selector, got, err)
		}
	}
}
