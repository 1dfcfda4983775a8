package rollout

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// Policy says in which steps a version goes out and what stops it. The zero
// value of a field leaves that rule out, unless it says otherwise.
type Policy struct {
	// Waves are sizes: "2", "10%" or "rest"; default 1, rest.
	Waves []string `yaml:"waves"`
	// SeenWithin: the first wave takes boxes that were heard from so recently
	// before it takes others; default: those that are live.
	SeenWithin Span `yaml:"seen_within"`
	// Soak is how long a wave must stay good.
	Soak Span `yaml:"soak"`
	// MaxFailed boxes of a wave may fail; default 0. Left out when Gates has
	// an error limit.
	MaxFailed int `yaml:"max_failed"`
	// UnreachableAfter an offered box that says nothing counts as unreachable;
	// default 10 min.
	UnreachableAfter Span `yaml:"unreachable_after"`
	// Deadline is when a box that is at work, and live, counts as failed;
	// default 8 days, a day more than an agent gives a download.
	Deadline Span `yaml:"deadline"`
	// Stalled: nothing moved for so long is told; default 1 h.
	Stalled Span `yaml:"stalled"`
	// AtOnce bounds how many boxes are told in one step; default 100.
	AtOnce int `yaml:"at_once"`
	// Ramp bounds how many boxes are at work at once, fewer at the beginning; nil:
	// AtOnce alone does.
	Ramp  *Ramp `yaml:"ramp"`
	Gates Gates `yaml:"gates"`
	// Coverage is the share of a wave that must have been attempted before it
	// passes; the others are stragglers. Default: every box that is reachable.
	Coverage Share `yaml:"coverage"`
	// Stragglers is how long a rollout waits for them after its last wave.
	Stragglers Span `yaml:"stragglers"`
	// LateJoiners takes boxes that were enrolled after the plan into the tail.
	LateJoiners bool `yaml:"late_joiners"`
	// Approve lists waves, counted from 1, that wait for a person, and FourEyes
	// wants another one than who started the rollout.
	Approve  []int `yaml:"approve"`
	FourEyes bool  `yaml:"four_eyes"`
	// Health says what becomes of boxes with findings: go, skip or later.
	Health HealthRule `yaml:"health"`
	// Admission asks of each box that it stays cool enough; nil: nothing is asked.
	Admission *Admission `yaml:"admission"`
	// Budgets bound how many boxes of a group are down at once.
	Budgets []Budget `yaml:"budgets"`
	// Windows in site time ("01:00-05:00 mon-fri") in which boxes are offered.
	Windows []string `yaml:"windows"`
	// Freeze lists times in which nothing is offered.
	Freeze []Freeze `yaml:"freeze"`
}

// Ramp is a rate that grows with successes: Base boxes at work at once, Factor
// times as many after Each successes, and so on.
type Ramp struct {
	Base   int     `yaml:"base"`   // default 1
	Factor float64 `yaml:"factor"` // default 2
	Each   int     `yaml:"each"`   // default Base
}

// limit is how many boxes may be at work after so many successes.
func (r *Ramp) limit(succeeded int) int {
	if r == nil {
		return math.MaxInt
	}
	return int(min(float64(r.Base)*math.Pow(r.Factor, float64(succeeded/r.Each)), math.MaxInt32))
}

// Gates are what a wave is judged by. Halt is checked before pass.
type Gates struct {
	// MinSample is how many boxes must have been attempted before a share
	// counts. Default: as many as let one be bad, at least 3; with Evidence, which
	// then decides alone while a wave is open, 0.
	MinSample int `yaml:"min_sample"`
	// ErrorLimit is the share of attempted boxes that may be bad.
	ErrorLimit Share `yaml:"error_limit"`
	// MinSuccess is the share of ended boxes that must have succeeded.
	MinSuccess Share `yaml:"min_success"`
	// MaxUnreachable is the share of a wave that may be unreachable.
	MaxUnreachable Share     `yaml:"max_unreachable"`
	Latency        Ratio     `yaml:"latency"`
	Memory         Ratio     `yaml:"memory"`
	Temperature    TempLimit `yaml:"temperature"`
	// Restarts of the version or the box that a box may have.
	Restarts *int `yaml:"restarts"`
	// Throttles is how often a box may slow down for heat while it tries.
	Throttles *int `yaml:"throttles"`
	// Agreement is the least share of inputs on which the version says what the
	// one before says, on boxes that compare them.
	Agreement Share    `yaml:"agreement"`
	Evidence  Evidence `yaml:"evidence"`
}

// Ratio bounds what a box measures against what it measured before. Floor is
// the least difference that counts, so that a few ms of noise never do.
type Ratio struct {
	Limit float64 `yaml:"ratio"`
	Floor Number  `yaml:"floor"` // seconds or bytes
	Max   Number  `yaml:"max"`   // seconds or bytes, whatever was before
}

func (r Ratio) on() bool { return r.Limit > 0 || r.Max > 0 }

// TempLimit bounds the rise of the die above the inlet at equal load.
type TempLimit struct {
	Rise float64 `yaml:"rise"` // kelvin
	// SameLoad is by how much the share of busy CPU may differ; default 0.1.
	SameLoad float64 `yaml:"same_load"`
}

// Evidence is a sequential test: it stops after as few boxes as the reports
// allow. Boxes that were not heard from are censored: they are no evidence.
type Evidence struct {
	// Bad is the share of bad boxes from which on a version is bad.
	Bad Share `yaml:"bad"`
	// Halt is the probability of that at which the wave halts; default 0.95.
	Halt float64 `yaml:"halt"`
}

// HealthRule says what becomes of boxes that need care.
type HealthRule struct {
	Ticket string `yaml:"ticket"`
	Urgent string `yaml:"urgent"`
	// MaxDie leaves boxes whose die is hotter for later, in °C.
	MaxDie float64 `yaml:"max_die"`
}

// Admission is what a box must have left before it throttles, as predicted for
// the power of the version.
type Admission struct {
	Headroom float64 `yaml:"headroom"` // K; default 8
	// Else is what becomes of a box with less: skip (default), or defer: its cool
	// hours are waited for.
	Else string `yaml:"else"`
	// Unknown is what becomes of a box for which nothing can be predicted: admit
	// (default) or skip.
	Unknown string `yaml:"unknown"`
}

// Budget bounds what the boxes of a rollout that have the same value of a label
// do at once. Down is a box that is silent or at work on the version.
type Budget struct {
	Per            string `yaml:"per"` // site, class, zone or label.KEY
	MaxUnavailable int    `yaml:"max_unavailable"`
	MinAvailable   int    `yaml:"min_available"`
	// MaxWatts is what they may draw together, with TryWatts more for each that
	// is at work; default 15 W.
	MaxWatts float64 `yaml:"max_watts"`
	TryWatts float64 `yaml:"try_watts"`
	// MaxHot of them may have a die above Hot, in °C, default 80. A box at work
	// counts: it gets warmer.
	MaxHot int     `yaml:"max_hot"`
	Hot    float64 `yaml:"hot"`
}

func (b Budget) heat() bool { return b.MaxWatts > 0 || b.MaxHot > 0 }

// key is the label that the budget goes by; false: another trait.
func (b Budget) key() (string, bool) { return strings.CutPrefix(b.Per, "label.") }

// Freeze is a time in which nothing is offered.
type Freeze struct {
	From   time.Time `yaml:"from"`
	Until  time.Time `yaml:"until"`
	Reason string    `yaml:"reason"`
}

// Span is a duration written as 90s, 10m or 2d.
type Span time.Duration

// Share is a part of a whole, written as 5% or 0.05.
type Share float64

// Number is written with a unit: 20ms, 64MiB.
type Number float64

// UnmarshalYAML reads 10m or 2d.
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	text := n.Value
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if f, err := strconv.ParseFloat(days, 64); err == nil && f >= 0 && f <= 36500 {
			*s = Span(f * 24 * float64(time.Hour))
			return nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("line %d: %q is no span; write 90s, 10m, 2h or 3d", n.Line, text)
	}
	*s = Span(d)
	return nil
}

// UnmarshalYAML reads 5% or 0.05.
func (s *Share) UnmarshalYAML(n *yaml.Node) error {
	text, percent := strings.CutSuffix(n.Value, "%")
	f, err := strconv.ParseFloat(text, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		return fmt.Errorf("line %d: %q is no share; write 5%% or 0.05", n.Line, n.Value)
	}
	*s = Share(f)
	return nil
}

var units = []struct {
	name string
	size float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"B", 1}}

// UnmarshalYAML reads 20ms or 64MiB.
func (v *Number) UnmarshalYAML(n *yaml.Node) error {
	for _, u := range units {
		if text, ok := strings.CutSuffix(n.Value, u.name); ok {
			if f, err := strconv.ParseFloat(text, 64); err == nil && f >= 0 {
				*v = Number(f * u.size)
				return nil
			}
		}
	}
	return fmt.Errorf("line %d: %q has no unit; write 20ms or 64MiB", n.Line, n.Value)
}

// ParsePolicy reads a policy. An unknown key is an error that names its line.
func ParsePolicy(text string) (Policy, error) {
	var p Policy
	d := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return Policy{}, fmt.Errorf("policy: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Policy{}, errors.New("policy: more than one document; give one")
	}
	p = p.withDefaults()
	return p, p.check()
}

// PolicyOf is the policy of a request: its text, below the fields that are set.
func PolicyOf(req fleetapi.PlanRequest) (Policy, error) {
	if req.SoakSeconds < 0 || req.MaxFailed < 0 || req.UnreachableAfterSeconds < 0 {
		return Policy{}, errors.New("soak, failures allowed and unreachable time must not be negative")
	}
	p, err := ParsePolicy(req.Policy)
	if err != nil {
		return p, err
	}
	if len(req.Waves) > 0 {
		p.Waves = req.Waves
	}
	if req.SoakSeconds > 0 {
		p.Soak = Span(seconds(req.SoakSeconds))
	}
	if req.MaxFailed > 0 {
		p.MaxFailed = req.MaxFailed
	}
	if req.UnreachableAfterSeconds > 0 {
		p.UnreachableAfter = Span(seconds(req.UnreachableAfterSeconds))
	}
	return p, nil
}

// Heat says whether the policy asks how warm boxes are.
func (p Policy) Heat() bool {
	g := p.Gates
	return p.Admission != nil || g.Temperature.Rise > 0 || g.Throttles != nil || g.Agreement > 0 || slices.ContainsFunc(p.Budgets, Budget.heat)
}

func (p Policy) withDefaults() Policy {
	if len(p.Waves) == 0 {
		p.Waves = []string{"1", "rest"}
	}
	def(&p.UnreachableAfter, Span(10*time.Minute))
	def(&p.Deadline, Span(8*24*time.Hour))
	def(&p.Stalled, Span(time.Hour))
	def(&p.AtOnce, 100)
	if g := &p.Gates; g.Evidence.Bad == 0 && g.ErrorLimit > 0 {
		def(&g.MinSample, max(3, int(math.Ceil(1/float64(g.ErrorLimit)-1e-9))))
	}
	def(&p.Gates.Temperature.SameLoad, 0.1)
	def(&p.Gates.Evidence.Halt, 0.95)
	for i := range p.Budgets {
		def(&p.Budgets[i].TryWatts, 15)
		def(&p.Budgets[i].Hot, 80)
	}
	if p.Admission != nil {
		a := *p.Admission
		def(&a.Headroom, 8)
		def(&a.Else, "skip")
		def(&a.Unknown, "admit")
		p.Admission = &a
	}
	if p.Ramp != nil {
		r := *p.Ramp
		def(&r.Base, 1)
		def(&r.Factor, 2)
		def(&r.Each, r.Base)
		p.Ramp = &r
	}
	def(&p.Health.Ticket, "go")
	def(&p.Health.Urgent, "go")
	return p
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (p Policy) check() error {
	for _, w := range []string{p.Health.Ticket, p.Health.Urgent} {
		if w != "go" && w != "skip" && w != "later" {
			return fmt.Errorf("policy: health %q: want go, skip or later", w)
		}
	}
	if err := p.Admission.check(); err != nil {
		return fmt.Errorf("policy: admission: %w", err)
	}
	for _, b := range p.Budgets {
		if key, ok := b.key(); b.Per != "site" && b.Per != "class" && b.Per != "zone" && (!ok || key == "") {
			return fmt.Errorf("policy: budget per %q: want site, class, zone or label.KEY", b.Per)
		}
		if b.MaxUnavailable < 0 || b.MinAvailable < 0 || b.MaxHot < 0 || !(b.MaxWatts >= 0 && b.TryWatts >= 0 && b.Hot >= 0) {
			return fmt.Errorf("policy: budget per %s: numbers must not be negative", b.Per)
		}
		if b.MaxUnavailable == 0 && b.MinAvailable == 0 && !b.heat() {
			return fmt.Errorf("policy: budget per %s: give max_unavailable, min_available, max_watts or max_hot above 0", b.Per)
		}
	}
	for _, f := range p.Freeze {
		if !f.From.Before(f.Until) {
			return fmt.Errorf("policy: freeze from %s ends before it begins", f.From.Format(time.RFC3339))
		}
	}
	for _, w := range p.Approve {
		if w < 1 {
			return fmt.Errorf("policy: approve names wave %d; waves count from 1", w)
		}
	}
	if e := p.Gates.Evidence; e.Halt <= 0.5 || e.Halt >= 1 {
		return fmt.Errorf("policy: evidence halt is %v; want more than 0.5 and less than 1", e.Halt)
	}
	if n := p.Gates.Throttles; n != nil && *n < 0 {
		return errors.New("policy: throttles must not be negative")
	}
	if p.AtOnce < 0 || p.MaxFailed < 0 || p.Gates.MinSample < 0 {
		return errors.New("policy: at_once, max_failed and min_sample must not be negative")
	}
	if r := p.Ramp; r != nil && (r.Base < 1 || r.Each < 1 || !(r.Factor >= 1 && r.Factor <= 100)) {
		return errors.New("policy: ramp: want base and each of at least 1, and a factor from 1 to 100")
	}
	if _, err := windowsOf(p.Windows, ""); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	_, err := waveSizes(p.Waves, 1)
	return err
}
