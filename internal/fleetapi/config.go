package fleetapi

import (
	"slices"
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
	// Pending are documents that come to the box, or leave it, without another
	// apply; only where one box is asked for.
	Pending []PendingDocument `json:"pending,omitempty"`
}

// Busy reports whether the box is not done with settings that it was told.
func (s BoxSettings) Busy() bool { return s.State == ConfigWaiting || s.State == ConfigTrial }

// PendingDocument is what a box that joined, or changed, is still to get or to lose.
type PendingDocument struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Out     bool   `json:"out,omitempty"` // it leaves the box
	Why     string `json:"why" doc:"what it waits for"`
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
//
// It names at most MaxConfigNames boxes; counts are of all.
type ConfigChanges struct {
	Documents []DocumentChange `json:"documents"`
	Groups    []ConfigGroup    `json:"groups" doc:"boxes with the same change, most boxes first"`
	Refused   []ConfigRefusal  `json:"refused" doc:"boxes that cannot take it, and why"`
	Boxes     int              `json:"boxes" doc:"boxes that change"`
	Unnamed   int              `json:"unnamed,omitempty" doc:"boxes that change, or cannot, and are not named here: there are too many; ask for one by box"`
}

// Bounds of one request.
const (
	MaxConfigDocuments = 256
	MaxConfigNames     = 1000
)

// DocumentChange is one document of a request.
type DocumentChange struct {
	Name    string `json:"name"`
	Version string `json:"version"` // that it gets, or has already
	New     bool   `json:"new"`     // it says something else than the newest version
	Removed bool   `json:"removed,omitempty"`
	Boxes   int    `json:"boxes" doc:"boxes that have another version, or shall have none"`
	Matched int    `json:"matched" doc:"boxes that the selector matches"`
}

// Only leaves one box, by name or id.
func (c *ConfigChanges) Only(box string) {
	other := func(b ConfigBox) bool { return b.Name != box && string(b.ID) != box }
	groups := []ConfigGroup{}
	c.Boxes = 0
	for _, g := range c.Groups {
		if g.Boxes = slices.DeleteFunc(g.Boxes, other); len(g.Boxes) > 0 {
			g.Count = len(g.Boxes)
			groups = append(groups, g)
			c.Boxes++
		}
	}
	c.Groups = groups
	c.Refused = slices.DeleteFunc(c.Refused, func(r ConfigRefusal) bool { return other(r.ConfigBox) })
}

// Bound leaves out names that are too many.
func (c *ConfigChanges) Bound() {
	left := MaxConfigNames
	for i := range c.Groups {
		g := &c.Groups[i]
		n := min(left, len(g.Boxes))
		c.Unnamed += len(g.Boxes) - n
		g.Boxes, left = g.Boxes[:n], left-n
	}
	n := min(MaxConfigNames, len(c.Refused))
	c.Unnamed += len(c.Refused) - n
	c.Refused = c.Refused[:n]
}

// ConfigGroup is one change and the boxes that it is for.
type ConfigGroup struct {
	Boxes []ConfigBox `json:"boxes"`
	Count int         `json:"count" doc:"of boxes, also of those that are not named"`
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
