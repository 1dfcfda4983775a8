package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func (a *API) listConfigs(ctx context.Context, _ *nothing) (fleetapi.DocumentList, error) {
	all, err := a.opts.Store.NewestDocuments(ctx)
	if err != nil {
		return fleetapi.DocumentList{}, err
	}
	return a.shown(ctx, all, false)
}

type documentInput struct {
	Name string `path:"name" maxLength:"63" example:"dock-cameras"`
}

func (a *API) getConfig(ctx context.Context, in *documentInput) (fleetapi.DocumentList, error) {
	all, err := a.opts.Store.Documents(ctx, in.Name)
	if err != nil {
		return fleetapi.DocumentList{}, err
	}
	list, err := a.shown(ctx, all, true)
	if err == nil && len(list.Items) == 0 {
		err = fleetapi.Problem(http.StatusNotFound, "there is no document "+in.Name, "`edgeherd config list` shows those that there are.")
	}
	return list, err
}

// shown counts the boxes of each document.
func (a *API) shown(ctx context.Context, all []store.Document, text bool) (fleetapi.DocumentList, error) {
	list := fleetapi.DocumentList{Items: []fleetapi.Document{}}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return list, err
	}
	for _, d := range all {
		v, err := config.Of(d)
		if err != nil {
			return list, err
		}
		out := fleetapi.Document{Name: d.Name, Version: d.Version, Digest: d.Digest, Selector: v.Selector, Priority: v.Priority, Created: d.Created, By: d.By, Gone: v.Gone}
		if text {
			out.Text = d.Body
		}
		for _, b := range boxes {
			if v.Matches(b) {
				out.Boxes++
			}
			if b.Config == nil {
				continue
			}
			for _, has := range b.Config.Documents {
				if has.Name == d.Name && has.Running == d.Version && !has.Out {
					out.Holding++
				}
			}
		}
		if out.Boxes+out.Holding > 0 || who(ctx).Everywhere() { // else it is of foreign sites
			list.Items = append(list.Items, out)
		}
	}
	return list, nil
}

func (a *API) explainConfig(ctx context.Context, in *boxInput) (fleetapi.ConfigExplanation, error) {
	now := a.opts.WallClock()
	stored, err := a.opts.Store.Box(ctx, identity.ID(in.ID), now.UnixMilli())
	if err != nil {
		return fleetapi.ConfigExplanation{}, err
	}
	b := registry.View(stored, now)
	if err := a.addPending(ctx, stored, &b); err != nil {
		return fleetapi.ConfigExplanation{}, err
	}
	out := fleetapi.ConfigExplanation{Box: fleetapi.ConfigBox{ID: b.ID, Name: b.Name}, Config: b.Config}
	lib := config.Library{}
	hand := config.Hand(stored.Desired)
	if err := lib.Add(hand, func(name, version string) (store.Document, error) { return a.opts.Store.Document(ctx, name, version) }); err != nil {
		return out, err
	}
	settings := boxconfig.Settings{}
	if stored.Desired.Config != nil {
		if settings, err = boxconfig.Parse(stored.Desired.Config.Content); err != nil {
			return out, err
		}
	}
	// Labels may have changed since the box was told: what it was told counts,
	// and the documents say where it comes from.
	_, from, err := config.Fill(b, hand, lib)
	if err != nil {
		from = map[string]string{}
	}
	for path := range settings {
		if from[path] == "" {
			from[path] = "an earlier version"
		}
	}
	out.Settings = config.Explain(b, settings, from)
	return out, nil
}

// addPending tells what the box is to get, or to lose, without another apply.
func (a *API) addPending(ctx context.Context, b store.Box, v *fleetapi.Box) error {
	stand, lib, err := a.ledger.Standing(ctx, a.opts.Store, a.opts.WallClock())
	if err != nil || len(stand) == 0 {
		return err
	}
	if err := lib.Add(config.Hand(b.Desired), func(name, version string) (store.Document, error) { return a.opts.Store.Document(ctx, name, version) }); errors.Is(err, store.ErrNotFound) {
		return nil // of a version that the database of before had
	} else if err != nil {
		return err
	}
	var d desk
	if err := d.readSecrets(ctx, a.opts.Store); err != nil {
		return err
	}
	busy := v.Config != nil && v.Config.Busy()
	for _, l := range config.LateOf(*v, b.Desired.Config, stand, lib, func(name string) bool { return d.secrets(*v, name) }) {
		p := fleetapi.PendingDocument{Name: l.Has.Ref.Name, Version: l.Has.Ref.Version, Out: l.Out, Why: l.Why}
		switch {
		case p.Why != "":
		case b.State != store.StateActive:
			p.Why = "the box is " + string(b.State)
		case v.Link != fleetapi.LinkLive:
			p.Why = "the box is silent"
		case busy:
			p.Why = "the box is not done with other settings"
		default:
			p.Why = "its rollout starts within seconds"
		}
		if v.Config == nil {
			v.Config = &fleetapi.BoxSettings{State: fleetapi.ConfigWaiting, Documents: []fleetapi.BoxDocument{}}
		}
		v.Config.Pending = append(v.Config.Pending, p)
	}
	return nil
}

type labelsInput struct {
	ID   string `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
	Body fleetapi.LabelChange
}

func (a *API) setLabels(ctx context.Context, in *labelsInput) (fleetapi.Box, error) {
	id := identity.ID(in.ID)
	for k, v := range in.Body.Labels {
		if err := boxconfig.CheckLabel(k, v); err != nil {
			return fleetapi.Box{}, badRequest("", "%s", err)
		}
	}
	if err := a.opts.Store.SetLabels(ctx, id, in.Body.Labels); err != nil {
		return fleetapi.Box{}, err
	}
	if a.opts.Secrets != nil { // a label may bring secrets, or take them
		if err := a.opts.Secrets.Settle(ctx, id); err != nil {
			a.log.Error("secrets of a box are not sealed yet; it is tried again within the hour", "device", id, "err", err)
		}
	}
	a.changed(fleetapi.Change{Topic: "boxes", ID: string(id)})
	return a.getBox(ctx, &boxInput{in.ID})
}
