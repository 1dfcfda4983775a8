package rollout

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// everything is a policy with every key; docs/rollouts.md has the same.
const everything = `waves: [2, 10%, rest]
seen_within: 15m
soak: 2h
max_failed: 1
unreachable_after: 10m
deadline: 2d
stalled: 1h
at_once: 50
ramp: {base: 5, factor: 2, each: 10}
coverage: 90%
stragglers: 7d
late_joiners: true
approve: [2]
four_eyes: true
gates:
  min_sample: 5
  error_limit: 5%
  min_success: 90%
  max_unreachable: 30%
  latency: {ratio: 1.5, floor: 20ms, max: 2s}
  memory: {ratio: 1.5, floor: 64MiB, max: 2GiB}
  temperature: {rise: 6, same_load: 0.1}
  restarts: 2
  throttles: 0
  agreement: 98%
  evidence: {bad: 10%, halt: 0.95}
health: {ticket: later, urgent: skip, max_die: 85}
admission: {headroom: 8, else: defer, unknown: admit}
budgets:
  - {per: site, max_unavailable: 1}
  - {per: label.role, min_available: 2}
  - {per: site, max_watts: 400}
  - {per: label.room, max_hot: 3}
windows: ["01:00-05:00 mon-fri"]
freeze:
  - {from: 2026-12-20T00:00:00Z, until: 2027-01-02T00:00:00Z, reason: Christmas}
`

func TestEveryKeyOfAPolicyIsRead(t *testing.T) {
	p, err := ParsePolicy(everything)
	if err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not set", v.Type().Field(i).Name)
		}
	}
	if p.Deadline != Span(48*time.Hour) || p.Coverage != 0.9 || p.Gates.Memory.Floor != 64<<20 || p.Gates.Latency.Floor != 0.02 {
		t.Errorf("policy %+v", p)
	}
}

func TestWrongPoliciesNameTheLine(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"soak: 1h\nsoaks: 2h\n", "line 2: field soaks not found"},
		{"gates:\n  latency: {ration: 2}\n", "line 2: field ration not found"},
		{"waves: [1]\nsoak: soon\n", `line 2: "soon" is no span`},
		{"coverage: 150%\n", `line 1: "150%" is no share`},
		{"gates: {latency: {ratio: 2, floor: 20}}\n", `line 1: "20" has no unit`},
		{"waves: [most]\n", `wave "most"`},
		{"health: {urgent: burn}\n", `health "burn"`},
		{"budgets: [{per: colour, max_unavailable: 1}]\n", `budget per "colour"`},
		{"budgets: [{per: site}]\n", "max_unavailable, min_available, max_watts or max_hot"},
		{"windows: [\"25:00-26:00\"]\n", "25:00"},
		{"approve: [0]\n", "waves count from 1"},
		{"gates: {evidence: {bad: 10%, halt: 2}}\n", "more than 0.5 and less than 1"},
		{"freeze: [{from: 2027-01-01T00:00:00Z, until: 2026-01-01T00:00:00Z}]\n", "ends before it begins"},
		{"soak: 1h\n---\nsoak: 2h\n", "more than one document"},
		{"- a list\n", "line 1"},
	} {
		_, err := ParsePolicy(tc.text)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: error %v, want %q", tc.text, err, tc.want)
		}
	}
}

func TestFlagsStandAboveThePolicy(t *testing.T) {
	p, err := PolicyOf(fleetapi.PlanRequest{Policy: "soak: 1h\nmax_failed: 3\n", SoakSeconds: 60, Waves: []string{"5"}})
	if err != nil || p.Soak != Span(time.Minute) || p.MaxFailed != 3 || p.Waves[0] != "5" {
		t.Errorf("policy %+v, %v", p, err)
	}
}

// TestEvidenceIsTheTailOfABetaDistribution compares with a numeric integral.
func TestEvidenceIsTheTailOfABetaDistribution(t *testing.T) {
	for _, tc := range []struct {
		s     sample
		limit float64
	}{{sample{0, 0}, 0.1}, {sample{1, 1}, 0.1}, {sample{3, 4}, 0.1}, {sample{2, 40}, 0.1}, {sample{12, 500}, 0.02}, {sample{900, 20000}, 0.05}} {
		a := float64(tc.s.bad + 1)
		b := float64(tc.s.all-tc.s.bad) + max(math.Round(1/tc.limit)-1, 1)
		la, _ := math.Lgamma(a)
		lb, _ := math.Lgamma(b)
		lab, _ := math.Lgamma(a + b)
		const n = 200000
		want := 0.0
		for i := range n {
			x := tc.limit + (1-tc.limit)*(float64(i)+0.5)/n
			want += math.Exp(lab-la-lb+(a-1)*math.Log(x)+(b-1)*math.Log1p(-x)) * (1 - tc.limit) / n
		}
		if got := probablyBad(tc.s, tc.limit); math.Abs(got-want) > 1e-4 {
			t.Errorf("%+v beyond %v: %.6f, want %.6f", tc.s, tc.limit, got, want)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(everything)
	f.Add("waves: [1]\n")
	f.Add("{")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		// What is read can be planned with, whatever it says.
		r, err := Plan(Order{ID: "r", Request: fleetapi.PlanRequest{Policy: text}, Target: target, Boxes: fleet(5), Now: t0})
		if err != nil {
			return
		}
		c := newCourse(r, p, nil)
		c.Step([]Input{{Act: &Act{Action: ActStart}}}, t0)
		if _, actions := c.Step(nil, t0.Add(time.Second)); len(actions) > 5 {
			t.Errorf("%d offers to five boxes", len(actions))
		}
	})
}

// TestThePolicyInTheManualIsRead: the manual shows every key.
func TestThePolicyInTheManualIsRead(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "rollouts.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	block, _, ok := strings.Cut(rest, "```\n")
	got, err := ParsePolicy(block)
	want, err2 := ParsePolicy(everything)
	if !ok || err != nil || err2 != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the manual's policy is %+v (%v), want %+v (%v)", got, err, want, err2)
	}
}

func TestSharesThatAddUpToAllAreWhole(t *testing.T) {
	for waves, want := range map[string]bool{
		"1 rest": true, "5.6% 94.4%": true, "10.1% 10.1% 10.1% 10.1% 10.1% 10.1% 10.1% 10.1% 10.1% 9.1%": true,
		"5 100%": true, "33.3% 33.3% 33.3%": false, "10% 80%": false, "5": false,
	} {
		if got := Whole(fleetapi.PlanRequest{Waves: strings.Fields(waves)}); got != want {
			t.Errorf("%s: whole is %v", waves, got)
		}
	}
}
