package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/edgeherd/edgeherd/controller/analytics"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// place checks a block, decodes its content and puts it on the controller's
// calendar. An error that is store.ErrNotFound means its schema is unknown.
func (in *Ingest) place(ctx context.Context, id identity.ID, b wire.Block) (store.Delivery, error) {
	if err := b.Verify(); err != nil {
		return store.Delivery{}, err
	}
	d := store.Delivery{Box: id, Block: b, StartMs: b.WallMs}
	if b.Quality != wire.TimeSynced {
		// The clock of this boot cannot be trusted: count from its HELLO.
		offset, known, err := in.opts.Store.BootOffset(ctx, id, b.Boot)
		if err != nil {
			return store.Delivery{}, err
		}
		if known {
			d.StartMs = offset + b.MonoMs
		}
	}
	if b.Kind == wire.KindSamples {
		schema, err := in.opts.Store.Schema(ctx, b.Schema)
		if err != nil {
			return store.Delivery{}, err
		}
		d.Schema = &schema
	}
	if err := decode(&d); err != nil {
		// Sealed by the box as it is: keep the bytes, say so once.
		in.fault(id, fmt.Errorf("content of block %s kept undecoded: %w", b.Key, err))
	}
	return d, nil
}

func decode(d *store.Delivery) (err error) {
	b := d.Block
	switch b.Kind {
	case wire.KindSamples:
		var s wire.Samples
		if s, err = wire.DecodeSamples(*d.Schema, b.Payload, int(b.Count)); err == nil {
			d.Samples = &s
		}
	case wire.KindEvents:
		d.Events, err = wire.DecodeEvents(b.Payload)
	case wire.KindResults:
		d.Results, err = wire.DecodeResults(b.Payload)
		for i := range d.Results {
			d.Results[i].WallMs += d.StartMs - b.WallMs
		}
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

// effects is what a newly stored block changes of its box.
func (in *Ingest) effects(d store.Delivery) (store.Effects, error) {
	var e store.Effects
	for _, ev := range d.Events {
		if err := eventEffect(&e, d, ev); err != nil {
			// A body of a newer agent: the event itself is stored all the same.
			in.fault(d.Box, fmt.Errorf("event %s: %w", ev.Type, err))
		}
	}
	if d.Samples != nil {
		e.Thermal = func(stored []byte) ([]byte, error) { return observe(stored, d) }
	}
	return e, nil
}

func eventEffect(e *store.Effects, d store.Delivery, ev wire.Event) error {
	at := d.StartMs + ev.MonoMs - d.Block.MonoMs
	switch ev.Type {
	case wire.EventModelPhase, wire.EventAgentPhase:
		var p wire.PhaseBody
		if err := json.Unmarshal(ev.Body, &p); err != nil {
			return err
		}
		kind := "model"
		if ev.Type == wire.EventAgentPhase {
			kind = "agent"
		}
		e.Phases = append(e.Phases, store.Phase{
			Box: d.Box, Kind: kind, Name: p.Name, Version: p.Version, Digest: p.Digest, Rollout: p.Rollout,
			Phase: p.Phase, Err: p.Err, Body: string(ev.Body), TimeMs: at,
		})
	case wire.EventRunning:
		var r wire.Running
		if err := json.Unmarshal(ev.Body, &r); err != nil {
			return err
		}
		e.Running = &r
	}
	return nil
}

// observe feeds the rows of a samples block to the thermal analytics.
func observe(stored []byte, d store.Delivery) ([]byte, error) {
	var s analytics.State
	if err := json.Unmarshal(stored, &s); err != nil {
		return nil, fmt.Errorf("parse thermal state: %w", err)
	}
	for row, rel := range d.Samples.TimesMs {
		values := make(map[string]float64, len(d.Samples.Schema.Metrics))
		for m, metric := range d.Samples.Schema.Metrics {
			if v := d.Samples.Values[m][row]; !math.IsNaN(v) {
				values[metric.Name] = v
			}
		}
		s, _ = analytics.Observe(s, analytics.FromMetrics(time.UnixMilli(d.StartMs+rel), values))
	}
	return json.Marshal(s)
}
