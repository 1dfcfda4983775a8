package fleetapi

import "time"

// SiteSettings say how the boxes of a site use its line, and where it lies. What is absent is not
// set: a site then takes the fleet's defaults, and those the built-in ones.
type SiteSettings struct {
	// BacklogBytesPerSecond bounds what the connected boxes of a site together
	// send of telemetry that has waited; 0 is no bound, and the built-in default.
	BacklogBytesPerSecond *int64 `json:"backlog_bytes_per_second,omitempty" minimum:"0" maximum:"1000000000000" example:"20000"`
	// Quiet lists times in which only events and alarms are sent:
	// "08:00-18:00 mon-fri". An empty list is no quiet time.
	Quiet *[]string `json:"quiet,omitempty" maxItems:"16" example:"[\"08:00-18:00 mon-fri\"]"`
	// TimeZone is the IANA zone of Quiet; the built-in default is UTC.
	TimeZone *string `json:"time_zone,omitempty" maxLength:"64" example:"Europe/Berlin"`
	// Region groups sites for routes and spare parts.
	Region *string `json:"region,omitempty" maxLength:"100" example:"north"`
	// Class says how dusty a site of its kind is.
	Class *string `json:"class,omitempty" enum:"office,retail,industrial,wood,flour"`
	// Location is latitude and longitude in degrees, for routes.
	Location *string `json:"location,omitempty" maxLength:"64" example:"52.52,13.40"`
}

// SiteEffect is what holds for a site after defaults.
type SiteEffect struct {
	BacklogBytesPerSecond int64    `json:"backlog_bytes_per_second"`
	Quiet                 []string `json:"quiet"`
	TimeZone              string   `json:"time_zone"`
	Region                string   `json:"region,omitempty"`
	Class                 string   `json:"class,omitempty"`
	Location              string   `json:"location,omitempty"`
}

// Site is one site: the text that its boxes were enrolled with.
type Site struct {
	Name      string `json:"name"`
	Boxes     int    `json:"boxes"`
	Connected int    `json:"connected"`
	// WaitingBytes is what the boxes said that still waits on them.
	WaitingBytes int64        `json:"waiting_bytes"`
	Settings     SiteSettings `json:"settings"` // of this site alone
	Effect       SiteEffect   `json:"effect"`
	// BacklogPerBox is the share of one connected box; 0 is no bound.
	BacklogPerBox int64      `json:"backlog_bytes_per_second_per_box"`
	QuietNow      bool       `json:"quiet_now"`
	QuietUntil    *time.Time `json:"quiet_until,omitempty"` // end of the present quiet time, as far as it is known: 48 h
	QuietNext     *time.Time `json:"quiet_next,omitempty"`  // start of the next one within 48 h
	Changed       *time.Time `json:"changed,omitempty"`
	ChangedBy     string     `json:"changed_by,omitempty"`
	// Shunned are boxes that others ask for no file. Lists leave it out.
	Shunned []Shunned `json:"shunned,omitempty"`
}

// SiteDefaults are the settings of the whole fleet.
type SiteDefaults struct {
	Settings  SiteSettings `json:"settings"`
	Effect    SiteEffect   `json:"effect"`
	Changed   *time.Time   `json:"changed,omitempty"`
	ChangedBy string       `json:"changed_by,omitempty"`
}

// SiteList lists sites by name.
type SiteList struct {
	Items    []Site       `json:"items"`
	Defaults SiteDefaults `json:"defaults"`
}

// SiteChange sets some settings and makes others unset.
type SiteChange struct {
	Set   SiteSettings `json:"set"`
	Unset []string     `json:"unset,omitempty" enum:"backlog_bytes_per_second,quiet,time_zone,region,class,location"`
}
