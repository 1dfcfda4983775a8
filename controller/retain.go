package controller

import (
	"context"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
)

// Retention says how long telemetry is kept; 0 is for ever.
type Retention = store.Retention

// DefaultRetention is that of store.DefaultRetention.
var DefaultRetention = store.DefaultRetention

const (
	// retainEvery is how often old telemetry is looked for.
	retainEvery = 10 * time.Minute
	// retainRows are deleted in one go, some ten milliseconds of writing, and
	// retainPause lets boxes write before the next.
	retainRows  = 500
	retainPause = 200 * time.Millisecond
)

// retain deletes what is older than it shall be kept. Several controllers may
// do it at once: each row goes once.
func (c *Controller) retain(ctx context.Context) error {
	for wait := retainEvery; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		deleted, more, err := c.store.Retain(ctx, c.opts.Retention, retainRows)
		wait = retainEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			c.log.Error("old telemetry not deleted", "err", err)
		case more:
			wait = retainPause
		}
		if deleted > 0 {
			c.log.Debug("old telemetry deleted", "rows", deleted)
		}
	}
}
