package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

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
		if len(r.Cause) > maxName || len(r.Evidence) > maxFindingEvidence {
			return errors.New("a reset with a long cause or too much evidence")
		}
		e.Resets = append(e.Resets, store.ResetRow{Box: d.Box, TimeMs: at, Cause: r.Cause, Body: ev.Body})
	}
	return nil
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
	if f.Family == "" || f.Opened <= 0 || max(len(f.Family), len(f.Cause), len(f.ClosedBy)) > maxName || len(f.Evidence) > maxFindingEvidence {
		return errors.New("a finding without a family or a time, or too long")
	}
	for i := range f.Evidence {
		if t := f.Evidence[i].Text; len(t) > maxFindingText {
			f.Evidence[i].Text = t[:maxFindingText]
		}
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
