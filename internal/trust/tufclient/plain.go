package tufclient

import (
	"context"
	"fmt"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// Plain is the specification's client alone, on the walk that boxes use: without
// a store, and without what the fleet adds to TUF. The public conformance suite
// drives it.
type Plain struct{ w *walk }

// NewPlain continues from documents that an earlier one returned; of opts it
// takes Root, Fetch, WallClock and Limits.
func NewPlain(opts Options, docs map[string][]byte) (*Plain, error) {
	opts.Path, opts.Limits = "", opts.Limits.withDefaults()
	head, err := tufrepo.ParseHead(opts.Root)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	c := &Client{opts: opts, docs: docs, pin: head.Version}
	w, err := c.walk(opts.Fetch)
	if err != nil {
		return nil, err
	}
	return &Plain{w}, nil
}

// Refresh brings root, timestamp, snapshot and targets up to date (5.3 to 5.6).
func (p *Plain) Refresh(ctx context.Context) error {
	for _, step := range []func(context.Context) error{p.w.roots, p.w.timestamp, p.w.snapshot, p.w.targets} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Target finds what a path names, after a Refresh that succeeded.
func (p *Plain) Target(ctx context.Context, path string) (*metadata.TargetFiles, error) {
	f, _, err := p.w.lookup(ctx, path)
	if err == nil && f == nil {
		err = fmt.Errorf("target %q: %w", path, ErrNotListed)
	}
	return f, err
}

// Hashed reports whether targets are served under names that begin with a hash.
func (p *Plain) Hashed() bool { return p.w.tm.Root.Signed.ConsistentSnapshot }

// Documents are what was verified, by role, also when Refresh failed.
func (p *Plain) Documents() map[string][]byte { return p.w.docs }
