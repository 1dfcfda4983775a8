// Package site decides how the boxes of one site use its line: how fast what
// has waited may go up, and when nothing but events and alarms may.
//
// Vocabulary: settings are what people set, for a site or as defaults for all;
// the effect is what holds after defaults; a window is a quiet time as text
// ("22:00-06:00 mon-fri"), a span is one on the calendar. All here is pure.
//
// A window holds by the clock on the wall of the site. One that ends at or
// before its start reaches into the next day; its days are those of its start.
// Where the clock jumps, quiet is what the clock shows inside of the window: a
// part that is skipped is no time at all, one that comes twice counts twice.
//
// The one rule a caller can break: Check settings before they are stored; what
// is stored may still become unreadable when a time zone is given up.
package site

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // servers without zone files know all zones

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// MaxWindows bounds the quiet times of a site: so many, three days of them,
// fit into a WELCOME.
const MaxWindows = 16

// Horizon is how far ahead a box is told of quiet times. It says HELLO each
// hour, so it never comes near the end.
const Horizon = 48 * time.Hour

const day = 24 * time.Hour

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // as time.Weekday counts

// window is a parsed quiet time.
type window struct {
	from, to time.Duration // on the clock; to may be a day later
	on       [7]bool       // days on which it starts
}

// Span is a quiet time on the calendar.
type Span struct{ Start, End time.Time }

// Check says which setting is wrong, and how it is written.
func Check(s fleetapi.SiteSettings) error {
	var errs []error
	if s.BacklogBytesPerSecond != nil && *s.BacklogBytesPerSecond < 0 {
		errs = append(errs, fmt.Errorf("backlog_bytes_per_second is %d: want 0 for no bound, or more", *s.BacklogBytesPerSecond))
	}
	if s.TimeZone != nil {
		if _, err := zone(*s.TimeZone); err != nil {
			errs = append(errs, err)
		}
	}
	if s.Location != nil {
		if _, _, err := Degrees(*s.Location); err != nil {
			errs = append(errs, err)
		}
	}
	if s.Quiet != nil {
		if len(*s.Quiet) > MaxWindows {
			errs = append(errs, fmt.Errorf("quiet has %d times, at most %d", len(*s.Quiet), MaxWindows))
		}
		for _, text := range *s.Quiet {
			if _, err := parse(text); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Tidy writes windows in one way: lower case, one blank.
func Tidy(s fleetapi.SiteSettings) fleetapi.SiteSettings {
	if s.Quiet != nil {
		texts := []string{}
		for _, text := range *s.Quiet {
			texts = append(texts, strings.Join(strings.Fields(strings.ToLower(text)), " "))
		}
		s.Quiet = &texts
	}
	return s
}

// Effect is what holds for a site with its own settings and the defaults.
func Effect(own, defaults fleetapi.SiteSettings) fleetapi.SiteEffect {
	e := fleetapi.SiteEffect{Quiet: []string{}, TimeZone: "UTC"}
	if v := cmp.Or(own.BacklogBytesPerSecond, defaults.BacklogBytesPerSecond); v != nil {
		e.BacklogBytesPerSecond = *v
	}
	if v := cmp.Or(own.Quiet, defaults.Quiet); v != nil {
		e.Quiet = append(e.Quiet, *v...)
	}
	if v := cmp.Or(own.TimeZone, defaults.TimeZone); v != nil {
		e.TimeZone = *v
	}
	for _, t := range []struct {
		own, all *string
		into     *string
	}{{own.Region, defaults.Region, &e.Region}, {own.Class, defaults.Class, &e.Class}, {own.Location, defaults.Location, &e.Location}} {
		if v := cmp.Or(t.own, t.all); v != nil {
			*t.into = *v
		}
	}
	return e
}

// Degrees reads a location.
func Degrees(location string) (lat, lon float64, err error) {
	a, b, ok := strings.Cut(location, ",")
	lat, err1 := strconv.ParseFloat(strings.TrimSpace(a), 64)
	lon, err2 := strconv.ParseFloat(strings.TrimSpace(b), 64)
	if !ok || err1 != nil || err2 != nil || !(lat >= -90 && lat <= 90) || !(lon >= -180 && lon <= 180) {
		return 0, 0, fmt.Errorf("location %q: want latitude and longitude in degrees, such as 52.52,13.40", location)
	}
	return lat, lon, nil
}

// Share is the part of a site's rate that one of its connected boxes gets. All
// get the same, whatever waits on them; 0 stays no bound.
func Share(rate int64, connected int) int64 {
	if rate <= 0 {
		return 0
	}
	return max(rate/int64(max(connected, 1)), 1)
}

// AfterQuiet is the end of the quiet time that holds now, or now.
func AfterQuiet(quiet []string, zone string, now time.Time) time.Time {
	if len(quiet) == 0 {
		return now
	}
	spans, err := Spans(fleetapi.SiteEffect{Quiet: quiet, TimeZone: zone}, now, Horizon)
	if err != nil || len(spans) == 0 || spans[0].Start.After(now) {
		return now // a zone that was given up must not hold up a notice
	}
	return spans[0].End
}

// Spans are the quiet times from now on, for so long: in order, apart from
// each other, the first cut at now.
func Spans(e fleetapi.SiteEffect, now time.Time, length time.Duration) ([]Span, error) {
	loc, err := zone(e.TimeZone)
	if err != nil {
		return nil, err
	}
	end := now.Add(length)
	var all []Span
	for _, text := range e.Quiet {
		w, err := parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, w.spans(now, end, loc)...)
	}
	return join(all), nil
}

// spans are those of one window that touch now to end.
func (w window) spans(now, end time.Time, loc *time.Location) (out []Span) {
	y, m, d := now.In(loc).Date()
	// From the day before yesterday: a window reaches into the next day, and
	// zones have left out whole days.
	for i := -2; ; i++ {
		date := time.Date(y, m, d+i, 0, 0, 0, 0, time.UTC) // a date, not a moment
		if date.Add(-day).After(end) {
			return out
		}
		if !w.on[date.Weekday()] {
			continue
		}
		first, _ := onClock(date.Add(w.from), loc)
		_, last := onClock(date.Add(w.to), loc)
		s := Span{later(first, now), earlier(last, end)}
		if s.Start.Before(s.End) {
			out = append(out, s)
		}
	}
}

// onClock returns the first and the last moment at which the clock of loc
// shows what clock has as UTC. A time that the clock skips is the moment of
// the jump.
func onClock(clock time.Time, loc *time.Location) (first, last time.Time) {
	// A zone jumps at most once in two days; the offsets around tell how.
	_, before := clock.Add(-26 * time.Hour).In(loc).Zone()
	_, after := clock.Add(26 * time.Hour).In(loc).Zone()
	a := clock.Add(-time.Duration(before) * time.Second)
	b := clock.Add(-time.Duration(after) * time.Second)
	shows := func(t time.Time) bool {
		_, offset := t.In(loc).Zone()
		return t.Add(time.Duration(offset) * time.Second).Equal(clock)
	}
	switch {
	case shows(a) && shows(b):
		return earlier(a, b), later(a, b)
	case shows(a):
		return a, a
	case shows(b):
		return b, b
	}
	jump, _ := later(a, b).In(loc).ZoneBounds()
	return jump, jump
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// join makes spans that touch into one.
func join(all []Span) (out []Span) {
	slices.SortFunc(all, func(a, b Span) int { return a.Start.Compare(b.Start) })
	for _, s := range all {
		if n := len(out); n > 0 && !s.Start.After(out[n-1].End) {
			out[n-1].End = later(out[n-1].End, s.End)
			continue
		}
		out = append(out, s)
	}
	return out
}

func zone(name string) (*time.Location, error) {
	loc, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("time_zone %q is not an IANA time zone, such as Europe/Berlin or UTC", name)
	}
	return loc, nil
}

// parse reads "HH:MM-HH:MM [DAYS]"; days are "mon", "mon-fri" or a list of
// both with commas, and every day when they are left out.
func parse(text string) (window, error) {
	var w window
	fault := func(why string) (window, error) {
		return window{}, fmt.Errorf("quiet %q: %s; write it as 08:00-18:00 mon-fri, or 22:00-06:00 for every night", text, why)
	}
	words := strings.Fields(strings.ToLower(text))
	if len(words) == 0 || len(words) > 2 {
		return fault("want a time and days")
	}
	from, to, ok := strings.Cut(words[0], "-")
	if !ok {
		return fault("the time has no end")
	}
	for _, end := range []struct {
		text string
		into *time.Duration
		most time.Duration
	}{{from, &w.from, day - time.Minute}, {to, &w.to, day}} {
		at, ok := timeOfDay(end.text)
		if !ok || at > end.most {
			return fault(strconv.Quote(end.text) + " is not a time of day")
		}
		*end.into = at
	}
	if w.from == w.to {
		return fault("it is empty; the whole day is 00:00-24:00")
	}
	if w.to < w.from {
		w.to += day
	}
	if len(words) == 1 {
		words = append(words, "sun-sat")
	}
	for part := range strings.SplitSeq(words[1], ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(days, first), slices.Index(days, last)
		if a < 0 || b < 0 {
			return fault(strconv.Quote(part) + " is not a day; days are mon tue wed thu fri sat sun")
		}
		for d := a; ; d = (d + 1) % 7 {
			w.on[d] = true
			if d == b {
				break
			}
		}
	}
	return w, nil
}

// timeOfDay reads HH:MM, up to 24:00.
func timeOfDay(text string) (time.Duration, bool) {
	if len(text) != 5 || text[2] != ':' {
		return 0, false
	}
	h, err1 := strconv.ParseUint(text[:2], 10, 8)
	m, err2 := strconv.ParseUint(text[3:], 10, 8)
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	return at, err1 == nil && err2 == nil && m < 60 && at <= day
}
