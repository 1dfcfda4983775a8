package wire

import (
	"errors"
	"fmt"
	"math"

	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Care tells a box what it cannot know by itself about its heat (dn/care,
// QoS 1). It is the whole state, sent after each WELCOME and when it changes,
// and never queued: a box goes on with the last one it got.
type Care struct {
	V uint `cbor:"1,keyasint"`
	// Prior is the JSON of health.Prior of the box's SKU; empty: the shipped one.
	Prior []byte `cbor:"2,keyasint"`
	// TripC is the die temperature at which the SKU throttles, °C; 0: unknown.
	TripC float64 `cbor:"3,keyasint,omitempty"`
	// RoomC is the site's room sensor and NeighbourC the inlet of boxes beside
	// this one, °C, both of AtMs; 0: none, as no sensor of air says exactly 0.
	RoomC      float64 `cbor:"4,keyasint,omitempty"`
	NeighbourC float64 `cbor:"5,keyasint,omitempty"`
	AtMs       int64   `cbor:"6,keyasint,omitempty"` // Unix ms, the controller's clock
	// Changes are logged changes of the last 60 days that the box does not see
	// itself: visits, cleanings, parts. It applies each once.
	Changes []CareChange `cbor:"7,keyasint"`
	// Mutes are what people closed although the box still says it.
	Mutes []CareMute `cbor:"8,keyasint"`
	// Mates is how many other boxes of the site can be compared with this one,
	// and MatesRise how far the middle one stands above its clean self, ln; 0
	// mates: nothing can be said.
	Mates     uint    `cbor:"9,keyasint,omitempty"`
	MatesRise float64 `cbor:"10,keyasint,omitempty"`
}

// CareChange is a change of the box that people logged. The same At, Kind and
// Detail are the same change.
type CareChange struct {
	At     int64  `cbor:"1,keyasint"` // Unix seconds
	Kind   string `cbor:"2,keyasint"` // one of health's kinds of change
	Detail string `cbor:"3,keyasint,omitempty"`
}

// CareMute keeps a box from reporting a family of findings until a time; that
// one became urgent or was closed it says all the same.
type CareMute struct {
	Family string `cbor:"1,keyasint"` // of health.Finding
	Until  int64  `cbor:"2,keyasint"` // Unix seconds
	Why    string `cbor:"3,keyasint,omitempty"`
}

// Limits of Care.
const (
	MaxPriorBytes  = 16 << 10
	MaxCareChanges = 256
	MaxCareMutes   = 64
)

func (c Care) check() error {
	if err := version(c.V); err != nil {
		return err
	}
	for _, v := range [...]float64{c.TripC, c.RoomC, c.NeighbourC} {
		if math.IsNaN(v) || math.Abs(v) > 1000 {
			return fmt.Errorf("temperature of %g °C; 0 says that there is none", v)
		}
	}
	if math.IsNaN(c.MatesRise) || math.Abs(c.MatesRise) > 10 {
		return fmt.Errorf("rise of the other boxes by %g, ln", c.MatesRise)
	}
	err := errors.Join(
		atMost("bytes of prior", len(c.Prior), MaxPriorBytes),
		atMost("changes", len(c.Changes), MaxCareChanges),
		atMost("mutes", len(c.Mutes), MaxCareMutes),
	)
	for _, ch := range c.Changes {
		err = errors.Join(err, text("kind of change", ch.Kind, maxName), text("detail of change", ch.Detail, maxText))
	}
	for _, m := range c.Mutes {
		err = errors.Join(err, text("family", m.Family, maxName), text("reason", m.Why, maxText))
	}
	return err
}

// HoursBody is the body of EventHours.
type HoursBody struct {
	Hours []string `json:"hours"` // text form of health.Hour, oldest first
}

// MaxEventHours keeps an HoursBody below the limit of a body.
const MaxEventHours = 48

// ResetBody is the body of EventReset: why the box began anew, as far as can
// be told from what it had recorded before.
type ResetBody struct {
	Cause      string          `json:"cause"`      // one of the Reset constants
	Confidence float64         `json:"confidence"` // of the cause, 0..1
	Evidence   []phrase.Phrase `json:"evidence"`
	PrevBoot   string          `json:"prev_boot"` // BootID of the boot that ended
	AtMs       int64           `json:"at_ms"`     // wall clock of the last record, Unix ms; 0: unknown
	UptimeS    int64           `json:"uptime_s"`  // of that boot then
}

// Why a box began anew.
const (
	ResetThermal  = "thermal-trip"
	ResetWatchdog = "watchdog"
	ResetBrownOut = "brown-out"
	ResetMemory   = "out-of-memory"
	ResetPanic    = "panic"
	ResetPowerCut = "power-cut"
	ResetClean    = "clean"
	ResetUnknown  = "unknown"
)

// FanBody is the body of EventFan: who drives a fan now, and why.
type FanBody struct {
	Fan    string  `json:"fan"`              // chip/pwmN
	State  string  `json:"state"`            // "raised" or "firmware"
	Duty   float64 `json:"duty,omitempty"`   // 0..1, when raised
	Reason string  `json:"reason,omitempty"` // one phrase
}
