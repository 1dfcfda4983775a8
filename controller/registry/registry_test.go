package registry

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var now = time.UnixMilli(1_800_000_000_000)

func ago(d time.Duration) int64 { return now.Add(-d).UnixMilli() }

func TestLinkSaysWhenABoxWasHeard(t *testing.T) {
	for _, c := range []struct {
		name string
		box  store.Box
		want fleetapi.Link
	}{
		{"never", store.Box{}, fleetapi.LinkNever},
		{"open session, long quiet", store.Box{Connected: true, LastSeenMs: ago(time.Hour)}, fleetapi.LinkLive},
		{"just gone", store.Box{LastSeenMs: ago(2*time.Minute - time.Second)}, fleetapi.LinkLive},
		{"two minutes", store.Box{LastSeenMs: ago(2 * time.Minute)}, fleetapi.LinkLate},
		{"ten minutes", store.Box{LastSeenMs: ago(10 * time.Minute)}, fleetapi.LinkSilent},
		{"our clock was set back", store.Box{LastSeenMs: ago(-time.Hour)}, fleetapi.LinkLive},
	} {
		v := View(c.box, now)
		if v.Link != c.want || (v.LastSeen == nil) != (c.box.LastSeenMs == 0) {
			t.Errorf("%s: %s, last seen %v, want %s", c.name, v.Link, v.LastSeen, c.want)
		}
	}
}

func TestHealthIsTheWorstOpenFinding(t *testing.T) {
	found := func(level, cause string, muted bool) store.FindingRow {
		return store.FindingRow{Family: cause, Muted: muted, Body: []byte(`{"family":"` + cause + `","cause":"` + cause + `","level":"` + level + `","forecast":{"low":9,"high":30}}`)}
	}
	learning, judged := `{"first_hour":1800000000,"learning":{"Days":3,"OfDays":7,"Hours":20,"OfHours":48}}`, `{"judged":true,"percent":4.2,"sigma":0.8,"reference":"inlet"}`
	for _, c := range []struct {
		name, heat string
		findings   []store.FindingRow
		want       fleetapi.Health
		causes     string
		known      bool
	}{
		{"nothing", "", nil, fleetapi.HealthUnknown, "", false},
		{"broken", "{", nil, fleetapi.HealthUnknown, "", false},
		{"learning", learning, nil, fleetapi.HealthHealthy, "", false},
		{"judged", judged, nil, fleetapi.HealthHealthy, "", true},
		{"a finding before any hour", "", []store.FindingRow{found("urgent", "fan-stop", false)}, fleetapi.HealthUrgent, "fan-stop", false},
		{"the worst first", judged, []store.FindingRow{found("watch", "ambient", false), found("ticket", "airflow", false)}, fleetapi.HealthTicket, "airflow ambient", true},
		{"what a person muted does not count", judged, []store.FindingRow{found("ticket", "airflow", true)}, fleetapi.HealthHealthy, "", true},
	} {
		// A silent box keeps the health it had.
		v := View(store.Box{Heat: []byte(c.heat), Findings: c.findings, LastSeenMs: ago(time.Hour)}, now)
		if v.Health != c.want || v.Thermal.Known != c.known || (v.Thermal.Reason == "") != c.known || strings.Join(v.Thermal.Causes, " ") != c.causes {
			t.Errorf("%s: %s, %+v", c.name, v.Health, v.Thermal)
		}
		if l := v.Thermal.Learning; (c.heat == learning) != (l != nil) || l != nil && (l.Days != 3 || l.OfHours != 48 || v.Thermal.ReasonCode != fleetapi.ReasonLearning || v.Thermal.LearningSince == nil) {
			t.Errorf("%s: learning %+v, %+v", c.name, l, v.Thermal)
		}
		if c.findings != nil && (v.Thermal.LowDays == nil || *v.Thermal.LowDays != 9) {
			t.Errorf("%s: no forecast", c.name)
		}
	}
}

// TestADiskThatTakesNothingIsWhyAModelStandsStill: reports of a box wait for its
// disk, its HELLO does not.
func TestADiskThatTakesNothingIsWhyAModelStandsStill(t *testing.T) {
	one, two := blob.Sum([]byte("1")), blob.Sum([]byte("2"))
	for _, c := range []struct {
		name    string
		running blob.Digest
		err     string // of the newest phase
		want    string
	}{
		{"on its way", one, "", "its disk takes no writes: no space left on device; make room"},
		{"the phase says why", one, "damaged", "damaged"},
		{"it is there", two, "", ""},
	} {
		b := store.Box{Buffer: wire.Buffer{Disk: "no space left on device"}, Phases: []store.Phase{{Digest: two.String(), Phase: "fetching", Err: c.err}}}
		b.Desired.Models = []wire.DesiredModel{{Name: "m", Version: "2", Digest: two}}
		b.Running.Models = []wire.RunningModel{{Name: "m", Version: "x", Digest: c.running.String()}}
		if got := View(b, now).Models[0].Err; !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestUpdateComparesWhatShallRunWithWhatRuns(t *testing.T) {
	d1, d2 := blob.Sum([]byte("1")), blob.Sum([]byte("2"))
	desired := func(d blob.Digest) []wire.DesiredModel {
		return []wire.DesiredModel{{Name: "m", Version: "1", Digest: d, Rollout: "r"}}
	}
	runs := func(d blob.Digest) wire.Running {
		return wire.Running{Models: []wire.RunningModel{{Name: "m", Version: "1", Digest: d.String()}}}
	}
	phase := func(d blob.Digest, rollout, phase string) store.Phase {
		return store.Phase{Digest: d.String(), Rollout: rollout, Phase: phase}
	}
	agent := &wire.DesiredAgent{Version: "2", Digest: d2}
	for _, c := range []struct {
		name string
		box  store.Box
		want fleetapi.Update
	}{
		{"nothing wished, nothing runs", store.Box{}, fleetapi.UpdateCurrent},
		{"runs as wished", store.Box{Desired: wire.Desired{Models: desired(d1)}, Running: runs(d1)}, fleetapi.UpdateCurrent},
		{"runs nothing yet", store.Box{Desired: wire.Desired{Models: desired(d1)}}, fleetapi.UpdateUpdating},
		{"runs the old one", store.Box{Desired: wire.Desired{Models: desired(d2)}, Running: runs(d1)}, fleetapi.UpdateUpdating},
		{"still runs what nobody wishes", store.Box{Running: runs(d1)}, fleetapi.UpdateUpdating},
		{"reports nonsense", store.Box{Desired: wire.Desired{Models: desired(d1)}, Running: wire.Running{Models: []wire.RunningModel{{Name: "m", Digest: "?"}}}}, fleetapi.UpdateUpdating},
		{"gave up", store.Box{Desired: wire.Desired{Models: desired(d2)}, Running: runs(d1), Phases: []store.Phase{phase(d2, "r", "rolled_back")}}, fleetapi.UpdateFailed},
		{"refused", store.Box{Desired: wire.Desired{Models: desired(d2)}, Phases: []store.Phase{phase(d2, "r", "refused")}}, fleetapi.UpdateFailed},
		{"gave up in an earlier rollout", store.Box{Desired: wire.Desired{Models: desired(d2)}, Phases: []store.Phase{phase(d2, "q", "failed")}}, fleetapi.UpdateUpdating},
		{"failed once but runs now", store.Box{Desired: wire.Desired{Models: desired(d1)}, Running: runs(d1), Phases: []store.Phase{phase(d1, "r", "failed")}}, fleetapi.UpdateCurrent},
		{"agent is the wished one", store.Box{Desired: wire.Desired{Agent: agent}, Inventory: wire.Inventory{AgentRelease: d2.String()}}, fleetapi.UpdateCurrent},
		{"agent is another", store.Box{Desired: wire.Desired{Agent: agent}, Inventory: wire.Inventory{AgentRelease: d1.String()}}, fleetapi.UpdateUpdating},
		{"agent failed", store.Box{Desired: wire.Desired{Agent: agent}, Phases: []store.Phase{phase(d2, "", "rolled_back")}}, fleetapi.UpdateFailed},
		{"agent tries again", store.Box{Desired: wire.Desired{Agent: agent}, Phases: []store.Phase{phase(d2, "q", "rolled_back"), phase(d2, "r", "trial")}}, fleetapi.UpdateUpdating},
	} {
		c.box.LastSeenMs = ago(time.Second)
		if got := View(c.box, now).Update; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		// When the box is silent nobody knows how far it is; what is settled stands.
		c.box.LastSeenMs = ago(time.Hour)
		want := c.want
		if want == fleetapi.UpdateUpdating {
			want = fleetapi.UpdateUnknown
		}
		if got := View(c.box, now).Update; got != want {
			t.Errorf("%s, silent: %s, want %s", c.name, got, want)
		}
	}
	if got := View(store.Box{}, now).Update; got != fleetapi.UpdateUnknown {
		t.Errorf("never seen: %s", got)
	}
}

func TestModelsJoinWishAndTruth(t *testing.T) {
	d1, d2 := blob.Sum([]byte("1")), blob.Sum([]byte("2"))
	v := View(store.Box{
		Desired: wire.Desired{Models: []wire.DesiredModel{{Name: "b", Version: "2", Digest: d2, Rollout: "r"}}},
		Running: wire.Running{Models: []wire.RunningModel{{Name: "b", Version: "1", Digest: d1.String()}, {Name: "a", Version: "7", Digest: d2.String()}}},
		Phases:  []store.Phase{{Digest: d2.String(), Rollout: "r", Phase: "golden", Err: "e"}, {Digest: d2.String(), Rollout: "q", Phase: "failed"}},
		Latest:  store.NewestOf(map[string]store.Latest{"x": {TimeMs: 5, Value: 6}}),
	}, now)
	want := []fleetapi.BoxModel{
		{Name: "a", RunningVersion: "7", RunningDigest: d2},
		{Name: "b", DesiredVersion: "2", DesiredDigest: d2, RunningVersion: "1", RunningDigest: d1, Phase: "golden", Err: "e"},
	}
	if !slices.Equal(v.Models, want) {
		t.Errorf("models %+v, want %+v", v.Models, want)
	}
	if l := v.Latest["x"]; l.Value != 6 || l.Time.UnixMilli() != 5 {
		t.Errorf("latest %+v", l)
	}
}

// fleet is what filters and orders are tried on.
func fleet() []fleetapi.Box {
	box := func(name, site string, die float64, change func(*fleetapi.Box)) fleetapi.Box {
		b := fleetapi.Box{Name: name, Site: site, Health: "healthy", Latest: map[string]fleetapi.Value{"temp_die_celsius": {Value: die}}}
		change(&b)
		return b
	}
	return []fleetapi.Box{
		box("b1", "berlin-1", 60, func(b *fleetapi.Box) { b.Simulated, b.Labels = true, map[string]string{"line": "a"} }),
		box("b2", "berlin-1", 85.5, func(b *fleetapi.Box) { b.Health, b.State = "urgent", "quarantined" }),
		box("k1", "krakow", 85, func(b *fleetapi.Box) {
			b.Labels = map[string]string{"size": "b", "line": "a"}
			b.Models = []fleetapi.BoxModel{{Name: "silero-vad", RunningVersion: "5"}, {Name: "ocr", RunningVersion: "1"}}
			b.Thermal = fleetapi.Thermal{Known: true, Percent: 1.2, Causes: []string{"airflow", "ambient"}}
		}),
		box("k2", "krakow", 0, func(b *fleetapi.Box) { b.Latest, b.Labels = nil, map[string]string{"line": "ab"} }),
	}
}

func TestFilters(t *testing.T) {
	for text, want := range map[string]string{
		``:                              "b1 b2 k1 k2",
		`   `:                           "b1 b2 k1 k2",
		`site = "krakow"`:               "k1 k2",
		`site != "krakow"`:              "b1 b2",
		`NOT site = "krakow"`:           "b1 b2",
		`-site = "krakow"`:              "b1 b2",
		`temp_die > 85`:                 "b2",
		`temp_die >= 85`:                "b2 k1",
		`temp_die > 84.9`:               "b2 k1",
		`temp_die = 85`:                 "k1",
		`temp_die > -5`:                 "b1 b2 k1",
		`temp_die < 70 OR name = "k2"`:  "b1 k2",
		`NOT temp_die > 0`:              "k2",
		`simulated = true`:              "b1",
		`simulated = false`:             "b2 k1 k2",
		`model:"silero"`:                "k1",
		`model:"silero-vad:6"`:          "",
		`model:"ocr:1"`:                 "k1",
		`site:"berlin"`:                 "b1 b2",
		`resistance > 1`:                "k1",
		`resistance < 5`:                "k1",
		`cause:"airflow"`:               "k1",
		`state = "quarantined"`:         "b2",
		`label:"line=a"`:                "b1 k1",
		`label:"line=ab"`:               "k2",
		`label:"line" NOT label:"size"`: "b1 k2",
		`label = "line=a size=b"`:       "k1",
		`label:"ine=a"`:                 "",
		`health = "urgent" AND (site = "berlin-1" OR site = "krakow")`: "b2",
		`site = "berlin-1" name = "b2"`:                                "b2",
		`site < "c"`:                                                   "b1 b2",
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, b := range fleet() {
			if f.Match(b) {
				got = append(got, b.Name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s matches %v, want %s", text, got, want)
		}
	}
}

func TestAFilterTellsWhatAllMatchesHave(t *testing.T) {
	for text, want := range map[string]bool{
		`site = "krakow"`: true, `health = "watch" AND site = "krakow"`: true, `site = "krakow" health = "watch" link = "live"`: true,
		``: false, `site != "krakow"`: false, `site = "berlin"`: false, `site : "krakow"`: false,
		`site = "krakow" OR link = "live"`: false, `NOT site = "krakow"`: false, `NOT (link = "live" AND site = "krakow")`: false,
	} {
		f, err := ParseFilter(text)
		if err != nil || f.Requires("site", "krakow") != want {
			t.Errorf("%s: %v, %v", text, !want, err)
		}
	}
}

func TestBadFiltersAreExplained(t *testing.T) {
	for text, fault := range map[string]string{
		`nope = "a"`:             "'nope' (1:1)",
		`site = berlin`:          "'berlin' (1:8)",
		`throttling`:             "'throttling' (1:1)",
		`site`:                   "nothing is compared",
		`"x"`:                    "nothing is compared",
		`true`:                   "nothing is compared",
		`"krakow" = site`:        "left side of = is not a field",
		`true = true`:            "left side of = is not a field",
		`site = name`:            "right side of = is a field",
		`NOT (site = name)`:      "right side of = is a field",
		`site = "a`:              "unterminated string",
		`site == "a"`:            "unexpected token =",
		`temp_die > "85"`:        "'>'",
		`site = 5`:               "'='",
		`temp_die:5`:             "':'",
		`site = "a" AND`:         "unexpected",
		`(`:                      "(1:2)",
		`site.x = "a"`:           "unsupported operand",
		`timestamp("yesterday")`: "RFC3339",
	} {
		_, err := ParseFilter(text)
		if err == nil {
			t.Errorf("%s was accepted", text)
			continue
		}
		for _, w := range []string{fault, text, "fields are agent, arch", "resistance"} {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("error %q does not say %q", err, w)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("error of many lines: %q", err)
		}
	}
	if _, err := ParseFilter(strings.Repeat("(", 1<<20)); err == nil || len(err.Error()) > 200 {
		t.Error("a filter of 1 MB was read")
	}
}

func TestSort(t *testing.T) {
	for order, want := range map[string]string{
		"":                "b1 b2 k1 k2",
		"name desc":       "k2 k1 b2 b1",
		" name asc ":      "b1 b2 k1 k2",
		"site":            "b1 b2 k1 k2",
		"site desc":       "k1 k2 b1 b2",
		"temp_die":        "b1 k1 b2 k2",
		"temp_die desc":   "b2 k1 b1 k2",
		"resistance desc": "k1 b1 b2 k2",
	} {
		boxes := fleet()
		slices.Reverse(boxes)
		if err := Sort(boxes, order); err != nil {
			t.Errorf("%q: %v", order, err)
		}
		var got []string
		for _, b := range boxes {
			got = append(got, b.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q gives %v, want %s", order, got, want)
		}
	}
	if err := Sort(fleet(), "colour"); err == nil || !strings.Contains(err.Error(), "colour; fields are agent") {
		t.Errorf("unknown order: %v", err)
	}
}

// FuzzParseFilter: a filter is refused in one line, or matches without panic,
// and its negation matches the others.
func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{`site = "a" AND NOT temp_die > 85`, `model:"x" OR simulated = true`, `-(name != "b")`, `a b`, `site = name`, `timestamp("")`, `"`, `((`, `site."x" = 5`, `NOT NOT health = "healthy"`} {
		f.Add(s)
	}
	boxes := fleet()
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := ParseFilter(text)
		if err != nil {
			if filter.root != nil {
				t.Error("a filter with an error")
			}
			return
		}
		not, err := ParseFilter("NOT (" + text + ")")
		for _, b := range boxes {
			if got := filter.Match(b); err == nil && strings.TrimSpace(text) != "" && not.Match(b) == got {
				t.Errorf("%q and its negation both give %v for %s", text, got, b.Name)
			}
		}
	})
}
