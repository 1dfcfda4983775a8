package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// parrot is a server in the manner of llama-server that says what it was told.
type parrot struct {
	*httptest.Server
	well  atomic.Bool
	tells chan struct{} // each lets one piece of a stream go
	asked atomic.Pointer[string]
}

func newParrot(t *testing.T) *parrot {
	p := &parrot{tells: make(chan struct{})}
	p.well.Store(true)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if !p.well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			Model    string `json:"model"`
			Stream   bool   `json:"stream"`
			Messages []struct {
				Content string `json:"content"`
			} `json:"messages"`
		}
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.asked.Store(&ask.Model)
		text := "the parrot says " + ask.Messages[0].Content
		if !ask.Stream {
			writeJSON(w, http.StatusOK, map[string]any{"choices": []any{map[string]any{"message": map[string]string{"content": text}}}})
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for word := range strings.FieldsSeq(text) {
			fmt.Fprintf(w, "data: %s\n\n", word)
			w.(http.Flusher).Flush()
			select {
			case <-p.tells:
			case <-r.Context().Done():
				return
			}
		}
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// TestLanguageModelIsAModelLikeAnyOther: proved by prompts, asked under its own
// name, answered piece by piece, and out of service while its server is.
func TestLanguageModelIsAModelLikeAnyOther(t *testing.T) {
	p := newParrot(t)
	config, err := backend.Config{Name: "llama", API: models.APIOpenAI, Endpoint: backend.Endpoint{URL: p.URL}}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b := newBox(t, func(o *Options) { o.Backends, o.State = []backend.Config{config}, t.TempDir() })
	publish := func(version, want string) models.Ref {
		prompts, err := json.Marshal(models.Prompts{V: models.PromptsVersion, Cases: []models.Prompt{{Name: "echo", Prompt: "seven", Contains: want, Matches: "^the .* seven$"}}})
		if err != nil {
			t.Fatal(err)
		}
		return b.sign(models.Manifest{V: models.ManifestVersion, Name: "chat", Version: version,
			Backend: &models.Backend{Name: "llama", API: models.APIOpenAI, Model: "qwen:7b"},
			Files:   []models.File{{Path: models.PromptsFile, Digest: b.put(prompts), SizeBytes: int64(len(prompts))}}}, b.key)
	}
	good, bad := publish("1", "parrot"), publish("2", "owl")
	if r, err := b.edge.Probe(t.Context(), good); err != nil || !r.OK || r.GoldenPassed != 1 {
		t.Fatalf("probe: %+v, %v", r, err)
	}
	b.ready(good)
	if r, err := b.edge.Probe(t.Context(), bad); err != nil || r.OK || !strings.Contains(r.Err, "owl") {
		t.Fatalf("probe of the wrong one: %+v, %v", r, err)
	}
	client := &http.Client{Timeout: 5 * time.Minute} // an answer that is not handed on in pieces never begins
	ask := func(path, body string) (*http.Response, error) {
		return client.Post(b.url+path, "application/json", strings.NewReader(body))
	}
	for _, tc := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/chat/completions", `{"model":"chat","messages":[{"content":"hello"}]}`, 200, "the parrot says hello"},
		{"/v1/chat/completions", `{"model":"owl","messages":[]}`, 404, `"message":"no model \"owl\" is loaded"`},
		{"/v1/chat/completions", `[1]`, 400, "invalid_request_error"},
		{"/v1/chat/completions", `{"messages":[]}`, 400, "no \\\"model\\\""},
		{"/v1/load_lora_adapter", `{"model":"chat"}`, 404, "nothing answers"},
		{"/v2/models/chat/infer", `{"inputs":[]}`, 400, "/v1/chat/completions"},
	} {
		resp, err := ask(tc.path, tc.body)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.status || !bytes.Contains(text, []byte(tc.want)) {
			t.Errorf("%s %s: %d %s, want %d with %q", tc.path, tc.body, resp.StatusCode, text, tc.status, tc.want)
		}
	}
	if got := *p.asked.Load(); got != "qwen:7b" {
		t.Errorf("the server was asked for %q, want its own name of the model", got)
	}
	resp, err := ask("/v1/chat/completions", `{"model":"chat","stream":true,"messages":[{"content":"bye"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	piece := make([]byte, 100)
	n, err := resp.Body.Read(piece) // before the server has said the second word
	if err != nil || string(piece[:n]) != "data: the\n\n" || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get(headerServedBy) != servedHere {
		t.Errorf("first piece %q, %v, %v", piece[:n], err, resp.Header)
	}
	close(p.tells)
	if rest, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(rest), "data: bye\n\n") {
		t.Errorf("rest %q, %v", rest, err)
	}
	p.well.Store(false)
	b.eventually("it is out of service", func() bool { return b.status(good).State != runnerapi.ModelReady })
	p.well.Store(true)
	b.eventually("it serves again", func() bool { return b.status(good).State == runnerapi.ModelReady })
	if st := b.status(good); st.Requests < 2 || st.Restarts != 1 || st.Backend != "llama (watched)" {
		t.Errorf("status: %+v", st)
	}
}
