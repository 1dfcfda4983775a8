package ingest

import (
	"github.com/edgeherd/edgeherd/controller/store"
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
