package fleetapi

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// VisitState says how far a visit is.
type VisitState string

// The states of a visit.
const (
	VisitPlanned  VisitState = "planned"
	VisitOnSite   VisitState = "on-site"
	VisitDone     VisitState = "done"
	VisitCanceled VisitState = "canceled"
)

// Visit is one way of a person to a site, for all that is due there.
type Visit struct {
	ID       string     `json:"id" example:"V-3"`
	State    VisitState `json:"state"`
	Site     string     `json:"site"`
	Region   string     `json:"region,omitempty"`
	Day      string     `json:"day" doc:"when, by the calendar of the site" example:"2026-03-14"`
	Assignee string     `json:"assignee,omitempty"`
	Tickets  []string   `json:"tickets"`
	Parts    []Part     `json:"parts" doc:"to take along"`
	Work     []Work     `json:"work"`
	Note     string     `json:"note,omitempty"`
	Created  time.Time  `json:"created"`
	Arrived  *time.Time `json:"arrived,omitempty"`
	Ended    *time.Time `json:"ended,omitempty"`
	By       string     `json:"by,omitempty"`
}

// Part is a number of parts of one kind.
type Part struct {
	Part  string `json:"part" example:"filter"`
	Count int    `json:"count"`
}

// VisitList has the newest first.
type VisitList struct {
	Items []Visit `json:"items"`
}

// NewVisit plans a visit, or records one that was.
type NewVisit struct {
	Site     string   `json:"site" minLength:"1" maxLength:"200"`
	Day      string   `json:"day,omitempty" format:"date" doc:"default today"`
	Assignee string   `json:"assignee,omitempty" maxLength:"200"`
	Tickets  []string `json:"tickets,omitempty" maxItems:"500" doc:"default: all of the site that are due"`
	Note     string   `json:"note,omitempty" maxLength:"2000"`
	// Done records a visit that is over, with Work; its tickets are done then.
	Done bool   `json:"done,omitempty"`
	Work []Work `json:"work,omitempty" maxItems:"500"`
}

// VisitAction is what a person does with a visit.
type VisitAction struct {
	Action  string `json:"action" enum:"arrive,done,cancel"`
	Work    []Work `json:"work,omitempty" maxItems:"500"`
	NoFault bool   `json:"no_fault_found,omitempty"`
	Note    string `json:"note,omitempty" maxLength:"2000"`
}

// VisitPlan is the route of a day: sites in the order of the way.
type VisitPlan struct {
	Region string      `json:"region,omitempty"`
	Day    string      `json:"day"`
	Stops  []VisitStop `json:"stops"`
	Parts  []Part      `json:"parts" doc:"of all stops"`
	Metres float64     `json:"distance_metres" doc:"as the crow flies; 0: places are not known"`
	Text   string      `json:"text" doc:"why this order"`
	// Made are the visits, when the plan was to be kept.
	Made []Visit `json:"made"`
}

// VisitStop is a site with what is due there.
type VisitStop struct {
	Site    string    `json:"site"`
	Level   Health    `json:"level"`
	Due     time.Time `json:"due" doc:"when its first ticket was opened"`
	Tickets []Ticket  `json:"tickets"`
	Parts   []Part    `json:"parts"`
	Metres  float64   `json:"distance_metres" doc:"from the stop before"`
}

// PlanVisits asks for a route.
type PlanVisits struct {
	Region   string   `json:"region,omitempty" doc:"default: all"`
	Sites    []string `json:"sites,omitempty" maxItems:"500"`
	Day      string   `json:"day,omitempty" format:"date" doc:"default today"`
	Stops    int      `json:"stops,omitempty" minimum:"0" maximum:"100" doc:"at most; default 8"`
	Assignee string   `json:"assignee,omitempty" maxLength:"200"`
	// Keep makes the visits and dispatches their tickets.
	Keep bool `json:"keep,omitempty"`
}

// RMA is a part on its way back to its vendor.
type RMA struct {
	ID       string      `json:"id" example:"R-2"`
	State    string      `json:"state" doc:"open, shipped, received or closed"`
	Box      identity.ID `json:"box,omitempty"`
	BoxName  string      `json:"box_name,omitempty"`
	Site     string      `json:"site,omitempty"`
	Ticket   string      `json:"ticket,omitempty"`
	Part     string      `json:"part"`
	Serial   string      `json:"serial,omitempty"`
	Vendor   string      `json:"vendor,omitempty"`
	VendorNo string      `json:"vendor_number,omitempty"`
	Credit   string      `json:"credit,omitempty" example:"49.00 EUR"`
	Note     string      `json:"note,omitempty"`
	Opened   time.Time   `json:"opened"`
	Shipped  *time.Time  `json:"shipped,omitempty"`
	Received *time.Time  `json:"received,omitempty" doc:"by the vendor, or its replacement by us"`
	Closed   *time.Time  `json:"closed,omitempty"`
}

// RMAList has the newest first.
type RMAList struct {
	Items []RMA `json:"items"`
}

// NewRMA opens an RMA.
type NewRMA struct {
	Box      string `json:"box,omitempty" doc:"name or id"`
	Ticket   string `json:"ticket,omitempty"`
	Part     string `json:"part" minLength:"1" maxLength:"100"`
	Serial   string `json:"serial,omitempty" maxLength:"100"`
	Vendor   string `json:"vendor,omitempty" maxLength:"200"`
	VendorNo string `json:"vendor_number,omitempty" maxLength:"100"`
	Note     string `json:"note,omitempty" maxLength:"2000"`
}

// RMAAction moves an RMA on.
type RMAAction struct {
	Action   string `json:"action" enum:"shipped,received,close"`
	VendorNo string `json:"vendor_number,omitempty" maxLength:"100"`
	Credit   string `json:"credit,omitempty" maxLength:"100"`
	Note     string `json:"note,omitempty" maxLength:"2000"`
}

// BoxCare is all that is known of the heat and the upkeep of one box.
type BoxCare struct {
	Box       identity.ID   `json:"box"`
	Name      string        `json:"name"`
	Site      string        `json:"site"`
	Level     Health        `json:"level"`
	Thermal   Thermal       `json:"thermal"`
	Findings  []Finding     `json:"findings" doc:"open ones, and those closed in the last 90 days"`
	Tickets   []Ticket      `json:"tickets" doc:"newest first, at most 20"`
	Days      []CareDay     `json:"days" doc:"one a day, oldest first"`
	Forecast  *HeatForecast `json:"forecast,omitempty"`
	Changes   []CareChange  `json:"changes" doc:"rollouts, visits and work of the last 60 days"`
	Resets    []Reset       `json:"resets" doc:"newest first"`
	Cleanings []Cleaning    `json:"cleanings"`
	Upkeep    Upkeep        `json:"upkeep"`
	Filter    FilterAdvice  `json:"filter"`
	Cohort    *Cohort       `json:"cohort,omitempty" doc:"against boxes of its SKU"`
	Photo     *time.Time    `json:"photo,omitempty" doc:"when its newest picture came; none: there is none"`
}

// CareDay is the resistance of a box on one day.
type CareDay struct {
	Day     string   `json:"day" example:"2026-03-14"`
	Percent *float64 `json:"resistance_percent,omitempty" doc:"above the clean box, median of the day"`
	Week    *float64 `json:"week_percent,omitempty" doc:"median of seven days: what is judged"`
	Hours   int      `json:"steady_hours"`
}

// CareChange is a logged event that may move the measure of a box.
type CareChange struct {
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind" example:"rollout"`
	Detail string    `json:"detail,omitempty"`
	By     string    `json:"by,omitempty"`
}

// Cleaning is a fall of the resistance that a cleaning leaves.
type Cleaning struct {
	Time   time.Time `json:"time"`
	Before float64   `json:"before_percent"`
	After  float64   `json:"after_percent"`
	Logged bool      `json:"logged" doc:"somebody had said so"`
}

// Upkeep is what people say of a box.
type Upkeep struct {
	Place           string     `json:"place,omitempty" maxLength:"200" example:"stock room, north wall"`
	FilterPart      string     `json:"filter_part,omitempty" maxLength:"100"`
	FilterInstalled *time.Time `json:"filter_installed,omitempty"`
	Serial          string     `json:"serial,omitempty" maxLength:"100"`
	Note            string     `json:"note,omitempty" maxLength:"2000"`
}

// FilterAdvice is when the filter of a box or the filters of a site are due.
type FilterAdvice struct {
	IntervalDays float64    `json:"interval_days" doc:"suggested"`
	ClassDays    float64    `json:"class_days" doc:"of the class of the site, the most that is suggested"`
	Due          *time.Time `json:"due,omitempty" doc:"from the day the filter was installed or last cleaned"`
	Learnt       bool       `json:"learnt" doc:"from the dust of the site; else from its class"`
	Text         string     `json:"text"`
}

// Reset is one restart of a box and its likely cause.
type Reset struct {
	Box        identity.ID `json:"box"`
	BoxName    string      `json:"box_name,omitempty"`
	Site       string      `json:"site,omitempty"`
	Time       time.Time   `json:"time" doc:"when the box came back"`
	Cause      string      `json:"cause" example:"power-cut"`
	Confidence float64     `json:"confidence"`
	Evidence   []Evidence  `json:"evidence"`
	Last       *time.Time  `json:"last_record,omitempty" doc:"the last that the box had written before"`
}

// ResetList has the newest resets and how many there were of each cause.
type ResetList struct {
	Items  []Reset        `json:"items"`
	Causes map[string]int `json:"causes"`
	From   time.Time      `json:"from"`
}

// SiteCare is how a site stands.
type SiteCare struct {
	Site       string         `json:"site"`
	Region     string         `json:"region,omitempty"`
	Class      string         `json:"class,omitempty" example:"retail"`
	Boxes      int            `json:"boxes"`
	Levels     map[string]int `json:"levels"`
	Level      Health         `json:"level" doc:"of its worst box"`
	Tickets    int            `json:"tickets" doc:"not ended"`
	Due        int            `json:"due" doc:"of level ticket or urgent, not dispatched"`
	VisitDue   bool           `json:"visit_due" doc:"two boxes or more, or something urgent"`
	NextVisit  string         `json:"next_visit,omitempty" doc:"id"`
	NextDay    string         `json:"next_day,omitempty"`
	HotRoom    bool           `json:"hot_room"`
	Dust       *float64       `json:"dust_percent_per_month,omitempty" doc:"how fast resistance grows here, median of its boxes"`
	DustRatio  *float64       `json:"dust_ratio,omitempty" doc:"against the median of all sites"`
	Filter     FilterAdvice   `json:"filter"`
	WorstBox   string         `json:"worst_box,omitempty"`
	WorstValue *float64       `json:"worst_percent,omitempty"`
}

// SiteCareList lists sites, the worst first.
type SiteCareList struct {
	Items []SiteCare `json:"items"`
}

// Cohort is how far a box, or a site, differs from its like.
type Cohort struct {
	Kind    string  `json:"kind" doc:"sku or site"`
	Name    string  `json:"name"`
	Boxes   int     `json:"boxes"`
	Median  float64 `json:"median_percent"`
	Spread  float64 `json:"spread_percent" doc:"robust standard deviation"`
	Percent float64 `json:"percent,omitempty" doc:"of the box"`
	Score   float64 `json:"score,omitempty" doc:"of the box, in spreads from the median"`
}

// CareReport is the fleet's upkeep in numbers.
type CareReport struct {
	From       time.Time              `json:"from"`
	Levels     map[string]int         `json:"levels" doc:"boxes"`
	Unjudged   int                    `json:"unjudged" doc:"boxes without a baseline yet"`
	Causes     map[string]int         `json:"causes" doc:"open findings"`
	Tickets    TicketCounts           `json:"tickets"`
	MTTA       *float64               `json:"mtta_seconds,omitempty" doc:"mean from open to acknowledged"`
	MTTR       *float64               `json:"mttr_seconds,omitempty" doc:"mean from open to verified"`
	Ended      int                    `json:"ended"`
	Reopened14 int                    `json:"reopened_within_14_days"`
	NoFault    int                    `json:"no_fault_found"`
	MTBFDays   map[string]float64     `json:"mtbf_days" doc:"box days per ticket, by cause"`
	Resets     map[string]int         `json:"resets" doc:"by cause"`
	SKUs       []Cohort               `json:"skus"`
	Spares     []SpareDemand          `json:"spares"`
	Watch      []Finding              `json:"watch" doc:"what the weekly digest tells"`
	Priors     map[string]CarePrior   `json:"priors" doc:"by SKU"`
	Notify     map[string]NotifyState `json:"notify" doc:"endpoints of notices"`
}

// CarePrior is what was learnt of a SKU.
type CarePrior struct {
	Boxes  int       `json:"boxes"`
	Air    float64   `json:"slope_air"`
	Load   float64   `json:"slope_load"`
	Sigma  float64   `json:"sigma_percent"`
	Bound  bool      `json:"bound"`
	TripC  float64   `json:"trip_celsius,omitempty" doc:"die temperature at which it throttles, from its throttled hours"`
	Fitted time.Time `json:"fitted"`
}

// SpareDemand is how many of a part a region needs.
type SpareDemand struct {
	Region string  `json:"region"`
	Part   string  `json:"part" example:"fan"`
	Mean   float64 `json:"mean" doc:"expected in the time"`
	Stock  int     `json:"stock" doc:"enough in 95 of 100 cases"`
	Boxes  int     `json:"boxes" doc:"with a finding that needs one"`
	Days   int     `json:"days"`
}

// NotifyState is how an endpoint of notifications does.
type NotifyState struct {
	Kind     string     `json:"kind" doc:"shoutrrr, webhook or alertmanager"`
	About    []string   `json:"about" doc:"tickets, rollouts, or single changes such as rollouts.halted"`
	Level    Health     `json:"level" doc:"from which on it is told of tickets; watch hears the weekly digest"`
	Sites    []string   `json:"sites" doc:"that it is told of; empty: all"`
	Quiet    []string   `json:"quiet" doc:"times of the site in which only what is urgent is told"`
	Language string     `json:"language" doc:"in which it is told" example:"en"`
	Waiting  int        `json:"waiting"`
	Failed   int        `json:"failed" doc:"given up"`
	LastOK   *time.Time `json:"last_ok,omitempty"`
	LastErr  string     `json:"last_error,omitempty"`
}

// NotifyTest asks for a test notification.
type NotifyTest struct {
	Endpoint string `json:"endpoint,omitempty" doc:"default: all"`
}

// NotifyTestResult is what came of it.
type NotifyTestResult struct {
	Endpoint string `json:"endpoint"`
	Kind     string `json:"kind"`
	OK       bool   `json:"ok"`
	Error    string `json:"error,omitempty"`
}

// NotifyTestResults are those of all endpoints that were tried.
type NotifyTestResults struct {
	Items []NotifyTestResult `json:"items"`
}
