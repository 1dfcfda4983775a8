package api

import (
	"bytes"
	"context"
	"errors"
	"image/jpeg"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// This file is for the person in front of a machine: the pages under /t/.

// maxPhotoSide bounds width and height of a picture, in pixels: what a browser
// takes to show it is four bytes for each.
const maxPhotoSide = 4096

func (a *API) registerClaims() {
	route(a, get("/enrolment/tokens/{token}", "enrolToken", "A token that machines enrol with", "enrolment"), a.enrolToken)
	made := post("/claims", "claimMachine", "Agree to the machine that one stands in front of", "enrolment")
	made.DefaultStatus = http.StatusCreated
	route(a, made, a.claimMachine)
	route(a, get("/claims/{claim}", "claim", "What became of a machine that was claimed", "enrolment"), a.claim)
	photo := get("/boxes/{id}/photo", "boxPhoto", "The newest picture of a box; image/jpeg", "boxes")
	photo.Parameters = []*huma.Param{{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}}
	a.describe(photo, http.StatusOK, map[string]*huma.MediaType{"image/jpeg": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}})
	a.routes.HandleFunc("GET /api/v1/boxes/{id}/photo", a.boxPhoto)
}

func (a *API) enrolToken(ctx context.Context, in *enrolTokenInput) (fleetapi.EnrolToken, error) {
	k, err := a.opts.Store.EnrolToken(ctx, in.Token)
	if err == nil {
		err = mayAt(ctx, authz.Enrol, k.Site)
	}
	return enrolToken(k), notTold(err)
}

type newClaimInput struct{ Body fleetapi.NewClaim }

func (a *API) claimMachine(ctx context.Context, in *newClaimInput) (fleetapi.Claim, error) {
	var none fleetapi.Claim
	q := in.Body
	k, err := a.opts.Store.EnrolToken(ctx, q.Token)
	if err == nil {
		err = mayAt(ctx, authz.Approve, k.Site)
	}
	if err != nil {
		return none, notTold(err)
	}
	if len(q.Code) == 6 {
		q.Code = q.Code[:3] + "-" + q.Code[3:]
	}
	if err := a.mayTake(ctx, q.Box, k); err != nil {
		return none, err
	}
	if err := checkPhoto(q.Photo); err != nil {
		return none, err
	}
	d := audit.Of(ctx)
	d.Object, d.Note = "claim "+q.ID, "machine "+q.Code+" of token "+k.ID+" at site "+k.Site
	c, err := a.opts.Store.ClaimMachine(ctx, store.EnrolClaim{
		ID: q.ID, Token: q.Token, Code: q.Code, By: who(ctx).Name, Where: q.Place, Photo: q.Photo, Name: q.Name, Box: q.Box,
	})
	var no *store.ClaimError
	if errors.As(err, &no) {
		return none, conflict("", "%s", no.Why)
	}
	if err != nil {
		return none, err
	}
	a.log.Info("machine claimed", "code", q.Code, "site", k.Site, "by", who(ctx).Name)
	return a.claimed(ctx, c, k.Site)
}

// mayTake refuses a place that the machine may not come into.
func (a *API) mayTake(ctx context.Context, box identity.ID, k store.EnrolToken) error {
	if box == "" || box == k.Box {
		return nil
	}
	m, err := a.opts.Store.Membership(ctx, box)
	if err != nil {
		return notTold(err)
	}
	_, site, err := a.opts.Store.Place(ctx, box)
	if err == nil {
		err = mayAt(ctx, authz.Enrol, site)
	}
	switch {
	case err != nil:
		return notTold(err)
	case k.Box != "":
		return conflict("Claim it without naming a place.", "this token is for the place of another box")
	case site != k.Site:
		return conflict("Ask ops for a token of that site.", "this token is for site %s, the place is at %s", k.Site, site)
	case m.State == store.StateRetired:
		return conflict("Claim it as a new box.", "the box of this place was retired")
	}
	return nil
}

func checkPhoto(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if len(data) > fleetapi.MaxPhotoBytes {
		return badRequest("Make it smaller.", "the picture has %d bytes, at most %d are kept", len(data), fleetapi.MaxPhotoBytes)
	}
	c, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return badRequest("Send a JPEG.", "the picture cannot be read: %s", err)
	}
	if c.Width > maxPhotoSide || c.Height > maxPhotoSide {
		return badRequest("Make it smaller.", "the picture has %d × %d pixels, %d a side are kept", c.Width, c.Height, maxPhotoSide)
	}
	return nil
}

type claimInput struct {
	Claim string `path:"claim" pattern:"^[0-9a-f]{32}$"`
}

func (a *API) claim(ctx context.Context, in *claimInput) (fleetapi.Claim, error) {
	c, err := a.opts.Store.Claimed(ctx, in.Claim)
	if err != nil {
		return fleetapi.Claim{}, notTold(err)
	}
	k, err := a.opts.Store.EnrolToken(ctx, c.Token)
	if err == nil {
		err = mayAt(ctx, authz.Approve, k.Site)
	}
	if err != nil {
		return fleetapi.Claim{}, notTold(err)
	}
	return a.claimed(ctx, c, k.Site)
}

func (a *API) claimed(ctx context.Context, c store.Claimed, site string) (fleetapi.Claim, error) {
	out := fleetapi.Claim{
		ID: c.ID, State: string(store.EnrolApproved), Token: c.Token, Code: c.Code, Site: site, By: c.By, Made: c.Made.UTC(), Place: c.Where, Photo: c.HasPhoto,
	}
	if c.Request.State == store.EnrolDenied {
		out.State = string(store.EnrolDenied)
	}
	if c.Request.State != store.EnrolIssued {
		return out, nil
	}
	b, err := a.getBox(ctx, &boxInput{string(c.Request.Box)})
	if err != nil {
		return out, err
	}
	out.State, out.Box, out.Name = string(store.EnrolIssued), b.ID, b.Name
	// Heard since: a machine in the place of one that was live is not so at once.
	if b.Link == fleetapi.LinkLive && b.LastSeen != nil && !b.LastSeen.Before(c.Request.Changed) {
		out.State = "alive"
	}
	return out, nil
}

// boxPhoto is a picture for an <img>; nothing of it is run or guessed.
func (a *API) boxPhoto(w http.ResponseWriter, r *http.Request) {
	data, made, err := a.opts.Store.Photo(r.Context(), identity.ID(r.PathValue("id")))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "image/jpeg")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("Last-Modified", made.UTC().Format(http.TimeFormat))
	w.Write(data)
}
