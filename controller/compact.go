package controller

import (
	"context"
	"time"
)

const (
	// compactEvery is how often closed hours of samples are looked for.
	compactEvery = time.Minute
	// compactRows are merged in one go: the boxes of an hour wait for some ten
	// milliseconds at a time, and compactPause lets them write in between.
	compactRows  = 2000
	compactPause = 100 * time.Millisecond
)

// compact merges the samples of closed hours. Several controllers may do it at
// once: of two that merge the same hour one finds it done.
func (c *Controller) compact(ctx context.Context) error {
	for wait := compactEvery; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		done, err := c.store.Compact(ctx, compactRows)
		wait = compactEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil: // nothing is lost by it: hours stay as they came
			c.log.Error("closed hours not merged", "err", err)
		case done.More:
			wait = compactPause
		}
		if done.Hours > 0 {
			c.log.Debug("closed hours merged", "hours", done.Hours, "rows", done.Rows)
		}
	}
}
