package fleetapi

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// ConfigState says how far a box is with the settings that the fleet has for it.
type ConfigState string

// The states of the settings of a box.
const (
	ConfigCurrent ConfigState = "current" // it follows them
	ConfigWaiting ConfigState = "waiting" // it has not taken them up yet
	ConfigTrial   ConfigState = "trial"   // it follows them, and would go back by itself
	ConfigFailed  ConfigState = "failed"  // it went back, or refused them
)

// BoxSettings is how far a box is with the fleet's settings.
type BoxSettings struct {
	State     ConfigState   `json:"state"`
	Digest    blob.Digest   `json:"digest"`            // of what it shall follow
	Running   string        `json:"running,omitempty"` // digest of what it follows
	Err       string        `json:"err,omitempty"`
	Documents []BoxDocument `json:"documents"`
	// Local are settings that a file on the box has: they count there.
	Local []string `json:"local,omitempty"`
}

// BoxDocument is one document on one box.
type BoxDocument struct {
	Name    string `json:"name"`
	Version string `json:"version"`           // that the box shall follow
	Running string `json:"running,omitempty"` // that it follows
	Out     bool   `json:"out,omitempty"`     // the selector does not match the box any more
	Phase   string `json:"phase,omitempty"`
	Err     string `json:"err,omitempty"`
}

// Document is one version of a document of settings.
type Document struct {
	Name     string      `json:"name"`
	Version  string      `json:"version"`
	Digest   blob.Digest `json:"digest"`
	Selector string      `json:"selector"`
	Priority int         `json:"priority"`
	Boxes    int         `json:"boxes" doc:"boxes that the selector matches"`
	Holding  int         `json:"holding" doc:"boxes that follow this version"`
	Created  time.Time   `json:"created"`
	By       string      `json:"by"`
	Gone     bool        `json:"gone,omitempty" doc:"it was withdrawn"`
	Text     string      `json:"text,omitempty" doc:"YAML, as it was applied"`
}

// DocumentList is the newest version of each document, or all versions of one.
type DocumentList struct {
	Items []Document `json:"items"`
}

// ConfigFile is a file with documents.
type ConfigFile struct {
	Name string `json:"name" maxLength:"256" doc:"for messages"`
	Text string `json:"text" maxLength:"786432"`
}

// ConfigRequest says what settings are to be.
type ConfigRequest struct {
	Files []ConfigFile `json:"files,omitempty" maxItems:"64"`
	// Remove names documents that are withdrawn.
	Remove []string `json:"remove,omitempty" maxItems:"64"`
}

// ConfigChanges is what would become of boxes.
type ConfigChanges struct {
	Documents []DocumentChange `json:"documents"`
	Groups    []ConfigGroup    `json:"groups" doc:"boxes with the same change, most boxes first"`
	Refused   []ConfigRefusal  `json:"refused" doc:"boxes that cannot take it, and why"`
	Boxes     int              `json:"boxes" doc:"boxes that change"`
}

// DocumentChange is one document of a request.
type DocumentChange struct {
	Name    string `json:"name"`
	Version string `json:"version"` // that it gets, or has already
	New     bool   `json:"new"`     // it says something else than the newest version
	Removed bool   `json:"removed,omitempty"`
	Boxes   int    `json:"boxes" doc:"boxes that have another version, or shall have none"`
	Matched int    `json:"matched" doc:"boxes that the selector matches"`
}

// ConfigGroup is one change and the boxes that it is for.
type ConfigGroup struct {
	Boxes []ConfigBox `json:"boxes"`
	Diff  string      `json:"diff" doc:"unified; empty: other versions, the same settings"`
}

// ConfigBox names a box.
type ConfigBox struct {
	ID   identity.ID `json:"id"`
	Name string      `json:"name"`
}

// ConfigRefusal is a box that cannot take a document.
type ConfigRefusal struct {
	ConfigBox
	Why string `json:"why"`
}

// ConfigExplanation is every setting of a box with where it comes from.
type ConfigExplanation struct {
	Box      ConfigBox    `json:"box"`
	Config   *BoxSettings `json:"config,omitempty"`
	Settings []Setting    `json:"settings"`
}

// Setting is one setting of a box.
type Setting struct {
	Path  string `json:"path"`
	Value string `json:"value"`
	Unit  string `json:"unit,omitempty"`
	From  string `json:"from" doc:"default, NAME:VERSION of a document, or the file on the box"`
	// Over is what the value stands above.
	Over string `json:"over,omitempty"`
}

// LabelChange sets labels; an empty value takes one away.
type LabelChange struct {
	Labels map[string]string `json:"labels" maxProperties:"64"`
}
