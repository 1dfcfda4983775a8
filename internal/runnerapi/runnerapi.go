// Package runnerapi is what agent and runner say to each other over the unix
// socket runner.sock: the types of /edge/v1 and a client for them.
//
// The runner serves models and owns cameras and pipelines; the agent decides
// which versions serve. Only the agent writes active.json (Active), and the
// runner reads it. Results wait in the runner's outbox until the agent has
// committed them with the cursor that names them, so each is stored once.
//
// The one rule a caller can break: acknowledge a cursor only after the commit
// that stored it has returned.
package runnerapi

import (
	"github.com/edgeherd/edgeherd/models"
)

// ActiveVersion is the journal version of active.json. History: 1 first.
const ActiveVersion = 1

// Active is active.json: which versions serve.
type Active struct {
	// Generation is that of the desired state it came from.
	Generation uint64 `json:"generation"`
	// Blobs is the directory of the blob store that holds manifests and files.
	Blobs  string       `json:"blobs"`
	Models []models.Ref `json:"models"`
}

// ModelState is the state of one loaded version.
type ModelState string

// The states of a loaded version.
const (
	ModelLoading   ModelState = "loading"
	ModelReady     ModelState = "ready"
	ModelCandidate ModelState = "candidate"
	ModelFailed    ModelState = "failed"
)

// Status is the answer of GET /edge/v1/status.
type Status struct {
	Version        string `json:"version"`
	RuntimeVersion string `json:"runtime_version"`
	// Runtime is the inventory of ONNX Runtime; nil until a model is loaded.
	Runtime       *Runtime `json:"runtime,omitempty"`
	PID           int      `json:"pid"`
	StartedUnixMs int64    `json:"started_unix_ms"`
	Generation    uint64   `json:"generation"`
	CPUSeconds    float64  `json:"cpu_seconds"`    // runner and its workers since start, never decreasing
	RSSBytes      int64    `json:"rss_bytes"`      // runner and its workers
	Rung          int      `json:"rung,omitempty"` // of the last Duty
	// RungCause and RungReason are why, as the last Duty says.
	RungCause  string `json:"rung_cause,omitempty"`
	RungReason string `json:"rung_reason,omitempty"`
	Shed       int64  `json:"shed,omitempty"` // requests refused for lack of room, since start
	// OutboxRecords wait for the agent; OutboxDropped were lost to the bound.
	OutboxRecords int64         `json:"outbox_records"`
	OutboxDropped int64         `json:"outbox_dropped"`
	Models        []ModelStatus `json:"models"`
	Inputs        []InputStatus `json:"inputs"`
	// Settings of the fleet that were taken up; nil: the runner knows of none.
	Settings *SettingsStatus `json:"settings,omitempty"`
}

// ModelStatus tells how one loaded version is doing. Counts start with the
// version's activation in this runner process.
type ModelStatus struct {
	models.Ref
	State ModelState `json:"state"`
	Err   string     `json:"err,omitempty"`
	// Damaged: Err is that a file of the version could not be read as it is signed. One
	// that is ready serves with another variant.
	Damaged bool `json:"damaged,omitempty"`
	// Provider is the execution provider in use, and Skipped tells why those
	// before it in the configuration are not.
	Provider string `json:"provider,omitempty"`
	// Backend is the program that serves in place of ONNX Runtime, and how it is run.
	Backend    string   `json:"backend,omitempty"`
	Skipped    []string `json:"skipped,omitempty"`
	WorkerPID  int      `json:"worker_pid"`
	RSSBytes   int64    `json:"rss_bytes"`
	Requests   uint64   `json:"requests"`
	Failures   uint64   `json:"failures"`
	Restarts   uint64   `json:"restarts"`
	LatencyP50 float64  `json:"latency_p50_seconds"`
	LatencyP95 float64  `json:"latency_p95_seconds"`
	// Variant serves now; empty: the model has one form. Variants are all of
	// them, the best first, as the probe found them; empty without a probe.
	Variant  string          `json:"variant,omitempty"`
	Variants []VariantStatus `json:"variants,omitempty"`
	// VariantCause is why Variant serves; empty: it is not known yet.
	VariantCause string `json:"variant_cause,omitempty"`
	// PinnedRefused counts requests that insisted on a better variant, in vain.
	PinnedRefused uint64 `json:"pinned_refused,omitempty"`
	// Shadow is how a candidate does beside the version that serves; nil: it does
	// not run beside it.
	Shadow *Shadow `json:"shadow,omitempty"`
}

// Why a variant serves, beside the causes of a Duty's rung (hot, power, load).
const (
	VariantCool = "cool" // the best one, and nothing asks for another
	VariantOnly = "only" // a cheaper one is asked for, and none saves anything here
)

// Shadow is how a candidate answers copies of the requests that the version
// before it gets.
type Shadow struct {
	// Seen requests have come since it began: Compared and Failures are of those
	// that the candidate got, Hot, Busy and Large of those that it did not.
	Seen     uint64 `json:"seen"`
	Compared uint64 `json:"compared"`
	Failures uint64 `json:"failures"`
	Hot      uint64 `json:"hot,omitempty"`
	Busy     uint64 `json:"busy,omitempty"`
	Large    uint64 `json:"large,omitempty"`
	// Agreement is the mean of models.Agreement over outputs and answers, 0..1.
	Agreement float64 `json:"agreement"`
	// LatencyRatio is the median of the candidate's time in its model against
	// that of the version before it for the same request; 0: none was timed alone.
	LatencyRatio float64 `json:"latency_ratio"`
	// Err is the last failure.
	Err string `json:"err,omitempty"`
}

// Rungs is how many variants there are to go down to.
func (m ModelStatus) Rungs() int {
	n := 0
	for i, v := range m.Variants {
		if i > 0 && v.Skipped == "" {
			n++
		}
	}
	return n
}

// VariantStatus is one variant as it was measured on this box.
type VariantStatus struct {
	Name string `json:"name"`
	// SecondsPerItem is CPU time or, where an accelerator computes, time.
	SecondsPerItem float64 `json:"seconds_per_item"`
	PeakRSSBytes   int64   `json:"peak_rss_bytes"`
	VariantHeat
	// Skipped tells why it never serves; empty: it may.
	Skipped string `json:"skipped,omitempty"`
}

// VariantHeat is what a sensor of the box saw of one variant.
type VariantHeat struct {
	// Watts is what the box draws more while the variant computes without pause,
	// and JoulesPerItem what one item takes of that; 0: no sensor could tell.
	Watts         float64 `json:"watts,omitempty"`
	JoulesPerItem float64 `json:"joules_per_item,omitempty"`
	// HeatFrom is what they were read from: rapl, ina3221 or board; cpu: no sensor
	// could tell, and SecondsPerItem stands for the heat. Empty: not tried.
	HeatFrom string `json:"heat_from,omitempty"`
}

// Exercise makes a candidate compute without pause; see Client.Exercise.
type Exercise struct {
	Variant string  `json:"variant"`
	Seconds float64 `json:"seconds"`
}

// Exercised is how far that went.
type Exercised struct {
	Items   uint64  `json:"items"`
	Seconds float64 `json:"seconds"`
}

// Heat is what was seen of the variants of a candidate, by name.
type Heat map[string]VariantHeat

// Runtime describes ONNX Runtime as a worker found it.
type Runtime struct {
	Version string `json:"version"`
	Build   string `json:"build"`
	// Providers are the execution providers the library was built with.
	Providers []string `json:"providers"`
}

// InputStatus tells how one camera or microphone with its pipeline is doing.
type InputStatus struct {
	Name     string  `json:"name"`
	Pipeline string  `json:"pipeline"`
	Items    uint64  `json:"items"`
	Failures uint64  `json:"failures"`
	RateHz   float64 `json:"rate_hertz"`
	Err      string  `json:"err,omitempty"`
}

// Probe is what loading and trying a candidate on this box measured.
type Probe struct {
	models.Ref
	OK             bool    `json:"ok"`
	Err            string  `json:"err,omitempty"`
	Damaged        bool    `json:"damaged,omitempty"` // as in ModelStatus
	LoadSeconds    float64 `json:"load_seconds"`
	PeakRSSBytes   int64   `json:"peak_rss_bytes"`
	SecondsPerItem float64 `json:"seconds_per_item"` // median over the golden samples
	// Batches is what one item costs together with others, and MaxBatch how
	// many items the runner puts together; 0: none, since it saves nothing.
	Batches      []BatchCost `json:"batches,omitempty"`
	MaxBatch     int         `json:"max_batch,omitempty"`
	GoldenPassed int         `json:"golden_passed"`
	GoldenTotal  int         `json:"golden_total"`
	// Variants are what each form of it costs, the best first.
	Variants []VariantStatus `json:"variants,omitempty"`
	// Shadow is how it then did beside the version before it; nil: it was not tried.
	Shadow *Shadow `json:"shadow,omitempty"`
}

// BatchCost is the CPU time of ONNX Runtime for one of so many items together.
type BatchCost struct {
	Items             int     `json:"items"`
	CPUSecondsPerItem float64 `json:"cpu_seconds_per_item"`
}

// Result is one finished piece of work of a pipeline.
type Result struct {
	// Cursor orders results of one runner outbox; it never repeats.
	Cursor   uint64 `json:"cursor"`
	UnixMs   int64  `json:"unix_ms"`
	Input    string `json:"input"`
	Pipeline string `json:"pipeline"`
	// Item names the frame or clip; for a simulated camera it is the frame's
	// name, and Want the text that is really on it.
	Item      string  `json:"item"`
	Text      string  `json:"text"`
	Want      string  `json:"want,omitempty"`
	Score     float64 `json:"score"`
	LatencyMs float64 `json:"latency_ms"`
	// Models lists the versions that took part, as name:version.
	Models []string `json:"models"`
	// Elsewhere are the servers that ran some of them in place of this box, as
	// site:NAME or central:NAME; empty: all ran here.
	Elsewhere []string `json:"elsewhere,omitempty"`
}

// Results is the answer of GET /edge/v1/results.
type Results struct {
	Records []Result `json:"records"`
	// Next is the cursor to acknowledge and to ask after; 0 when empty.
	Next uint64 `json:"next"`
	// Dropped counts records lost to the outbox bound since its creation.
	Dropped uint64 `json:"dropped"`
	// Outbox is the random id of the outbox file; a new file starts new cursors.
	Outbox string `json:"outbox"`
}

// Duty is how hard the box may work, as the agent judges its heat.
type Duty struct {
	Level        string  `json:"level"` // full, reduced, minimal, paused
	MaxRateRatio float64 `json:"max_rate_ratio"`
	// ValidSeconds after which the runner falls back on its own judgement.
	ValidSeconds float64 `json:"valid_seconds"`
	// Rung is how many variants models go down from their best; nil: as before.
	Rung *int `json:"rung,omitempty"`
	// RungCause is hot, power or load, RungReason the same in words.
	RungCause  string `json:"rung_cause,omitempty"`
	RungReason string `json:"rung_reason,omitempty"`
	// RungSeconds from now the rung may rise by one at the soonest.
	RungSeconds float64 `json:"rung_seconds,omitempty"`
}
