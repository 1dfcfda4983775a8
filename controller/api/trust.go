package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	keeper "github.com/edgeherd/edgeherd/controller/trust"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

func (a *API) registerTrust() {
	route(a, get("/trust", "getTrust", "What says which versions boxes may run", "trust"), a.getTrust)
	route(a, get("/trust/roles", "getTrustRoles", "How near the ends of what people signed are", "trust"), a.getTrustRoles)
	route(a, post("/trust/documents", "submitTrust", "Publish a document that people have signed", "trust"), a.submitTrust)
}

func (a *API) getTrust(ctx context.Context, _ *nothing) (fleetapi.Trust, error) {
	k := a.opts.Trust
	if k == nil {
		return fleetapi.Trust{}, store.ErrNotFound
	}
	ok, err := k.Production(ctx)
	if err != nil {
		return fleetapi.Trust{}, err
	}
	out := fleetapi.Trust{Development: !ok, Controller: k.Key(), Documents: []fleetapi.TrustDocument{}}
	docs, err := k.Documents(ctx)
	for _, d := range docs {
		head, err := tufrepo.ParseHead(d.Body)
		if err != nil {
			return out, fmt.Errorf("stored metadata of %s: %w", d.Role, err)
		}
		out.Documents = append(out.Documents, fleetapi.TrustDocument{Role: d.Role, Version: d.Version, Staged: d.Staged, Expires: head.Expires.UTC(), Document: d.Body})
	}
	return out, err
}

func (a *API) getTrustRoles(ctx context.Context, _ *nothing) (fleetapi.TrustRoles, error) {
	out := fleetapi.TrustRoles{Development: true, Items: []fleetapi.TrustRole{}}
	if a.opts.Trust == nil {
		out.Development = a.opts.Keyring.Development
		return out, nil
	}
	ok, err := a.opts.Trust.Production(ctx)
	if err != nil || !ok {
		return out, err
	}
	out.Development = false
	docs, err := a.opts.Trust.Documents(ctx)
	if err != nil {
		return out, err
	}
	roles, err := store.Standings(docs, a.opts.WallClock())
	for _, r := range roles {
		one := fleetapi.TrustRole{Role: r.Role, Version: r.Version, Expires: r.Expires.UTC(), Stage: r.Stage.String(), Need: r.Keys.Threshold, Keys: []string{}, Signed: []string{}, Waits: r.Waits, Do: r.Do()}
		for _, k := range r.Keys.Public {
			one.Keys = append(one.Keys, k.ID().Short())
		}
		for _, k := range r.Signed {
			one.Signed = append(one.Signed, k.Short())
		}
		out.Items = append(out.Items, one)
	}
	return out, err
}

type submitTrustInput struct{ Body fleetapi.SubmitTrust }

func (a *API) submitTrust(ctx context.Context, in *submitTrustInput) (fleetapi.SubmittedTrust, error) {
	k := a.opts.Trust
	if k == nil {
		return fleetapi.SubmittedTrust{}, store.ErrNotFound
	}
	d := audit.Of(ctx)
	d.Object = "trust " + in.Body.Role
	if in.Body.Drop {
		d.After = "dropped"
		return fleetapi.SubmittedTrust{Role: in.Body.Role}, k.Drop(ctx, in.Body.Role)
	}
	d.After = blob.Sum(in.Body.Document).String()
	out, err := k.Submit(ctx, in.Body.Role, in.Body.Document)
	switch {
	case errors.Is(err, keeper.ErrOld), errors.Is(err, store.ErrConflict):
		return fleetapi.SubmittedTrust{}, conflict("", "%s", err)
	case errors.Is(err, keeper.ErrRefused):
		return fleetapi.SubmittedTrust{}, refuse("", "%s", err)
	case err != nil:
		return fleetapi.SubmittedTrust{}, err
	}
	if out.Missing == 0 {
		a.changed(fleetapi.Change{Topic: "models"})
	}
	return fleetapi.SubmittedTrust{Role: out.Role, Version: out.Version, Missing: out.Missing}, nil
}

// deviceTrust serves the fleet's metadata to boxes. It is signed and no secret.
func (a *API) deviceTrust(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	data, err := []byte(nil), error(store.ErrNotFound)
	if a.opts.Trust != nil {
		data, err = a.opts.Trust.File(r.Context(), name)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = fleetapi.Problem(http.StatusNotFound, "there is no metadata "+name, "")
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // a stale timestamp would be a freeze
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// development reports whether one throw-away key signs everything, also when
// that cannot be looked up: a page shall not promise more than there is.
func (a *API) development(ctx context.Context) bool {
	if a.opts.Trust == nil {
		return a.opts.Keyring.Development
	}
	ok, err := a.opts.Trust.Production(ctx)
	return err != nil || !ok
}

// publishers are who may sign models and releases.
func (a *API) publishers(ctx context.Context) (trust.Keyring, error) {
	if a.opts.Trust == nil {
		return a.opts.Keyring, nil
	}
	return a.opts.Trust.Publishers(ctx)
}

// mustBeListed refuses to roll out what boxes would not install, and leaves out
// those that it is not for.
func (a *API) mustBeListed(ctx context.Context, c *cargo, boxes []fleetapi.Box) error {
	// Settings are not listed: that the controller signs them is what counts.
	if a.opts.Trust == nil || c.kind == fleetapi.KindConfig {
		return nil
	}
	want := tufrepo.Target{Kind: tufrepo.KindModel, Name: c.target.Name, Version: c.target.Version, Digest: c.target.Digest}
	if c.kind == fleetapi.KindAgent {
		want.Kind = tufrepo.KindRelease
	}
	t, err := a.opts.Trust.Listed(ctx, want)
	switch {
	case errors.Is(err, tufclient.ErrNotListed):
		return refuse("List it: push it again with --sign KEY. If that was done, a second person must sign: edgeherd trust status.", "boxes would refuse %s: %s", c.target, err)
	case errors.Is(err, tufclient.ErrRevoked), errors.Is(err, tufclient.ErrFloor), errors.Is(err, tufclient.ErrStale):
		return refuse("See edgeherd trust status.", "boxes would refuse %s: %s", c.target, err)
	case err != nil:
		return err
	}
	for _, b := range boxes {
		if err := t.Fits(b.Inventory.Agent, b.Inventory.Class, b.Inventory.Arch); err != nil {
			if c.unfit == nil {
				c.unfit = map[identity.ID]phrase.Phrase{}
			}
			c.unfit[b.ID] = phrase.Of("one-says", "%s: %s", b.Name, err.Error())
		}
	}
	return nil
}
