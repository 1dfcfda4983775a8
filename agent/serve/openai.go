package serve

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// Language models: requests below /v1 go to the backend of the model that they
// name, and its answer, which may take minutes, is handed on as it comes.

// passed are the paths below /v1 that only compute. What else servers have
// there loads adapters, keeps files or changes the server.
func passed() []string {
	return []string{"chat/completions", "completions", "embeddings", "messages", "rerank", "responses"}
}

// isOpenAI says that the version has no tensors.
func (v *version) isOpenAI() bool { return v.ext != nil && v.ext.config.API == models.APIOpenAI }

// platform is the protocol's word for what runs the model.
func (v *version) platform() string {
	if v.ext != nil {
		return "edgeherd_backend_" + v.ext.config.API
	}
	return platform
}

func (s *Server) openAIRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/models", s.getOpenAIModels)
	for _, path := range passed() {
		mux.HandleFunc("POST /v1/"+path, s.postOpenAI)
	}
}

func (s *Server) getOpenAIModels(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		OwnedBy string `json:"owned_by"`
	}
	list := []entry{}
	t := s.table.Load()
	for _, v := range s.known() {
		if up, _ := v.ready(); up && t.serves(v) && v.isOpenAI() {
			list = append(list, entry{v.ref.Name, "model", v.ref.Version})
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (s *Server) postOpenAI(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	v, err := s.passOn(w, r)
	if v != nil {
		v.stats.record(time.Since(began), err, s.opts.WallClock())
		v.release()
	}
	if err != nil {
		writeOpenAIError(w, err)
	}
}

func writeOpenAIError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter(err))
	}
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": err.Error(), "type": kind, "code": nil, "param": nil}})
}

// passOn returns the version that was asked, which the caller releases, and an
// error when nothing has been answered yet.
func (s *Server) passOn(w http.ResponseWriter, r *http.Request) (*version, error) {
	if r.ContentLength > s.opts.MaxBodyBytes {
		return nil, tooLarge(s.opts.MaxBodyBytes)
	}
	ticket, err := s.gate.enter(2 * max(r.ContentLength, 0)) // read once, and written again
	if err != nil {
		return nil, err
	}
	defer ticket.leave()
	raw := s.buffers.get(r.ContentLength)
	defer s.buffers.put(raw)
	if err := (body{r: r, ticket: ticket, max: s.opts.MaxBodyBytes}).read(raw); err != nil {
		return nil, err
	}
	var ask struct {
		Model string `json:"model"`
	}
	if err := json.Unmarshal(*raw, &ask); err != nil {
		return nil, faultf(http.StatusBadRequest, "parse request: %w", err)
	}
	if ask.Model == "" {
		return nil, faultf(http.StatusBadRequest, "the request has no \"model\": GET /v1/models lists what serves")
	}
	v, err := s.acquire(ask.Model, "")
	if err != nil {
		return nil, err
	}
	if !v.isOpenAI() {
		return v, faultf(http.StatusBadRequest, "model %s takes tensors: ask /v2/models/%s/infer", v.ref, v.ref.Name)
	}
	ctx, cancel := context.WithTimeout(r.Context(), v.ext.config.Timeout)
	defer cancel()
	resp, err := v.askOpenAI(ctx, strings.TrimPrefix(r.URL.Path, "/v1/"), *raw)
	if err != nil {
		return v, err
	}
	defer resp.close()
	return v, resp.handOn(w, s.opts.Timeout)
}

// openAIAnswer is one under way.
type openAIAnswer struct {
	*http.Response
	v     *version
	began time.Time
}

// askOpenAI sends a request under the backend's own name of the model.
func (v *version) askOpenAI(ctx context.Context, path string, text []byte) (*openAIAnswer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, faultf(http.StatusBadRequest, "parse request: %w", err)
	}
	r, err := v.ext.serving()
	if err != nil {
		return nil, faultf(http.StatusServiceUnavailable, "model %s: %w", v.ref, err)
	}
	fields["model"] = appendText(nil, r.model)
	if text, err = json.Marshal(fields); err != nil {
		return nil, faultf(http.StatusBadRequest, "parse request: %w", err)
	}
	if !v.ext.enter() {
		return nil, overload()
	}
	a := &openAIAnswer{v: v, began: time.Now()}
	req, err := r.client.Request(ctx, http.MethodPost, "/v1/"+path, bytes.NewReader(text))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
		a.Response, err = r.client.Do(req)
	}
	if err != nil {
		v.ext.leave()
		return nil, v.logElsewhere(told(err))
	}
	return a, nil
}

func (a *openAIAnswer) close() {
	_ = a.Body.Close() // what is left of it is nobody's
	a.v.ext.leave()
	cost := worker.Cost{Run: time.Since(a.began)}
	a.v.stats.executed(1, cost, nil)
	a.v.stats.parts(cost.Run, cost)
}

// handOn writes the answer as it comes. An error is returned when nothing has
// been written; a client that stops to read is let go.
func (a *openAIAnswer) handOn(w http.ResponseWriter, patience time.Duration) error {
	if a.StatusCode >= http.StatusInternalServerError {
		text, _ := io.ReadAll(io.LimitReader(a.Body, 4<<10))
		return a.v.logElsewhere(told(&backend.Failure{Status: a.StatusCode, Text: string(bytes.TrimSpace(text))}))
	}
	w.Header().Set("Content-Type", cmp.Or(a.Header.Get("Content-Type"), "application/json"))
	w.Header().Set(headerServedBy, a.v.ext.place())
	w.WriteHeader(a.StatusCode)
	control := http.NewResponseController(w)
	buf := make([]byte, 16<<10)
	for left := int64(maxAnswer); left > 0; {
		n, err := a.Body.Read(buf)
		left -= int64(n)
		_ = control.SetWriteDeadline(time.Now().Add(patience))
		if _, werr := w.Write(buf[:n]); werr != nil {
			return nil // the client has left
		}
		_ = control.Flush()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if !errors.Is(err, context.Canceled) { // else the client has left
				a.v.log.Warn("backend broke off its answer", "err", err)
			}
			panic(http.ErrAbortHandler) // the client must not take it for whole
		}
	}
	panic(http.ErrAbortHandler)
}

// provePrompts runs the prompts that prove a language model.
func (v *version) provePrompts(ctx context.Context, p *runnerapi.Probe) error {
	f, _ := v.ext.manifest.File(models.PromptsFile)
	text, err := v.ext.files.blobs.ReadAll(f.Digest, models.MaxGoldenBytes)
	if err != nil {
		return fmt.Errorf("read prompts: %w", err)
	}
	prompts, err := models.DecodePrompts(text)
	if err != nil {
		return fmt.Errorf("prompts: %w", err)
	}
	p.GoldenTotal = len(prompts.Cases)
	var faults []error
	var took []time.Duration
	for _, c := range prompts.Cases {
		began := time.Now()
		if err := v.answersPrompt(ctx, c); err != nil {
			faults = append(faults, fmt.Errorf("prompt %q: %w", c.Name, err))
		}
		took = append(took, time.Since(began))
	}
	return verdict(p, took, faults, "prompts")
}

func (v *version) answersPrompt(ctx context.Context, c models.Prompt) error {
	ctx, cancel := context.WithTimeout(ctx, v.ext.config.Timeout)
	defer cancel()
	path, text := c.Request()
	if !slices.Contains(passed(), path) {
		return fmt.Errorf("/v1/%s is not passed on", path)
	}
	a, err := v.askOpenAI(ctx, path, text)
	if err != nil {
		return err
	}
	defer a.close()
	answer, err := io.ReadAll(io.LimitReader(a.Body, maxPromptAnswer))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return c.Check(a.StatusCode, answer)
}

// maxPromptAnswer is far above what a prompt of a test asks for.
const maxPromptAnswer = 4 << 20
