package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func (a *API) registerPeople() {
	a.registerSessions()
	route(a, get("/users", "listUsers", "People", "people"), a.listUsers)
	add := post("/users", "addUser", "Invite a person", "people")
	add.DefaultStatus = http.StatusCreated
	route(a, add, a.addUser)
	route(a, post("/users/{name}/actions", "actOnUser", "Disable, enable, reset, give a role or sign out", "people"), a.actOnUser)
	route(a, get("/tokens", "listTokens", "Tokens of programs", "people"), a.listTokens)
	token := post("/tokens", "createToken", "Make a token of a program", "people")
	token.DefaultStatus = http.StatusCreated
	route(a, token, a.newToken)
	drop := get("/tokens/{id}", "revokeToken", "End a token", "people")
	drop.Method = http.MethodDelete
	route(a, drop, a.revokeToken)
	a.registerAudit()
}

func (a *API) listUsers(ctx context.Context, _ *nothing) (fleetapi.UserList, error) {
	list := fleetapi.UserList{Items: []fleetapi.User{}}
	all, sessions, err := a.opts.People.Users(ctx)
	for _, u := range all {
		list.Items = append(list.Items, userOf(u, sessions[u.Name]))
	}
	return list, err
}

func userOf(u store.Account, sessions int) fleetapi.User {
	v := fleetapi.User{
		Name: u.Name, Role: u.Role, Sites: append([]string{}, u.Sites...), Issuer: u.Issuer, Disabled: u.Disabled,
		Waiting: u.Password == "" && u.Subject == "", Sessions: sessions, Created: u.Created.UTC(),
	}
	if !u.Login.IsZero() {
		at := u.Login.UTC()
		v.Login = &at
	}
	return v
}

// userNow is a person after a change.
func (a *API) userNow(ctx context.Context, name string) (fleetapi.User, error) {
	all, err := a.listUsers(ctx, nil)
	for _, u := range all.Items {
		if u.Name == name {
			return u, err
		}
	}
	if err == nil {
		err = fmt.Errorf("user %s: %w", name, store.ErrNotFound)
	}
	return fleetapi.User{}, err
}

type addUserInput struct{ Body fleetapi.NewUser }

func (a *API) addUser(ctx context.Context, in *addUserInput) (fleetapi.UserChanged, error) {
	if err := a.opts.People.Add(ctx, in.Body.Name, authz.Role(in.Body.Role), in.Body.Sites); err != nil {
		return fleetapi.UserChanged{}, peopleProblem(err)
	}
	return a.invited(ctx, in.Body.Name)
}

// invited is a person with a new invitation. The secret stands behind a #: no
// browser sends it to a server, no log has it.
func (a *API) invited(ctx context.Context, name string) (fleetapi.UserChanged, error) {
	secret, end, err := a.opts.People.Invite(ctx, name)
	if err != nil {
		return fleetapi.UserChanged{}, peopleProblem(err)
	}
	u, err := a.userNow(ctx, name)
	return fleetapi.UserChanged{User: u, Invitation: &fleetapi.LoginURL{Path: "/set-password#" + secret, Expires: end.UTC()}}, err
}

type actOnUserInput struct {
	Name string `path:"name" maxLength:"63" example:"anna"`
	Body fleetapi.UserAction
}

func (a *API) actOnUser(ctx context.Context, in *actOnUserInput) (fleetapi.UserChanged, error) {
	d, p := audit.Of(ctx), a.opts.People
	d.Verb, d.Object = "user."+in.Body.Action, in.Name
	var err error
	switch in.Body.Action {
	case "reset":
		return a.invited(ctx, in.Name)
	case "disable", "enable":
		err = p.Disable(ctx, in.Name, in.Body.Action == "disable")
	case "role":
		err = p.SetRole(ctx, in.Name, authz.Role(in.Body.Role), in.Body.Sites)
	case "sign-out":
		err = p.SignOut(ctx, in.Name)
	}
	if err != nil {
		return fleetapi.UserChanged{}, peopleProblem(err)
	}
	out := fleetapi.UserChanged{}
	if out.User, err = a.userNow(ctx, in.Name); err != nil || in.Body.Action != "disable" {
		return out, err
	}
	all, err := p.Tokens(ctx)
	for _, t := range all {
		if t.MadeBy == in.Name {
			out.Tokens = append(out.Tokens, tokenOf(t))
		}
	}
	return out, err
}

func (a *API) listTokens(ctx context.Context, _ *nothing) (fleetapi.APITokenList, error) {
	list := fleetapi.APITokenList{Items: []fleetapi.APIToken{}}
	all, err := a.opts.People.Tokens(ctx)
	for _, t := range all {
		list.Items = append(list.Items, tokenOf(t))
	}
	return list, err
}

func tokenOf(t store.Token) fleetapi.APIToken {
	return fleetapi.APIToken{
		ID: t.ID, Name: t.Name, Role: t.Role, Sites: append([]string{}, t.Sites...), Scope: append([]string{}, t.Verbs...),
		MadeBy: t.MadeBy, Created: t.Created.UTC(), Expires: t.Expires.UTC(), Used: t.Used.UTC(),
	}
}

type newTokenInput struct{ Body fleetapi.NewToken }

func (a *API) newToken(ctx context.Context, in *newTokenInput) (fleetapi.Token, error) {
	n := people.NewToken{
		Name: in.Body.Name, Role: authz.Role(in.Body.Role), Sites: in.Body.Sites, Life: time.Duration(in.Body.TTLSeconds * float64(time.Second)), By: who(ctx).Name,
	}
	for _, v := range in.Body.Scope {
		n.Verbs = append(n.Verbs, authz.Verb(v))
	}
	secret, t, err := a.opts.People.AddToken(ctx, n)
	if err != nil {
		return fleetapi.Token{}, peopleProblem(err)
	}
	a.log.Info("token made", "for", t.Name, "role", t.Role, "by", who(ctx).Name)
	return fleetapi.Token{APIToken: tokenOf(t), Secret: secret}, nil
}

type tokenIDInput struct {
	ID string `path:"id" maxLength:"16" example:"abcd2345"`
}

func (a *API) revokeToken(ctx context.Context, in *tokenIDInput) (fleetapi.APITokenList, error) {
	if err := a.opts.People.Revoke(ctx, in.ID); err != nil {
		return fleetapi.APITokenList{}, err
	}
	return a.listTokens(ctx, nil)
}

// describe adds a route to the specification that the framework does not serve.
func (a *API) describe(op huma.Operation, status int, content map[string]*huma.MediaType) {
	problem := a.huma.OpenAPI().Components.Schemas.Schema(errorType, true, "Error")
	op.Responses = map[string]*huma.Response{
		fmt.Sprint(status): {Description: http.StatusText(status), Content: content},
		"default":          {Description: "Error", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}},
	}
	a.huma.OpenAPI().AddOperation(&op)
}
