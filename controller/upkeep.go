package controller

import (
	"context"

	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// openUpkeep prepares tickets and the notices of them.
func (c *Controller) openUpkeep() (err error) {
	c.notify, err = notify.New(notify.Options{
		Endpoints: c.opts.Notify, Store: c.store, Leader: c.asLeader, URL: c.URL, WallClock: c.opts.WallClock,
	}, c.log)
	if err != nil {
		return err
	}
	opts := upkeep.Options{Store: c.store, Leader: c.asLeader, Changed: c.hub.Publish, Tell: c.sendCare, WallClock: c.opts.WallClock}
	for _, e := range c.opts.Notify {
		if !e.Hears(notify.AboutTickets) {
			continue
		}
		words, err := i18n.Open(e.Language)
		if err != nil {
			return err
		}
		opts.Channels = append(opts.Channels, upkeep.Channel{Name: e.Name, Words: words, Least: e.Least, Sites: e.Sites, Quiet: e.Quiet})
	}
	c.desk = upkeep.New(opts, c.log)
	return nil
}

// sendCare tells a box of its heat.
func (c *Controller) sendCare(id identity.ID, care wire.Care) error {
	payload, err := wire.Encode(care)
	if err != nil {
		return err
	}
	return c.tell(id, wire.TopicCare, payload, 1)
}

// tellHeat follows a WELCOME: what a box cannot know by itself of its heat.
func (c *Controller) tellHeat(ctx context.Context, id identity.ID) {
	if err := c.desk.TellBox(ctx, id); err != nil && ctx.Err() == nil {
		c.log.Warn("box not told of its heat", "device", id, "err", err)
	}
}
