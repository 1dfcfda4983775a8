package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// EnrolBox writes the identity files of a box into dir and registers it. A
// directory that holds an identity of a registered box keeps it, with a new
// certificate when half of its life is over; the controller's addresses are
// written anew. It may be repeated after a failure.
func (c *Controller) EnrolBox(ctx context.Context, dir, name, site string) (identity.ID, error) {
	if have, err := identity.Load(dir); err == nil {
		return have.ID, c.keepBox(ctx, dir, have)
	}
	id, err := c.register(ctx, name, site)
	if err != nil {
		return "", err
	}
	return id, identity.Enrol(dir, c.ca, c.boxFile(id, name, site))
}

func (c *Controller) keepBox(ctx context.Context, dir string, have *identity.Identity) error {
	known, err := c.store.Known(ctx, have.ID)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("%s holds the identity of %s, which this controller does not know; move it away to enrol anew", filepath.Clean(dir), have.ID)
	}
	box := c.boxFile(have.ID, have.Name, have.Site)
	leaf := have.Certificate.Leaf
	if c.opts.WallClock().After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)) {
		return identity.Enrol(dir, c.ca, box)
	}
	return box.Write(dir)
}

// register finds an ID for a box. A name whose box was never heard of keeps
// its ID: writing its files failed the last time, or they got lost.
func (c *Controller) register(ctx context.Context, name, site string) (identity.ID, error) {
	id := identity.NewID()
	err := c.store.AddBox(ctx, id, name, site)
	if !errors.Is(err, store.ErrConflict) {
		return id, err
	}
	boxes, listErr := c.store.Boxes(ctx, 0)
	if listErr != nil {
		return "", listErr
	}
	for _, b := range boxes {
		if b.Name == name && b.Site == site && b.LastSeenMs == 0 {
			return b.ID, nil
		}
	}
	return "", err
}
