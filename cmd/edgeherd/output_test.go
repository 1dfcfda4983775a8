package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func testCLI(env map[string]string, tty bool) (*cli, *bytes.Buffer) {
	var out bytes.Buffer
	return &cli{terminal: terminal{in: strings.NewReader(""), out: &out, words: &bytes.Buffer{}, outTTY: tty, inTTY: tty, env: func(k string) string { return env[k] }}, output: "table", color: "auto"}, &out
}

func TestColoursComeOnlyWhereTheyAreWanted(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		tty  bool
		flag string
		want bool
	}{
		{"terminal", nil, true, "auto", true},
		{"pipe", nil, false, "auto", false},
		{"pipe, forced", map[string]string{"CLICOLOR_FORCE": "1"}, false, "auto", true},
		{"terminal, NO_COLOR", map[string]string{"NO_COLOR": "1"}, true, "auto", false},
		{"dumb terminal", map[string]string{"TERM": "dumb"}, true, "auto", false},
		{"NO_COLOR, flag wins", map[string]string{"NO_COLOR": "1"}, false, "always", true},
		{"terminal, never", nil, true, "never", false},
	} {
		cl, out := testCLI(c.env, c.tty)
		cl.color = c.flag
		cl.table(sheet{head: []string{"A", "STATE", "B"}, rows: [][]string{{"1", "silent", "x"}, {"22", "ok", "y"}}})
		if got := strings.Contains(out.String(), "\x1b["); got != c.want {
			t.Errorf("%s: coloured %v, want %v", c.name, got, c.want)
		}
		plain := strings.NewReplacer("\x1b[31m", "", "\x1b[32m", "", "\x1b[0m", "").Replace(out.String())
		if want := "A   STATE   B\n1   silent  x\n22  ok      y\n"; plain != want {
			t.Errorf("%s: columns moved:\n%s", c.name, plain)
		}
	}
}

func TestNobodyIsAskedWhereNobodyCanAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*cli)
		want   bool
	}{
		{"a person", func(*cli) {}, true},
		{"a pipe", func(c *cli) { c.inTTY = false }, false},
		{"--no-input", func(c *cli) { c.noInput = true }, false},
		{"CI", func(c *cli) { c.env = func(string) string { return "1" } }, false},
		{"-o json", func(c *cli) { c.output = "json" }, false},
	} {
		cl, _ := testCLI(nil, true)
		c.change(cl)
		if got := cl.mayAsk(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "y": true, "n\n": false, "\n": false, "": false} {
		cl, _ := testCLI(nil, true)
		cl.in = strings.NewReader(answer)
		if got := cl.ask("?"); got != want {
			t.Errorf("answer %q counts as %v", answer, got)
		}
	}
}

func TestVerdictTellsHowARolloutEnded(t *testing.T) {
	ok, failed, gone := fleetapi.TargetSucceeded, fleetapi.TargetFailed, fleetapi.TargetUnreachable
	for _, c := range []struct {
		name   string
		state  fleetapi.RolloutState
		states []fleetapi.TargetState
		code   int
	}{
		{"all succeeded", fleetapi.RolloutDone, []fleetapi.TargetState{ok, ok}, 0},
		{"one failed within the plan", fleetapi.RolloutDone, []fleetapi.TargetState{ok, failed}, exitPartly},
		{"one not heard from", fleetapi.RolloutDone, []fleetapi.TargetState{ok, gone}, exitPartly},
		{"taken over by a newer one", fleetapi.RolloutDone, []fleetapi.TargetState{fleetapi.TargetSuperseded}, 0},
		{"halted", fleetapi.RolloutHalted, []fleetapi.TargetState{ok, failed}, exitHalted},
		{"canceled on the way", fleetapi.RolloutCanceled, []fleetapi.TargetState{ok, fleetapi.TargetCanceled}, exitPartly},
		{"canceled before it began", fleetapi.RolloutCanceled, []fleetapi.TargetState{fleetapi.TargetCanceled}, exitFailed},
	} {
		var w fleetapi.Wave
		for _, s := range c.states {
			w.Targets = append(w.Targets, fleetapi.Target{State: s})
		}
		err := verdict(fleetapi.Rollout{State: c.state, Waves: []fleetapi.Wave{w}})
		var f failure
		if errors.As(err, &f); f.code != c.code {
			t.Errorf("%s: code %d, want %d", c.name, f.code, c.code)
		}
	}
}

func TestManyBoxesNeedTheirNumber(t *testing.T) {
	cl, _ := testCLI(nil, false)
	r := fleetapi.Rollout{Waves: []fleetapi.Wave{{Targets: make([]fleetapi.Target, sureAbove+1)}}}
	if err := cl.sure(r, startFlags{yes: true}); err == nil || !strings.Contains(err.Error(), "--expect-count 101") {
		t.Errorf("without the number: %v", err)
	}
	if err := cl.sure(r, startFlags{yes: true, expect: sureAbove + 1}); err != nil {
		t.Errorf("with the number: %v", err)
	}
}

func TestAgesAndSizesAreShort(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for d, want := range map[time.Duration]string{-time.Second: "0 s ago", 90 * time.Second: "90 s ago", 5 * time.Minute: "5 min ago", 3 * time.Hour: "3 h ago", 72 * time.Hour: "3 d ago"} {
		then := now.Add(-d)
		if got := age(&then, now); got != want {
			t.Errorf("age %s: %q, want %q", d, got, want)
		}
	}
	if got := age(nil, now); got != "never" {
		t.Error(got)
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1500: "1.5 kB", 2_300_000: "2.3 MB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// FuzzServerConfig: a file is read or refused with words, and what is refused
// gives no configuration.
func FuzzServerConfig(f *testing.F) {
	f.Add([]byte("state: /x\nhttp: 127.0.0.1:1\nhosts: [a, b]\nhttp_plain: true\n"))
	f.Add([]byte("htpp: x"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := decodeServerConfig(data)
		if err != nil && (cfg.State != "" || cfg.Hosts != nil || err.Error() == "") {
			t.Errorf("refused with %q but %+v", err, cfg)
		}
	})
}

// TestTextsOfBoxesMoveNoCursorAndRunNoFormula: what boxes and people call things
// is printed, never obeyed.
func TestTextsOfBoxesMoveNoCursorAndRunNoFormula(t *testing.T) {
	c, out := testCLI(nil, false)
	rows := [][]string{{"a\x1b[2Jb\nc", "=cmd()", "-2+3+cmd|' /C calc'!D2"}, {"+9.1 %", "-", "@SUM(1)"}}
	c.table(sheet{head: []string{"A", "B", "C"}, rows: rows})
	if got := out.String(); strings.Contains(got, "\x1b") || strings.Count(got, "\n") != 3 {
		t.Errorf("table %q", got)
	}
	if rows[0][0] != "a\x1b[2Jb\nc" {
		t.Error("the data changed")
	}
	out.Reset()
	if err := c.csv(sheet{head: []string{"A", "B", "C"}, rows: rows}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"'=cmd()", "'-2+3", "\n+9.1 %,-,'@SUM(1)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("CSV without %q: %q", want, out.String())
		}
	}
	var words bytes.Buffer
	terminal{words: &words}.say("%s", "one\ntw\x1b[31mo")
	if words.String() != "one\ntw [31mo\n" {
		t.Errorf("words %q", words.String())
	}
	out.Reset()
	c.boxServing([]fleetapi.BoxModel{{Name: "m", Tried: &wire.ServingShadow{Version: "1\x1b[2J"}}})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"state":"quarantined","why":"10.0.0.1 (\u001b[2J) comes after"}`)) // the client says what it got
	}))
	defer api.Close()
	err := c.sayStanding(t.Context(), fleetapi.New(api.URL, "", http.DefaultTransport), fleetapi.Box{State: "quarantined"})
	if got := out.String(); err != nil || strings.Contains(got, "\x1b") || strings.Count(got, "[2J") != 2 {
		t.Errorf("%v, said %q", err, got)
	}
}
