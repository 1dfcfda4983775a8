package site

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func ptr[T any](v T) *T { return &v }

func effect(zone string, quiet ...string) fleetapi.SiteEffect {
	return fleetapi.SiteEffect{TimeZone: zone, Quiet: quiet}
}

// at reads a moment with its offset.
func at(t *testing.T, text string) time.Time {
	t.Helper()
	m, err := time.Parse("2006-01-02 15:04 -07", text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestQuietTimesFollowTheClockOnTheWall. In Berlin the clock went from 02:00
// to 03:00 on 2026-03-29 and from 03:00 to 02:00 on 2026-10-25.
func TestQuietTimesFollowTheClockOnTheWall(t *testing.T) {
	for _, c := range []struct {
		name, zone string
		quiet      []string
		now        string
		hours      int
		want       []string // start and length
	}{
		{"office hours", "Europe/Berlin", []string{"08:00-18:00 mon-fri"}, "2026-03-05 07:00 +01", 48, []string{"2026-03-05 08:00 +01 10h", "2026-03-06 08:00 +01 10h"}},
		{"no office on Saturday", "Europe/Berlin", []string{"08:00-18:00 mon-fri"}, "2026-03-06 19:00 +01", 48, nil},
		{"now inside", "Europe/Berlin", []string{"08:00-18:00 mon-fri"}, "2026-03-06 12:00 +01", 48, []string{"2026-03-06 12:00 +01 6h"}},
		{"cut at the end", "UTC", []string{"08:00-18:00"}, "2026-03-06 07:00 +00", 4, []string{"2026-03-06 08:00 +00 3h"}},
		{"across midnight", "UTC", []string{"22:00-06:00"}, "2026-03-06 12:00 +00", 48, []string{"2026-03-06 22:00 +00 8h", "2026-03-07 22:00 +00 8h"}},
		{"after midnight, begun yesterday", "UTC", []string{"22:00-06:00 fri"}, "2026-03-07 01:00 +00", 48, []string{"2026-03-07 01:00 +00 5h"}},
		{"the night of Friday is not that of Saturday", "UTC", []string{"22:00-06:00 fri"}, "2026-03-07 12:00 +00", 48, nil},
		{"whole days touch", "UTC", []string{"00:00-24:00"}, "2026-03-07 12:00 +00", 48, []string{"2026-03-07 12:00 +00 48h"}},
		{"overlaps are one", "UTC", []string{"08:00-12:00", "11:00-14:00", "14:00-15:00"}, "2026-03-07 00:00 +00", 24, []string{"2026-03-07 08:00 +00 7h"}},
		{"a week that wraps", "UTC", []string{"10:00-11:00 sat-mon"}, "2026-03-07 00:00 +00", 48, []string{"2026-03-07 10:00 +00 1h", "2026-03-08 10:00 +00 1h"}},
		{"a list of days", "UTC", []string{"10:00-11:00 fri,sun-mon"}, "2026-03-07 00:00 +00", 48, []string{"2026-03-08 10:00 +00 1h"}},
		{"the short night", "Europe/Berlin", []string{"22:00-06:00"}, "2026-03-28 12:00 +01", 24, []string{"2026-03-28 22:00 +01 7h"}},
		{"the long night", "Europe/Berlin", []string{"22:00-06:00"}, "2026-10-24 12:00 +02", 24, []string{"2026-10-24 22:00 +02 9h"}},
		{"the office on the day of the jump", "Europe/Berlin", []string{"08:00-18:00"}, "2026-03-28 20:00 +01", 24, []string{"2026-03-29 08:00 +02 10h"}},
		{"an hour that is skipped", "Europe/Berlin", []string{"02:15-02:45"}, "2026-03-28 12:00 +01", 24, nil},
		{"begins in the skipped hour", "Europe/Berlin", []string{"02:30-04:00"}, "2026-03-28 12:00 +01", 24, []string{"2026-03-29 03:00 +02 1h"}},
		{"ends in the skipped hour", "Europe/Berlin", []string{"01:00-02:30"}, "2026-03-28 12:00 +01", 24, []string{"2026-03-29 01:00 +01 1h"}},
		{"an hour that comes twice", "Europe/Berlin", []string{"02:00-03:00"}, "2026-10-24 12:00 +02", 24, []string{"2026-10-25 02:00 +02 2h"}},
		{"a half hour off", "Australia/Lord_Howe", []string{"01:30-02:30"}, "2026-04-04 12:00 +11", 24, []string{"2026-04-05 01:30 +11 1h30m"}},
		{"a day that was left out", "Pacific/Apia", []string{"08:00-09:00 fri"}, "2011-12-29 12:00 -10", 36, nil},
		{"another zone", "Asia/Shanghai", []string{"08:00-09:00"}, "2026-03-06 23:00 +00", 24, []string{"2026-03-07 08:00 +08 1h"}},
	} {
		got, err := Spans(effect(c.zone, c.quiet...), at(t, c.now), time.Duration(c.hours)*time.Hour)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var words []string
		for i, s := range got {
			var w string
			if i < len(c.want) {
				w = c.want[i]
			}
			offset := strings.Fields(w + " x +00")[2]
			zoned, err := time.Parse("-07", offset)
			if err != nil {
				zoned = time.Time{}
			}
			length := strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(s.End.Sub(s.Start).String())
			words = append(words, s.Start.In(zoned.Location()).Format("2006-01-02 15:04 -07")+" "+length)
		}
		if fmt.Sprint(words) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.name, words, c.want)
		}
	}
}

// TestSpansAgreeWithTheClock compares with the plain question, minute by
// minute: does the clock of the zone show a time inside of a window?
func TestSpansAgreeWithTheClock(t *testing.T) {
	seed := assets.Seed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	jumps := []time.Time{at(t, "2026-03-29 01:00 +00"), at(t, "2026-10-25 01:00 +00"), at(t, "2026-04-04 15:00 +00"), at(t, "2026-07-01 00:00 +00")}
	for range 200 {
		zone := []string{"Europe/Berlin", "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"}[r.IntN(5)]
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		var quiet []string
		for range 1 + r.IntN(3) {
			from, to := r.IntN(24*60), r.IntN(24*60)
			if from == to {
				continue
			}
			quiet = append(quiet, fmt.Sprintf("%02d:%02d-%02d:%02d %s-%s", from/60, from%60, to/60, to%60, days[r.IntN(7)], days[r.IntN(7)]))
		}
		now := jumps[r.IntN(len(jumps))].Add(-time.Duration(r.IntN(48*60)) * time.Minute)
		spans, err := Spans(effect(zone, quiet...), now, Horizon)
		if err != nil {
			t.Fatal(err)
		}
		for m := range int(Horizon / time.Minute) {
			moment := now.Add(time.Duration(m) * time.Minute)
			if got, want := inside(spans, moment), shown(t, quiet, moment.In(loc)); got != want {
				t.Fatalf("%s %v at %s: quiet %v, the clock says %v (seed %d)", zone, quiet, moment.In(loc), got, want, seed)
			}
		}
	}
}

func inside(spans []Span, m time.Time) bool {
	for _, s := range spans {
		if !m.Before(s.Start) && m.Before(s.End) {
			return true
		}
	}
	return false
}

// shown asks the clock. A window whose end comes twice lasts to the second,
// and one whose start comes twice from the first: on the day of such a jump
// the hour that repeats is quiet as a whole once its window touches it.
func shown(t *testing.T, quiet []string, m time.Time) bool {
	for _, text := range quiet {
		w, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		clock := time.Duration(m.Hour())*time.Hour + time.Duration(m.Minute())*time.Minute
		for _, begun := range []time.Duration{0, day} {
			on := w.on[(int(m.Weekday())+7-int(begun/day))%7]
			if on && w.from <= clock+begun && clock+begun < w.to {
				return true
			}
			// The hour that comes twice, around its seam.
			if _, was := m.Add(-2 * time.Hour).Zone(); on && was != offset(m) || on && offset(m.Add(2*time.Hour)) != offset(m) {
				first, _ := onClock(date(m, begun).Add(w.from), m.Location())
				_, last := onClock(date(m, begun).Add(w.to), m.Location())
				if !m.Before(first) && m.Before(last) {
					return true
				}
			}
		}
	}
	return false
}

func offset(m time.Time) int {
	_, o := m.Zone()
	return o
}

func date(m time.Time, back time.Duration) time.Time {
	y, mo, d := m.Date()
	return time.Date(y, mo, d, 0, 0, 0, 0, time.UTC).Add(-back)
}

func TestFaultsNameTheSetting(t *testing.T) {
	for _, c := range []struct {
		s    fleetapi.SiteSettings
		want string
	}{
		{fleetapi.SiteSettings{}, ""},
		{fleetapi.SiteSettings{BacklogBytesPerSecond: ptr(int64(0)), Quiet: &[]string{"08:00-18:00 MON-Fri", " 22:00-06:00 "}, TimeZone: ptr("Europe/Berlin")}, ""},
		{fleetapi.SiteSettings{BacklogBytesPerSecond: ptr(int64(-1))}, "backlog_bytes_per_second is -1"},
		{fleetapi.SiteSettings{TimeZone: ptr("Europe/Berln")}, `time_zone "Europe/Berln" is not an IANA time zone`},
		{fleetapi.SiteSettings{TimeZone: ptr("Local")}, `time_zone "Local"`},
		{fleetapi.SiteSettings{TimeZone: ptr("")}, `time_zone ""`},
		{fleetapi.SiteSettings{TimeZone: ptr("../../etc/passwd")}, "time_zone"},
		{fleetapi.SiteSettings{Quiet: &[]string{"8-18"}}, `quiet "8-18": "8" is not a time of day`},
		{fleetapi.SiteSettings{Quiet: &[]string{"08:00"}}, "the time has no end"},
		{fleetapi.SiteSettings{Quiet: &[]string{"08:00-08:00"}}, "it is empty; the whole day is 00:00-24:00"},
		{fleetapi.SiteSettings{Quiet: &[]string{"24:00-08:00"}}, `"24:00" is not a time of day`},
		{fleetapi.SiteSettings{Quiet: &[]string{"08:00-24:01"}}, `"24:01" is not a time of day`},
		{fleetapi.SiteSettings{Quiet: &[]string{"08:60-09:00"}}, "not a time of day"},
		{fleetapi.SiteSettings{Quiet: &[]string{"+8:00-09:00"}}, "not a time of day"},
		{fleetapi.SiteSettings{Quiet: &[]string{"08:00-18:00 monday"}}, `"monday" is not a day`},
		{fleetapi.SiteSettings{Quiet: &[]string{"08:00-18:00 mon -fri"}}, "want a time and days"},
		{fleetapi.SiteSettings{Quiet: &[]string{""}}, "want a time and days"},
		{fleetapi.SiteSettings{Location: ptr("52.52, 13.40")}, ""},
		{fleetapi.SiteSettings{Location: ptr("Berlin")}, `location "Berlin": want latitude and longitude`},
		{fleetapi.SiteSettings{Location: ptr("91,0")}, "want latitude and longitude"},
		{fleetapi.SiteSettings{Location: ptr("NaN,0")}, "want latitude and longitude"},
		{fleetapi.SiteSettings{Quiet: ptr(make([]string, 17))}, "quiet has 17 times, at most 16"},
	} {
		err := Check(c.s)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
}

// TestASiteOverridesDefaultsOneByOne, also with nothing.
func TestASiteOverridesDefaultsOneByOne(t *testing.T) {
	defaults := fleetapi.SiteSettings{BacklogBytesPerSecond: ptr(int64(1000)), Quiet: &[]string{"08:00-18:00"}, TimeZone: ptr("Europe/Berlin"), Region: ptr("north"), Class: ptr("retail")}
	for _, c := range []struct {
		own  fleetapi.SiteSettings
		want string
	}{
		{fleetapi.SiteSettings{}, "{1000 [08:00-18:00] Europe/Berlin north retail }"},
		{fleetapi.SiteSettings{BacklogBytesPerSecond: ptr(int64(0))}, "{0 [08:00-18:00] Europe/Berlin north retail }"},
		{fleetapi.SiteSettings{Quiet: &[]string{}, TimeZone: ptr("UTC")}, "{1000 [] UTC north retail }"},
		{fleetapi.SiteSettings{Region: ptr(""), Location: ptr("52.5,13.4")}, "{1000 [08:00-18:00] Europe/Berlin  retail 52.5,13.4}"},
	} {
		if got := fmt.Sprint(Effect(c.own, defaults)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.own, got, c.want)
		}
	}
	if got := fmt.Sprint(Effect(fleetapi.SiteSettings{}, fleetapi.SiteSettings{})); got != "{0 [] UTC   }" {
		t.Errorf("nothing set: %s", got)
	}
}

func TestSharesNeverExceedTheSite(t *testing.T) {
	for _, c := range []struct {
		rate      int64
		connected int
		want      int64
	}{{0, 5, 0}, {1000, 0, 1000}, {1000, 1, 1000}, {1000, 3, 333}, {2, 5, 1}} {
		if got := Share(c.rate, c.connected); got != c.want {
			t.Errorf("%d over %d: %d, want %d", c.rate, c.connected, got, c.want)
		}
	}
}

func FuzzQuiet(f *testing.F) {
	for _, s := range []string{"08:00-18:00 mon-fri", "22:00-06:00", "00:00-24:00 sat,sun", "", "x", "08:00-18:00 mon-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parse(text)
		if err != nil {
			if w != (window{}) {
				t.Errorf("%q: an error and a value", text)
			}
			return
		}
		if w.from < 0 || w.from >= day || w.to <= w.from || w.to > w.from+day {
			t.Errorf("%q: %+v", text, w)
		}
		again, err := parse((*Tidy(fleetapi.SiteSettings{Quiet: &[]string{text}}).Quiet)[0])
		if err != nil || again != w {
			t.Errorf("%q changed when tidied: %+v, %v", text, again, err)
		}
	})
}
