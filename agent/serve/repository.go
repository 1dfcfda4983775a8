package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// The model repository extension. What may serve is what active.json names: the
// agent decides that. A client can unload one of those models and load it
// again, until the agent's next decision or the next start.

// indexEntry is one version in the repository.
type indexEntry struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// index lists what active.json names, or what of it serves.
func (s *Server) index(readyOnly bool) []indexEntry {
	t := s.table.Load()
	list := []indexEntry{}
	for _, ref := range t.named {
		e := indexEntry{Name: ref.Name, Version: ref.Version, State: "UNAVAILABLE"}
		if s.isUnloaded(ref.Name) {
			e.Reason = "unloaded by a client"
		}
		for _, f := range t.failed {
			if f.Ref == ref {
				e.Reason = f.Err
			}
		}
		for _, v := range t.models[ref.Name] {
			if v.ref != ref {
				continue
			}
			up, why := v.ready()
			if up {
				e.State = "READY"
			} else if why != nil {
				e.Reason = why.Error()
			}
		}
		if !readyOnly || e.State == "READY" {
			list = append(list, e)
		}
	}
	return list
}

func (s *Server) isUnloaded(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unloaded[name]
}

// loadAgain forgets that name was unloaded; empty: all.
func (s *Server) loadAgain(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" {
		clear(s.unloaded)
	}
	delete(s.unloaded, name)
}

func (s *Server) isKnown(d blob.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions[d] != nil {
		return true
	}
	return slices.ContainsFunc(s.table.Load().named, func(ref models.Ref) bool { return ref.Digest == d })
}

// loadModel loads a model that active.json names. One that does not load keeps
// the version in place that serves.
func (s *Server) loadModel(ctx context.Context, name string) error {
	if !s.names(name) {
		return faultf(http.StatusBadRequest, "load model %q: this box is not told to serve it; push it and start a rollout", name)
	}
	s.loadAgain(name)
	if err := s.reload(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for _, f := range s.table.Load().failed {
		if f.Name == name {
			return faultf(http.StatusBadRequest, "load model %q: %s", name, f.Err)
		}
	}
	return nil
}

// unloadModel takes a model out of service. Requests under way finish.
func (s *Server) unloadModel(ctx context.Context, name string) error {
	if !s.names(name) {
		return faultf(http.StatusBadRequest, "unload model %q: it is not there", name)
	}
	s.mu.Lock()
	s.unloaded[name] = true
	s.mu.Unlock()
	return s.reload(context.WithoutCancel(ctx))
}

func (s *Server) names(name string) bool {
	return slices.ContainsFunc(s.table.Load().named, func(ref models.Ref) bool { return ref.Name == name })
}

// errForbidden keeps strangers on the network from unloading models.
var errForbidden = &fault{http.StatusForbidden, errors.New("models are loaded and unloaded on the unix socket; `repository: true` in runner.yaml allows it here")}

// repositoryRoutes are the repository extension; control says whether clients
// here may load and unload.
func (s *Server) repositoryRoutes(mux *http.ServeMux, control bool) {
	mux.HandleFunc("POST /v2/repository/index", func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			Ready bool `json:"ready"`
		}
		if err := readOptional(w, r, &ask); err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, s.index(ask.Ready))
	})
	change := func(do func(context.Context, string) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var ask struct {
				Parameters map[string]any `json:"parameters"`
			}
			err := readOptional(w, r, &ask)
			if err == nil {
				err = onlyKnown(ask.Parameters)
			}
			if err == nil && !control {
				err = errForbidden
			}
			if err == nil {
				err = do(r.Context(), r.PathValue("model"))
			}
			if err != nil {
				writeError(w, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
		}
	}
	mux.HandleFunc("POST /v2/repository/models/{model}/load", change(s.loadModel))
	mux.HandleFunc("POST /v2/repository/models/{model}/unload", change(s.unloadModel))
}

// onlyKnown refuses configurations and files in a load request: what a model
// is, is signed.
func onlyKnown[V any](parameters map[string]V) error {
	for key := range parameters {
		if key != "unload_dependents" {
			return faultf(http.StatusBadRequest, "parameter %q is not supported: a model is loaded as it was signed", key)
		}
	}
	return nil
}

// readOptional reads a JSON body that may be missing.
func readOptional(w http.ResponseWriter, r *http.Request, v any) error {
	if err := readJSON(w, r, v); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
