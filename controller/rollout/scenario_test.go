package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// TestScenarios plays testdata/*.txt. A file has scenarios that begin with
// "scenario PROMISE"; docs/rollouts.md describes the verbs.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, sc := range scenarios(string(text)) {
			n++
			t.Run(filepath.Base(file)+"/"+sc.promise, func(t *testing.T) { play(t, file, sc) })
		}
	}
	if n < 60 {
		t.Errorf("%d scenarios; 60 promises were made", n)
	}
}

type scenario struct {
	promise string
	lines   []line
}

type line struct {
	at    int
	words []string
	rest  string // after the first word
	not   bool
	block string // indented lines below
}

func scenarios(text string) []scenario {
	var out []scenario
	var open *line
	for i, raw := range strings.Split(text, "\n") {
		if strings.HasPrefix(raw, "  ") && open != nil {
			open.block += raw[2:] + "\n"
			continue
		}
		s := strings.TrimSpace(raw)
		if s == "" || strings.HasPrefix(s, "#") {
			continue
		}
		if promise, ok := strings.CutPrefix(s, "scenario "); ok {
			out, open = append(out, scenario{promise: promise}), nil
			continue
		}
		l := line{at: i + 1}
		s, l.not = strings.CutPrefix(s, "! ")
		l.words = strings.Fields(s)
		_, l.rest, _ = strings.Cut(s, " ")
		sc := &out[len(out)-1]
		sc.lines = append(sc.lines, l)
		open = &sc.lines[len(sc.lines)-1]
	}
	return out
}

// stage is a scenario under way.
type stage struct {
	boxes   []fleetapi.Box
	policy  string
	unfit   map[identity.ID]phrase.Phrase
	zones   map[string]string
	bytes   int64
	draws   []fleetapi.Draw
	plan    fleetapi.Rollout
	c       *Course
	facts   map[identity.ID]Fact
	queue   []Input
	records []Record
	now     time.Time
	offers  []string // names, in the last step
	repeats int      // actions of the last step for boxes that were offered before
}

func play(t *testing.T, file string, sc scenario) {
	say := english(t)
	s := &stage{facts: map[identity.ID]Fact{}, unfit: map[identity.ID]phrase.Phrase{}, zones: map[string]string{}, now: t0}
	for _, l := range sc.lines {
		do := verbs[l.words[0]]
		if do == nil {
			t.Fatalf("%s:%d: unknown verb %q", file, l.at, l.words[0])
		}
		err := do(s, l)
		if l.not {
			if err == nil {
				t.Fatalf("%s:%d: %s did not fail", file, l.at, strings.Join(l.words, " "))
			}
			if l.block != "" && !strings.Contains(err.Error(), strings.TrimSpace(l.block)) {
				t.Fatalf("%s:%d: error %q lacks %q", file, l.at, err, strings.TrimSpace(l.block))
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", file, l.at, strings.Join(l.words, " "), err)
		}
		// And this: all that it says is known in other languages.
		wellSaid(t, say, s.plan)
		if s.c != nil {
			wellSaid(t, say, s.c.r)
		}
	}
	if s.c == nil || len(s.records) == 0 {
		return
	}
	// Every scenario proves this as well: its log gives its decisions again.
	own, err := PolicyOf(s.plan.Request)
	if err != nil {
		t.Fatal(err)
	}
	if got, faithful := again(s.plan, own, s.records); !faithful || got.State != s.c.r.State || got.Sentence != s.c.r.Sentence {
		t.Errorf("%s: the log of %q does not give the same rollout again: %s (%s), want %s (%s)", file, sc.promise, got.State, got.Sentence, s.c.r.State, s.c.r.Sentence)
	}
	if r := Planned(s.c.r); len(r.Waves) != len(s.plan.Waves) {
		t.Errorf("%s: planned anew it has %d waves, want %d", file, len(r.Waves), len(s.plan.Waves))
	}
}

// opts are the words key=value of a line.
func (l line) opts() map[string]string {
	out := map[string]string{}
	for _, w := range l.words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			out[k] = v
		}
	}
	return out
}

// names are the words that are not key=value; box-1..4 is four of them.
func (l line) names() []string {
	var out []string
	for _, w := range l.words[1:] {
		from, to, ok := strings.Cut(strings.TrimPrefix(w, "box-"), "..")
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		switch {
		case strings.Contains(w, "="):
		case ok && err1 == nil && err2 == nil:
			for i := a; i <= b; i++ {
				out = append(out, fmt.Sprint("box-", i))
			}
		default:
			out = append(out, w)
		}
	}
	return out
}

func boxID(name string) identity.ID {
	n := strings.TrimPrefix(name, "box-")
	return identity.ID("d-" + strings.Repeat("0", max(13-len(n), 0)) + n)
}

// see queues a change of what is known of boxes.
func (s *stage) see(l line, change func(*Fact)) error {
	for _, name := range l.names() {
		id := boxID(name)
		f := s.facts[id]
		change(&f)
		s.facts[id] = f
	}
	return nil
}

func (s *stage) step() {
	var in []Input
	in, s.queue = s.queue, nil
	var ids []identity.ID
	for id := range s.facts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if i, ok := s.c.Observe(id, s.facts[id]); ok {
			in = append(in, i)
		}
	}
	rec, actions := s.c.Step(in, s.now)
	s.keep(rec)
	s.offers, s.repeats = nil, 0
	for _, a := range actions {
		f := s.facts[a.Offer]
		if f.DesiredRollout == s.c.r.ID {
			s.repeats++
		}
		f.Desired, f.DesiredRollout = target.Digest, s.c.r.ID
		s.facts[a.Offer] = f
		s.offers = append(s.offers, "box-"+cmp.Or(strings.TrimLeft(string(a.Offer)[2:], "0"), "0"))
	}
	sort.Slice(s.offers, func(i, j int) bool { return boxID(s.offers[i]) < boxID(s.offers[j]) })
}

// keep stores a record as a database would: as text.
func (s *stage) keep(rec Record) {
	text, err := json.Marshal(rec)
	if err != nil {
		panic(err)
	}
	var back Record
	if err := json.Unmarshal(text, &back); err != nil {
		panic(err)
	}
	s.records = append(s.records, back)
}

func (s *stage) fleet(l line) error {
	o := l.opts()
	n, err := strconv.Atoi(l.words[1])
	if err != nil {
		return err
	}
	pick := func(key, usual string, i int) string {
		values := strings.Split(o[key], ",")
		if o[key] == "" {
			values = []string{usual}
		}
		return values[i%len(values)]
	}
	for range n {
		i := len(s.boxes)
		seen := s.now
		b := fleetapi.Box{ID: boxID(fmt.Sprint("box-", i)), Name: fmt.Sprint("box-", i), Site: pick("site", "s", i), Link: fleetapi.LinkLive, LastSeen: &seen, Latest: map[string]fleetapi.Value{}}
		b.Inventory.Class, b.Inventory.Arch = pick("class", "itx", i), "amd64"
		if b.Site == "-" {
			b.Site = ""
		}
		b.Health = fleetapi.Health(pick("health", "healthy", i))
		if v, err := strconv.ParseFloat(pick("dirt", "", i), 64); err == nil {
			b.Thermal = fleetapi.Thermal{Known: true, Percent: v}
		}
		b.Latest["temp_die_celsius"] = fleetapi.Value{Value: 50}
		if o["role"] != "" {
			b.Labels = map[string]string{"role": pick("role", "", i)}
		}
		for key, metric := range map[string]string{"inlet": "temp_inlet_celsius", "die": "temp_die_celsius", "disk": "disk_free_bytes", "watts": "power_watts", "throttles": "throttle_count"} {
			if v, err := strconv.ParseFloat(pick(key, "", i), 64); err == nil {
				b.Latest[metric] = fleetapi.Value{Value: v}
			}
		}
		cool, err := coolingOf(func(key string) string { return pick(key, "", i) })
		if err != nil {
			return err
		}
		b.Thermal.Cooling = cool
		b.Models = []fleetapi.BoxModel{{Name: target.Name, RunningVersion: pick("old", "5.0.0", i)}}
		s.boxes = append(s.boxes, b)
		s.facts[b.ID] = Fact{Link: fleetapi.LinkLive, Running: other, Version: pick("old", "5.0.0", i), Cooling: cool}
	}
	return nil
}

func (s *stage) makePlan(l line) error {
	r, err := Plan(Order{
		ID: "r-1", Kind: fleetapi.KindModel, Request: fleetapi.PlanRequest{Policy: s.policy}, Target: target,
		Boxes: s.boxes, Draws: s.draws, Zones: s.zones, Unfit: s.unfit, Bytes: s.bytes, Now: s.now,
	})
	if err != nil {
		return err
	}
	s.plan = r
	s.c, err = NewCourse(r, nil)
	return err
}

func (s *stage) start(l line) error {
	if s.c == nil {
		if err := s.makePlan(l); err != nil {
			return err
		}
	}
	return s.act(line{words: append([]string{"act", ActStart}, l.words[1:]...)})
}

func (s *stage) act(l line) error {
	o := l.opts()
	a := Act{Action: l.words[1], By: o["by"], Reason: o["reason"]}
	a.Wave, _ = strconv.Atoi(o["wave"])
	if o["box"] != "" {
		a.Box = boxID(o["box"])
	}
	if o["rollouts"] != "" {
		a.Rollouts = strings.Split(o["rollouts"], ",")
	}
	if _, err := a.On(s.c.r, s.now); err != nil {
		return err
	}
	rec, _ := s.c.Step([]Input{{Act: &a}}, s.now)
	s.keep(rec)
	return nil
}

// serving is what a box measured.
func serving(l line) (*runnerapi.Probe, *runnerapi.Probe, error) {
	o := l.opts()
	read := func(latency, memory string) (*runnerapi.Probe, error) {
		if latency == "" && memory == "" {
			return nil, nil
		}
		p := &runnerapi.Probe{Ref: models.Ref{Name: target.Name}, OK: true}
		if latency != "" {
			d, err := time.ParseDuration(latency)
			if err != nil {
				return nil, err
			}
			p.SecondsPerItem = d.Seconds()
		}
		mib, _ := strconv.ParseInt(memory, 10, 64)
		p.PeakRSSBytes = mib << 20
		return p, nil
	}
	is, err := read(o["latency"], o["memory"])
	if err != nil {
		return nil, nil, err
	}
	if share, err := strconv.ParseFloat(o["agree"], 64); err == nil {
		if is == nil {
			is = &runnerapi.Probe{OK: true}
		}
		ratio, _ := strconv.ParseFloat(o["beside"], 64)
		is.Shadow = &runnerapi.Shadow{Compared: 100, Agreement: share, LatencyRatio: ratio}
	}
	was, err := read(o["was"], o["memory-was"])
	return is, was, err
}

func digestOf(word string) blob.Digest {
	switch word {
	case "new":
		return target.Digest
	case "none":
		return blob.Digest{}
	}
	return other
}
