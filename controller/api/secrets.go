package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func (a *API) registerSecrets() {
	route(a, get("/secrets", "listSecrets", "Secrets of boxes, by name: never a value", "secrets"), a.listSecrets)
	route(a, get("/secrets:boxes", "listSecretBoxes", "The boxes that are to have a secret, and whether they have it", "secrets"), a.secretBoxes)
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
	given, err := a.given(ctx, all)
	if err != nil {
		return list, err
	}
	for _, s := range all {
		at := outward(s.SecretAt)
		if _, err := a.secretAt(ctx, at); err != nil {
			continue // of a site that the caller does not see, or of a box that has gone
		}
		out := fleetapi.Secret{SecretAt: at, Changed: s.Changed.UTC(), By: s.By, Lost: a.opts.Secrets.Lost(s)}
		if at.Box != "" {
			if out.BoxName, _, err = a.opts.Store.Place(ctx, at.Box); err != nil {
				return list, err
			}
		}
		for _, b := range given[s.SecretAt] {
			out.Boxes++
			if b.State == heldState {
				out.Held++
			}
		}
		list.Items = append(list.Items, out)
	}
	return list, nil
}

// heldState is that of a box which follows a desired state with a secret.
const heldState = "held"

// given says of each secret which boxes are to have it, by name. A box that has
// another secret of that name instead is not one of them.
func (a *API) given(ctx context.Context, all []store.Secret) (map[store.SecretAt][]fleetapi.SecretBox, error) {
	out := map[store.SecretAt][]fleetapi.SecretBox{}
	if len(all) == 0 {
		return out, nil
	}
	facts, err := a.opts.Store.SecretBoxes(ctx, "", "")
	if err != nil {
		return nil, err
	}
	want := map[identity.ID][]store.Secret{}
	var ids []identity.ID
	for _, f := range facts {
		if of := secrets.Of(all, f); len(of) > 0 {
			want[f.ID], ids = of, append(ids, f.ID)
		}
	}
	boxes, err := a.opts.Store.BoxesOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(boxes, func(a, b store.Box) int { return strings.Compare(a.Name, b.Name) })
	for _, b := range boxes {
		for _, s := range want[b.ID] {
			out[s.SecretAt] = append(out[s.SecretAt], fleetapi.SecretBox{Box: b.ID, Name: b.Name, Site: b.Site, State: secretState(b, s)})
		}
	}
	return out, nil
}

func secretState(b store.Box, s store.Secret) string {
	switch {
	case !slices.ContainsFunc(b.Desired.Secrets, func(d wire.DesiredSecret) bool { return d.Name == s.Name && d.Version == s.Version }):
		return "sealing"
	case b.Running.Generation < b.Desired.Generation:
		return "waiting"
	}
	return heldState
}

type secretBoxesInput struct {
	Name  string      `query:"name" minLength:"1" maxLength:"63" example:"camera-3"`
	Box   identity.ID `query:"box" maxLength:"15"`
	Site  string      `query:"site" maxLength:"200"`
	Label string      `query:"label" maxLength:"200" doc:"as k=v"`
}

func (a *API) secretBoxes(ctx context.Context, in *secretBoxesInput) (fleetapi.SecretBoxList, error) {
	list := fleetapi.SecretBoxList{Items: []fleetapi.SecretBox{}}
	at, err := a.secretAt(ctx, fleetapi.SecretAt{Name: in.Name, SecretFor: fleetapi.SecretFor{Box: in.Box, Site: in.Site, Label: in.Label}})
	if err != nil {
		return list, err
	}
	all, err := a.opts.Store.Secrets(ctx)
	if err != nil {
		return list, err
	}
	if !slices.ContainsFunc(all, func(s store.Secret) bool { return s.SecretAt == at }) {
		return list, noSecret(at)
	}
	given, err := a.given(ctx, all)
	list.Items = append(list.Items, given[at]...)
	return list, err
}

func noSecret(at store.SecretAt) error {
	return fleetapi.Problem(http.StatusNotFound, "there is no secret "+at.String(), "`edgeherd secret list` shows those that there are.")
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
		return fleetapi.SecretList{}, noSecret(at)
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
			list.Items = append(list.Items, fleetapi.BoxSecret{SecretAt: outward(s.SecretAt), State: secretState(box, s)})
		}
	}
	return list, nil
}
