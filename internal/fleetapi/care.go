package fleetapi

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// TicketState says how far the work on a ticket is.
type TicketState string

// The states of a ticket. Verified and closed are its ends.
const (
	TicketOpen         TicketState = "open"
	TicketAcknowledged TicketState = "acknowledged" // a person has seen it
	TicketDispatched   TicketState = "dispatched"   // somebody is to go
	TicketOnSite       TicketState = "on-site"
	TicketDone         TicketState = "done"     // the work is said to be done; the box must prove it
	TicketVerified     TicketState = "verified" // the box proved it
	TicketReopened     TicketState = "reopened" // the box proved the opposite, or a person says so
	TicketClosed       TicketState = "closed"   // without work; Resolution says why
)

// TicketStates are all of them, in the order of work.
func TicketStates() []TicketState {
	return []TicketState{TicketOpen, TicketReopened, TicketAcknowledged, TicketDispatched, TicketOnSite, TicketDone, TicketVerified, TicketClosed}
}

// Ended reports whether nothing more is to be done.
func (s TicketState) Ended() bool { return s == TicketVerified || s == TicketClosed }

// Evidence is one fact that a finding or the cause of a restart rests on.
type Evidence struct {
	Name  string   `json:"name"`
	Value *float64 `json:"value,omitempty"`
	Text  string   `json:"text" doc:"in English"`
	Code  string   `json:"code,omitempty" doc:"of the sentence, for other languages" example:"rise"`
	Args  []string `json:"args,omitempty" doc:"what stands in the sentence, in its order" example:"13.2"`
}

// HeatForecast is in how many days a box will throttle: 10, 50 and 90 % of the
// draws lie before Low, Mid and High. 365 is "not within a year".
type HeatForecast struct {
	Made      time.Time `json:"made"`
	LowDays   float64   `json:"low_days"`
	MidDays   float64   `json:"mid_days"`
	HighDays  float64   `json:"high_days"`
	TripC     float64   `json:"trip_celsius"`
	TripKnown bool      `json:"trip_known"`
}

// Finding is one thing that is wrong with a box, as the box or the controller
// found it.
type Finding struct {
	Box        identity.ID   `json:"box,omitempty"`
	BoxName    string        `json:"box_name,omitempty"`
	Site       string        `json:"site,omitempty"`
	Family     string        `json:"family" example:"resistance"`
	Cause      string        `json:"cause" example:"airflow"`
	Level      Health        `json:"level"`
	Confidence float64       `json:"confidence" doc:"of the cause, 0 to 1"`
	Since      time.Time     `json:"since"`
	Opened     time.Time     `json:"opened"`
	Closed     *time.Time    `json:"closed,omitempty"`
	ClosedBy   string        `json:"closed_by,omitempty"`
	Evidence   []Evidence    `json:"evidence"`
	Forecast   *HeatForecast `json:"forecast,omitempty"`
	Muted      bool          `json:"muted,omitempty" doc:"a person said that it is known or wrong"`
}

// TicketStep is one line of the history of a ticket.
type TicketStep struct {
	Time  time.Time   `json:"time"`
	By    string      `json:"by,omitempty" doc:"who; empty: the controller"`
	What  string      `json:"what" example:"acknowledged"`
	State TicketState `json:"state" doc:"after it"`
	Text  string      `json:"text,omitempty" doc:"in English, or as a person wrote it"`
	Code  string      `json:"code,omitempty" doc:"of the sentence, for other languages"`
	Args  []string    `json:"args,omitempty"`
}

// TicketCheck is how a box proves that work helped: its excess over the clean
// box must fall by half within two days.
type TicketCheck struct {
	Before     float64    `json:"before_percent" doc:"resistance above the clean box when the work was done"`
	After      *float64   `json:"after_percent,omitempty" doc:"newest since"`
	FellRatio  *float64   `json:"fell_ratio,omitempty" doc:"part of the excess that is gone"`
	Need       float64    `json:"need_ratio"`
	Hours      int        `json:"hours" doc:"steady hours measured since"`
	From       time.Time  `json:"from"`
	Until      time.Time  `json:"until" doc:"when it is decided at the latest"`
	Decided    *time.Time `json:"decided,omitempty"`
	Helped     bool       `json:"helped"`
	Unmeasured bool       `json:"unmeasured,omitempty" doc:"the cause shows in no resistance; the finding itself must close"`
	Text       string     `json:"text,omitempty" doc:"in English"`
	Code       string     `json:"code,omitempty" doc:"of the sentence, for other languages"`
	Args       []string   `json:"args,omitempty"`
}

// TicketOpening is what a ticket rested on when it was opened. The ticket itself
// is kept up to date.
type TicketOpening struct {
	Time       time.Time     `json:"time"`
	Level      Health        `json:"level"`
	Confidence float64       `json:"confidence"`
	Evidence   []Evidence    `json:"evidence"`
	Forecast   *HeatForecast `json:"forecast,omitempty"`
}

// Ticket is one thing to do about a box or, without a box, about a site or,
// without both, about all boxes of a SKU.
type Ticket struct {
	ID         string         `json:"id" example:"T-17"`
	State      TicketState    `json:"state"`
	Level      Health         `json:"level"`
	Cause      string         `json:"cause" example:"airflow"`
	Box        identity.ID    `json:"box,omitempty"`
	BoxName    string         `json:"box_name,omitempty"`
	Site       string         `json:"site"`
	Region     string         `json:"region,omitempty"`
	Place      string         `json:"place,omitempty" doc:"where at the site"`
	SKU        string         `json:"sku,omitempty"`
	Simulated  bool           `json:"simulated,omitempty"`
	Boxes      []string       `json:"boxes,omitempty" doc:"names of the boxes that agree, of a ticket for a site or a SKU"`
	Do         string         `json:"do" doc:"what to do, in English"`
	Why        string         `json:"why" doc:"the strongest evidence, in English"`
	Part       string         `json:"part,omitempty" doc:"what to take along" example:"filter"`
	Tickets    []string       `json:"tickets,omitempty" doc:"of a ticket for a site or a SKU: those that its boxes have for the same"`
	Sites      []string       `json:"sites,omitempty" doc:"of a ticket for a SKU: where the boxes that agree stand"`
	Within     string         `json:"within,omitempty" doc:"the open ticket of the site or SKU that this one is part of: people are told of that one alone" example:"T-9"`
	Confidence float64        `json:"confidence" doc:"of the cause, 0 to 1"`
	Evidence   []Evidence     `json:"evidence"`
	Forecast   *HeatForecast  `json:"forecast,omitempty"`
	Measured   *time.Time     `json:"measured,omitempty" doc:"of when evidence and forecast are"`
	Opening    *TicketOpening `json:"opening,omitempty" doc:"what it rested on when it was opened"`
	Families   []string       `json:"families" doc:"of its findings that are open"`
	Manual     bool           `json:"manual,omitempty" doc:"made by a person"`

	Since        time.Time  `json:"since"`
	Opened       time.Time  `json:"opened"`
	Acknowledged *time.Time `json:"acknowledged,omitempty"`
	Dispatched   *time.Time `json:"dispatched,omitempty"`
	OnSite       *time.Time `json:"on_site,omitempty"`
	Done         *time.Time `json:"done,omitempty"`
	Verified     *time.Time `json:"verified,omitempty"`
	Closed       *time.Time `json:"closed,omitempty"`
	Reopened     *time.Time `json:"reopened,omitempty" doc:"the last time"`
	Changed      time.Time  `json:"changed"`
	// Cleared is when its last finding closed.
	Cleared *time.Time `json:"cleared,omitempty"`

	Assignee   string       `json:"assignee,omitempty"`
	Visit      string       `json:"visit,omitempty"`
	Resolution string       `json:"resolution,omitempty" example:"cleared"`
	MutedUntil *time.Time   `json:"muted_until,omitempty" doc:"until when the same opens no ticket, of one that a person closed"`
	NoFault    bool         `json:"no_fault_found,omitempty"`
	Reopens    int          `json:"reopens,omitempty"`
	Check      *TicketCheck `json:"check,omitempty"`
	Timeline   []TicketStep `json:"timeline"`
}

// TicketList is a page of tickets.
type TicketList struct {
	Items         []Ticket `json:"items"`
	NextPageToken string   `json:"next_page_token"`
	TotalSize     int      `json:"total_size"`
}

// NewTicket is a ticket that a person opens. Box or Site is set.
type NewTicket struct {
	Box   string `json:"box,omitempty" doc:"name or id"`
	Site  string `json:"site,omitempty"`
	Cause string `json:"cause" maxLength:"63" pattern:"^[a-z][a-z0-9-]*$" example:"airflow"`
	Level string `json:"level,omitempty" enum:"ticket,urgent" doc:"default ticket"`
	Note  string `json:"note,omitempty" maxLength:"2000"`
}

// TicketAction is what a person does with a ticket.
type TicketAction struct {
	Action   string `json:"action" enum:"acknowledge,assign,arrive,done,reopen,close,note"`
	Assignee string `json:"assignee,omitempty" maxLength:"200" doc:"of assign"`
	// Resolution of close: false-alarm, accepted, duplicate or retired.
	Resolution string `json:"resolution,omitempty" enum:"false-alarm,accepted,duplicate,retired"`
	// MuteDays of close with false-alarm or accepted: for so long the same
	// family opens no ticket. Default 90.
	MuteDays int `json:"mute_days,omitempty" minimum:"0" maximum:"730"`
	// NoFault of done: nothing was found.
	NoFault bool   `json:"no_fault_found,omitempty"`
	Work    []Work `json:"work,omitempty" maxItems:"50" doc:"of done: what was done to the box"`
	Note    string `json:"note,omitempty" maxLength:"2000"`
}

// The kinds of work on a box.
const (
	WorkInspected   = "inspected"
	WorkCleaned     = "cleaned"
	WorkFilter      = "filter-installed"
	WorkFan         = "fan-replaced"
	WorkPaste       = "paste-replaced"
	WorkSSD         = "ssd-replaced"
	WorkPSU         = "psu-replaced"
	WorkVent        = "vent-cleared"
	WorkMoved       = "moved"
	WorkBoxReplaced = "box-replaced"
)

// Work is one thing that was done to a box, with the part that it took.
type Work struct {
	Box    string    `json:"box,omitempty" doc:"name or id; empty: the box of the ticket"`
	Kind   string    `json:"kind" enum:"inspected,cleaned,filter-installed,fan-replaced,paste-replaced,ssd-replaced,psu-replaced,vent-cleared,moved,box-replaced"`
	Part   string    `json:"part,omitempty" maxLength:"100" doc:"part number" example:"F-120"`
	Serial string    `json:"serial,omitempty" maxLength:"100"`
	Count  int       `json:"count,omitempty" minimum:"0" maximum:"100" doc:"default 1"`
	Note   string    `json:"note,omitempty" maxLength:"2000"`
	At     time.Time `json:"at,omitzero" doc:"default now"`
	By     string    `json:"by,omitempty" readOnly:"true"`
}

// TicketCounts counts tickets that match a filter.
type TicketCounts struct {
	Total  int            `json:"total"`
	Open   int            `json:"open" doc:"not ended"`
	Due    int            `json:"due" doc:"open, of level ticket or urgent"`
	States map[string]int `json:"states"`
	Levels map[string]int `json:"levels" doc:"of open ones"`
	Causes map[string]int `json:"causes" doc:"of open ones"`
	Sites  map[string]int `json:"sites" doc:"of open ones"`
}
