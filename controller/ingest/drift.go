package ingest

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxSketchAge is how long before its result an hour of a sketch may have
// begun: the clock of a box that lost its time says something else.
const maxSketchAge = 25 * time.Hour

// sketches takes drift sketches out of the results of d: people look at results,
// and a sketch says nothing to them. One that cannot be does not keep the other
// results away.
func (m *message) sketches(d *store.Delivery, limit int64) {
	var results []wire.Result
	for _, r := range d.Results {
		if r.Pipeline != drift.Pipeline {
			results = append(results, r)
			continue
		}
		row, err := sketchOf(r, d.StartMs-d.Block.WallMs, limit)
		if err != nil {
			m.in.opts.Faults.Note(m.id, fault.Malformed, 1, fmt.Errorf("drift sketch left out: %w", err))
			continue
		}
		d.Drift = append(d.Drift, row)
	}
	d.Results = results
}

// sketchOf reads the sketch in a result that is on the controller's calendar,
// which is shift ahead of the box's.
func sketchOf(r wire.Result, shift, limit int64) (store.DriftRow, error) {
	if len(r.Models) != 1 {
		return store.DriftRow{}, fmt.Errorf("it is of %d models", len(r.Models))
	}
	model, version, _ := strings.Cut(r.Models[0], ":")
	for _, name := range []string{model, version, r.Input} {
		if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
			return store.DriftRow{}, errors.New("its input, model or version has no name, or a long one")
		}
	}
	hour, err := time.Parse(drift.HourLayout, r.Item)
	if err != nil {
		return store.DriftRow{}, errors.New("its item is no hour")
	}
	sk, err := drift.Parse(r.Text)
	if err == nil {
		err = sk.Check()
	}
	if err != nil {
		return store.DriftRow{}, err
	}
	// The middle of the hour decides in which hour of our calendar it is.
	at := hour.Add(30*time.Minute).UnixMilli() + shift
	if age := r.WallMs - at; age < -time.Hour.Milliseconds() || age > maxSketchAge.Milliseconds() {
		at = r.WallMs
	}
	at = max(0, min(at, limit))
	return store.DriftRow{Model: model, Version: version, Input: r.Input, HourMs: at - at%time.Hour.Milliseconds(), Sketch: sk}, nil
}

// tooMany counts sketches that were well formed and had no room.
func (in *Ingest) tooMany(c store.Committed) {
	for id, n := range c.NoRoom {
		in.opts.Faults.Note(id, fault.Malformed, int64(n), errors.New("drift sketches of more inputs and models, or of more items, than an hour has"))
	}
}
