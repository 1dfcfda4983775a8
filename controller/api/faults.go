package api

import (
	"context"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// boxFaults joins what is stored with what was counted since.
func (a *API) boxFaults(ctx context.Context, in *boxInput) (fleetapi.BoxFaultList, error) {
	id := identity.ID(in.ID)
	if err := a.mustKnow(ctx, in.ID); err != nil {
		return fleetapi.BoxFaultList{}, err
	}
	all, err := a.opts.Store.Faults(ctx, id)
	if err != nil {
		return fleetapi.BoxFaultList{}, err
	}
	for _, p := range a.opts.Faults.Pending(id) {
		at := slices.IndexFunc(all, func(e fault.Entry) bool { return e.Cause == p.Cause })
		if at < 0 {
			all = append(all, p)
			continue
		}
		all[at].Count, all[at].LastMs, all[at].Text = all[at].Count+p.Count, p.LastMs, p.Text
	}
	slices.SortStableFunc(all, func(x, y fault.Entry) int { return int(y.LastMs/1000 - x.LastMs/1000) })
	list := fleetapi.BoxFaultList{Items: []fleetapi.BoxFault{}}
	for _, e := range all {
		list.Items = append(list.Items, fleetapi.BoxFault{
			Cause: string(e.Cause), Count: e.Count, Text: e.Text,
			First: time.UnixMilli(e.FirstMs).UTC(), Last: time.UnixMilli(e.LastMs).UTC(),
		})
	}
	return list, nil
}

// trouble says for people why nothing is stored; nothing when all is well.
func (a *API) trouble() phrase.Phrase {
	switch err := a.opts.Trouble(); {
	case err == nil:
		return phrase.Phrase{}
	case store.IsFull(err):
		return full
	default:
		return phrase.Of("db-refuses", "The database takes no messages of boxes; boxes keep what they have. The log of the controller says why.")
	}
}

// What is said when the disk of the database is full.
var full = phrase.Of("db-full", "The disk of the database is full: nothing is stored, boxes keep what they have.")

const fullHint = "Make room on the disk of the database. It goes on by itself, without a restart."
