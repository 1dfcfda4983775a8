package ingest

import (
	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Waiting counts the messages that wait for a commit.
func (in *Ingest) Waiting() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue)
}

// CareEffect takes the body of one event of heat.
func CareEffect(kind string, body []byte, at int64) (store.CareEffects, error) {
	var e store.CareEffects
	err := careEffect(&e, store.Delivery{Box: "d-aaaaaaaaaaaaa"}, wire.Event{Type: kind, Body: body}, at)
	return e, err
}

// SketchOf reads one sketch.
func SketchOf(r wire.Result, shift, limit int64) (store.DriftRow, error) {
	return sketchOf(r, shift, limit)
}

// Malformed is how often a box sent what cannot be.
func (in *Ingest) Malformed(id identity.ID) (n int64) {
	for _, e := range in.opts.Faults.Pending(id) {
		if e.Cause == fault.Malformed {
			n += e.Count
		}
	}
	return n
}
