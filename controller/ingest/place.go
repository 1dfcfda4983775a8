package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxAhead is how far a synchronised clock may be ahead of ours.
const maxAhead = 5 * time.Minute

// unset is how far behind a clock must be to be one that was never set: makers
// let them begin in 1970, 2000 or the year of the board.
const unset = 5 * 365 * 24 * time.Hour

// place decodes a verified block and puts it on the controller's calendar. An
// error that is store.ErrNotFound means that its schema is unknown.
func (m *message) place(ctx context.Context, b wire.Block) (store.Delivery, error) {
	d := store.Delivery{Box: m.id, Block: b}
	if b.Kind == wire.KindSamples {
		var err error
		if d.Schema, err = m.schema(ctx, b.Schema); err != nil {
			return store.Delivery{}, err
		}
	}
	if err := decode(&d); err != nil {
		// Sealed by the box as it is: keep the bytes, say so.
		cause := fault.Unreadable
		if b.Kind == wire.KindSamples {
			cause = fault.SchemaConflict
		}
		m.in.opts.Faults.Note(m.id, cause, 1, fmt.Errorf("content of block %s kept unread: %w", b.Key, err))
	}
	start, err := m.start(ctx, b)
	if err != nil {
		return store.Delivery{}, err
	}
	d.StartMs = start
	limit := m.now + maxAhead.Milliseconds()
	for i := range d.Results {
		d.Results[i].WallMs = min(max(0, d.Results[i].WallMs+start-b.WallMs), limit)
	}
	m.sketches(&d, limit)
	for i := range d.Events {
		d.Events[i].MonoMs = min(max(b.MonoMs, d.Events[i].MonoMs), b.MonoMs+span(b))
	}
	return d, nil
}

// start says when the first record of a block was made.
func (m *message) start(ctx context.Context, b wire.Block) (int64, error) {
	start := b.WallMs
	limit := m.now + maxAhead.Milliseconds() - span(b)
	if b.Quality == wire.TimeSynced && b.WallMs > m.now+maxAhead.Milliseconds() {
		m.in.opts.Faults.Note(m.id, fault.FromTheFuture, 1, fmt.Errorf("a clock called synchronised says %s", stamp(b.WallMs)))
	}
	if b.Quality != wire.TimeSynced || start > limit {
		// The clock of this boot cannot be trusted: count from its HELLO.
		o, err := m.offset(ctx, b.Boot)
		if err != nil {
			return 0, err
		}
		if o.known {
			start = o.ms + b.MonoMs
		}
	}
	if start > limit {
		return m.now - span(b), nil
	}
	if start < m.now-unset.Milliseconds() {
		// Where it lies it would be deleted at once, for its age.
		m.in.opts.Faults.Note(m.id, fault.Undated, 1, fmt.Errorf("a clock that was never set says %s, and no HELLO says when that was: placed at its arrival", stamp(b.WallMs)))
		return m.now - span(b), nil
	}
	return start, nil
}

// stamp shows a time that a box claims, however far away it is.
func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func span(b wire.Block) int64 { return min(b.SpanMs, store.MaxSpan.Milliseconds()) }

func decode(d *store.Delivery) (err error) {
	b := d.Block
	if b.SpanMs > store.MaxSpan.Milliseconds() {
		return fmt.Errorf("it spans %d ms", b.SpanMs)
	}
	switch b.Kind {
	case wire.KindSamples:
		var s wire.Samples
		if s, err = wire.DecodeSamples(*d.Schema, b.Payload, int(b.Count)); err != nil {
			return err
		}
		for _, t := range s.TimesMs {
			if t < 0 || t > b.SpanMs {
				return fmt.Errorf("a sample at %d ms of a span of %d ms", t, b.SpanMs)
			}
		}
		d.Samples = &s
	case wire.KindEvents:
		d.Events, err = wire.DecodeEvents(b.Payload)
	case wire.KindResults:
		d.Results, err = wire.DecodeResults(b.Payload)
	case wire.KindGap:
		var g wire.Gap
		if g, err = wire.DecodeGap(b.Payload); err == nil {
			d.Gap = &g
		}
	default:
		err = fmt.Errorf("unknown kind %d", b.Kind)
	}
	return err
}

// effects is what a newly stored block changes of its box, and what was odd
// about it.
func (in *Ingest) effects(d store.Delivery) (e store.Effects, odd error) {
	for _, ev := range d.Events {
		if err := eventEffect(&e, d, ev); err != nil {
			// A body of a newer agent: the event itself is stored all the same.
			odd = fmt.Errorf("body of event %s: %w", ev.Type, err)
		}
	}
	return e, odd
}

// maxName bounds what names a phase, in bytes. It is a key of the database, and
// PostgreSQL has none longer than 2704: one longer name would make every commit
// fail that has it.
const maxName = 256

func eventEffect(e *store.Effects, d store.Delivery, ev wire.Event) error {
	at := d.StartMs + ev.MonoMs - d.Block.MonoMs
	switch ev.Type {
	case wire.EventModelPhase, wire.EventAgentPhase, wire.EventConfigPhase:
		var p wire.PhaseBody
		if err := json.Unmarshal(ev.Body, &p); err != nil {
			return err
		}
		if n := max(len(p.Name), len(p.Version), len(p.Digest), len(p.Rollout)); n > maxName {
			return fmt.Errorf("a name of %d bytes, the limit is %d", n, maxName)
		}
		kind := "model"
		switch ev.Type {
		case wire.EventAgentPhase:
			kind = "agent"
		case wire.EventConfigPhase:
			kind = "config"
		}
		e.Phases = append(e.Phases, store.Phase{
			Box: d.Box, Kind: kind, Name: p.Name, Version: p.Version, Digest: p.Digest, Rollout: p.Rollout,
			Phase: p.Phase, Err: p.Err, Body: string(ev.Body), TimeMs: at, MonoMs: ev.MonoMs,
		})
		if p.Phase == phaseActive && kind == "model" {
			e.Care.Changes = append(e.Care.Changes, store.ChangeRow{Box: d.Box, TimeMs: at, Kind: health.Rollout, Detail: p.Name + ":" + p.Version})
		}
	case wire.EventRunning:
		var r wire.Running
		if err := json.Unmarshal(ev.Body, &r); err != nil {
			return err
		}
		e.Running, e.RunningMonoMs = &r, ev.MonoMs
	case wire.EventServing:
		var s wire.Serving
		if err := json.Unmarshal(ev.Body, &s); err != nil {
			return err
		}
		if err := s.Check(); err != nil {
			return err
		}
		e.Serving = append(e.Serving, store.ServingRow{Serving: s, TimeMs: at, MonoMs: ev.MonoMs})
	case wire.EventHours, wire.EventFinding, wire.EventReset:
		return careEffect(&e.Care, d, ev, at)
	}
	return nil
}
