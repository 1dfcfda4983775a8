package controller

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// When the list of revoked certificates is looked after. Who judges by it takes
// the newer of two by whole seconds.
const (
	listEvery   = time.Minute    // what other controllers revoke is found so
	listAnew    = 24 * time.Hour // lists end
	listAtLeast = 1100 * time.Millisecond
)

// listRevoked keeps ca/crl.pem, for a broker of others, as the database has it.
func (c *Controller) listRevoked(ctx context.Context) error {
	t := time.NewTicker(listEvery)
	defer t.Stop()
	var listed []identity.Revoked
	var at time.Time
	for {
		revoked, err := c.revoked(ctx)
		if err == nil && (time.Since(at) > listAnew || !slices.Equal(revoked, listed)) {
			if err = c.writeRevoked(revoked); err == nil {
				listed, at = revoked, time.Now()
			}
		}
		if err != nil && ctx.Err() == nil {
			c.log.Error("the list of revoked certificates is not up to date; it is tried again within a minute", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listAtLeast):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.outed:
		case <-t.C:
		}
	}
}

func (c *Controller) revoked(ctx context.Context) (out []identity.Revoked, err error) {
	certs, err := c.store.DeadCerts(ctx)
	for _, k := range certs {
		out = append(out, identity.Revoked{Serial: k.Serial, Since: k.Changed})
	}
	return out, err
}

func (c *Controller) writeRevoked(revoked []identity.Revoked) error {
	text, err := c.ca.RevocationList(revoked)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(c.opts.Dir, "ca", identity.ListName), text, 0o644)
}
