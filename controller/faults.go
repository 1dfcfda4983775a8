package controller

import (
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// askHello asks all sessions of a box for a HELLO, wherever they are.
func (c *Controller) askHello(id identity.ID) {
	hello := c.command(id, wire.Cmd{Hello: true})
	if c.node != nil {
		if err := c.node.Tell(id, wire.TopicCmd, hello); err != nil {
			c.log.Debug("other controllers not asked for a HELLO", "device", id, "err", err)
		}
	}
}

// question asks them for one that answers it: which machines answer tells whether
// there are two. Each may talk with another controller.
func (c *Controller) question(id identity.ID, q uint64) {
	asked := c.command(id, wire.Cmd{Question: q})
	if c.node != nil {
		c.node.TellAll(id, wire.TopicCmd, asked)
	}
}

// command sends to the sessions that lead here.
func (c *Controller) command(id identity.ID, cmd wire.Cmd) []byte {
	payload, err := wire.Encode(cmd)
	if err != nil {
		panic("controller: a Cmd always encodes: " + err.Error())
	}
	// One that is not heard is repeated, or the box says HELLO by itself.
	_ = c.broker.Publish(id, wire.TopicCmd, payload, 1)
	if c.remote != nil {
		_ = c.remote.Publish(id, wire.TopicCmd, payload, 1)
	}
	return payload
}
