package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// A role may do what its own routes and those of all lower roles do.
type role int

const (
	public role = iota
	viewer
	tech
	ops
	admin
)

var roleNames = map[string]role{"viewer": viewer, "tech": tech, "ops": ops, "admin": admin}

func (r role) String() string {
	for name, v := range roleNames {
		if v == r {
			return name
		}
	}
	return "public"
}

// access is the whole authorisation of the operators' side: the least role for
// each route. A route that is not here is refused to everyone.
var access = map[string]role{
	"/":                                  public, // the pages hold no data; they ask the API
	"/api/":                              public, // says that there is no such route
	"GET /login":                         public,
	"GET /metrics":                       viewer,
	"GET /api/v1/openapi.json":           viewer,
	"GET /api/v1/session":                viewer,
	"POST /api/v1/logout":                viewer,
	"POST /api/v1/sessions/login-url":    admin,
	"POST /api/v1/tokens":                admin,
	"GET /api/v1/summary":                viewer,
	"GET /api/v1/boxes":                  viewer,
	"GET /api/v1/boxes/{id}":             viewer,
	"GET /api/v1/boxes/{id}/series":      viewer,
	"GET /api/v1/boxes/{id}/events":      viewer,
	"GET /api/v1/boxes/{id}/results":     viewer,
	"GET /api/v1/boxes/{id}/faults":      viewer,
	"GET /api/v1/models":                 viewer,
	"GET /api/v1/models/{name}":          viewer,
	"GET /api/v1/models/{name}/drift":    viewer,
	"POST /api/v1/models":                ops,
	"GET /api/v1/releases":               viewer,
	"POST /api/v1/releases":              ops,
	"POST /api/v1/blobs:missing":         ops,
	"PUT /api/v1/blobs/{hex}":            ops,
	"GET /api/v1/rollouts":               viewer,
	"GET /api/v1/rollouts/{id}":          viewer,
	"POST /api/v1/rollouts":              ops,
	"POST /api/v1/rollouts/{id}/actions": ops,
	"GET /api/v1/rollouts/{id}/events":   viewer,
	"POST /api/v1/rollouts/{id}/replay":  viewer,
	"GET /api/v1/rollout-locks":          viewer,
	"POST /api/v1/rollout-locks":         ops,
	"DELETE /api/v1/rollout-locks/{id}":  ops,
	"GET /api/v1/sites":                  viewer,
	"GET /api/v1/sites/{site}":           viewer,
	"POST /api/v1/sites/{site}/settings": ops,
	"POST /api/v1/site-defaults":         ops,
	"GET /api/v1/events":                 viewer,
	"GET /api/v1/tickets":                viewer,
	"GET /api/v1/tickets:counts":         viewer,
	"GET /api/v1/tickets/{id}":           viewer,
	"POST /api/v1/tickets":               tech,
	"POST /api/v1/tickets/{id}/actions":  tech,
	"GET /api/v1/visits":                 viewer,
	"GET /api/v1/visits/{id}":            viewer,
	"POST /api/v1/visits":                tech,
	"POST /api/v1/visits:plan":           tech,
	"POST /api/v1/visits/{id}/actions":   tech,
	"GET /api/v1/rmas":                   viewer,
	"POST /api/v1/rmas":                  tech,
	"POST /api/v1/rmas/{id}/actions":     tech,
	"GET /api/v1/care":                   viewer,
	"GET /api/v1/care/sites":             viewer,
	"GET /api/v1/boxes/{id}/care":        viewer,
	"POST /api/v1/boxes/{id}/care":       tech,
	"GET /api/v1/resets":                 viewer,
	"POST /api/v1/notify:test":           ops,
}

// router is the mux of the operators' side. It remembers its patterns, so that
// a test can walk them, and puts the guard before every handler.
type router struct {
	mux      *http.ServeMux
	guard    func(pattern string, next http.HandlerFunc) http.HandlerFunc
	patterns []string // complete after New
}

func (r *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	r.patterns = append(r.patterns, pattern)
	r.mux.HandleFunc(pattern, r.guard(pattern, h))
}

func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// nothing is the input of a route without parameters.
type nothing struct{}

// reply is an answer whose body is T.
type reply[T any] struct {
	Status int
	Body   T
}

// route registers a JSON route. Status 0 means 200, or 201 where made says so.
func route[I, O any](a *API, op huma.Operation, f func(context.Context, *I) (O, error)) {
	op.MaxBodyBytes = maxJSONBytes
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusForbidden)
	what := op.Method + " " + op.Path
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*reply[O], error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, a.problem(ctx, what, err)
		}
		return &reply[O]{Status: max(op.DefaultStatus, http.StatusOK), Body: out}, nil
	})
}

// get describes a GET route.
func get(path, id, summary, tag string) huma.Operation {
	return huma.Operation{Method: http.MethodGet, Path: "/api/v1" + path, OperationID: id, Summary: summary, Tags: []string{tag}}
}

// post describes a POST route.
func post(path, id, summary, tag string) huma.Operation {
	op := get(path, id, summary, tag)
	op.Method = http.MethodPost
	return op
}
