package controller

import (
	"context"
	"time"
)

// checkpointEvery bounds the log of the database, which a hostile box fills
// with some MiB a second at most.
const checkpointEvery = 5 * time.Second

// checkpoint keeps commits from having to do it.
func (c *Controller) checkpoint(ctx context.Context) error {
	said := ""
	for {
		select {
		case <-time.After(checkpointEvery):
		case <-ctx.Done():
			return nil
		}
		err := c.store.Checkpoint(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			said = ""
		case said != err.Error(): // commits do it when the log is large
			said = err.Error()
			c.log.Warn("checkpoint of the database", "err", err)
		}
	}
}
