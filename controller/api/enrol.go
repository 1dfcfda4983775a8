package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	contract "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Members is what the API needs to make boxes and to end them.
type Members struct {
	Desk *enrol.Desk
	// At is what all tokens have in common: pins and address.
	At func() (contract.Token, error)
	// Server makes a certificate of the controller, with which a file is signed.
	Server func() (tls.Certificate, error)
	// Changed is told of boxes that stand otherwise.
	Changed func(identity.ID)
}

func (a *API) registerEnrol() {
	made := post("/enrolment/tokens", "createEnrolToken", "Make a token that machines enrol with; it is told this once", "enrolment")
	made.DefaultStatus = http.StatusCreated
	route(a, made, a.newEnrolToken)
	route(a, get("/enrolment/tokens", "enrolTokens", "Tokens that machines enrol with", "enrolment"), a.enrolTokens)
	end := get("/enrolment/tokens/{token}", "revokeEnrolToken", "Make a token good for nothing more", "enrolment")
	end.Method = http.MethodDelete
	route(a, end, a.revokeEnrolToken)
	route(a, get("/enrolment/requests", "enrolRequests", "Machines that asked to be boxes", "enrolment"), a.enrolRequests)
	route(a, post("/enrolment/requests/{request}/actions", "decideEnrol", "Agree to a machine, or not", "enrolment"), a.decideEnrol)
	route(a, post("/enrolment/files", "signEnrol", "Answer the request of a machine without a network", "enrolment"), a.signEnrol)
	route(a, get("/boxes/{id}/identity", "boxIdentity", "How a box stands in the fleet", "enrolment"), a.boxIdentity)
	route(a, post("/boxes/{id}/identity/actions", "changeIdentity", "Quarantine, release, revoke or retire a box", "enrolment"), a.changeIdentity)
}

// members refuses where there are none: in tests of other things.
func (a *API) members() (Members, error) {
	if a.opts.Members.Desk == nil {
		return Members{}, refuse("", "this controller enrols no machines")
	}
	return a.opts.Members, nil
}

type newEnrolTokenInput struct{ Body fleetapi.NewEnrolToken }

func (a *API) newEnrolToken(ctx context.Context, in *newEnrolTokenInput) (fleetapi.EnrolTokenMade, error) {
	var none fleetapi.EnrolTokenMade
	m, err := a.members()
	if err != nil {
		return none, err
	}
	q := in.Body
	if q.Box != "" {
		if _, q.Site, err = a.opts.Store.Place(ctx, q.Box); err != nil {
			return none, notTold(err)
		}
	}
	verb := authz.Enrol
	if q.Uses > 1 || q.Approve == enrol.ApproveRules {
		verb = authz.EnrolMany
	}
	if q.Site != "" {
		if err := mayAt(ctx, verb, q.Site); err != nil {
			return none, err
		}
	}
	note := fmt.Sprintf("for 1 machine at site %s", q.Site)
	if q.Uses > 1 {
		note = fmt.Sprintf("for %d machines at site %s", q.Uses, q.Site)
	}
	if q.Box != "" {
		note += ", in the place of box " + string(q.Box)
	}
	audit.Of(ctx).Note = note
	base, err := m.At()
	if err != nil {
		return none, refuse("", "%s", err)
	}
	token, row, err := m.Desk.Mint(ctx, base, enrol.Terms{TTL: time.Duration(q.TTLSeconds * float64(time.Second)), TokenTerms: store.TokenTerms{
		Site: q.Site, Labels: q.Labels, Uses: q.Uses, Approve: q.Approve, Networks: q.Networks, Serial: q.Serial, Box: q.Box, By: who(ctx).Name,
		Rules: store.TokenRules{Serials: q.Serials, TPMs: q.TPMs, Networks: q.From},
	}})
	if errors.Is(err, enrol.ErrTerms) {
		return none, badRequest("", "%s", err)
	}
	if err != nil {
		return none, err
	}
	return fleetapi.EnrolTokenMade{EnrolToken: enrolToken(row), Token: token.String()}, nil
}

func enrolToken(k store.EnrolToken) fleetapi.EnrolToken {
	return fleetapi.EnrolToken{
		EnrolTerms: fleetapi.EnrolTerms{
			Site: k.Site, Labels: k.Labels, Uses: k.Uses, Approve: k.Approve, Networks: k.Networks, Serial: k.Serial, Box: k.Box,
			Serials: k.Rules.Serials, TPMs: k.Rules.TPMs, From: k.Rules.Networks,
		},
		ID: k.ID, Made: k.Made.UTC(), By: k.By, Expires: k.Expires.UTC(), UsesLeft: k.UsesLeft, Refused: k.Refused, Off: k.Off,
	}
}

func (a *API) enrolTokens(ctx context.Context, _ *nothing) (fleetapi.EnrolTokenList, error) {
	out := fleetapi.EnrolTokenList{Items: []fleetapi.EnrolToken{}}
	list, err := a.opts.Store.EnrolTokens(ctx)
	for _, k := range list {
		if sees(ctx, k.Site) {
			out.Items = append(out.Items, enrolToken(k))
		}
	}
	return out, err
}

type enrolTokenInput struct {
	Token string `path:"token" pattern:"^[A-Z2-7]{8}$" example:"7K2M5QXA"`
}

func (a *API) revokeEnrolToken(ctx context.Context, in *enrolTokenInput) (fleetapi.EnrolToken, error) {
	var none fleetapi.EnrolToken
	k, err := a.opts.Store.EnrolToken(ctx, in.Token)
	if err == nil {
		err = mayAt(ctx, authz.Enrol, k.Site)
	}
	if err != nil {
		return none, notTold(err)
	}
	audit.Of(ctx).Object, audit.Of(ctx).Note = "token "+k.ID, "at site "+k.Site
	if err := a.opts.Store.EndEnrolToken(ctx, k.ID, "withdrawn by "+who(ctx).Name); err != nil {
		return none, err
	}
	k, err = a.opts.Store.EnrolToken(ctx, k.ID)
	return enrolToken(k), err
}

type enrolRequestsInput struct {
	State string `query:"state" enum:"challenge,pending,approved,denied,issued," doc:"Only those in this state"`
}

func (a *API) enrolRequests(ctx context.Context, in *enrolRequestsInput) (fleetapi.EnrolRequestList, error) {
	out := fleetapi.EnrolRequestList{Items: []fleetapi.EnrolRequest{}}
	list, err := a.opts.Store.EnrolRequests(ctx, store.EnrolState(in.State))
	if err != nil {
		return out, err
	}
	tokens, err := a.opts.Store.EnrolTokens(ctx)
	site := map[string]string{}
	for _, k := range tokens {
		site[k.ID] = k.Site
	}
	for _, r := range list {
		if sees(ctx, site[r.Token]) {
			out.Items = append(out.Items, enrolRequest(r, site[r.Token]))
		}
	}
	return out, err
}

func enrolRequest(r store.EnrolRequest, site string) fleetapi.EnrolRequest {
	return fleetapi.EnrolRequest{
		ID: r.Key, State: string(r.State), ShortCode: r.ShortCode, Site: site, Token: r.Token, Name: r.NameHint, Address: r.Address, Asked: r.Asked.UTC(),
		Hardware: r.Hardware, Agent: r.Agent.Version, TPM: r.TPM, Proved: r.Proved, Box: r.Box, By: r.By,
	}
}

type decideEnrolInput struct {
	Request string `path:"request" maxLength:"32" doc:"The id of a request, or its short code" example:"481-902"`
	Body    fleetapi.EnrolDecision
}

func (a *API) decideEnrol(ctx context.Context, in *decideEnrolInput) (fleetapi.EnrolRequest, error) {
	var none fleetapi.EnrolRequest
	r, err := a.opts.Store.FindEnrol(ctx, in.Request)
	if err != nil {
		return none, notTold(err)
	}
	k, err := a.opts.Store.EnrolToken(ctx, r.Token)
	if err == nil {
		err = mayAt(ctx, authz.Approve, k.Site)
	}
	if err != nil {
		return none, notTold(err)
	}
	d := audit.Of(ctx)
	d.Verb, d.Object, d.Note = "enrol."+in.Body.Action, r.Key, "of token "+k.ID+" at site "+k.Site+", "+r.ShortCode
	r, err = a.opts.Store.DecideEnrol(ctx, r.Key, in.Body.Action == "approve", who(ctx).Name, in.Body.Name)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("", "%s", err)
	}
	if err != nil {
		return none, err
	}
	a.log.Info("machine decided about", "code", r.ShortCode, "action", in.Body.Action, "by", who(ctx).Name)
	return enrolRequest(r, k.Site), nil
}

type signEnrolInput struct{ Body fleetapi.EnrolFile }

func (a *API) signEnrol(ctx context.Context, in *signEnrolInput) (fleetapi.EnrolFile, error) {
	var none fleetapi.EnrolFile
	m, err := a.members()
	if err != nil {
		return none, err
	}
	q, _, err := contract.OpenRequest(in.Body.Data)
	if err != nil {
		return none, badRequest("Make the file again: edgeherd-agent enroll --offline.", "%s", err)
	}
	k, err := a.opts.Store.EnrolToken(ctx, q.TokenID)
	if err == nil {
		err = mayAt(ctx, authz.Approve, k.Site)
	}
	if err != nil {
		return none, notTold(err)
	}
	d := audit.Of(ctx)
	d.Object, d.Note = "token "+k.ID, "at site "+k.Site
	server, err := m.Server()
	if err != nil {
		return none, err
	}
	out, answer, err := m.Desk.SignFile(ctx, in.Body.Data, who(ctx).Name, server)
	switch {
	case enrol.Unusable(err):
		return none, badRequest("", "%s", err)
	case err != nil:
		return none, err
	case out == nil:
		return none, conflict("", "%s (%s)", answer.Detail, answer.Code)
	}
	return fleetapi.EnrolFile{Data: out, Box: answer.DeviceID, Name: answer.Member.Box.Name}, nil
}

type identityInput struct {
	ID identity.ID `path:"id" example:"d-abcdefghijklm"`
}

func (a *API) boxIdentity(ctx context.Context, in *identityInput) (fleetapi.BoxIdentity, error) {
	var none fleetapi.BoxIdentity
	m, err := a.opts.Store.Membership(ctx, in.ID)
	if err != nil {
		return none, err
	}
	out := fleetapi.BoxIdentity{
		Box: m.Box, State: string(m.State), Why: m.Why, By: m.By, Generation: m.Generation, Labels: m.Labels, Hardware: m.Hardware,
		Certificates: []fleetapi.BoxCertificate{}, History: []fleetapi.IdentityEvent{},
	}
	if !m.Since.IsZero() {
		since := m.Since.UTC()
		out.Since = &since
	}
	if out.Name, out.Site, err = a.opts.Store.Place(ctx, in.ID); err != nil {
		return none, err
	}
	certs, err := a.opts.Store.Certs(ctx, in.ID)
	if err != nil {
		return none, err
	}
	for _, c := range certs {
		out.Certificates = append(out.Certificates, fleetapi.BoxCertificate{Serial: c.Serial, State: string(c.State), Changed: c.Changed.UTC(), Ends: c.Ends.UTC(), Address: c.Address})
	}
	events, err := a.opts.Store.IdentityEvents(ctx, in.ID)
	for _, e := range events {
		out.History = append(out.History, fleetapi.IdentityEvent{Time: e.Time.UTC(), State: string(e.State), By: e.By, Text: e.Text})
	}
	return out, err
}

type identityActionInput struct {
	ID   identity.ID `path:"id" example:"d-abcdefghijklm"`
	Body fleetapi.IdentityAction
}

// identityChanges are what a person may do to a box: from which states to which.
// To revoke wants who may enrol; the others want who may approve.
var identityChanges = map[string]struct {
	verb authz.Verb
	from []store.State
	to   store.State
}{
	"quarantine": {authz.Approve, []store.State{store.StateActive, store.StateEnrolled}, store.StateQuarantined},
	"release":    {authz.Approve, []store.State{store.StateQuarantined}, store.StateActive},
	"revoke":     {authz.Enrol, []store.State{store.StateActive, store.StateEnrolled, store.StateQuarantined, store.StateRetired}, store.StateRevoked},
	"retire":     {authz.Enrol, []store.State{store.StateActive, store.StateEnrolled, store.StateQuarantined}, store.StateRetired},
}

func (a *API) changeIdentity(ctx context.Context, in *identityActionInput) (fleetapi.BoxIdentity, error) {
	var none fleetapi.BoxIdentity
	_, site, err := a.opts.Store.Place(ctx, in.ID)
	change := identityChanges[in.Body.Action]
	if err == nil {
		err = mayAt(ctx, change.verb, site)
	}
	if err != nil {
		return none, notTold(err)
	}
	why := in.Body.Why
	if why == "" {
		why = in.Body.Action + " by " + who(ctx).Name
	}
	d := audit.Of(ctx)
	d.Verb, d.Object, d.Note = "box."+in.Body.Action, string(in.ID), why
	_, err = a.opts.Store.ChangeStanding(ctx, store.Change{Box: in.ID, From: change.from, To: change.to, Why: why, By: who(ctx).Name, Keep: in.Body.Keep})
	if errors.Is(err, store.ErrState) {
		return none, conflict("`edgeherd box identity` shows how it stands.", "%s", err)
	}
	if err != nil {
		return none, err
	}
	if a.opts.Members.Changed != nil {
		a.opts.Members.Changed(in.ID)
	}
	return a.boxIdentity(ctx, &identityInput{in.ID})
}
