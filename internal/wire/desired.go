package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// DesiredVersion is the shape of Desired. History: 1 first.
const DesiredVersion = 1

// Desired is what one box shall run. It travels as signed JSON; a box refuses
// a Generation lower than the highest it has accepted.
type Desired struct {
	V          int            `json:"v"`
	Box        identity.ID    `json:"box"`
	Generation uint64         `json:"generation"`
	Models     []DesiredModel `json:"models"`
	// Keep are versions that stay on the box if they are there: pinned ones.
	Keep []DesiredModel `json:"keep,omitempty"`
	// Agent is the release the agent shall be; nil leaves it alone.
	Agent *DesiredAgent `json:"agent,omitempty"`
	// Accept is the acceptance test that was asked for last; a box runs each once.
	Accept *DesiredAccept `json:"accept,omitempty"`
	// Secrets are all that the box is to have, in the order of their names.
	Secrets []DesiredSecret `json:"secrets,omitempty"`
	// Config are the settings that the fleet has for the box; nil: none.
	Config *DesiredConfig `json:"config,omitempty"`
}

// DesiredConfig is what documents of the fleet say for one box.
type DesiredConfig struct {
	// Documents have a part in it, in the order of their names.
	Documents []DesiredDocument `json:"documents"`
	// Digest is that of Content, which package boxconfig reads.
	Digest  blob.Digest     `json:"digest"`
	Content json.RawMessage `json:"content"`
}

// DesiredDocument is one version of a document.
type DesiredDocument struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Digest  blob.Digest `json:"digest"`
	Rollout string      `json:"rollout,omitempty"`
	Attempt int         `json:"attempt,omitempty"` // grows with every explicit retry
	// Out says that this version is not for the box: its settings are withdrawn.
	Out bool `json:"out,omitempty"`
	// Fault is why it could not be filled in for the box; it has no part then.
	Fault string `json:"fault,omitempty"`
}

// Bounds of secrets: 32 of the longest value, sealed and twice in base64, and the
// models of a box still fit into a WELCOME.
const (
	MaxSecrets     = 32 // of a box
	MaxSecretBytes = 1024
	maxSecretName  = 63
)

// DesiredSecret is a secret, sealed so that only its box can open it (see
// identity.Seal).
type DesiredSecret struct {
	Name string `json:"name"`
	// Version changes with the value and says nothing of it.
	Version string `json:"version"`
	Key     string `json:"key"` // identity.SealID of the key that opens it
	Sealed  []byte `json:"sealed"`
}

var secretName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// CheckSecretName refuses what is no name of a secret: it becomes the name of a
// file on the box.
func CheckSecretName(name string) error {
	if len(name) > maxSecretName || !secretName.MatchString(name) {
		return fmt.Errorf("%.80q is no name of a secret: lower case letters, digits and . _ -, beginning with a letter or digit, at most %d", name, maxSecretName)
	}
	return nil
}

// DesiredModel is one model version that shall serve.
type DesiredModel struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Digest  blob.Digest `json:"digest"` // of the signed manifest
	Rollout string      `json:"rollout,omitempty"`
	Attempt int         `json:"attempt,omitempty"` // grows with every explicit retry
}

// DesiredAgent is the agent release that shall run.
type DesiredAgent struct {
	Version string      `json:"version"`
	Digest  blob.Digest `json:"digest"` // of the signed release
	Rollout string      `json:"rollout,omitempty"`
}

// DesiredAccept asks for an acceptance test. Its report has ID.
type DesiredAccept struct {
	ID          string   `json:"id"`               // 16 hexadecimal digits
	Levels      []string `json:"levels,omitempty"` // of internal/acceptance; empty: all
	Model       string   `json:"model,omitempty"`  // to load the box with
	LoadSeconds int      `json:"load_seconds,omitempty"`
	By          string   `json:"by"`
	Until       int64    `json:"until"` // Unix seconds after which nobody waits for it
}

// Encode returns the JSON that is signed.
func (d Desired) Encode() ([]byte, error) { return json.Marshal(d) }

// DecodeDesired reads the signed JSON. Unknown fields are refused.
func DecodeDesired(data []byte) (Desired, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var d Desired
	if err := dec.Decode(&d); err != nil {
		return Desired{}, fmt.Errorf("parse desired state: %w", err)
	}
	if d.V != DesiredVersion {
		return Desired{}, fmt.Errorf("desired state version %d, this program reads %d", d.V, DesiredVersion)
	}
	return d, nil
}

// StartedBody is the body of EventStarted.
type StartedBody struct {
	Agent string `json:"agent"`
	Boot  string `json:"boot"`
	SID   string `json:"sid"`
	Slot  string `json:"slot,omitempty"` // of the launcher: a, b or none
}

// AlarmBody is the body of EventAlarm.
type AlarmBody struct {
	Kind   string  `json:"kind"` // "throttling", "hot", "sensor", "disk", "runner"
	Active bool    `json:"active"`
	Value  float64 `json:"value,omitempty"`
}

// ShunnedBody is the body of EventShunned: the box that is left alone, and the file.
type ShunnedBody struct {
	Peer    string `json:"peer"`
	Digest  string `json:"digest"`
	UntilMs int64  `json:"until_ms"`
}

// AcceptBody is the body of EventAccept.
type AcceptBody struct {
	ID    string `json:"id"` // of the order and of its report
	Phase string `json:"phase"`
}

// The phases of an acceptance test that was asked for.
const (
	AcceptBegun  = "begun"
	AcceptLevel  = "level"
	AcceptEnded  = "ended"
	AcceptFailed = "failed" // without a report
)

// PhaseBody is the body of EventModelPhase, EventAgentPhase and
// EventConfigPhase: how far a box is with one version. The phases are those of
// agent/activate, agent/update and agent/config.
type PhaseBody struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Digest     string `json:"digest"` // of the signed manifest or release
	Rollout    string `json:"rollout,omitempty"`
	Attempt    int    `json:"attempt,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	Phase      string `json:"phase"`
	Err        string `json:"err,omitempty"`
	// Disk: Err is about the disk of the box, and speaks not against the version.
	Disk  bool            `json:"disk,omitempty"`
	Probe json.RawMessage `json:"probe,omitempty"` // runnerapi.Probe, when measured
}
