package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// phaseActive is the phase in which a new version serves; its load may be
// another one.
const phaseActive = "active"

// What boxes may say of their heat; it is kept by name, and shown to people.
const (
	maxFindingEvidence = 20
	maxFindingText     = 500
	maxWord            = 63
	// lastMs is the end of the year 9999 and lastDay its day: JSON has no later
	// time, and one such row would make every list with it fail.
	lastMs  = 253402300799000
	lastDay = lastMs / 86400000
	// yearDays is the longest forecast: not within a year.
	yearDays = 365
)

// careEffect takes what an event tells of the heat of its box, at a time on
// the controller's calendar.
func careEffect(e *store.CareEffects, d store.Delivery, ev wire.Event, at int64) error {
	switch ev.Type {
	case wire.EventHours:
		return hoursEffect(e, ev, at)
	case wire.EventFinding:
		return findingEffect(e, d, ev, at)
	case wire.EventReset:
		var r wire.ResetBody
		if err := json.Unmarshal(ev.Body, &r); err != nil {
			return err
		}
		if !word(r.Cause) || len(r.Evidence) > maxFindingEvidence {
			return errors.New("a reset whose cause is no word, or with too much evidence")
		}
		for i := range r.Evidence {
			p := &r.Evidence[i]
			p.Text = sentence(p.Text)
			p.Code, p.Args = sayable(p.Code, p.Args)
		}
		r.Confidence = min(max(r.Confidence, 0), 1)
		if r.AtMs < 0 || r.AtMs > lastMs {
			r.AtMs = 0
		}
		body, err := json.Marshal(r)
		if err != nil {
			return err
		}
		e.Resets = append(e.Resets, store.ResetRow{Box: d.Box, TimeMs: at, Cause: r.Cause, Body: body})
	}
	return nil
}

// word reports whether a name is one of lower-case letters, digits and hyphens,
// as all families and causes are: names go unquoted into pages, files, chats
// and terminals.
func word(s string) bool {
	return s != "" && len(s) <= maxWord && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// sentence makes text of a box one line that can be shown anywhere.
func sentence(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxFindingText {
		s = strings.ToValidUTF8(s[:maxFindingText], "") + "…"
	}
	return s
}

// maxArgs of a sentence; those of ours have six.
const maxArgs = 12

// sayable is the code of a sentence with its arguments; one that is no code of
// ours is left out, and the English sentence stands for it.
func sayable(code string, args []string) (string, []string) {
	if !word(code) || len(args) > maxArgs {
		return "", nil
	}
	for i := range args {
		args[i] = sentence(args[i])
	}
	return code, args
}

// hoursEffect takes closed hours. One that does not decode does not keep the
// others away; one of a time to come would stop all judgement until then.
func hoursEffect(e *store.CareEffects, ev wire.Event, at int64) error {
	var body wire.HoursBody
	if err := json.Unmarshal(ev.Body, &body); err != nil {
		return err
	}
	if len(body.Hours) > wire.MaxEventHours {
		return fmt.Errorf("%d hours, the limit is %d", len(body.Hours), wire.MaxEventHours)
	}
	var errs []error
	for _, text := range body.Hours {
		var h health.Hour
		if err := h.UnmarshalText([]byte(text)); err != nil {
			errs = append(errs, err)
			continue
		}
		if ms := h.Start * 1000; ms > at+maxAhead.Milliseconds() {
			errs = append(errs, fmt.Errorf("hour: it begins at %s, after it was sent", stamp(ms)))
			continue
		}
		raw, err := h.AppendBinary(nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		e.Hours = append(e.Hours, store.HourRow{HourMs: h.Start * 1000, Samples: int(h.Samples), Body: raw})
	}
	return errors.Join(errs...)
}

// findingEffect takes a finding. What a box calls itself in it does not count.
func findingEffect(e *store.CareEffects, d store.Delivery, ev wire.Event, at int64) error {
	var f health.Finding
	if err := json.Unmarshal(ev.Body, &f); err != nil {
		return err
	}
	if !word(f.Family) || !word(string(f.Cause)) || f.Opened <= 0 || len(f.Evidence) > maxFindingEvidence {
		return errors.New("a finding whose family or cause is no word, without a time, or with too much evidence")
	}
	for i := range f.Evidence {
		e := &f.Evidence[i]
		e.Name, e.Text = sentence(e.Name), sentence(e.Text)
		e.Code, e.Args = sayable(e.Code, e.Args)
	}
	f.ClosedBy = sentence(f.ClosedBy)
	f.Confidence = min(max(f.Confidence, 0), 1)
	if !likely(f.Forecast) {
		f.Forecast = nil
	}
	if !likely(f.AtTicket) {
		f.AtTicket = nil
	}
	f.Box, f.Site = string(d.Box), ""
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	row := store.FindingRow{Box: d.Box, Family: f.Family, OpenedMs: int64(f.Opened) * 1000, TimeMs: at, Body: body}
	if f.Closed != 0 {
		row.ClosedMs = int64(f.Closed) * 1000
		if f.Closed < 0 || time.UnixMilli(row.ClosedMs).Before(time.UnixMilli(row.OpenedMs)) {
			row.ClosedMs = row.OpenedMs // a clock was set back
		}
	}
	e.Findings = append(e.Findings, row)
	return nil
}

// likely reports whether a forecast can be one.
func likely(f *health.Forecast) bool {
	return f == nil || f.Day >= 0 && f.Day <= lastDay && 0 <= f.Low && f.Low <= f.Mid && f.Mid <= f.High && f.High <= yearDays && math.Abs(f.TripC) <= 1000
}
