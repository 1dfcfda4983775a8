package api

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net/http"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func (a *API) registerRolloutHistory() {
	route(a, get("/rollouts/{id}/events", "rolloutEvents", "What was decided in a rollout and why, oldest first", "rollouts"), a.rolloutEvents)
	route(a, post("/rollouts/{id}/replay", "replayRollout", "What another policy would have done on the same reports", "rollouts"), a.replayRollout)
	route(a, get("/rollout-locks", "listRolloutLocks", "Locks that have not ended", "rollouts"), a.listLocks)
	route(a, a.acting(post("/rollout-locks", "addRolloutLock", "Keep boxes from being offered anything for a time", "rollouts")), a.addLock)
	route(a, get("/restores", "restores", "What a controller that came back from a backup does not know of boxes", "rollouts"), a.restores)
	route(a, a.acting(post("/restores", "chooseRestore", "Keep what boxes run that follow what this controller has never signed, or tell them once more what it wishes", "rollouts")), a.chooseRestore)
	drop := post("/rollout-locks/{id}", "dropRolloutLock", "End a lock", "rollouts")
	drop.Method = http.MethodDelete
	route(a, drop, a.dropLock)
}

// rolloutEvents tells every decision in a line.
func (a *API) rolloutEvents(ctx context.Context, in *rolloutInput) (fleetapi.RolloutEventList, error) {
	list := fleetapi.RolloutEventList{Items: []fleetapi.RolloutEvent{}}
	if _, err := a.opts.Store.Rollout(ctx, in.ID); err != nil {
		return list, err
	}
	records, err := a.opts.Store.RolloutRecords(ctx, in.ID)
	for i, rec := range records {
		say := func(text string) {
			list.Items = append(list.Items, fleetapi.RolloutEvent{Seq: int64(i + 1), Time: rec.At, Text: text})
		}
		for _, in := range rec.Inputs {
			if in.Act != nil {
				say(in.Act.String())
			}
		}
		for _, d := range rec.Decisions {
			say(d.String())
		}
	}
	return list, err
}

type replayInput struct {
	ID   string `path:"id" maxLength:"64" example:"r-abcdefghij"`
	Body fleetapi.ReplayRequest
}

func (a *API) replayRollout(ctx context.Context, in *replayInput) (fleetapi.Replay, error) {
	r, err := a.opts.Store.Rollout(ctx, in.ID)
	if err != nil {
		return fleetapi.Replay{}, err
	}
	records, err := a.opts.Store.RolloutRecords(ctx, in.ID)
	if err != nil {
		return fleetapi.Replay{}, err
	}
	p, err := rollout.PolicyOf(r.Request)
	if in.Body.Policy != "" {
		p, err = rollout.ParsePolicy(in.Body.Policy)
	}
	if err != nil {
		return fleetapi.Replay{}, badRequest("docs/rollouts.md lists all keys.", "%s", err)
	}
	out, err := rollout.Replay(rollout.Planned(r), records, p)
	if err != nil {
		return out, conflict("", "%s", err)
	}
	return out, nil
}

func (a *API) listLocks(ctx context.Context, _ *nothing) (fleetapi.LockList, error) {
	all, err := a.opts.Store.Locks(ctx, a.opts.WallClock().UnixMilli())
	return fleetapi.LockList{Items: append([]fleetapi.Lock{}, all...)}, err
}

type lockInput struct{ Body fleetapi.NewLock }

func (a *API) addLock(ctx context.Context, in *lockInput) (fleetapi.Lock, error) {
	if _, err := registry.ParseFilter(in.Body.Filter); err != nil {
		return fleetapi.Lock{}, badRequest("", "%s", err)
	}
	var raw [7]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	now := a.opts.WallClock().UTC()
	l := fleetapi.Lock{
		ID: "l-" + strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))[:10], Filter: in.Body.Filter,
		Reason: in.Body.Reason, Owner: who(ctx).Name, From: now,
	}
	if in.Body.From != nil {
		l.From = in.Body.From.UTC()
	}
	l.Until = l.From.Add(time.Duration(in.Body.Seconds * float64(time.Second)))
	if !l.Until.After(now) {
		return l, badRequest("", "the lock would have ended at %s already", l.Until.Format(time.RFC3339))
	}
	if err := a.opts.Store.PutLock(ctx, l); err != nil {
		return l, err
	}
	a.log.Info("rollouts locked", "topic", l.ID, "by", l.Owner, "why", l.Reason)
	a.changed(fleetapi.Change{Topic: "rollouts"})
	return l, nil
}

type lockIDInput struct {
	ID string `path:"id" maxLength:"64" example:"l-abcdefghij"`
}

func (a *API) dropLock(ctx context.Context, in *lockIDInput) (fleetapi.LockList, error) {
	if err := a.opts.Store.DropLock(ctx, in.ID); err != nil {
		return fleetapi.LockList{}, err
	}
	a.changed(fleetapi.Change{Topic: "rollouts"})
	return a.listLocks(ctx, nil)
}
