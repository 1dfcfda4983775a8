package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// lock is a lock with its filter.
type lock struct {
	fleetapi.Lock
	filter registry.Filter[fleetapi.Box]
}

func (l lock) holds(now time.Time) bool { return !now.Before(l.From) && now.Before(l.Until) }

func (l lock) why() string {
	return fmt.Sprintf("locked by %s until %s: %s", l.Owner, l.Until.UTC().Format("2006-01-02 15:04 UTC"), l.Reason)
}

// locks are those that have not ended. One whose filter cannot be read locks
// nothing: it was checked when it was made.
func (c *Controller) locks(ctx context.Context) ([]lock, error) {
	stored, err := c.store.Locks(ctx, c.opts.WallClock().UnixMilli())
	if err != nil {
		return nil, err
	}
	var out []lock
	for _, l := range stored {
		if f, err := registry.ParseFilter(l.Filter); err == nil {
			out = append(out, lock{l, f})
		}
	}
	return out, nil
}

// lockKey names the locks of single boxes that hold now.
func lockKey(all []lock, now time.Time) string {
	var ids []string
	for _, l := range all {
		if l.Filter != "" && l.holds(now) {
			ids = append(ids, l.ID)
		}
	}
	return strings.Join(ids, " ")
}

// fleetLock is why the whole fleet is locked; empty: it is not.
func fleetLock(all []lock, now time.Time) string {
	for _, l := range all {
		if l.Filter == "" && l.holds(now) {
			return l.why()
		}
	}
	return ""
}

// boxLock is why one box is locked.
func boxLock(all []lock, b fleetapi.Box, now time.Time) string {
	for _, l := range all {
		if l.Filter != "" && l.holds(now) && l.filter.Match(b) {
			return l.why()
		}
	}
	return ""
}

// zones returns the time zone of each site.
func (c *Controller) zones(ctx context.Context) (func(name string) string, error) {
	sites, err := c.store.Sites(ctx)
	if err != nil {
		return nil, err
	}
	return func(name string) string {
		return site.Effect(sites[name].Settings, sites[store.SiteDefaults].Settings).TimeZone
	}, nil
}
