package activate

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// A Step is where one model stands.
type Step string

// The steps. Current serves in all of them but switching and trial, where
// Candidate does, and removing, where nothing does.
const (
	StepIdle      Step = "idle"
	StepFetching  Step = "fetching"
	StepProbing   Step = "probing"
	StepShadow    Step = "shadow"
	StepSwitching Step = "switching"
	StepTrial     Step = "trial"
	StepUndoing   Step = "undoing"
	StepRemoving  Step = "removing"
)

// Phases that end a candidate's way; the others are named like the steps.
const (
	PhaseActive     = "active"
	PhaseFailed     = "failed"
	PhaseRefused    = "refused"
	PhaseRolledBack = "rolled_back"
)

// A Want asks for one version of one model.
type Want struct {
	models.Ref
	// Attempt grows with every explicit retry; a version that failed is not
	// tried again until it does.
	Attempt int    `json:"attempt,omitempty"`
	Rollout string `json:"rollout,omitempty"`
}

// A Version is what the box knows of one version; the zero value is none.
type Version struct {
	models.Ref
	// Files are empty until the manifest has been read.
	Files     []models.File    `json:"files,omitempty"`
	Signature models.Signature `json:"signature,omitzero"`
	// Pipelines are what callers of the model's pipelines depend on.
	Pipelines []models.Pipeline `json:"pipelines,omitempty"`
	// Shadow is what it must show before it serves.
	Shadow models.Shadow `json:"shadow,omitzero"`
}

// described is what a manifest says of the version ref.
func described(ref models.Ref, m models.Manifest) Version {
	v := Version{Ref: ref, Files: m.Files, Signature: m.Signature, Pipelines: m.Pipelines}
	if m.Shadow != nil {
		v.Shadow = *m.Shadow
	}
	return v
}

// accepts reports whether callers of v can use a version with the manifest next.
func (v Version) accepts(next models.Manifest) error {
	return models.Manifest{Files: v.Files, Signature: v.Signature, Pipelines: v.Pipelines}.Accepts(next)
}

func (v Version) none() bool { return v.Digest.IsZero() }

// A Denial remembers a version that must not be tried again as it is.
type Denial struct {
	Digest  blob.Digest `json:"digest"`
	Attempt int         `json:"attempt,omitempty"`
	Rollout string      `json:"rollout,omitempty"`
	Phase   string      `json:"phase"`
	Err     string      `json:"err"`
	Disk    bool        `json:"disk,omitempty"` // as of Phase
}

// maxDenials per model are kept, the newest.
const maxDenials = 16

// State is where one model stands. It is a value: Next returns a changed copy.
type State struct {
	Name string `json:"name"`
	Step Step   `json:"step"`
	// Want is what the controller asks for; a zero digest asks for removal.
	Want       Want   `json:"want"`
	Generation uint64 `json:"generation,omitempty"`
	// Candidate is on its way to serve. While idle it is the version that
	// failed, kept as long as it is wanted so that a retry costs no bytes.
	Candidate Version `json:"candidate,omitzero"`
	// For is the want that Candidate is tried for: Want may have moved on.
	For Want `json:"for,omitzero"`
	// Current is the version that was committed last.
	Current Version `json:"current,omitzero"`
	// Previous was committed before Current; its files stay for going back.
	Previous Version `json:"previous,omitzero"`
	// Confirmed is the want that was last reported active.
	Confirmed Want `json:"confirmed,omitzero"`
	// Reason tells in StepUndoing why. Blameless means not to deny Candidate.
	Reason    string   `json:"reason,omitempty"`
	Blameless bool     `json:"blameless,omitempty"`
	Denied    []Denial `json:"denied,omitempty"`
	// Mend tells of the version whose files the disk has spoiled last, until it serves.
	Mend Mend `json:"mend,omitzero"`
	// Lost is what served when the disk spoiled it while another version was on its
	// way. It comes again if that one fails.
	Lost Lost `json:"lost,omitzero"`
	// Base is how Current did before the switch, valid from StepSwitching on.
	Base runnerapi.ModelStatus `json:"base,omitzero"`
	// Probed is what the runner measured of Candidate, valid in StepShadow.
	Probed runnerapi.Probe `json:"probed,omitzero"`
	// Restarts counts starts of this program since Candidate was begun: a
	// candidate that takes the box down must not do so forever.
	Restarts int `json:"restarts,omitempty"`

	// Since is when the step was entered in this process, Tries how often in a
	// row it met an error that may pass. Not journaled: a restart starts the
	// step's time afresh, since the clock of a box may have jumped.
	Since time.Time `json:"-"`
	Tries int       `json:"-"`
	// Disk is why the disk does not take the files, valid in StepFetching; empty
	// while they come. Not journaled: a restart looks again at once.
	Disk string `json:"-"`
}

// Serving is the version that active.json names; the zero value is none.
func (s State) Serving() Version {
	switch s.Step {
	case StepSwitching, StepTrial:
		return s.Candidate
	case StepRemoving:
		return Version{}
	}
	return s.Current
}

// gone reports whether nothing of the model is left to remember.
func (s State) gone() bool {
	return s.Step == StepIdle && s.Want.Digest.IsZero() && s.Current.none() && len(s.Denied) == 0
}

// kept lists the versions whose files must stay.
func (s State) kept() []Version {
	return []Version{s.Candidate, s.Current, s.Previous, s.Lost.Version}
}

func (s State) denial(d blob.Digest) (Denial, bool) {
	for _, n := range s.Denied {
		if n.Digest == d {
			return n, true
		}
	}
	return Denial{}, false
}

// denies reports whether w must not be tried as it is.
func (s State) denies(w Want) bool {
	n, ok := s.denial(w.Digest)
	return ok && w.Attempt <= n.Attempt
}

// deny returns the state with n remembered; the old slice is left alone.
func (s State) deny(n Denial) State {
	var kept []Denial
	for _, o := range s.Denied {
		if o.Digest != n.Digest {
			kept = append(kept, o)
		}
	}
	kept = append(kept, n)
	s.Denied = kept[max(0, len(kept)-maxDenials):]
	return s
}

// Phase is one report on one version.
type Phase struct {
	models.Ref
	Generation uint64
	Rollout    string
	Attempt    int
	// Phase is fetching, probing, shadow, switching, trial, active, failed,
	// rolled_back or refused.
	Phase string
	Err   string
	// Disk: Err is about the disk of the box, and speaks not against the version.
	Disk  bool
	Probe *runnerapi.Probe
	// DoneBytes of TotalBytes are here; set in phase fetching.
	DoneBytes, TotalBytes int64
}

// An EventKind says what happened to one model.
type EventKind int

// The events. Those from EventManifest to EventFailed are answers to actions; so is EventLost, to ActVerify.
const (
	EventWanted    EventKind = iota + 1 // Want and Generation changed
	EventResumed                        // this program started
	EventLost                           // files of version Digest are gone from the disk or damaged: Err, Fallback
	EventSuspected                      // files of version Digest may be damaged: Serves
	EventManifest                       // the candidate's manifest is here and signed: Manifest
	EventFetched                        // all files of the candidate are here
	EventProbed                         // the runner tried the candidate: Probe, Base
	EventStatus                         // the runner answered: Status
	EventFailed                         // an action failed: Err, Blame
	EventArrives                        // bytes of the candidate come: there is room
)

// Blame says what a failed action means for the candidate.
type Blame int

// The blames: None may pass by itself, Candidate will not, Trust is a document
// that this box must not follow, Room is a full disk and Disk one that fails.
const (
	BlameNone Blame = iota
	BlameCandidate
	BlameTrust
	BlameRoom
	BlameDisk
)

// An Event is something that happened to one model.
type Event struct {
	Kind       EventKind
	Want       Want
	Generation uint64
	Digest     blob.Digest
	Manifest   models.Manifest
	Probe      runnerapi.Probe
	Base       runnerapi.ModelStatus
	Status     runnerapi.Status
	Err        string
	Blame      Blame
	// Fallback: the version before Digest may serve in its place.
	Fallback bool
	// Serves: Digest does, with a variant that is whole.
	Serves bool
}

// An ActionKind says what the shell has to do.
type ActionKind int

// The actions. All but Report and Drop answer with an event, and a new one of
// these replaces the one that runs. Before any of them the shell has made the
// journal and active.json say what the state says.
const (
	ActReport   ActionKind = iota + 1 // tell Phase
	ActManifest                       // fetch and open the candidate's manifest
	ActFiles                          // fetch the candidate's files
	ActProbe                          // let the runner try the candidate
	ActShadow                         // let the candidate run in the shadow of what serves
	ActReload                         // let the runner read active.json
	ActStatus                         // ask the runner
	ActVerify                         // look at the files of version Ref, and take damaged ones away
	ActMend                           // the same of one that serves, and fetch them again meanwhile
	ActDrop                           // let the runner forget the candidate Ref
	ActStop                           // stop what runs
)

// An Action is something for the shell to do, after about Delay.
type Action struct {
	Kind  ActionKind
	Phase Phase
	Ref   models.Ref
	Delay time.Duration
}

// Rules are the limits that Next judges by.
type Rules struct {
	// Trial is how long a new version is watched while it serves.
	Trial time.Duration
	// Shadow is how long a candidate runs in the shadow of Current at most, unless
	// its manifest says; 0: not at all. It ends sooner once enough answers
	// were compared, or when nothing comes that could be.
	Shadow time.Duration
	// FetchLimit, ProbeLimit and ReadyLimit bound the wait for the network,
	// for the runner to try a candidate, and for it to serve one.
	FetchLimit, ProbeLimit, ReadyLimit time.Duration
	// MaxFailureRatio of requests may fail in the trial (or twice the ratio of
	// the version before, if that is more).
	MaxFailureRatio float64
	// MaxLatencyRatio bounds the 95th percentile against the version before; what
	// is no more than minSlower above it is no regression.
	MaxLatencyRatio float64
}

const (
	pollDelay   = time.Second
	retryMin    = time.Second
	retryMax    = time.Minute
	minFailures = 3  // fewer may be chance
	minRequests = 20 // for comparing latencies
	// minSlower is what a busy box adds to one request in twenty whatever the model: a
	// worker that others keep off its processor waits for some of the scheduler's
	// slices, 3 to 4 ms each. The version before may have answered an idle box.
	minSlower = 0.010 // seconds
	// Room is made by people or by what else the box clears away, not in seconds.
	roomMin = time.Minute
	roomMax = time.Hour
	// shadowEnough answers tell whether versions agree to some percent, and
	// shadowQuiet is how long no request comes before nobody waits for one.
	shadowEnough = 50
	shadowQuiet  = 2 * time.Second
	maxRestarts  = 5 // of this program while one candidate is probed or tried
)

func retryDelay(tries int) time.Duration {
	if tries > 6 {
		return retryMax
	}
	return min(retryMax, retryMin<<tries)
}

// roomDelay is the wait before the disk is looked at again.
func roomDelay(tries int) time.Duration {
	return min(roomMax, roomMin<<min(max(tries-1, 0), 6))
}

func statusOf(st runnerapi.Status, d blob.Digest) (runnerapi.ModelStatus, bool) {
	for _, m := range st.Models {
		if m.Digest == d {
			return m, true
		}
	}
	return runnerapi.ModelStatus{}, false
}

// shadowTime is how long a candidate may run in the shadow of Current.
func (r Rules) shadowTime(s State) time.Duration {
	if s.Current.none() {
		return 0
	}
	if asked := s.Candidate.Shadow.Seconds; asked > 0 {
		return time.Duration(asked * float64(time.Second))
	}
	return r.Shadow
}

// seenEnough says that a candidate was in the shadow for long enough.
func seenEnough(rule models.Shadow, st runnerapi.Shadow, took, limit time.Duration) bool {
	return took >= limit || st.Compared >= uint64(max(rule.MinCompared, shadowEnough)) ||
		st.Seen == 0 && took >= shadowQuiet && rule == (models.Shadow{})
}

// judgeShadow returns why a candidate must not serve, or "".
func judgeShadow(rule models.Shadow, st runnerapi.Shadow) string {
	switch {
	case st.Failures >= minFailures && 10*st.Failures > st.Compared+st.Failures:
		return fmt.Sprintf("it failed %d of %d requests that the version before it answered, the last: %s", st.Failures, st.Compared+st.Failures, st.Err)
	case st.Compared < uint64(rule.MinCompared):
		return fmt.Sprintf("only %d answers could be compared with those of the version before it, its manifest asks for %d (%d requests came; the box was hot for %d of them and busy for %d)",
			st.Compared, rule.MinCompared, st.Seen, st.Hot, st.Busy)
	case st.Compared > 0 && st.Agreement < rule.MinAgreement:
		return fmt.Sprintf("its answers agree to %.1f %% with those of the version before it, its manifest asks for %.1f %% (%d answers)", 100*st.Agreement, 100*rule.MinAgreement, st.Compared)
	}
	return ""
}

// judge returns why a version on trial must go, or "".
func (r Rules) judge(m runnerapi.ModelStatus, base runnerapi.ModelStatus, ended bool) string {
	limit := r.MaxFailureRatio
	if base.Requests > 0 {
		limit = max(limit, 2*float64(base.Failures)/float64(base.Requests))
	}
	switch {
	case m.State == runnerapi.ModelFailed:
		return "the runner cannot serve it: " + m.Err
	case m.Restarts > 0:
		return "its worker crashed in the trial"
	case m.Failures >= minFailures && float64(m.Failures) > limit*float64(m.Requests):
		return fmt.Sprintf("%d of %d requests failed in the trial", m.Failures, m.Requests)
	case ended && m.Requests >= minRequests && base.Requests >= minRequests && r.slower(m.LatencyP95, base.LatencyP95):
		return fmt.Sprintf("it is slow: 95 %% of requests within %.1f ms, the version before needed %.1f ms", 1e3*m.LatencyP95, 1e3*base.LatencyP95)
	}
	return ""
}

// slower compares seconds; was is 0 if it is not known.
func (r Rules) slower(is, was float64) bool {
	return was > 0 && is > r.MaxLatencyRatio*was && is-was > minSlower
}
