package fleetapi

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// RolloutState is the state of a rollout.
type RolloutState string

// The states of a rollout.
const (
	RolloutDraft    RolloutState = "draft" // planned, not started
	RolloutRunning  RolloutState = "running"
	RolloutPaused   RolloutState = "paused"   // by a person
	RolloutHalted   RolloutState = "halted"   // by a gate, or a wave ended without passing
	RolloutDone     RolloutState = "done"     // every wave passed
	RolloutCanceled RolloutState = "canceled" // by a person
)

// WaveState is the state of a wave.
type WaveState string

// The states of a wave.
const (
	WaveWaiting WaveState = "waiting"
	WaveRunning WaveState = "running"
	WaveSoaking WaveState = "soaking"
	WavePassed  WaveState = "passed"
	WaveHalted  WaveState = "halted"
	WaveSkipped WaveState = "skipped" // empty, or by a person
)

// TargetState is the state of one box in a rollout.
type TargetState string

// The states of a target.
const (
	TargetScheduled   TargetState = "scheduled"
	TargetOffered     TargetState = "offered" // told, no report yet
	TargetWorking     TargetState = "working" // the box reports phases
	TargetSucceeded   TargetState = "succeeded"
	TargetFailed      TargetState = "failed"
	TargetUnreachable TargetState = "unreachable"
	TargetSuperseded  TargetState = "superseded" // a newer rollout took the box over
	TargetCanceled    TargetState = "canceled"   // never offered: canceled or skipped by a person
)

// PlanRequest asks for a plan. Exactly one of Model, Release and Config is set.
type PlanRequest struct {
	Model   string `json:"model,omitempty"`   // name:version
	Release string `json:"release,omitempty"` // agent version
	Config  string `json:"config,omitempty"`  // name:version of a document of settings
	// Filter is an AIP-160 expression over boxes; empty means all.
	Filter string `json:"filter,omitempty"`
	// Policy is the text of a policy (YAML, docs/rollouts.md). The fields below
	// that are set stand above it.
	Policy string `json:"policy,omitempty" maxLength:"65536"`
	// Waves are sizes such as "1", "25%" or "rest"; default: 1, rest.
	Waves []string `json:"waves,omitempty"`
	// SoakSeconds a wave must stay good before it passes; default 0.
	SoakSeconds float64 `json:"soak_seconds,omitempty"`
	// MaxFailed boxes in a wave before it halts; default 0.
	MaxFailed int `json:"max_failed,omitempty"`
	// UnreachableAfterSeconds an offered box without a report counts as
	// unreachable; default 600.
	UnreachableAfterSeconds float64 `json:"unreachable_after_seconds,omitempty"`
}

// The kinds of rollout.
const (
	KindModel = "model"
	KindAgent = "agent"
	// KindConfig is a document of settings: boxes that its selector matches get it,
	// others lose an older version.
	KindConfig = "config"
)

// Probe is what a box measured of a candidate.
type Probe = runnerapi.Probe

// Rollout is a plan and, once started, its course.
type Rollout struct {
	ID       string       `json:"id"`
	State    RolloutState `json:"state"`
	Sentence string       `json:"sentence"` // what is going on, why, for people
	// SentenceSaid is the sentence for other languages, as are all fields that end
	// so; absent: it is known in English alone.
	SentenceSaid *phrase.Phrase `json:"sentence_said,omitempty"`
	// Affected says who is bad and what they have in common, when a gate halted.
	Affected     string         `json:"affected,omitempty"`
	AffectedSaid *phrase.Phrase `json:"affected_said,omitempty"`
	Request      PlanRequest    `json:"request"`
	Target       models.Ref     `json:"target"`
	Kind         string         `json:"kind"` // KindModel, KindAgent or KindConfig
	Waves        []Wave         `json:"waves"`
	// BytesPerBox is the download of a box that has nothing yet.
	BytesPerBox int64 `json:"bytes_per_box"`
	// Draws is what the version drew when the plan was made, where boxes ran it.
	Draws        []Draw          `json:"draws,omitempty"`
	Warnings     []string        `json:"warnings"`
	WarningsSaid []phrase.Phrase `json:"warnings_said,omitempty"`
	Created      time.Time       `json:"created"`
	Started      *time.Time      `json:"started,omitempty"`
	StartedBy    string          `json:"started_by,omitempty"`
	Ended        *time.Time      `json:"ended,omitempty"`
	// Sheet is what the plan found beside waves.
	Sheet *PlanSheet `json:"sheet,omitempty"`
	// RollbackOf is the rollout that this one takes back, RolledBackBy are those
	// that take this one back.
	RollbackOf   string   `json:"rollback_of,omitempty"`
	RolledBackBy []string `json:"rolled_back_by,omitempty"`
	// Late says that the controller started it, for boxes that joined or changed
	// after a rollout of the same document.
	Late bool `json:"late,omitempty"`
	// Overtaken says that a later rollout brought another version of the same, so
	// that what boxes had before is the business of that one. Lists leave it out.
	Overtaken bool `json:"overtaken,omitempty"`
}

// PlanSheet is what a plan found beside its waves.
type PlanSheet struct {
	Sites   []PlanSite `json:"sites"`
	Skipped []PlanSkip `json:"skipped"`
	// Ends is when the rollout would be over if it were started now and every
	// box did well; absent when it cannot be told.
	Ends *time.Time `json:"ends,omitempty"`
}

// PlanSite is what a plan means for the line of one site.
type PlanSite struct {
	Site     string `json:"site"`
	Boxes    int    `json:"boxes"`
	Bytes    int64  `json:"bytes"` // if no box has anything of it
	TimeZone string `json:"time_zone"`
	// Window is the next time in which boxes of the site are offered the
	// version, in the site's own time; empty: at any time.
	Window string `json:"window,omitempty"`
	// Waits is which budget of heat would keep its boxes waiting now.
	Waits string `json:"waits,omitempty"`
}

// PlanSkip is a box that matches the filter and gets nothing, or gets it last.
type PlanSkip struct {
	Box     identity.ID    `json:"box"`
	Name    string         `json:"name"`
	Why     string         `json:"why"`
	WhySaid *phrase.Phrase `json:"why_said,omitempty"`
	Later   bool           `json:"later,omitempty"` // in the tail, after all waves
}

// Wave is one step of a rollout; its members are fixed by the plan. The tail
// alone takes in boxes that come later.
type Wave struct {
	State      WaveState      `json:"state"`
	Tail       bool           `json:"tail,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	ReasonSaid *phrase.Phrase `json:"reason_said,omitempty"`
	Started    *time.Time     `json:"started,omitempty"`
	Ended      *time.Time     `json:"ended,omitempty"`
	// SoakEnds is when a soaking wave passes if it stays good.
	SoakEnds   *time.Time `json:"soak_ends,omitempty"`
	ApprovedBy []string   `json:"approved_by,omitempty"`
	// Gates are what the wave was judged by at last.
	Gates []Gate `json:"gates,omitempty"`
	// Counts are the boxes of the wave by their state.
	Counts map[TargetState]int `json:"counts,omitempty"`
	// Targets are empty in lists, which count alone.
	Targets []Target `json:"targets"`
}

// CountTargets counts boxes by their state.
func CountTargets(targets []Target) map[TargetState]int {
	counts := map[TargetState]int{}
	for i := range targets {
		counts[targets[i].State]++
	}
	return counts
}

// GateResult is how a gate judged.
type GateResult string

// The results of a gate.
const (
	GateWaiting      GateResult = "waiting"      // nothing is measured yet
	GateInconclusive GateResult = "inconclusive" // fewer than the least sample
	GatePassed       GateResult = "passed"
	GateFailed       GateResult = "failed"
)

// Gate is one thing a wave is judged by: what was measured, what is allowed.
type Gate struct {
	Name         string         `json:"name"` // failures, latency, memory, temperature, crashes, evidence, unreachable
	Result       GateResult     `json:"result"`
	Bad          int            `json:"bad"`
	Sample       int            `json:"sample"`
	Measured     string         `json:"measured"`
	Allowed      string         `json:"allowed"`
	MeasuredSaid *phrase.Phrase `json:"measured_said,omitempty"`
	AllowedSaid  *phrase.Phrase `json:"allowed_said,omitempty"`
}

// Target is one box of a wave.
type Target struct {
	Box     identity.ID    `json:"box"`
	Name    string         `json:"name"`
	Site    string         `json:"site"`
	State   TargetState    `json:"state"`
	Phase   string         `json:"phase,omitempty"`
	Err     string         `json:"err,omitempty"`
	ErrSaid *phrase.Phrase `json:"err_said,omitempty"`
	Probe   *Probe         `json:"probe,omitempty"`
	Changed *time.Time     `json:"changed,omitempty"`
	// Offered is when the box was first told.
	Offered *time.Time `json:"offered,omitempty"`
	// Waits is why a box of a running wave is not offered the version yet, or what
	// its download waits for.
	Waits     string         `json:"waits,omitempty"`
	WaitsSaid *phrase.Phrase `json:"waits_said,omitempty"`
	// Bad lists the gates whose limit the box is over.
	Bad []string `json:"bad,omitempty"`
	// Traits were true when the plan was made.
	Traits Traits `json:"traits"`
	// Before is what the box ran when it was first offered the version.
	Before models.Ref `json:"before"`
	// Joined says that the box was enrolled after the plan.
	Joined bool `json:"joined,omitempty"`
	// Restarts counts how often the version stopped serving or the box booted.
	Restarts int `json:"restarts,omitempty"`
	// Base is how warm the box was at which load when it was first offered.
	Base *Heat `json:"base,omitempty"`
}

// Heat is how warm a box is at which load.
type Heat struct {
	RiseKelvin float64 `json:"rise_kelvin"` // of the die above the inlet, or above 0 °C without a sensor there
	Busy       float64 `json:"busy_ratio"`
	Die        float64 `json:"die_celsius,omitempty"`
	Watts      float64 `json:"power_watts,omitempty"`
	Throttles  float64 `json:"throttle_count,omitempty"` // since the box booted
}

// Draw is what boxes of a class draw that run the version of a rollout.
type Draw struct {
	Class string  `json:"class"`
	Watts float64 `json:"power_watts"` // median of boxes
	Boxes int     `json:"boxes"`       // that were measured
}

// Traits are what boxes that go wrong together may have in common.
type Traits struct {
	Class   string `json:"class,omitempty"`
	Arch    string `json:"arch,omitempty"`
	Zone    string `json:"zone,omitempty"`    // time zone of the site
	Ambient string `json:"ambient,omitempty"` // of the inlet: "30-35 °C"
	Dust    string `json:"dust,omitempty"`    // clean, dusty or unknown
	Version string `json:"version,omitempty"` // that ran before
	// Labels are those of the box that a budget of the policy names.
	Labels map[string]string `json:"labels,omitempty"`
}

// RolloutList is one page of rollouts, newest first. Their waves have counts in
// place of boxes; one rollout alone has its boxes.
type RolloutList struct {
	Items         []Rollout `json:"items"`
	NextPageToken string    `json:"next_page_token" doc:"empty after the last page"`
	TotalSize     int       `json:"total_size" doc:"rollouts on all pages"`
}

// RolloutAction is what a person wants of a rollout. Asking for what already is
// so changes nothing.
type RolloutAction struct {
	Action string `json:"action" enum:"start,pause,resume,cancel,approve,skip,rollback"`
	// Wave is of approve, skip and rollback, counted from 1; 0 is the whole
	// rollout for rollback and the wave under way otherwise.
	Wave int `json:"wave,omitempty" minimum:"0" maximum:"200"`
	// Box limits skip to one box.
	Box    identity.ID `json:"box,omitempty"`
	Reason string      `json:"reason,omitempty" maxLength:"500"`
	// ExpectCount refuses the action when another number of boxes is meant.
	ExpectCount int `json:"expect_count,omitempty" minimum:"0"`
}

// Lock keeps boxes from being offered anything for a time: a lease with an
// owner and a reason. One that begins later is an entry of the calendar.
type Lock struct {
	ID     string    `json:"id"`
	Filter string    `json:"filter,omitempty" doc:"boxes; empty: the whole fleet" example:"site = \"berlin-1\""`
	Reason string    `json:"reason"`
	Owner  string    `json:"owner"`
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
}

// NewLock asks for a lock.
type NewLock struct {
	Filter  string     `json:"filter,omitempty"`
	Reason  string     `json:"reason" minLength:"1" maxLength:"500"`
	From    *time.Time `json:"from,omitempty"` // default: now
	Seconds float64    `json:"seconds" minimum:"1" maximum:"31622400"`
}

// LockList lists the locks that have not ended.
type LockList struct {
	Items []Lock `json:"items"`
}

// RestoreState is what a controller that came back from a backup does not know.
type RestoreState struct {
	Restored *time.Time `json:"restored,omitempty" doc:"when it came back; absent: never"`
	Awaits   int        `json:"awaiting_reconnect" doc:"boxes that were not heard since; they are told nothing"`
	// Conflicts are boxes that follow what this controller has never signed.
	Conflicts []RestoreConflict `json:"conflicts"`
}

// RestoreConflict is a box for which a person must choose.
type RestoreConflict struct {
	Box     identity.ID `json:"box"`
	Name    string      `json:"name"`
	Site    string      `json:"site"`
	Follows uint64      `json:"follows" doc:"the generation of the desired state that the box follows"`
	Signed  uint64      `json:"signed" doc:"the newest one that this controller knows"`
	Runs    []string    `json:"runs"`
	Wished  []string    `json:"wished" doc:"what this controller wished when the backup was made"`
}

// RestoreChoice settles boxes that are in conflict.
type RestoreChoice struct {
	Choice string `json:"choice" enum:"adopt,reimpose" doc:"adopt: what a box runs is what it shall run; reimpose: it is told once more what this controller wishes"`
	Filter string `json:"filter,omitempty" maxLength:"4096" doc:"boxes; empty: all that wait for a choice"`
	Reason string `json:"reason,omitempty" maxLength:"500"`
	// ExpectCount refuses the choice when another number of boxes is meant.
	ExpectCount int `json:"expect_count,omitempty" minimum:"0"`
}

// ReplayRequest asks what another policy would have done.
type ReplayRequest struct {
	Policy string `json:"policy,omitempty" maxLength:"65536" doc:"YAML; empty: the policy that was used, which checks the log"`
}

// Replay compares what was decided with what another policy decides on the
// same reports.
type Replay struct {
	Rollout string `json:"rollout"`
	// Faithful says that the stored inputs give the stored decisions again.
	Faithful bool          `json:"faithful"`
	Was      ReplayOutcome `json:"was"`
	Would    ReplayOutcome `json:"would"`
	// Guessed is how many boxes were never offered the version, so that the
	// course of a box with the most traits in common stands in for theirs.
	Guessed int      `json:"guessed"`
	Steps   []string `json:"steps"` // what would have been decided, in order
}

// ReplayOutcome is how a rollout ended.
type ReplayOutcome struct {
	State    RolloutState `json:"state"`
	Sentence string       `json:"sentence"`
	Exposed  int          `json:"exposed"` // boxes that were offered the version
	Bad      int          `json:"bad"`     // of them, failed or over a limit
	Seconds  float64      `json:"seconds"` // from the start to the end
}

// RolloutEventList is the stored log of a rollout, oldest first.
type RolloutEventList struct {
	Items []RolloutEvent `json:"items"`
}

// RolloutEvent is one decision, or what a person did.
type RolloutEvent struct {
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}
