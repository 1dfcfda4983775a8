package rollout

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// english says phrases by the dictionary that translators work from.
func english(t *testing.T) func(phrase.Phrase) string {
	t.Helper()
	data, err := os.ReadFile("../../web/src/i18n/phrases.en.json")
	if err != nil {
		t.Fatal(err)
	}
	var words struct{ Phrase map[string]string }
	if err := json.Unmarshal(data, &words); err != nil {
		t.Fatal(err)
	}
	hole := regexp.MustCompile(`\{\{([a-h])\}\}`)
	var say func(phrase.Phrase) string
	say = func(p phrase.Phrase) string {
		first := ""
		if len(p.Args) > 0 {
			first = p.Args[0]
		}
		form, ok := phrase.Pick(words.Phrase, "en", p.Code, first)
		if !ok {
			return "no sentence " + p.Code
		}
		return hole.ReplaceAllStringFunc(form, func(h string) string {
			i := int(h[2] - 'a')
			if in, ok := p.In[i]; ok && in.Code != "" {
				return say(in)
			}
			return p.Args[i]
		})
	}
	return say
}

// sentence is one of a rollout, with what other languages make of it.
type sentence struct {
	text   string
	said   *phrase.Phrase
	fixed  bool // it must be known in other languages
	belong string
}

func sentencesOf(r fleetapi.Rollout) []sentence {
	out := []sentence{{r.Sentence, r.SentenceSaid, true, "sentence"}, {r.Affected, r.AffectedSaid, true, "affected"}}
	for i, text := range r.Warnings {
		out = append(out, sentence{text, &r.WarningsSaid[i], true, "warning"})
	}
	for _, w := range r.Waves {
		out = append(out, sentence{w.Reason, w.ReasonSaid, true, "reason"})
		for _, g := range w.Gates {
			out = append(out, sentence{g.Measured, g.MeasuredSaid, true, "measured"}, sentence{g.Allowed, g.AllowedSaid, true, "allowed"})
		}
		for _, t := range w.Targets {
			// A box may say anything, and so may a filter's owner of a lock.
			out = append(out, sentence{t.Err, t.ErrSaid, false, "err"}, sentence{t.Waits, t.WaitsSaid, false, "waits"})
		}
	}
	if r.Sheet != nil {
		for _, s := range r.Sheet.Skipped {
			out = append(out, sentence{s.Why, s.WhySaid, false, "why"})
		}
	}
	return out
}

// wellSaid checks every sentence: other languages have it, with the same arguments.
func wellSaid(t *testing.T, say func(phrase.Phrase) string, r fleetapi.Rollout) {
	t.Helper()
	for _, s := range sentencesOf(r) {
		switch {
		case s.text == "" && s.said == nil, s.said == nil && !s.fixed:
		case s.said == nil:
			t.Errorf("%s: no other language has %q", s.belong, s.text)
		case say(*s.said) != s.text:
			t.Errorf("%s: %q, but its phrase says %q", s.belong, s.text, say(*s.said))
		}
	}
}

// TestWhatBoxesSayIsKnownByItsKind: word for word as agents, locks and restores write it.
func TestWhatBoxesSayIsKnownByItsKind(t *testing.T) {
	say := english(t)
	for _, text := range []string{
		"waits for room: fetch ab12cd34: no room for the blob: it needs 812 MB and leaves 500 MB free, but /models has 300 MB; make room there, or lower min_free_bytes of agent.yaml; the box looks again by itself; 1.0.0 serves meanwhile",
		"waits for room: fetch ab12cd34: no room for the blob: it needs 812 MB and leaves 500 MB free, but /models has 300 MB; make room there, or lower min_free_bytes of agent.yaml; the box looks again by itself; nothing serves meanwhile",
		"waits for room: no room for the blob: it needs 812 MB and leaves 500 MB free, but /models has 300 MB; make room there, or lower min_free_bytes of agent.yaml; the box looks again by itself; 1.10 serves meanwhile",
		"waits for a disk that takes it: write stage file: input/output error; the box looks again by itself; nothing serves meanwhile",
		"of its files, model.onnx is damaged on the disk, it is fetched again; 1.0.0 serves meanwhile",
		"of its files, model.onnx is damaged on the disk, it was fetched again",
		"failed on this box before: of its files, model.onnx is damaged on the disk, for the 4th time: the disk of this box spoils what it is given",
		`the probe failed: 1 of 5 golden cases fail, the first: golden case "line-3": output "text" differs`,
		"12 of 200 requests failed in the trial",
		"it is slow: 95 % of requests within 31.5 ms, the version before needed 12.0 ms",
		"its answers agree to 93.4 % with those of the version before it, its manifest asks for 99.0 % (812 answers)",
		"locked by anna until 2026-01-15 12:00 UTC: Christmas: no changes",
		"the box was retired meanwhile",
		"needs agent 1.5.0 or newer, this is \"1.0.0\": update to that first",
		"the release has no build for linux/arm64",
	} {
		p := BoxSays(text)
		if p.Code == "" || p.Text != text || say(p) != text {
			t.Errorf("%q: %+v, which says %q", text, p, say(p))
		}
	}
	if p := BoxSays("cannot open /dev/video0"); p.Code != "" || p.Text != "cannot open /dev/video0" {
		t.Errorf("what is of no kind: %+v", p)
	}
}

// TestWhatBoxesSayOfTheirDisksIsReadInItsParts: no part of such a sentence is taken for
// the name of a version that serves.
func TestWhatBoxesSayOfTheirDisksIsReadInItsParts(t *testing.T) {
	say := english(t)
	const damaged = "of its files, model.onnx is damaged on the disk"
	for _, c := range []struct {
		text, code string
		parts      []string // of its arguments, in order
	}{
		{"waits for a disk that takes it: write stage file: read-only file system; the box looks again by itself; 1.0.0 serves meanwhile", "awaits-disk", []string{"", "serves-meanwhile"}},
		{damaged + ", for the 4th time: the disk of this box spoils what it is given", "disk-spoils", []string{"file-damaged", ""}},
		{"of its files, model.onnx is gone from the disk, it is fetched again; nothing serves meanwhile", "comes-again", []string{"file-gone", "none-serves"}},
		{damaged + ", it was fetched again", "came-again", []string{"file-damaged"}},
		{"1.0.0 served, but " + damaged + "; 0.9.0 serves meanwhile", "served-but", []string{"", "file-damaged", "serves-meanwhile"}},
	} {
		p := BoxSays(c.text)
		if p.Code != c.code || say(p) != c.text || len(p.Args) != len(c.parts) {
			t.Errorf("%q: %+v, which says %q", c.text, p, say(p))
		}
		for i, code := range c.parts {
			if p.In[i].Code != code {
				t.Errorf("%q: part %d is %q, want %q", c.text, i, p.In[i].Code, code)
			}
		}
	}
}

// TestALookReadsNoTextTwice: ten thousand boxes say at each look what they said before.
func TestALookReadsNoTextTwice(t *testing.T) {
	const n = 1000
	for name, c := range map[string]struct {
		state fleetapi.TargetState
		fact  Fact
	}{
		"a full disk": {fleetapi.TargetWorking, Fact{Phase: phaseFetching, Err: "waits for room: 1; the box looks again by itself; nothing serves meanwhile"}},
		"held up":     {fleetapi.TargetUnreachable, Fact{Phase: phaseFailed, Disk: true, Err: "failed on this box before: it was"}},
		"a lock":      {fleetapi.TargetScheduled, Fact{Locked: "locked by anna until 2026-01-15 12:00 UTC: no changes"}},
	} {
		r := start(t, n, fleetapi.PlanRequest{Policy: "waves: [rest]"}).r
		r.Waves[0].State, r.Waves[0].Started = fleetapi.WaveRunning, &t0
		facts := map[identity.ID]Fact{}
		for i := range r.Waves[0].Targets {
			target := &r.Waves[0].Targets[i]
			target.State, target.Phase, target.Changed = c.state, c.fact.Phase, &t0
			f := c.fact
			f.Link, f.Running = fleetapi.LinkLive, other
			if f.Phase != "" {
				f.DesiredRollout = r.ID
			}
			if i == 0 { // the wave goes on
				target.State, target.Phase, f.Err, f.Phase, f.Disk = fleetapi.TargetWorking, "probing", "", "probing", false
			}
			facts[target.Box] = f
		}
		course, err := NewCourse(r, facts)
		if err != nil {
			t.Fatal(err)
		}
		for range n/maxNoted + 1 { // some learn in each look why they wait
			course.Step(nil, t0)
		}
		if got := testing.AllocsPerRun(3, func() { course.Step(nil, t0) }); got > n {
			t.Errorf("%s: %v allocations for %d boxes", name, got, n)
		}
	}
}
