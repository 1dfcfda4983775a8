package broker

import (
	"maps"
	"net"
	"slices"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Boxes returns the boxes that are connected.
func (b *Broker) Boxes() []identity.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.boxes))
}

// AddressOf returns from where a process of a box is connected, "" when it is not
// connected here.
func (b *Broker) AddressOf(id identity.ID, sid wire.SID) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sessions[wire.ClientID(id, sid)]
	if s == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(s.conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}
