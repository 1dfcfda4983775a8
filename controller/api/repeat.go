package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// replayed is the header of an answer that was given before.
const replayed = "Idempotency-Replayed"

// maxKeyBytes bounds an idempotency key.
const maxKeyBytes = 255

// inFlight holds the idempotency keys of requests that are being answered.
type inFlight struct {
	mu   sync.Mutex
	keys map[string]bool // guarded by mu
}

func (f *inFlight) begin(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys[key] {
		return false
	}
	if f.keys == nil {
		f.keys = map[string]bool{}
	}
	f.keys[key] = true
	return true
}

func (f *inFlight) end(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, key)
}

// acting marks a route whose requests may bear an idempotency key. The key is
// read before the framework parses; it is described all the same.
func (a *API) acting(op huma.Operation) huma.Operation {
	op.Middlewares = append(op.Middlewares, a.once)
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "The same key with the same body gets the first answer again, for a day",
	})
	return op
}

// once answers a request that bears an Idempotency-Key from the first answer
// when it comes again within a day (draft-ietf-httpapi-idempotency-key-header).
// A crash between the act and the keeping of its answer repeats the act, so
// what stands behind must bear that.
func (a *API) once(ctx huma.Context, next func(huma.Context)) {
	key := ctx.Header("Idempotency-Key")
	if key == "" {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	if len(key) > maxKeyBytes {
		a.fail(w, r, badRequest("", "the Idempotency-Key has %d bytes, at most %d are allowed", len(key), maxKeyBytes))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSONBytes))
	if err != nil {
		a.fail(w, r, tooLong(err))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(append([]byte(r.Method+" "+r.URL.RequestURI()+"\n"), body...))
	key = who(r.Context()).Key() + "\n" + key // one's key never meets another's
	if !a.running.begin(key) {
		a.fail(w, r, conflict("Wait for its answer.", "a request with this Idempotency-Key is being answered"))
		return
	}
	defer a.running.end(key)
	kept, err := a.opts.Store.Reply(r.Context(), key)
	switch {
	case err == nil && !bytes.Equal(kept.Request, sum[:]):
		a.fail(w, r, refuse("Use a new key for a new request.", "this Idempotency-Key was used for another request"))
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set(replayed, "true")
		w.WriteHeader(kept.Status)
		w.Write(kept.Body)
	case errors.Is(err, store.ErrNotFound):
		rec := &recorder{ResponseWriter: w}
		next(humago.NewContext(ctx.Operation(), r, rec))
		a.keep(context.WithoutCancel(r.Context()), key, sum[:], rec)
	default:
		a.fail(w, r, err)
	}
}

// keep stores a success. A refusal may be right the next time.
func (a *API) keep(ctx context.Context, key string, request []byte, rec *recorder) {
	if rec.status < 200 || rec.status > 299 {
		return
	}
	if err := a.opts.Store.KeepReply(ctx, key, store.Reply{Request: request, Status: rec.status, Body: rec.body.Bytes()}); err != nil {
		a.log.Warn("answer not kept for a repetition", "err", err)
	}
}

func tooLong(err error) error {
	var m *http.MaxBytesError
	if errors.As(err, &m) {
		return fleetapi.Problem(http.StatusRequestEntityTooLarge, "the body is longer than 1 MiB", "")
	}
	return badRequest("", "the body broke off: %s", err)
}

// recorder passes an answer on and keeps a copy.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body.Write(data)
	return r.ResponseWriter.Write(data)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
