// Package fleetapi is the controller's HTTP API as Go types, and a client for
// it. The server (controller/api), the operator's commands and the tests share
// them, so a command never imports the server.
//
// Conventions: nouns under /api/v1, snake_case JSON, SI base units in names,
// RFC 3339 times in UTC, enums as strings that may grow. Lists answer items,
// next_page_token and total_size. Errors are RFC 9457 problem details.
//
// The one rule a caller can break: treat an unknown enum value as unknown, not
// as an error; a newer controller may send it.
package fleetapi

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// Link says when a box was last heard.
type Link string

// The link states: live within 2 keep-alives, late within 10, then silent.
const (
	LinkLive   Link = "live"
	LinkLate   Link = "late"
	LinkSilent Link = "silent"
	LinkNever  Link = "never"
)

// Health says how urgent it is to look after the hardware of a box.
type Health string

// The levels of health, worst last.
const (
	HealthUnknown Health = "unknown" // nothing is judged yet
	HealthHealthy Health = "healthy"
	HealthWatch   Health = "watch"  // the weekly digest tells of it
	HealthTicket  Health = "ticket" // put it on the next visit
	HealthUrgent  Health = "urgent" // go now
)

// Update says whether a box runs what it shall run.
type Update string

// The update states.
const (
	UpdateCurrent  Update = "current"
	UpdateUpdating Update = "updating"
	UpdateFailed   Update = "failed"
	UpdateUnknown  Update = "unknown"
	// The controller came back from a backup: the box was not heard since, or
	// follows what this controller has never signed, and a person must choose.
	UpdateAwaits   Update = "awaiting_reconnect"
	UpdateConflict Update = "conflict_paused"
)

// Box is one box as the controller knows it.
type Box struct {
	ID    identity.ID `json:"id"`
	Name  string      `json:"name"`
	Site  string      `json:"site"`
	State string      `json:"state" enum:"enrolled,active,quarantined,revoked,retired" doc:"how it stands in the fleet; enrolled: it has not come with its certificate yet"`
	// Labels are those of the token that it was enrolled with, and what people
	// made of them.
	Labels    map[string]string `json:"labels,omitempty"`
	Simulated bool              `json:"simulated"`
	Link      Link              `json:"link"`
	Health    Health            `json:"health"`
	Update    Update            `json:"update"`
	LastSeen  *time.Time        `json:"last_seen,omitempty"`
	Inventory wire.Inventory    `json:"inventory"`
	Buffer    wire.Buffer       `json:"buffer"`
	// Latest holds the newest value of each metric with its time.
	Latest map[string]Value `json:"latest"`
	// Thermal is how dirty the cooling path is.
	Thermal Thermal    `json:"thermal"`
	Models  []BoxModel `json:"models"`
	// Config is how far the box is with the fleet's settings; nil: there are none.
	Config *BoxSettings `json:"config,omitempty"`
	// DesiredGeneration and RunningGeneration are equal when the box has
	// accepted what it was last told.
	DesiredGeneration uint64 `json:"desired_generation"`
	RunningGeneration uint64 `json:"running_generation"`
	// Reads counts pipeline results and how many equal the known truth; only
	// simulated cameras know it.
	Reads Reads `json:"reads"`
	// Shunned: boxes of its site say that it gave them wrong parts of files. Lists
	// leave it out.
	Shunned *Shunned `json:"shunned,omitempty"`
}

// Shunned is a box that others of its site ask for no file.
type Shunned struct {
	Box identity.ID `json:"box"`
	// By are those to whom it gave wrong parts; when they are two, nobody is sent there.
	By    []identity.ID `json:"by"`
	ByAll bool          `json:"by_all"`
	Until time.Time     `json:"until"`
}

// LabelWords are labels as k=v, in order.
func LabelWords(labels map[string]string) string {
	words := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, k+"="+labels[k])
	}
	return strings.Join(words, " ")
}

// Value is a number with its age.
type Value struct {
	Value float64   `json:"value"`
	Time  time.Time `json:"time"`
}

// Thermal is how much more the cooling path of a box resists than that of the
// clean box, at equal load and airflow.
type Thermal struct {
	Known  bool   `json:"known"`
	Reason string `json:"reason,omitempty"` // why it is not known, in English
	// ReasonCode is why it is not known: no-hours, learning or idle.
	ReasonCode    string     `json:"reason_code,omitempty" enum:"no-hours,learning,idle"`
	LearningSince *time.Time `json:"learning_since,omitempty"`
	Learning      *Learning  `json:"learning,omitempty"`
	Percent       float64    `json:"resistance_percent"`           // 6 is 6 % more heat for the same work; median of seven days
	Sigma         float64    `json:"sigma_percent,omitempty"`      // by how much a day spreads
	Reference     string     `json:"reference,omitempty"`          // inlet, room, neighbour or none
	Causes        []string   `json:"causes"`                       // of what is found, the most urgent first
	LowDays       *float64   `json:"throttles_low_days,omitempty"` // may throttle in so many days; 365: not within a year
	HighDays      *float64   `json:"throttles_high_days,omitempty"`
	// Cooling is how warm its work makes it; nil: no hour told.
	Cooling *Cooling `json:"cooling,omitempty"`
}

// Cooling is what the hours of a box tell of how it gets rid of its heat. A 0
// is not known.
type Cooling struct {
	KelvinPerWatt float64 `json:"kelvin_per_watt,omitempty"` // die above the air, median of the last day's hours
	HotCelsius    float64 `json:"hot_celsius,omitempty"`     // 95th percentile of their mean dies
	Watts         float64 `json:"power_watts,omitempty"`     // median
	LimitCelsius  float64 `json:"limit_celsius,omitempty"`   // of the die: it throttles there
	LimitAssumed  bool    `json:"limit_assumed,omitempty"`   // nothing told: the middle of what chips have
	// CoolHours of the UTC day are true where the die is coolest as a rule; none
	// is where that is not known.
	CoolHours [24]bool `json:"cool_hours,omitzero"`
}

// Why the resistance of a box is not known.
const (
	ReasonNoHours  = "no-hours" // an agent sends its first one after an hour
	ReasonLearning = "learning" // it has no clean box to be compared with yet
	ReasonIdle     = "idle"     // no steady load for a day
)

// Learning is how far a box is with learning how it is when it is clean: both
// must be full.
type Learning struct {
	Days    int `json:"days"`
	OfDays  int `json:"of_days"`
	Hours   int `json:"steady_hours"`
	OfHours int `json:"of_hours"`
}

// BoxModel is one model on one box: what shall serve, what serves.
type BoxModel struct {
	Name           string      `json:"name"`
	DesiredVersion string      `json:"desired_version,omitempty"`
	DesiredDigest  blob.Digest `json:"desired_digest"`
	RunningVersion string      `json:"running_version,omitempty"`
	RunningDigest  blob.Digest `json:"running_digest"`
	Phase          string      `json:"phase,omitempty"` // last reported phase of the desired version
	Err            string      `json:"err,omitempty"`
	// ErrSaid is err for other languages. Only with one box.
	ErrSaid *phrase.Phrase `json:"err_said,omitempty"`
	// Serving is which variant serves, why, and what each was measured at. Only
	// with one box: lists leave it out.
	Serving *wire.Serving `json:"serving,omitempty"`
	// Tried is how the desired version did beside the one before it, as it was
	// measured last. Only with one box.
	Tried *wire.ServingShadow `json:"tried,omitempty"`
}

// Reads counts pipeline results of the last hour.
type Reads struct {
	Total   int64 `json:"total"`
	Checked int64 `json:"checked"` // with a known truth
	Right   int64 `json:"right"`
}

// BoxList is a page of boxes.
type BoxList struct {
	Items         []Box  `json:"items"`
	NextPageToken string `json:"next_page_token"`
	TotalSize     int    `json:"total_size"`
}

// Summary counts the fleet.
type Summary struct {
	Total       int            `json:"total"`
	Links       map[string]int `json:"links"`
	Healths     map[string]int `json:"healths"`
	Updates     map[string]int `json:"updates"`
	Simulated   int            `json:"simulated"`
	Development bool           `json:"development"` // a throw-away key signs everything
	Version     string         `json:"version"`
	Time        time.Time      `json:"time"`
	Trouble     string         `json:"trouble,omitempty" doc:"why the database takes no messages of boxes"`
	TroubleSaid *phrase.Phrase `json:"trouble_said,omitempty"`
}

// Series is one metric over time, at most a few values per pixel.
type Series struct {
	Metric      string    `json:"metric"`
	From        time.Time `json:"from"`
	To          time.Time `json:"to"`
	StepSeconds float64   `json:"step_seconds"`
	Hourly      bool      `json:"hourly,omitempty" doc:"made of hourly values: least and greatest values and numbers are exact, the median is that of hourly medians"`
	Points      []Point   `json:"points"`
}

// Point is one bucket of a series.
type Point struct {
	UnixMs int64   `json:"t"` // start of the bucket
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// SeriesReply answers a question for several metrics of one box.
type SeriesReply struct {
	Series []Series `json:"series"`
	Marks  []Mark   `json:"marks"`
}

// Mark is an event worth a line in a chart.
type Mark struct {
	UnixMs int64  `json:"t"`
	Type   string `json:"type"`
	Text   string `json:"text"`
}

// Event is one stored event of a box.
type Event struct {
	Time time.Time `json:"time"`
	Type string    `json:"type"`
	Text string    `json:"text"`
	Body string    `json:"body,omitempty"` // JSON
}

// EventList is the newest events first.
type EventList struct {
	Items []Event `json:"items"`
}

// ResultList is the newest results first.
type ResultList struct {
	Items []Result `json:"items"`
}

// Result is one finished piece of work of a pipeline.
type Result struct {
	Time           time.Time `json:"time"`
	Input          string    `json:"input"`
	Pipeline       string    `json:"pipeline"`
	Item           string    `json:"item"`
	Text           string    `json:"text"`
	Want           string    `json:"want,omitempty"`
	Score          float64   `json:"score"`
	LatencySeconds float64   `json:"latency_seconds"`
	Models         []string  `json:"models"`
}

// Model is a model with all its versions, newest first.
type Model struct {
	Name     string         `json:"name"`
	Versions []ModelVersion `json:"versions"`
}

// ModelVersion is one pushed version.
type ModelVersion struct {
	models.Ref
	Description string           `json:"description,omitempty"`
	Licence     string           `json:"licence,omitempty"`
	SizeBytes   int64            `json:"size_bytes"`
	Signature   models.Signature `json:"signature"`
	Pushed      time.Time        `json:"pushed"`
	// Provenance is absent of files that are as training left them.
	Provenance *models.Provenance `json:"provenance,omitempty"`
	// Running and Desired count boxes.
	Running int `json:"running"`
	Desired int `json:"desired"`
	// Pinned versions are never collected, here or on boxes that have them.
	Pinned bool `json:"pinned,omitempty"`
	// Drift says what moved from the first week, of versions that run, where one
	// model is asked for; empty: nothing that tells.
	Drift string `json:"drift,omitempty"`
}

// ModelList lists models by name.
type ModelList struct {
	Items []Model `json:"items"`
}

// PushModel registers a signed manifest whose files have been uploaded.
type PushModel struct {
	Envelope []byte `json:"envelope"`
}

// MissingBlobs asks which of the digests the controller lacks.
type MissingBlobs struct {
	Digests []blob.Digest `json:"digests"`
}

// Release is a pushed agent release.
type Release struct {
	Version   string      `json:"version"`
	Counter   uint64      `json:"counter"`
	Digest    blob.Digest `json:"digest"`
	Platforms []string    `json:"platforms"` // os/arch
	Pushed    time.Time   `json:"pushed"`
	Running   int         `json:"running"` // boxes
}

// ReleaseList lists releases, newest first.
type ReleaseList struct {
	Items []Release `json:"items"`
}

// PushRelease registers a signed release whose files have been uploaded.
type PushRelease struct {
	Envelope []byte `json:"envelope"`
}

// Session tells who is logged in.
type Session struct {
	User string `json:"user"`
	Role string `json:"role"`
	// Sites that are seen; * is all.
	Sites []string `json:"sites"`
	// Can are the things that may be done somewhere.
	Can []string `json:"can"`
	// Person says that this is an account, not a program or a login address.
	Person bool `json:"person"`
}

// Change is one server-sent event of GET /api/v1/events: something under a
// topic changed, ask again. Live carries the newest samples of one box.
type Change struct {
	// Topic is boxes, models, releases, rollouts, sites, tickets, visits or live.
	Topic string      `json:"topic"`
	ID    string      `json:"id,omitempty"` // box, model name, rollout, site, ticket or visit
	Live  *LiveSample `json:"live,omitempty"`
}

// ChangeTopics are all that a Change may be about, except live samples.
func ChangeTopics() []string {
	return []string{"boxes", "models", "releases", "rollouts", "sites", "tickets", "visits"}
}

// LiveSample is what a watched box measured just now.
type LiveSample struct {
	Box    identity.ID        `json:"box"`
	UnixMs int64              `json:"unix_ms"`
	Values map[string]float64 `json:"values"`
	Buffer wire.Buffer        `json:"buffer"`
}
