package controller

import (
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// askHello asks all sessions of a box for a HELLO, wherever they are: which of
// two machines answers tells whether there are two.
func (c *Controller) askHello(id identity.ID) {
	hello, err := wire.Encode(wire.Cmd{Hello: true})
	if err != nil {
		panic("controller: a Cmd always encodes: " + err.Error())
	}
	// One that is not heard is repeated, or the box says HELLO by itself.
	_ = c.broker.Publish(id, wire.TopicCmd, hello, 1)
	if c.remote != nil {
		_ = c.remote.Publish(id, wire.TopicCmd, hello, 1)
	}
	if c.node != nil {
		if err := c.node.Tell(id, wire.TopicCmd, hello); err != nil {
			c.log.Debug("other controllers not asked for a HELLO", "device", id, "err", err)
		}
	}
}
