package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// The runner may not read the box's power sensors, so the agent does while a
// candidate that was probed computes without pause, one variant after the other.

// maxExercise bounds that: it is heat.
const maxExercise = 20 * time.Second

// candidate finds a loaded version that does not serve.
func (s *Server) candidate(digest blob.Digest) (*version, error) {
	t := s.table.Load()
	known := s.known()
	at := slices.IndexFunc(known, func(v *version) bool { return v.ref.Digest == digest && !t.serves(v) })
	if at < 0 {
		return nil, faultf(http.StatusNotFound, "no candidate %s is loaded: it is probed first", digest.Short())
	}
	return known[at], nil
}

// askedOf reads what is asked of the candidate in the path into ask; it answers
// and returns nil when that is wrong.
func (s *Server) askedOf(w http.ResponseWriter, r *http.Request, ask any) *version {
	digest, ok := candidateOf(w, r)
	if !ok {
		return nil
	}
	err := readJSON(w, r, ask)
	if err == nil {
		var v *version
		if v, err = s.candidate(digest); err == nil {
			return v
		}
	}
	writeError(w, err)
	return nil
}

// postExercise answers with its head when the variant begins to compute.
func (s *Server) postExercise(w http.ResponseWriter, r *http.Request) {
	var e runnerapi.Exercise
	v := s.askedOf(w, r, &e)
	if v == nil {
		return
	}
	done, err := v.exercise(r.Context(), e, func() {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // a client that left ends the context
	})
	var early *begunError
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, done)
	case errors.As(err, &early):
		panic(http.ErrAbortHandler) // the head has been sent
	default:
		writeError(w, err)
	}
}

// begunError came up after the exercise had begun.
type begunError struct{ error }

func (v *version) exercise(ctx context.Context, e runnerapi.Exercise, begun func()) (done runnerapi.Exercised, err error) {
	at := slices.IndexFunc(v.variants, func(o models.Variant) bool { return o.Name == e.Variant })
	if at < 0 {
		return done, faultf(http.StatusBadRequest, "model %s has no variant %q", v.ref, e.Variant)
	}
	if v.ext != nil {
		return done, faultf(http.StatusBadRequest, "model %s is served by another program: what that draws is not measured", v.ref)
	}
	if !v.acquire() {
		return done, faultf(http.StatusNotFound, "model %s was unloaded", v.ref)
	}
	defer v.release()
	path, err := v.source.path(models.GoldenFile)
	if err != nil {
		return done, faultf(http.StatusBadRequest, "model %s has no golden samples to compute with", v.ref)
	}
	golden, err := models.ReadGolden(path)
	if err != nil {
		return done, err
	}
	w, release, err := v.variant(ctx, at)
	if err != nil {
		return done, err
	}
	defer func() {
		if closing := release(); err == nil && closing != nil {
			err = &begunError{closing}
		}
	}()
	if _, err := runSample(ctx, w, golden); err != nil {
		return done, err // the first one allocates
	}
	begun()
	for began, limit := time.Now(), min(seconds(e.Seconds), maxExercise); time.Since(began) < limit; done.Seconds = time.Since(began).Seconds() {
		if _, err := runSample(ctx, w, golden); err != nil {
			return done, &begunError{err}
		}
		done.Items++
	}
	return done, nil
}

// postHeat takes what a sensor saw of each variant, and judges anew which of them
// are worth a rung.
func (s *Server) postHeat(w http.ResponseWriter, r *http.Request) {
	var heat runnerapi.Heat
	v := s.askedOf(w, r, &heat)
	if v == nil {
		return
	}
	rungs, err := v.warmed(heat)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, rungs)
}

func (v *version) warmed(heat runnerapi.Heat) ([]runnerapi.VariantStatus, error) {
	v.mu.Lock()
	rungs, opts := slices.Clone(v.rungs), v.opts
	v.mu.Unlock()
	for name, h := range heat {
		at := slices.IndexFunc(rungs, func(r runnerapi.VariantStatus) bool { return r.Name == name })
		if at < 0 || !(h.Watts >= 0 && h.JoulesPerItem >= 0) {
			return nil, faultf(http.StatusBadRequest, "variant %q of model %s with %v W and %v J: the probe knows no such variant, or no such heat", name, v.ref, h.Watts, h.JoulesPerItem)
		}
		rungs[at].VariantHeat = h
	}
	skipDearer(rungs)
	v.mu.Lock()
	v.rungs = rungs
	v.mu.Unlock()
	r, _ := v.measured.read(opts)
	r.Model, r.Ladder = v.ref.Digest, rungs
	if err := v.measured.write(opts, r); err != nil {
		return nil, fmt.Errorf("keep the heat of model %s: %w", v.ref, err)
	}
	return rungs, nil
}
