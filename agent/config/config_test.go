package config_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/config"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// settings of one document.
func settings(version, content string) *wire.DesiredConfig {
	return &wire.DesiredConfig{
		Documents: []wire.DesiredDocument{{Name: "doc", Version: version, Digest: boxconfig.Digest([]byte(version)), Rollout: "r-" + version}},
		Digest:    boxconfig.Digest([]byte(content)), Content: json.RawMessage(content),
	}
}

const (
	camera = `{"runner":{"inputs":[{"kind":"folder","name":"c","path":"/a","pipeline":"p"}]}}`
	moved  = `{"runner":{"inputs":[{"kind":"folder","name":"c","path":"/b","pipeline":"p"}]}}`
	pace   = `{"agent":{"sense_period":"5s"}}`
	way    = `{"agent":{"server":"wss://x:1/mqtt"}}`
)

// well is a look at a box that does well with what it tries.
func well(c *wire.DesiredConfig) config.Look {
	return config.Look{For: time.Minute, Connected: true, Runner: c.Digest.String(), Inputs: map[string]string{"c": ""}, Settle: 30 * time.Second, Confirm: 5 * time.Minute}
}

// said are the phases that are due.
func said(s config.State) (out []string) {
	for _, r := range s.Due {
		out = append(out, strings.TrimSuffix(r.Document.Version+" "+r.Phase+": "+r.Err, ": "))
	}
	return out
}

func TestDecisions(t *testing.T) {
	kept := config.State{Kept: settings("1", camera)}
	trial := func(content string) config.State {
		return config.State{Kept: settings("1", camera), Trial: &config.Trial{Config: *settings("2", content)}}
	}
	want := func(c *wire.DesiredConfig) config.Event { return config.Event{Want: &config.Wanted{Config: c}} }
	look := func(content string, change func(*config.Look)) config.Event {
		l := well(settings("2", content))
		change(&l)
		return config.Event{Look: &l}
	}
	same := func(*config.Look) {}
	refused := settings("2", moved)
	refused.Digest = boxconfig.Digest(nil)
	fault := settings("2", camera)
	fault.Documents[0].Fault = "the box has no label line"
	given, _ := config.Next(trial(moved), look(moved, func(l *config.Look) { l.Inputs["c"] = "gone" }))
	faulty := trial(moved)
	faulty.Trial.Before = map[string]string{"c": "asleep"}
	tired := trial(pace)
	tired.Trial.Starts = 3
	for name, c := range map[string]struct {
		state   config.State
		event   config.Event
		counts  string // content that counts afterwards
		trial   bool
		actions config.Actions
		due     string
	}{
		"first settings are tried":                {config.State{}, want(settings("1", camera)), camera, true, config.Actions{Apply: true}, "1 trial"},
		"those of the agent need a new process":   {config.State{}, want(settings("1", pace)), pace, true, config.Actions{Apply: true, Restart: true}, "1 trial"},
		"the same again changes nothing":          {kept, want(settings("1", camera)), camera, false, config.Actions{}, ""},
		"another version that says the same":      {kept, want(settings("2", camera)), camera, false, config.Actions{}, "2 active"},
		"no settings withdraw those of before":    {kept, want(nil), "{}", true, config.Actions{Apply: true}, ""},
		"what does not parse is refused":          {kept, want(settings("2", `{"agent":{"x":1}}`)), camera, false, config.Actions{}, "2 refused: parse settings: agent.x is no field that this program knows"},
		"another digest is refused":               {kept, want(refused), camera, false, config.Actions{}, "2 refused: the settings have digest"},
		"what the box is against is refused":      {kept, config.Event{Want: &config.Wanted{Config: settings("2", moved), Check: func(boxconfig.Settings) error { return errors.New("no") }}}, camera, false, config.Actions{}, "2 refused: no"},
		"what could not be filled in is refused":  {kept, want(fault), camera, false, config.Actions{}, "2 refused: the box has no label line"},
		"newer ones take the place of a trial":    {trial(moved), want(settings("3", pace)), pace, true, config.Actions{Apply: true, Restart: true}, "3 trial"},
		"what was given up is not tried again":    {given, want(settings("2", moved)), camera, false, config.Actions{}, "2 rolled_back: input c: gone"},
		"a later rollout may try it again":        {given, want(func() *wire.DesiredConfig { c := settings("2", moved); c.Documents[0].Attempt = 2; return c }()), moved, true, config.Actions{Apply: true}, "2 rolled_back: input c: gone 2 trial"},
		"all well: kept":                          {trial(moved), look(moved, same), moved, false, config.Actions{}, "2 active"},
		"too early":                               {trial(moved), look(moved, func(l *config.Look) { l.For = time.Second; l.Inputs["c"] = "opening" }), moved, true, config.Actions{}, ""},
		"the runner refuses":                      {trial(moved), look(moved, func(l *config.Look) { l.RunnerErr, l.For = "two of one", 0 }), camera, false, config.Actions{Apply: true}, "2 rolled_back: the runner does not take them: two of one"},
		"the runner is busy":                      {trial(moved), look(moved, func(l *config.Look) { l.Runner = "" }), moved, true, config.Actions{}, ""},
		"the runner never answers":                {trial(moved), look(moved, func(l *config.Look) { l.Runner, l.For = "", time.Hour }), camera, false, config.Actions{Apply: true}, "2 rolled_back: the runner has not taken them up within 5m0s"},
		"an input fails":                          {trial(moved), look(moved, func(l *config.Look) { l.Inputs["c"] = "no such file" }), camera, false, config.Actions{Apply: true}, "2 rolled_back: input c: no such file"},
		"an input that failed before is no fault": {faulty, look(moved, func(l *config.Look) { l.Inputs["c"] = "asleep" }), moved, false, config.Actions{}, "2 active"},
		"the agent does well":                     {trial(pace), look(pace, func(l *config.Look) { l.Connected = false }), pace, false, config.Actions{}, "2 active"},
		"the way is not proved yet":               {trial(way), look(way, func(l *config.Look) { l.Connected = false }), way, true, config.Actions{}, ""},
		"the way is lost":                         {trial(way), look(way, func(l *config.Look) { l.Connected, l.For = false, 5*time.Minute }), camera, false, config.Actions{Apply: true, Restart: true}, "2 rolled_back: the controller was not reached within 5m0s"},
		"a start is counted":                      {trial(pace), config.Event{Started: true}, pace, true, config.Actions{}, ""},
		"starts end":                              {tired, config.Event{Started: true}, camera, false, config.Actions{Apply: true}, "2 rolled_back: the agent began 3 times"},
		"starts on settings of the runner do not": {trial(moved), config.Event{Started: true}, moved, true, config.Actions{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := json.Marshal(c.state)
			next, actions := config.Next(c.state, c.event)
			if after, _ := json.Marshal(c.state); string(after) != string(before) {
				t.Error("the state that was given has changed")
			}
			counts := ""
			if now := next.Current(); now != nil {
				counts = string(now.Content)
			}
			due := strings.Join(said(next), " ")
			if counts != c.counts || (next.Trial != nil) != c.trial || actions != c.actions || !strings.HasPrefix(due, c.due) || c.due == "" && due != "" {
				t.Errorf("counts %s, trial %v, %+v, due %q", counts, next.Trial != nil, actions, due)
			}
		})
	}
}

// box is what a Keeper works with, on one disk.
type box struct {
	t      *testing.T
	state  string
	left   int // writes of the journal until the power is cut; below 0: never
	told   []string
	inputs map[string]string
}

var errCut = errors.New("power cut")

// runner answers as the real one does, from the file that it reads.
func (b *box) runner() *runnerapi.Client {
	return runnerapi.NewClient(roundTrip(func(*http.Request) (*http.Response, error) {
		var file runnerapi.Settings
		if _, err := (durable.Journal{Path: filepath.Join(b.state, "models", runnerapi.SettingsFile), Version: runnerapi.SettingsVersion}).Load(&file); err != nil {
			b.t.Fatal(err)
		}
		st := runnerapi.Status{Settings: &runnerapi.SettingsStatus{Digest: file.Digest}}
		for path, fault := range b.inputs {
			if strings.Contains(string(file.Content), path) {
				st.Inputs = append(st.Inputs, runnerapi.InputStatus{Name: "c", Err: fault})
			}
		}
		rec := httptest.NewRecorder()
		if err := json.NewEncoder(rec).Encode(st); err != nil {
			b.t.Fatal(err)
		}
		return rec.Result(), nil
	}))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// live runs one process until it has nothing to do, restarts or loses power.
func (b *box) live(want *wire.DesiredConfig) error {
	k, err := config.Open(config.Options{State: b.state, OnSave: func() error {
		if b.left--; b.left == -1 {
			return errCut
		}
		return nil
	}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	k.Want(want)
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	return k.Run(ctx, config.Parts{
		Runner: b.runner(), Connected: func() bool { return true }, Changed: func() {},
		Report: func(r config.Report) error {
			b.told = append(b.told, r.Document.Version+" "+r.Phase)
			return nil
		},
	})
}

// follows is what counts for agent and runner of a box.
func (b *box) follows() string {
	b.left = -1
	k, err := config.Open(config.Options{State: b.state}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(b.state, "models", runnerapi.SettingsFile))
	if err != nil {
		b.t.Fatal(err)
	}
	path := "none"
	for _, p := range []string{"/a", "/b"} {
		if strings.Contains(string(text), `"`+p+`"`) {
			path = p
		}
	}
	return fmt.Sprint(k.Settings()["agent.sense_period"], " ", path)
}

// TestPowerMayBeCutAtEachWrite: whenever the power goes while settings are
// taken up, or given up, the box ends with all of the new or all of the old ones,
// and its last word about them is right.
func TestPowerMayBeCutAtEachWrite(t *testing.T) {
	both := func(path, period string) string {
		return `{"agent":{"sense_period":"` + period + `"},"runner":{"inputs":[{"kind":"folder","name":"c","path":"` + path + `","pipeline":"p"}]}}`
	}
	for _, good := range []bool{true, false} {
		cuts := 0
		for cut := 0; ; cut++ {
			done := false
			synctest.Test(t, func(t *testing.T) {
				b := &box{t: t, state: t.TempDir(), left: -1, inputs: map[string]string{"/a": "", "/b": ""}}
				if !good {
					b.inputs["/b"] = "no such file"
				}
				first, second := settings("1", both("/a", "5s")), settings("2", both("/b", "6s"))
				for range 4 {
					if err := b.live(first); err != nil && !errors.Is(err, config.ErrRestart) {
						t.Fatal(err)
					}
				}
				if got := b.follows(); got != "5s /a" || b.told[len(b.told)-1] != "1 active" {
					t.Fatalf("at first: %s %v", got, b.told)
				}
				b.left = cut
				for range 6 {
					err := b.live(second)
					if errors.Is(err, errCut) {
						b.left, done = -1, true
						if got := b.follows(); got != "5s /a" && got != "6s /b" {
							t.Errorf("after cut %d: %s", cut, got)
						}
						continue
					}
					if err != nil && !errors.Is(err, config.ErrRestart) {
						t.Fatal(err)
					}
				}
				want, last := "6s /b", "2 active"
				if !good {
					want, last = "5s /a", "2 rolled_back"
				}
				if got := b.follows(); got != want || b.told[len(b.told)-1] != last {
					t.Errorf("cut %d: %s, want %s; told %v", cut, got, want, b.told)
				}
			})
			if !done {
				break
			}
			cuts++
		}
		if cuts < 4 {
			t.Errorf("the power was cut %d times", cuts)
		}
	}
}

// TestADamagedJournalKeepsNoAgentFromStarting: the settings come again.
func TestADamagedJournalKeepsNoAgentFromStarting(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := config.Open(config.Options{State: dir}, slog.New(slog.DiscardHandler))
	if err != nil || !reflect.DeepEqual(k.Settings(), boxconfig.Settings{}) || k.Running() != nil {
		t.Error(k, err)
	}
}

// TestSettingsThatAreNotPermittedAnyMoreAreDropped: somebody on the box forbids
// what it followed until then; its next agent does not follow it, tells so, and
// the runner gets nothing of it.
func TestSettingsThatAreNotPermittedAnyMoreAreDropped(t *testing.T) {
	dir := t.TempDir()
	followed := config.State{Kept: settings("1", `{"runner":{"results":{"targets":[{"kind":"webhook","name":"t","url":"https://hooks.example.com"}]}}}`)}
	if err := (durable.Journal{Path: filepath.Join(dir, "config.json"), Version: config.JournalVersion}).Save(followed); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		allow []string
		want  bool
	}{{[]string{"hooks.example.com"}, true}, {nil, false}, {[]string{"*"}, true}} {
		allow, err := boxconfig.ParseAllow(c.allow)
		if err != nil {
			t.Fatal(err)
		}
		k, err := config.Open(config.Options{State: dir, Permit: allow.Check}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(dir, "models", runnerapi.SettingsFile))
		if err != nil {
			t.Fatal(err)
		}
		if has := len(k.Settings()) > 0; has != c.want || (k.Running() != nil) != c.want || strings.Contains(string(file), "hooks") != c.want {
			t.Errorf("allowed %v: settings %v, running %v, runner %s", c.allow, k.Settings(), k.Running(), file)
		}
	}
}

// TestAnInputThatATrialBrokeIsNotForgiven: a second document comes while the first
// is on trial; what the first one broke does not count as broken before.
func TestAnInputThatATrialBrokeIsNotForgiven(t *testing.T) {
	both := `{"agent":{"sense_period":"5s"},` + moved[1:]
	s := config.State{Kept: settings("1", camera), Trial: &config.Trial{Config: *settings("2", moved)}}
	s, _ = config.Next(s, config.Event{Want: &config.Wanted{Config: settings("3", both), Before: map[string]string{"c": "no such file"}}})
	l := well(settings("3", both))
	l.Inputs["c"] = "no such file"
	if s, _ = config.Next(s, config.Event{Look: &l}); s.Trial != nil || string(s.Kept.Content) != camera {
		t.Errorf("%+v", s)
	}
}
