package serve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// maxEdgeBody bounds the bodies of /edge/v1: a few names and numbers.
const maxEdgeBody = 64 << 10

// maxResults is how many results one answer holds: about 2 MB of the 16 MiB
// that runnerapi.Client reads.
const maxResults = 4096

// edgeRoutes adds what only the agent may ask, on the socket.
func (s *Server) edgeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /edge/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.Status())
	})
	mux.HandleFunc("POST /edge/v1/reload", s.postReload)
	mux.HandleFunc("POST /edge/v1/candidates", s.postCandidate)
	mux.HandleFunc("DELETE /edge/v1/candidates/{hex}", s.deleteCandidate)
	mux.HandleFunc("POST /edge/v1/candidates/{hex}/shadow", s.postShadow)
	mux.HandleFunc("POST /edge/v1/candidates/{hex}/exercise", s.postExercise)
	mux.HandleFunc("POST /edge/v1/candidates/{hex}/heat", s.postHeat)
	mux.HandleFunc("GET /edge/v1/results", s.getResults)
	mux.HandleFunc("POST /edge/v1/results/ack", s.postAck)
	mux.HandleFunc("POST /edge/v1/duty", s.postDuty)
}

// Status reports all that the agent wants to know, in one read.
func (s *Server) Status() runnerapi.Status {
	t := s.table.Load()
	st := runnerapi.Status{
		Version: s.opts.Version, Runtime: s.runtime(),
		PID: os.Getpid(), StartedUnixMs: s.started.UnixMilli(), Generation: t.generation,
		RSSBytes: ownRSS(), Shed: s.gate.shed.Load(), Models: []runnerapi.ModelStatus{}, Inputs: []runnerapi.InputStatus{},
	}
	var cause govern.Cause
	st.Rung, cause, st.RungReason = s.rung.said()
	st.RungCause = string(cause)
	if st.Runtime != nil {
		st.RuntimeVersion = st.Runtime.Version
	}
	failed := map[blob.Digest]bool{}
	for _, f := range t.failed {
		failed[f.Digest] = true
	}
	for _, v := range s.known() {
		// One that active.json wants and that is being tried again is told once.
		if !failed[v.ref.Digest] {
			m := v.status(t.serves(v))
			st.RSSBytes += m.RSSBytes
			st.Models = append(st.Models, m)
		}
	}
	st.Models = append(st.Models, t.failed...)
	st.CPUSeconds = s.cpuSeconds().Seconds()
	if s.inputs != nil {
		st.Inputs = append(st.Inputs, s.inputs.Status()...)
		st.OutboxRecords, st.OutboxDropped = s.inputs.Counts()
		if follows, ok := s.inputs.(interface {
			Settings() runnerapi.SettingsStatus
		}); ok {
			settings := follows.Settings()
			st.Settings = &settings
		}
	}
	return st
}

func (v *version) status(serves bool) runnerapi.ModelStatus {
	c := v.stats.read()
	m := runnerapi.ModelStatus{
		Ref: v.ref, Requests: c.success.count + c.failure.count, Failures: c.failure.count,
		LatencyP50: c.p50.Seconds(), LatencyP95: c.p95.Seconds(),
	}
	if u, err := v.usage(); err == nil {
		m.WorkerPID, m.RSSBytes = u.PID, u.RSSBytes
	}
	up, why := v.ready()
	if v.ext != nil {
		m.Backend = v.ext.config.Name + " (" + v.ext.config.Kind() + ")"
	}
	if at := v.shadow.Load(); at != nil {
		m.Shadow = at.status()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	m.Restarts, m.Variant, m.Variants, m.VariantCause = v.restarts, v.variants[v.at].Name, v.rungs, v.causeLocked()
	m.PinnedRefused = v.refused.Load()
	if v.w != nil {
		r := v.w.Runtime()
		m.Provider, m.Skipped = r.Provider, r.Skipped
	}
	switch {
	case up && serves:
		m.State = runnerapi.ModelReady
	case up:
		m.State = runnerapi.ModelCandidate
	case v.broken:
		m.State = runnerapi.ModelFailed
	default:
		m.State = runnerapi.ModelLoading
	}
	switch {
	case up && v.spoilt != nil:
		m.Err, m.Damaged = v.spoilt.Error(), true
	case !up && why != nil:
		m.Err, m.Damaged = why.Error(), errors.Is(why, errDamaged)
	}
	return m
}

// runtime is the inventory of ONNX Runtime as a loaded worker told it.
func (s *Server) runtime() *runnerapi.Runtime {
	for _, v := range s.known() {
		v.mu.Lock()
		w := v.w
		v.mu.Unlock()
		if w != nil {
			r := w.Runtime()
			return &runnerapi.Runtime{Version: r.Version, Build: r.Build, Providers: r.Available}
		}
	}
	return nil
}

func (s *Server) postReload(w http.ResponseWriter, r *http.Request) {
	// A switch that has begun is finished also when the agent goes away.
	if err := s.reload(context.WithoutCancel(r.Context())); err != nil {
		writeError(w, err)
		return
	}
	for _, v := range s.known() {
		v.look() // the agent may have mended a variant
	}
	writeJSON(w, http.StatusOK, s.Status())
}

func (s *Server) postCandidate(w http.ResponseWriter, r *http.Request) {
	var ref models.Ref
	if err := readJSON(w, r, &ref); err != nil {
		writeError(w, err)
		return
	}
	if ref.Name == "" || ref.Version == "" || ref.Digest.IsZero() {
		writeError(w, faultf(http.StatusBadRequest, "a candidate has name, version and digest"))
		return
	}
	writeJSON(w, http.StatusOK, s.Probe(r.Context(), ref))
}

// candidateOf reads the digest in the path; it answers and reports false when
// that is none.
func candidateOf(w http.ResponseWriter, r *http.Request) (digest blob.Digest, ok bool) {
	if err := digest.UnmarshalText([]byte("sha256:" + r.PathValue("hex"))); err != nil {
		writeError(w, &fault{http.StatusBadRequest, err})
		return digest, false
	}
	return digest, true
}

func (s *Server) deleteCandidate(w http.ResponseWriter, r *http.Request) {
	if digest, ok := candidateOf(w, r); ok {
		s.drop(digest)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) postShadow(w http.ResponseWriter, r *http.Request) {
	digest, ok := candidateOf(w, r)
	if !ok {
		return
	}
	if err := s.shadow(r.Context(), digest); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, s.Status())
}

func (s *Server) getResults(w http.ResponseWriter, r *http.Request) {
	if s.inputs == nil {
		writeJSON(w, http.StatusOK, runnerapi.Results{Records: []runnerapi.Result{}})
		return
	}
	query := r.URL.Query()
	after, err := strconv.ParseUint(cmp.Or(query.Get("after"), "0"), 10, 64)
	if err != nil {
		writeError(w, faultf(http.StatusBadRequest, "after is %q, want a cursor", query.Get("after")))
		return
	}
	max, err := strconv.Atoi(cmp.Or(query.Get("max"), "256"))
	if err != nil || max < 1 {
		writeError(w, faultf(http.StatusBadRequest, "max is %q, want a number from 1", query.Get("max")))
		return
	}
	res, err := s.inputs.Results(after, min(max, maxResults))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, res)
}

var errNoInputs = &fault{http.StatusNotFound, errors.New("this runner has no inputs: see `inputs:` in its configuration")}

func (s *Server) postAck(w http.ResponseWriter, r *http.Request) {
	var ack runnerapi.AckRequest
	err := readJSON(w, r, &ack)
	if err == nil && s.inputs == nil {
		err = errNoInputs
	}
	if err == nil {
		err = s.inputs.Ack(ack.Outbox, ack.Cursor)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// postDuty takes duty and rung; the rung holds until another comes, for a box
// whose agent is away has not got cooler by that. It is welcome also where no input listens: the agent need not know.
func (s *Server) postDuty(w http.ResponseWriter, r *http.Request) {
	var duty runnerapi.Duty
	if err := readJSON(w, r, &duty); err != nil {
		writeError(w, err)
		return
	}
	if s.inputs != nil {
		s.inputs.SetDuty(duty)
	}
	s.heat.set(duty, s.opts.WallClock())
	if duty.Rung != nil {
		s.setRung(duty)
	}
	w.WriteHeader(http.StatusNoContent)
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEdgeBody))
	if err := dec.Decode(v); err != nil {
		return faultf(http.StatusBadRequest, "parse request: %w", err)
	}
	return nil
}
