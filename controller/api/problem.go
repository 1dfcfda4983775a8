package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// refuse is the answer to a request that makes sense but cannot be done.
func refuse(hint, format string, args ...any) error {
	return fleetapi.Problem(http.StatusUnprocessableEntity, fmt.Sprintf(format, args...), hint)
}

// missing is the answer to a request that names what is not there.
func missing(hint, format string, args ...any) error {
	return fleetapi.Problem(http.StatusNotFound, fmt.Sprintf(format, args...), hint)
}

// badRequest is the answer to a request that makes no sense.
func badRequest(hint, format string, args ...any) error {
	return fleetapi.Problem(http.StatusBadRequest, fmt.Sprintf(format, args...), hint)
}

// conflict is the answer to a request that the present state forbids.
func conflict(hint, format string, args ...any) error {
	return fleetapi.Problem(http.StatusConflict, fmt.Sprintf(format, args...), hint)
}

// problem turns an error into what the caller may know of it. Faults of our
// own are logged and told without their inside.
func (a *API) problem(ctx context.Context, what string, err error) error {
	var p *fleetapi.Error
	var told huma.HeadersError
	switch {
	case errors.As(err, &told):
		return err
	case errors.As(err, &p):
		return p
	case errors.Is(err, store.ErrNotFound):
		return fleetapi.Problem(http.StatusNotFound, err.Error(), lookAt(err))
	case errors.Is(err, store.ErrAwaits), errors.Is(err, store.ErrAhead):
		return fleetapi.Problem(http.StatusConflict, err.Error(), "See: edgeherd rollout conflicts")
	case errors.Is(err, store.ErrConflict):
		return fleetapi.Problem(http.StatusConflict, err.Error(), "Raise the version: a version never changes its content.")
	case store.IsFull(err):
		return fleetapi.Problem(http.StatusInsufficientStorage, full.Text, fullHint)
	case ctx.Err() != nil:
		return fleetapi.Problem(http.StatusServiceUnavailable, "the request ended before its answer", "")
	}
	a.log.Error("request failed", "route", what, "err", err)
	return fleetapi.Problem(http.StatusInternalServerError, "the controller could not do this", "Its log says why; look for \"request failed\".")
}

// lookAt is the command that lists what there is of what was not found: the store
// names it first.
func lookAt(err error) string {
	for _, k := range []struct{ begins, verb string }{
		{"model ", "model list"}, {"release ", "release list"}, {"rollout ", "rollout list"}, {"lock ", "rollout locks"}, {"box ", "box list"}, {"no change of ", "trust status"},
	} {
		if strings.HasPrefix(err.Error(), k.begins) {
			return "See which there are: edgeherd " + k.verb
		}
	}
	return ""
}

func writeProblem(w http.ResponseWriter, p *fleetapi.Error) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client went away
}

// fail writes err as a problem; for routes outside of the framework.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *fleetapi.Error
	if !errors.As(a.problem(r.Context(), r.Pattern, err), &p) {
		panic("api: problem returns a fleetapi.Error")
	}
	writeProblem(w, p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client went away
}
