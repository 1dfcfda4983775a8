package serve

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// The protocol's fixed words.
const (
	serverName = "edgeherd-runner"
	platform   = "onnxruntime_onnx"
)

// routes is the Open Inference Protocol v2, REST; control lets clients load and
// unload models.
func (s *Server) routes(control bool) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", s.getServer)
	mux.HandleFunc("GET /v2/{$}", s.getServer)
	mux.HandleFunc("GET /v2/health/live", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]bool{"live": true})
	})
	mux.HandleFunc("GET /v2/health/ready", s.getReady)
	for _, prefix := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		mux.HandleFunc("GET "+prefix, s.getModel)
		mux.HandleFunc("GET "+prefix+"/ready", s.getModelReady)
		mux.HandleFunc("GET "+prefix+"/config", s.getConfig)
		mux.HandleFunc("GET "+prefix+"/stats", s.getStats)
		mux.HandleFunc("POST "+prefix+"/infer", s.postInfer)
	}
	mux.HandleFunc("GET /v2/models/stats", s.getStats)
	s.openAIRoutes(mux)
	s.repositoryRoutes(mux, control)
	for _, kind := range []string{"/v2/systemsharedmemory/", "/v2/cudasharedmemory/"} {
		mux.HandleFunc(kind, func(w http.ResponseWriter, _ *http.Request) { writeError(w, errSharedMemory) })
	}
	mux.HandleFunc("GET /metrics", s.getMetrics)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { notHere(mux, w, r) })
	return mux
}

// notHere answers what nothing else does: 405 where another method would have
// been right, else 404.
func notHere(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range [...]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if _, pattern := mux.Handler(&http.Request{Method: m, URL: r.URL, Host: r.Host}); pattern != "/" {
			allowed = append(allowed, m)
		}
	}
	err := faultf(http.StatusNotFound, "nothing answers %s %.1000s", r.Method, r.URL.Path)
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		err = faultf(http.StatusMethodNotAllowed, "%.1000s is for %s, not for %.100s", r.URL.Path, strings.Join(allowed, " and "), r.Method)
	}
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		writeOpenAIError(w, err)
		return
	}
	writeError(w, err)
}

func (s *Server) getServer(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{serverName, s.opts.Version, extensions()})
}

// extensions are those of Triton's protocol documents.
func extensions() []string {
	return []string{
		"binary_tensor_data", "classification", "model_configuration", "model_repository", "model_repository(unload_dependents)",
		"parameters", "schedule_policy", "statistics",
	}
}

// ready is true when every model that active.json names serves.
func (s *Server) ready() bool {
	t := s.table.Load()
	ready := len(t.failed) == 0 && s.looked.Load()
	for _, vs := range t.models {
		for _, v := range vs {
			up, _ := v.ready()
			ready = ready && up
		}
	}
	return ready
}

func (s *Server) getReady(w http.ResponseWriter, _ *http.Request) {
	ready := s.ready()
	writeJSON(w, readyStatus(ready), map[string]bool{"ready": ready})
}

// readyStatus is what load balancers and tritonclient look at.
func readyStatus(ready bool) int {
	if ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// modelMetadata describes one version.
type modelMetadata struct {
	Name     string              `json:"name"`
	Versions []string            `json:"versions"`
	Platform string              `json:"platform"`
	Inputs   []models.TensorSpec `json:"inputs"`
	Outputs  []models.TensorSpec `json:"outputs"`
}

func (s *Server) metadata(name, number string) (modelMetadata, error) {
	t := s.table.Load()
	v, err := t.find(name, number)
	if err != nil {
		return modelMetadata{}, err
	}
	meta := modelMetadata{Name: v.ref.Name, Platform: v.platform()}
	for _, o := range t.models[v.ref.Name] {
		meta.Versions = append(meta.Versions, o.ref.Version)
	}
	sig := v.signature()
	meta.Inputs, meta.Outputs = withShapes(sig.Inputs), withShapes(sig.Outputs)
	return meta, nil
}

func (s *Server) getModel(w http.ResponseWriter, r *http.Request) {
	meta, err := s.metadata(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, meta)
}

// withShapes makes the shape of a scalar [] instead of null.
func withShapes(specs []models.TensorSpec) []models.TensorSpec {
	out := make([]models.TensorSpec, len(specs))
	for i, t := range specs {
		if t.Shape == nil {
			t.Shape = []int64{}
		}
		out[i] = t
	}
	return out
}

func (s *Server) getModelReady(w http.ResponseWriter, r *http.Request) {
	v, err := s.table.Load().find(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	ready, _ := v.ready()
	writeJSON(w, readyStatus(ready), struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{v.ref.Name, ready})
}

// postInfer admits, reads, runs and answers one request. The version is taken
// before the body is read: a switch meanwhile does not change what answers.
func (s *Server) postInfer(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	in := admitted{forwarded: r.Header.Get(backend.HeaderForwarded) != ""}
	v, release, err := s.take(r.PathValue("model"), r.PathValue("version"), in.forwarded)
	if err != nil {
		writeError(w, err)
		return
	}
	defer release()
	if r.ContentLength > s.opts.MaxBodyBytes {
		err = tooLarge(s.opts.MaxBodyBytes) // before there is memory for it
	} else {
		in.ticket, in.away, err = s.enter(max(r.ContentLength, 0), s.overflows(v.ref.Name, in.forwarded))
	}
	elsewhere := false
	if err == nil {
		defer in.leave()
		elsewhere, err = s.infer(w, r, v, in)
	}
	if !elsewhere {
		v.stats.record(time.Since(began), err, s.opts.WallClock())
	}
	if err != nil {
		writeError(w, err)
	}
}

// admitted is a request with its place.
type admitted struct {
	*ticket
	forwarded, away bool // see call
}

// infer reports whether the request was passed on, so that the version here has
// nothing to do with how it went.
func (s *Server) infer(w http.ResponseWriter, r *http.Request, v *version, in admitted) (elsewhere bool, err error) {
	began, ticket := time.Now(), in.ticket
	expected := int64(0) // bytes of tensors in JSON: numbers usually have 8 characters and more
	if r.Header.Get(HeaderLength) == "" {
		expected = r.ContentLength / 2
	}
	raw, arena := s.buffers.get(r.ContentLength), s.buffers.get(expected)
	defer s.buffers.put(raw)
	defer s.buffers.put(arena)
	b := body{r: r, ticket: ticket, max: s.opts.MaxBodyBytes}
	into := raw
	lease, memory := s.lease(r, v)
	if lease != nil {
		defer lease.Release()
		into = &memory
	}
	if err := b.read(into); err != nil {
		return false, err
	}
	c, err := readCall(v, *into, r.Header.Get(HeaderLength), &decoder{arena: *arena, reserve: ticket.grow}, arena)
	if err == nil {
		err = c.decodeImages(v.signature(), ticket.grow)
	}
	if err != nil {
		return false, err
	}
	c.forwarded, c.away = in.forwarded, in.away
	room := s.buffers.get(v.outBytes.Load())
	c.room, c.lease, c.reserve = *room, lease, ticket.grow
	outs, err := s.answer(r.Context(), v, c, began)
	if err != nil {
		return c.elsewhere, err // the run may write to the room still
	}
	*room = c.room
	defer s.buffers.put(room)
	v.outBytes.Store(int64(cap(*room)))
	// The inputs are in the worker's memory now; their buffer holds the answer.
	answer, binaries, err := appendAnswer((*arena)[:0], c.answeredBy(v), c, outs)
	if err != nil {
		return c.elsewhere, err
	}
	*arena = answer
	if c.served != "" {
		w.Header().Set(headerServedBy, c.served)
	}
	s.reply(w, answer, binaries, encodingFor(r.Header["Accept-Encoding"]), ticket)
	return c.elsewhere, nil
}

// readCall reads a body in any of its forms. What d wrote is left in arena.
func readCall(v *version, body []byte, header string, d *decoder, arena *[]byte) (*call, error) {
	if header == "0" {
		raw, err := rawCall(v.signature(), body)
		return &raw, err
	}
	text, tail, err := splitBody(body, header)
	if err != nil {
		return nil, err
	}
	err = d.decode(text, tail)
	*arena = d.arena
	return &d.call, err
}

// leaseFrom is where a body is read straight into the worker's memory: below it
// a copy costs less than the exchange about it.
const leaseFrom = 32 << 10

// lease returns memory of the worker for the body of a request with binary
// tensors, placed so that the first tensor is aligned; nil where a body of its
// own is better.
func (s *Server) lease(r *http.Request, v *version) (*worker.Lease, []byte) {
	n := r.ContentLength
	head, err := strconv.ParseUint(r.Header.Get(HeaderLength), 10, 31)
	if err != nil || n < leaseFrom || n > s.opts.MaxBodyBytes || r.Header.Get("Content-Encoding") != "" || v.queue.plan().MaxItems > 1 {
		return nil, nil
	}
	v.mu.Lock()
	w := v.w
	v.mu.Unlock()
	if w == nil {
		return nil, nil
	}
	const alignment = 64 // of ONNX Runtime's own memory
	pad := int64(-head & (alignment - 1))
	lease := w.Lease(pad + n)
	if lease == nil {
		return nil, nil
	}
	return lease, lease.Bytes()[pad : pad : pad+n]
}

// answer runs a decoded request.
func (s *Server) answer(ctx context.Context, v *version, c *call, began time.Time) ([]worker.Tensor, error) {
	timeout := s.opts.Timeout
	if c.timeout > 0 {
		timeout = min(timeout, c.timeout)
	}
	c.until = began.Add(timeout) // whoever waits minds it: a context for it costs a microsecond
	outs, err := s.run(ctx, v, c)
	if err != nil {
		return nil, err
	}
	return outs, c.classify(outs)
}

// replyBuffer is what net/http takes of an answer before it writes.
const replyBuffer = 2 << 10

// reply writes the JSON of an answer and the tensors behind it, compressed if
// the client asks for that coding and there is memory for it.
func (s *Server) reply(w http.ResponseWriter, answer []byte, binaries []worker.Tensor, coding string, memory *ticket) {
	size := len(answer)
	for _, t := range binaries {
		size += len(t.Data)
	}
	h := w.Header()
	values := make([]string, 3) // one allocation for what Header.Set would make three of
	set := func(key, value string) {
		values[0] = value
		h[key], values = values[:1:1], values[1:]
	}
	if len(binaries) > 0 {
		set("Content-Type", "application/octet-stream")
		set(HeaderLength, strconv.Itoa(len(answer)))
	} else {
		set("Content-Type", "application/json")
	}
	if coding != "" && size >= encodeFrom && memory.grow(int64(size)+encoderBytes) == nil {
		room := s.buffers.get(int64(size))
		defer s.buffers.put(room)
		if short, ok := s.encoders.encode(coding, (*room)[:0:min(size, cap(*room))], answer, binaries); ok {
			h.Set("Content-Encoding", coding)
			h.Add("Vary", "Accept-Encoding")
			size, answer, binaries = len(short), short, nil
		}
	}
	set("Content-Length", strconv.Itoa(size))
	// A client that does not read its answer must not keep its place. What is
	// buffered is sent when that has been given back; the next request sets its own.
	if size > replyBuffer {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opts.Timeout))
	}
	// One that leaves while it is answered is no failure of the model.
	_, _ = w.Write(answer)
	for _, t := range binaries {
		_, _ = w.Write(t.Data)
	}
}
