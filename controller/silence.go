package controller

import (
	"context"
	"errors"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// askPause spreads the HELLOs of boxes that all fell silent at once, such as at
// the beginning of a quiet time.
const askPause = 5 * time.Millisecond

// endSilent looks for boxes that a broker of others does not miss. It begins by
// asking: a box that has nothing to send, or may not in a quiet time of its
// site, is heard by nobody but the broker, which keeps its pings to itself.
func (c *Controller) endSilent(ctx context.Context) error {
	silence := c.opts.Broker.Silence
	if silence <= 0 {
		silence = 3 * time.Minute
	}
	tick := time.NewTicker(silence / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.askSilent(ctx, silence/2); err != nil && ctx.Err() == nil {
			c.log.Warn("silent boxes not asked", "err", err)
		}
		if !c.leads() {
			continue
		}
		gone, err := c.store.EndSilent(ctx, silence)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("silent boxes not noted", "err", err)
		}
		for _, id := range gone {
			c.boxChanged(id)
		}
	}
}

// askSilent has boxes say HELLO that were not heard for so long: each
// controller those that came in by its port of the pages, the leader all others.
func (c *Controller) askSilent(ctx context.Context, silence time.Duration) error {
	now := c.opts.WallClock()
	boxes, err := c.store.Boxes(ctx, now.UnixMilli())
	if err != nil {
		return err
	}
	hello, err := wire.Encode(wire.Cmd{Hello: true})
	if err != nil {
		return err
	}
	before := now.Add(-silence).UnixMilli()
	for _, b := range boxes {
		if !b.Connected || b.LastSeenMs > before {
			continue
		}
		// A message that is lost is repeated at the next tick.
		err := c.broker.Publish(b.ID, wire.TopicCmd, hello, 0)
		if errors.Is(err, broker.ErrNotConnected) && c.leads() {
			err = c.remote.Publish(b.ID, wire.TopicCmd, hello, 0)
		}
		if err != nil {
			continue
		}
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
