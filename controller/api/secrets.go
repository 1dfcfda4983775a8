package api

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func (a *API) registerSecrets() {
	route(a, get("/secrets", "listSecrets", "Secrets of boxes, by name: never a value", "secrets"), a.listSecrets)
	route(a, get("/boxes/{id}/secrets", "listBoxSecrets", "The secrets that a box is to have, and whether it has them", "secrets"), a.boxSecrets)
	route(a, post("/secrets", "setSecret", "Store a secret and seal it to the boxes that are to have it", "secrets"), a.setSecret)
	route(a, post("/secrets:remove", "removeSecret", "Forget a secret and take it from the boxes that have it", "secrets"), a.removeSecret)
}

// secretAt finds out where a secret is to lie, and asks the gate about it. A label
// may be of any site.
func (a *API) secretAt(ctx context.Context, at fleetapi.SecretAt) (store.SecretAt, error) {
	out := store.SecretAt{Name: at.Name}
	given := 0
	for scope, target := range map[store.SecretScope]string{store.SecretOfBox: string(at.Box), store.SecretOfSite: at.Site, store.SecretOfLabel: at.Label} {
		if target != "" {
			given++
			out.Scope, out.Target = scope, target
		}
	}
	if given != 1 {
		return out, badRequest("Give box, site or label.", "a secret is for one box, one site or one label; %d were given", given)
	}
	switch out.Scope {
	case store.SecretOfLabel:
		return out, refused(authz.Allow(who(ctx).Subject, authz.Secrets, authz.Fleet()))
	case store.SecretOfSite:
		return out, mayAt(ctx, authz.Secrets, out.Target)
	}
	site, err := a.opts.Store.SiteOf(ctx, at.Box)
	if errors.Is(err, store.ErrNotFound) {
		return out, refused(authz.ErrForeign)
	}
	if err != nil {
		return out, err
	}
	return out, mayAt(ctx, authz.Secrets, site)
}

func (a *API) listSecrets(ctx context.Context, _ *nothing) (fleetapi.SecretList, error) {
	list := fleetapi.SecretList{Items: []fleetapi.Secret{}}
	all, err := a.opts.Store.Secrets(ctx)
	if err != nil {
		return list, err
	}
	for _, s := range all {
		at := outward(s.SecretAt)
		if _, err := a.secretAt(ctx, at); err != nil {
			continue // of a site that the caller does not see, or of a box that has gone
		}
		list.Items = append(list.Items, fleetapi.Secret{SecretAt: at, Changed: s.Changed.UTC(), By: s.By, Lost: a.opts.Secrets.Lost(s)})
	}
	return list, nil
}

func outward(at store.SecretAt) fleetapi.SecretAt {
	out := fleetapi.SecretAt{Name: at.Name}
	switch at.Scope {
	case store.SecretOfBox:
		out.Box = identity.ID(at.Target)
	case store.SecretOfSite:
		out.Site = at.Target
	case store.SecretOfLabel:
		out.Label = at.Target
	}
	return out
}

type setSecretInput struct{ Body fleetapi.NewSecret }

func (a *API) setSecret(ctx context.Context, in *setSecretInput) (fleetapi.SecretList, error) {
	at, err := a.secretAt(ctx, in.Body.SecretAt)
	if err != nil {
		return fleetapi.SecretList{}, err
	}
	if err := a.opts.Secrets.Set(ctx, at, in.Body.Value, who(ctx).Name); errors.Is(err, secrets.ErrBad) {
		return fleetapi.SecretList{}, badRequest("Nothing was stored.", "%s", err)
	} else if err != nil {
		return fleetapi.SecretList{}, err
	}
	return a.listSecrets(ctx, nil)
}

type removeSecretInput struct{ Body fleetapi.SecretAt }

func (a *API) removeSecret(ctx context.Context, in *removeSecretInput) (fleetapi.SecretList, error) {
	at, err := a.secretAt(ctx, in.Body)
	if err != nil {
		return fleetapi.SecretList{}, err
	}
	err = a.opts.Secrets.Remove(ctx, at, who(ctx).Name)
	if errors.Is(err, store.ErrNotFound) {
		return fleetapi.SecretList{}, fleetapi.Problem(http.StatusNotFound, "there is no secret "+at.String(), "`edgeherd secret list` shows those that there are.")
	}
	if err != nil {
		return fleetapi.SecretList{}, err
	}
	return a.listSecrets(ctx, nil)
}

func (a *API) boxSecrets(ctx context.Context, in *boxInput) (fleetapi.BoxSecretList, error) {
	list := fleetapi.BoxSecretList{Items: []fleetapi.BoxSecret{}}
	box, err := a.opts.Store.Box(ctx, identity.ID(in.ID), a.opts.WallClock().UnixMilli())
	if err != nil {
		return list, err
	}
	facts, err := a.opts.Store.SecretBoxes(ctx, store.SecretOfBox, in.ID)
	if err != nil {
		return list, err
	}
	all, err := a.opts.Store.Secrets(ctx)
	if err != nil {
		return list, err
	}
	for _, f := range facts {
		for _, s := range secrets.Of(all, f) {
			state := "sealing"
			if slices.ContainsFunc(box.Desired.Secrets, func(d wire.DesiredSecret) bool { return d.Name == s.Name && d.Version == s.Version }) {
				if state = "waiting"; box.Running.Generation >= box.Desired.Generation {
					state = "held"
				}
			}
			list.Items = append(list.Items, fleetapi.BoxSecret{SecretAt: outward(s.SecretAt), State: state})
		}
	}
	return list, nil
}
