package broker

import (
	"maps"
	"slices"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Boxes returns the boxes that are connected.
func (b *Broker) Boxes() []identity.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.boxes))
}
