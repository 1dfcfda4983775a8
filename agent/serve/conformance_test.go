package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/agent/worker/onnxtest"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// loose is a model file without manifest: test data of others is not signed.
type loose worker.Options

func (l loose) ladder() []models.Variant                      { return nil }
func (l loose) worker(models.Variant) (worker.Options, error) { return worker.Options(l), nil }
func (l loose) path(string) (string, error)                   { return l.Model, nil }
func (l loose) check(loaded models.Signature) error           { return nil }

// replaceTable changes the routing table under the lock that a switch holds.
func (s *Server) replaceTable(change func(map[string][]*version)) {
	s.switching.Lock()
	defer s.switching.Unlock()
	next := *s.table.Load()
	next.models = map[string][]*version{}
	maps.Copy(next.models, s.table.Load().models)
	change(next.models)
	s.table.Store(&next)
}

// remote is a model behind the server, reached by HTTP with binary tensors.
type remote struct {
	b   *box
	v   *version
	sig models.Signature
}

// serveFile registers a model file under a name and reads its metadata back.
func (b *box) serveFile(ctx context.Context, name, path string) (*remote, error) {
	opts := b.s.opts.Worker
	opts.Model = path
	ref := models.Ref{Name: name, Version: "1", Digest: blob.Sum([]byte(name))}
	v := b.s.newVersion(ref, loose(opts))
	b.s.begin(ctx, v)
	<-v.loaded
	if v.loadErr != nil {
		return nil, v.loadErr
	}
	b.s.replaceTable(func(m map[string][]*version) { m[name] = []*version{v} })
	r := &remote{b: b, v: v}
	resp, err := http.Get(b.url + "/v2/models/" + name)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return r, json.NewDecoder(resp.Body).Decode(&r.sig)
}

func (r *remote) Signature() models.Signature { return r.sig }

func (r *remote) Close() error {
	r.b.s.replaceTable(func(m map[string][]*version) { delete(m, r.v.ref.Name) })
	r.v.retire()
	return nil
}

func (r *remote) Infer(ctx context.Context, in []worker.Tensor, outputs []string) ([]worker.Tensor, error) {
	body, header := binaryRequest(in)
	got, err := send(ctx, http.DefaultClient, r.b.url+"/v2/models/"+r.v.ref.Name+"/infer", body, HeaderLength, header)
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK {
		return nil, fmt.Errorf("%d: %s", got.status, got.Error)
	}
	byName := map[string]worker.Tensor{}
	var order []string
	for _, o := range got.Outputs {
		byName[o.Name] = worker.Tensor{Name: o.Name, DType: o.DType, Shape: o.Shape, Data: o.raw}
		order = append(order, o.Name)
	}
	if len(outputs) > 0 {
		order = outputs
	}
	var out []worker.Tensor
	for _, name := range order {
		out = append(out, byName[name])
	}
	return out, nil
}

// someCases are every sixth case: all of them run without a server, in package
// worker. With EDGEHERD_PROVE=1 they are all.
func someCases(t *testing.T) []onnxtest.Case {
	cases := onnxtest.Data(t)
	if os.Getenv("EDGEHERD_PROVE") == "1" {
		return cases
	}
	var some []onnxtest.Case
	for i := 0; i < len(cases); i += 6 {
		some = append(some, cases[i])
	}
	return some
}

// TestConformsToONNXOverHTTP sends the ONNX project's own test data through
// the real handler to real workers, one process per model.
func TestConformsToONNXOverHTTP(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a thousand processes")
	}
	cases := someCases(t)
	b := newBox(t, nil)
	var n atomic.Int64
	onnxtest.Suite(t, cases, runtime.GOMAXPROCS(0), func(ctx context.Context, model string) (onnxtest.Session, error) {
		s, err := b.serveFile(ctx, fmt.Sprintf("case-%d", n.Add(1)), model)
		if err != nil {
			return nil, err // not s: a nil *remote is no nil Session
		}
		return s, nil
	})
}
