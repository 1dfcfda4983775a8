package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/s3"
	"github.com/edgeherd/edgeherd/internal/blob"
)

// openBlobs opens the folder of models and releases, and the bucket behind it. A
// bucket that does not answer now may later; one that refuses needs a person.
func (c *Controller) openBlobs(ctx context.Context) (err error) {
	if c.blobs, err = blob.Open(c.opts.Blobs); err != nil || c.opts.S3 == nil {
		return err
	}
	opts := *c.opts.S3
	opts.WallClock = c.opts.WallClock
	if c.bucket, err = s3.New(opts); err != nil {
		return err
	}
	var wrong error
	for _, f := range c.bucket.Check(ctx) {
		switch err := fmt.Errorf("%s: %s: %s", f.Check, f.Found, f.Way); {
		case f.Way == "":
		case f.Final:
			wrong = errors.Join(wrong, err)
		default:
			c.log.Warn("the store of models", "err", err)
		}
	}
	c.blobs = c.blobs.Backed(c.bucket)
	return wrong
}

// blobURL is what makes addresses of blobs in the bucket, for boxes.
func (c *Controller) blobURL() func(context.Context, blob.Digest) (string, time.Duration, error) {
	if c.bucket == nil {
		return nil
	}
	return c.bucket.URL
}
