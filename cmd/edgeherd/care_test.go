package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// careFleet is a controller that runs, with two boxes at shop-7 of which one
// found that its filter is clogged and another that a fan wears out.
type careFleet struct {
	t   *testing.T
	env map[string]string
}

func newCareFleet(t *testing.T, notify string) *careFleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &careFleet{t: t, env: map[string]string{"HOME": dir, "EDGEHERD_CONTEXT": filepath.Join(dir, "st/context.json")}}
	config := filepath.Join(dir, "server.yaml")
	text := "state: " + filepath.Join(dir, "st") + "\nhttp: 127.0.0.1:0\ndevice: 127.0.0.1:0\nmqtt: 127.0.0.1:0\n" + notify
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"till-1", "shelf-1"} {
		f.must("box", "enrol", "--config", config, "--name", name, "--site", "shop-7", "--dir", filepath.Join(dir, name))
	}
	f.found(filepath.Join(dir, "st/store.db"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	var words bytes.Buffer
	go func() {
		done <- run(ctx, []string{"server", "run", "--config", config}, terminal{in: strings.NewReader(""), out: &bytes.Buffer{}, words: &words, env: f.get})
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("the controller ended with %d: %s", code, words.String())
		}
	})
	f.wait("tickets", func() bool {
		out, _, code := f.run("ticket", "list", "-o", "name")
		return code == 0 && len(strings.Fields(out)) == 2
	})
	return f
}

func (f *careFleet) get(name string) string { return f.env[name] }

// found stores what boxes found, as ingest does.
func (f *careFleet) found(path string) {
	f.t.Helper()
	s, err := store.Open(f.t.Context(), store.Options{Path: path})
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.Close()
	boxes, err := s.Boxes(f.t.Context(), 0)
	if err != nil || len(boxes) != 2 {
		f.t.Fatal(boxes, err)
	}
	now := time.Now()
	say := func(box identity.ID, seq uint64, fi health.Finding) {
		fi.Opened, fi.Since = health.Unix(now.Unix()), health.Unix(now.Add(-48*time.Hour).Unix())
		body, err := json.Marshal(fi)
		if err != nil {
			f.t.Fatal(err)
		}
		payload, err := wire.EncodeEvents([]wire.Event{{Type: wire.EventFinding, Body: body}})
		if err != nil {
			f.t.Fatal(err)
		}
		d := store.Delivery{Box: box, StartMs: now.UnixMilli() + int64(seq), Block: wire.Block{Key: wire.Key{SID: wire.SID{1}, Lane: wire.LaneEvents, Seq: seq},
			Boot: wire.BootID{1}, Kind: wire.KindEvents, Count: 1, Payload: payload, WallMs: now.UnixMilli(), Quality: wire.TimeSynced}}
		if err := wire.Seal(&d.Block); err != nil {
			f.t.Fatal(err)
		}
		row := store.FindingRow{Box: box, Family: fi.Family, OpenedMs: now.Unix() * 1000, TimeMs: d.StartMs, Body: body}
		_, err = s.Ingest(f.t.Context(), []store.Delivery{d}, func(store.Delivery) (store.Effects, error) {
			return store.Effects{Care: store.CareEffects{Findings: []store.FindingRow{row}}}, nil
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	by := func(name string) identity.ID {
		return boxes[slices.IndexFunc(boxes, func(b store.Box) bool { return b.Name == name })].ID
	}
	say(by("till-1"), 1, health.Finding{Family: "resistance", Cause: health.CauseAirflow, Level: health.Ticket, Confidence: 0.82,
		Evidence: []health.Evidence{{Name: "resistance_percent", Value: 9.1, Text: "+9.1 % against the clean box at equal load and airflow"}},
		Forecast: &health.Forecast{Day: int32(now.Unix() / 86400), Low: 12, Mid: 30, High: 61}})
	say(by("shelf-1"), 2, health.Finding{Family: "fan1", Cause: health.CauseFanWear, Level: health.Ticket, Confidence: 0.97,
		Evidence: []health.Evidence{{Name: "fan_percent", Value: -10, Text: "fan1 turns 10 % slower at the same duty"}}})
}

func (f *careFleet) run(args ...string) (out, words string, code int) {
	var o, w bytes.Buffer
	code = run(f.t.Context(), args, terminal{in: strings.NewReader(""), out: &o, words: &w, env: f.get})
	return o.String(), w.String(), code
}

func (f *careFleet) must(args ...string) (out, words string) {
	f.t.Helper()
	out, words, code := f.run(args...)
	if code != 0 {
		f.t.Fatalf("edgeherd %s: exit %d\n%s%s", strings.Join(args, " "), code, out, words)
	}
	return out, words
}

func (f *careFleet) wait(what string, is func() bool) {
	f.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(5 * time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			f.t.Fatalf("no sign of %s", what)
		}
	}
}

// words splits a command line as a shell does, with " and '.
func shellWords(line string) (out []string) {
	var word strings.Builder
	quote, in := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, in = r, true
		case quote == 0 && r == ' ':
			if in {
				out = append(out, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}

// TestEveryCommandOfTheCareGuideRuns, one after the other as the page has them.
func TestEveryCommandOfTheCareGuideRuns(t *testing.T) {
	guide, err := os.ReadFile("../../docs/care.md")
	if err != nil {
		t.Fatal(err)
	}
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer hook.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of sufficient length"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newCareFleet(t, "notify:\n  - {name: cmms, webhook: \""+hook.URL+"\", secret_file: "+secret+"}\n")
	var ran []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)\n```").FindAllStringSubmatch(string(guide), -1) {
		for line := range strings.SplitSeq(block[1], "\n") {
			args := shellWords(line)
			if len(args) < 2 || args[0] != "edgeherd" {
				t.Fatalf("the guide shows %q, which is no command of ours", line)
			}
			f.must(args[1:]...)
			ran = append(ran, line)
		}
	}
	if len(ran) < 25 {
		t.Errorf("only %d commands ran", len(ran))
	}
	out, _ := f.must("ticket", "show", "T-1")
	for _, want := range []string{"done", "acknowledged", "dispatched", "on site", "kim", "F-120"} {
		if !strings.Contains(out, want) {
			t.Errorf("T-1 after the guide does not tell of %q:\n%s", want, out)
		}
	}
	out, _ = f.must("ticket", "export")
	if n := strings.Count(out, "\n"); n != 4 || !strings.HasPrefix(out, "id,state,level,cause,") {
		t.Errorf("%d lines of CSV:\n%s", n, out)
	}
}

func TestTicketsRefuseWhatTheirStateForbids(t *testing.T) {
	f := newCareFleet(t, "")
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"ticket show T-99", exitNotFound, "T-99"},
		{"ticket reopen T-1", exitConflict, "it cannot be told"},
		{"ticket close T-1 bored", exitUsage, "resolution"},
		{"ticket done T-1 --work polished", exitUsage, "kinds are inspected"},
		{"visit add shop-8", exitNotFound, "shop-8"},
		{"visit done V-9", exitNotFound, "V-9"},
		{"visit add shop-7 --work till-1:cleaned", exitUsage, "give --done"},
		{"ticket list --filter colour=1", exitUsage, "fields are assignee"},
		{"notify test", exitNotFound, "docs/care.md"},
		{"notify test mail", exitNotFound, "mail"},
		{"ticket open --box till-1 --cause airflow", exitConflict, "Work on T-"},
		{"ticket open --cause airflow", exitConflict, "of one box or of one site"},
	} {
		out, words, code := f.run(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(words, c.says) {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.args, code, c.code, out, words)
		}
	}
	out, _ := f.must("health", "fleet", "-o", "json")
	var got struct {
		Schema string
		Sites  []struct {
			Site string
			Due  int
			Go   bool `json:"visit_due"`
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Schema != "edgeherd.health-fleet/v1" || len(got.Sites) != 1 || got.Sites[0].Due != 2 || !got.Sites[0].Go {
		t.Errorf("%v\n%s", err, out)
	}
}
