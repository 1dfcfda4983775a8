package condition

import (
	"fmt"
	"math"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/health"
)

// Report is how the box stands, for people at the box.
type Report struct {
	Box   string       `json:"box"`
	Site  string       `json:"site,omitempty"`
	SKU   string       `json:"sku,omitempty"`
	Level health.Level `json:"level"`
	// Judged says that there is a baseline; without one only stopped fans,
	// sensors that lie and the like are found.
	Judged bool `json:"judged"`
	// Until is the end of the last hour that was judged; 0: none was.
	Until health.Unix `json:"until,omitempty"`
	// Learning says that there is no baseline yet, or one of a week only.
	Learning  string            `json:"learning,omitempty"`
	Reference string            `json:"reference,omitempty"` // of the air: inlet, room, neighbour, none
	Rise      health.Value      `json:"resistance_percent"`  // over the clean box, of the last 7 days
	Findings  []health.Finding  `json:"findings"`
	Mutes     []Mute            `json:"mutes,omitempty"`
	Cleanings []health.Cleaning `json:"cleanings,omitempty"`
	// Waiting counts the hours and findings that the spool has not taken.
	Waiting int    `json:"waiting,omitempty"`
	Trouble string `json:"trouble,omitempty"` // why no hours are made
}

// Report tells how the box stands. It may be called from any goroutine.
func (c *Condition) Report() Report {
	c.shown.Lock()
	defer c.shown.Unlock()
	return c.shown.report
}

func (c *Condition) show() {
	r := c.state.report()
	r.Trouble = c.said
	c.shown.Lock()
	defer c.shown.Unlock()
	c.shown.report = r
}

// Read reports from the file, whether the agent runs or not.
func Read(path string) (Report, error) {
	var s state
	found, err := durable.Journal{Path: path, Version: fileVersion}.Load(&s)
	switch {
	case err != nil:
		return Report{}, fmt.Errorf("read state of the box's heat: %w", err)
	case !found || s.Box == nil:
		return Report{}, fmt.Errorf("there is no %s: the agent writes it at the end of the first full hour after it started", path)
	}
	return s.report(), nil
}

func (s *state) report() Report {
	b := s.Box
	r := Report{
		Box: b.Name, Site: b.Site, SKU: b.SKU, Level: b.Health(), Judged: b.Base != nil, Rise: health.Missing(),
		Findings: append([]health.Finding{}, b.Open...), Mutes: s.Care.Mutes, Cleanings: b.Cleanings,
		Waiting: len(s.Next.Hours) + len(s.Next.Findings),
	}
	if b.Last.Start != 0 {
		r.Until = health.Unix(b.Last.Start + 3600)
	}
	switch {
	case b.Base == nil && b.First == 0:
		r.Learning = "no hour was judged yet"
	case b.Base == nil:
		r.Learning = fmt.Sprintf("learns the clean box since %s; a first baseline needs a week of steady hours", day(health.Unix(b.First)))
	case b.Base.Provisional:
		r.Learning = "has the baseline of its first week; the final one comes after four"
	}
	if b.Base != nil {
		r.Reference = b.Basis.Ref
		if n := len(b.Days); n > 0 && b.Days[n-1].S7.OK() {
			r.Rise = health.Value(math.Round(10*health.Percent(float64(b.Days[n-1].S7))) / 10)
		}
	}
	return r
}

// names of the causes, as a person says them.
var names = map[health.Cause]string{
	health.CauseAirflow:      "airflow is restricted: clean or change the filter",
	health.CausePaste:        "heat does not reach the heat sink: renew the thermal paste",
	health.CauseUndetermined: "cooling got worse, where cannot be told: clean the filter first",
	health.CauseVent:         "a vent is blocked: clear what stands before it",
	health.CauseFanWear:      "a fan is worn: change it",
	health.CauseFanStop:      "a fan has stopped: change it",
	health.CauseSensor:       "a temperature sensor is stuck",
	health.CauseAmbient:      "the air at the inlet is warmer than usual",
	health.CauseDrive:        "a drive is worn: change it",
	health.CauseSupply:       "a power supply fails: change it",
	health.CauseHVAC:         "the room is warmer than usual, at all boxes of the site",
}

// Sentence says a finding in one English sentence.
func Sentence(f health.Finding) string {
	what := names[f.Cause]
	if what == "" {
		what = string(f.Cause)
	}
	if f.Closed != 0 {
		return fmt.Sprintf("over since %s (%s): %s", day(f.Closed), f.ClosedBy, what)
	}
	text := fmt.Sprintf("%s (%.0f %% likely, %s since %s)", what, 100*f.Confidence, f.Level, day(f.Since))
	if f.Family != "" && (f.Cause == health.CauseFanWear || f.Cause == health.CauseFanStop) {
		text = f.Family + ": " + text
	}
	return text
}

// Words say a report in a few lines.
func (r Report) Words() []string {
	first := r.Level.String()
	switch {
	case r.Trouble != "":
		first = "not judged: " + r.Trouble
	case !r.Judged && r.Level == health.Healthy:
		first = "learning: " + r.Learning
	case r.Learning != "":
		first += "; " + r.Learning
	}
	words := []string{first}
	for _, f := range r.Findings {
		words = append(words, Sentence(f))
	}
	return words
}

// Stamp is a moment as people read it.
func Stamp(u health.Unix) string { return time.Unix(int64(u), 0).UTC().Format(time.RFC3339) }
