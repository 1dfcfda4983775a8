package controller

import (
	"context"
	"errors"

	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// dealer returns what puts the document of a rollout into the desired state of a
// box. Versions are read before: a change of the desired state reads nothing.
func (c *Controller) dealer(ctx context.Context, r fleetapi.Rollout, box store.Box, attempt int) (func(d *wire.Desired, mayReplace func(string) bool) error, error) {
	add := wire.DesiredDocument{Name: r.Target.Name, Version: r.Target.Version, Digest: r.Target.Digest, Rollout: r.ID, Attempt: attempt}
	lib := config.Library{}
	err := lib.Add(append([]wire.DesiredDocument{add}, config.Hand(box.Desired)...), func(name, version string) (store.Document, error) {
		return c.store.Document(ctx, name, version)
	})
	if err != nil {
		return nil, err
	}
	view := registry.View(box, c.opts.WallClock())
	return func(d *wire.Desired, mayReplace func(string) bool) error {
		for _, have := range config.Hand(*d) {
			if have.Name == add.Name && (have.Rollout == r.ID || !mayReplace(have.Rollout)) {
				return nil
			}
		}
		next, err := config.Deal(view, d.Config, add, lib, nil)
		if errors.Is(err, config.ErrMissing) {
			return err // another rollout was quicker; the next step repeats it
		}
		d.Config = next // with the fault, which the box reports
		return nil
	}, nil
}

// configFact says which version of a document a box shall follow and follows.
func configFact(f *rollout.Fact, r fleetapi.Rollout, b store.Box) {
	for _, d := range config.Hand(b.Desired) {
		if d.Name == r.Target.Name {
			f.Desired, f.DesiredRollout = d.Digest, d.Rollout
		}
	}
	if b.Running.Config == nil {
		return
	}
	for _, d := range b.Running.Config.Documents {
		if d.Name == r.Target.Name {
			f.Running, f.Version = digestOf(d.Digest), d.Version
		}
	}
}
