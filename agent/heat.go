package agent

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/condition"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// HealthPath is where an agent on a state directory keeps the box's heat.
func HealthPath(state string) string { return filepath.Join(state, "health.json") }

// healthCursor is the key in the spool under which the last batch of hours and
// findings is named; see agent/condition.
const healthCursor = "health"

// skuOf names what boxes of one make share.
func skuOf(b sense.Board) string { return strings.TrimSpace(b.Vendor + " " + b.Product) }

func (a *Agent) openCondition() {
	a.condition = condition.Open(condition.Options{
		Path: HealthPath(a.opts.State), Box: a.id.Name, Site: a.id.Site,
		SKU: skuOf(a.sampler.Board()), Boot: a.clock.boot.String(),
		Floor:   a.id.Certificate.Leaf.NotBefore,
		Deliver: func(cursor []byte, events []wire.Event) error { return a.appendEvents(healthCursor, cursor, events) },
		Cursor:  func() ([]byte, error) { return a.spool.Cursor(healthCursor) },
	}, a.log)
}

// maxDraftBytes of bodies go into one block of events; its limit is 80 KiB.
const maxDraftBytes = 48 << 10

// appendEvents stores events and a cursor in one transaction.
func (a *Agent) appendEvents(name string, cursor []byte, events []wire.Event) error {
	now := a.clock.triple()
	var drafts []spool.Draft
	for len(events) > 0 {
		n, size := 0, 0
		for n < len(events) && (n == 0 || size+len(events[n].Body) <= maxDraftBytes) {
			size += len(events[n].Body)
			n++
		}
		payload, err := wire.EncodeEvents(events[:n])
		if err != nil && n > 1 { // one is wrong: find it
			n = 1
			payload, err = wire.EncodeEvents(events[:n])
		}
		if err != nil {
			// What will never fit would be in the way of all later hours.
			a.log.Error("event dropped", "type", events[0].Type, "err", err)
			events = events[1:]
			continue
		}
		drafts = append(drafts, spool.Draft{
			Lane: wire.LaneEvents, Kind: wire.KindEvents, MonoMs: now.MonoMs, WallMs: now.WallMs,
			Quality: now.Quality, Count: uint32(n), Payload: payload,
		})
		events = events[n:]
	}
	_, err := a.spool.AppendWithCursor(name, cursor, drafts...)
	return a.disk.note(err)
}

// moment reads both clocks for package condition.
func (a *Agent) moment() condition.Moment {
	now := a.clock.triple()
	return condition.Moment{
		Mono: time.Duration(now.MonoMs) * time.Millisecond, Wall: time.UnixMilli(now.WallMs), Synced: now.Quality == wire.TimeSynced,
	}
}

// judgeHeat takes readings into the hour and judges the ones that are over.
func (a *Agent) judgeHeat(readings []sense.Reading) {
	if len(readings) == 0 {
		return
	}
	r := condition.Reading{At: a.moment(), V: a.sampler.Figures(readings), Facts: a.facts()}
	r.TripC, _ = a.sampler.DieLimitCelsius()
	if err := a.condition.Observe(r); err != nil {
		a.log.Debug("hours of heat wait for the disk", "err", err)
	}
}

// facts are what may move the box's heat without anything being wrong.
func (a *Agent) facts() condition.Facts {
	var f condition.Facts
	var modes []string
	for _, part := range a.setup.parts(a.sampler) {
		if bios, ok := strings.CutPrefix(part, "BIOS "); ok {
			f.BIOS = bios
		} else {
			modes = append(modes, part)
		}
	}
	if a.fan != nil {
		modes = append(modes, "fan raised by policy")
	}
	f.PowerMode = strings.Join(modes, ", ")
	if a.runner.known() {
		var serving []string
		for _, ref := range a.activate.Running() {
			serving = append(serving, ref.Name+":"+ref.Version)
		}
		slices.Sort(serving)
		// Facts say "" of what is unknown; that nothing serves is known.
		f.Models = "serves " + strings.Join(serving, ", ")
	}
	return f
}

// setupEvery is how often the set-up is read: it changes by a person's hand.
const setupEvery = 5 * time.Minute

// setup remembers how the box was set up when it was last looked at.
type setup struct {
	read time.Time
	last []string
}

func (s *setup) parts(from *sense.Sampler) []string {
	if s.read.IsZero() || time.Since(s.read) >= setupEvery {
		s.read = time.Now()
		s.last = nil
		if text := from.Setup(); text != "" {
			s.last = strings.Split(text, ", ")
		}
	}
	return s.last
}
