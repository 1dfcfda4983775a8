package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// publish signs a manifest with these files into the store of the site.
func (s *site) publish(m models.Manifest, files map[string][]byte) models.Ref {
	s.t.Helper()
	m.V = models.ManifestVersion
	for path, data := range files {
		s.must(s.store.Put(bytes.NewReader(data), blob.Sum(data)))
		m.Files = append(m.Files, models.File{Path: path, Digest: blob.Sum(data), SizeBytes: int64(len(data))})
	}
	payload, err := m.Encode()
	s.must(err)
	envelope, err := trust.Sign(trust.TypeModel, payload, s.key)
	s.must(err)
	s.must(s.store.Put(bytes.NewReader(envelope), blob.Sum(envelope)))
	return models.Ref{Name: m.Name, Version: m.Version, Digest: blob.Sum(envelope)}
}

// activate says what shall serve, as the agent does.
func (s *site) activate(edge *runnerapi.Client, refs ...models.Ref) runnerapi.Status {
	s.t.Helper()
	s.must(durable.Journal{Path: filepath.Join(s.dir, "agent/models/active.json"), Version: runnerapi.ActiveVersion}.Save(runnerapi.Active{
		Generation: 8, Models: refs}))
	st, err := edge.Reload(s.t.Context())
	s.must(err)
	return st
}

func (s *site) configure(format string, args ...any) {
	s.t.Helper()
	config, err := os.ReadFile(s.config)
	s.must(err)
	s.must(os.WriteFile(s.config, fmt.Appendf(config, format, args...), 0o600))
}

// program is a path by which this test binary is the runner.
func (s *site) program() string {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	path := filepath.Join(s.dir, "edgeherd-runner")
	s.must(os.Symlink(self, path))
	return path
}

// golden are the samples of a demo model.
func golden(t testing.TB, demo string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(assets.Model(t, demo), models.GoldenFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ask sends one JSON request about a model and returns status, answer and header.
func (s *site) ask(model string, headers ...string) (int, string, http.Header) {
	s.t.Helper()
	return s.post(model, voiceRequest(func(i int) float64 { return math.Sin(float64(i) / 7) }), headers...)
}

// post sends a request about a model.
func (s *site) post(model, body string, headers ...string) (int, string, http.Header) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.http+"/v2/models/"+model+"/infer", strings.NewReader(body))
	s.must(err)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	s.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	s.must(err)
	return resp.StatusCode, string(data), resp.Header
}

// TestBackendHasTheStatesOfAnyModel: another runner, started as a process for
// each version, is a model here: proved, switched, restarted when it dies, and
// gone with its version; a version that answers wrongly never serves. REST and
// gRPC reach it alike.
func TestBackendHasTheStatesOfAnyModel(t *testing.T) {
	far, s := newSite(t, "silero-vad-5.0.0"), newSite(t, "silero-vad-5.0.0")
	s.configure(`backends:
  - name: peer
    process: [%[1]q, run, --config, %[2]q, --socket, "off", --state, "{dir}/state", --http, "127.0.0.1:{port}"]
  - name: peer-grpc
    process: [%[1]q, run, --config, %[2]q, --socket, "off", --state, "{dir}/state", --http, "off", --grpc, "127.0.0.1:{port}"]
    url: grpc://127.0.0.1:{port}
`, s.program(), far.config)
	packed, _, err := models.Pack(assets.Model(t, "silero-vad-5.0.0"))
	s.must(err)
	right, wrong := golden(t, "silero-vad-5.0.0"), golden(t, "silero-vad-6.0.0")
	version := func(number, name string, samples []byte) models.Ref {
		return s.publish(models.Manifest{Name: "ears", Version: number, Signature: packed.Signature,
			Backend: &models.Backend{Name: name, API: models.APIOIP, Model: "silero-vad", Version: "5"}}, map[string][]byte{models.GoldenFile: samples})
	}
	first, bad, second := version("1", "peer", right), version("2", "peer", wrong), version("3", "peer-grpc", right)

	r := s.start()
	s.status()
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	p, err := edge.Probe(t.Context(), first)
	if err != nil || !p.OK || p.GoldenPassed != p.GoldenTotal || p.GoldenTotal == 0 || p.SecondsPerItem <= 0 || p.PeakRSSBytes == 0 {
		t.Fatalf("probe: %+v, %v", p, err)
	}
	st := s.activate(edge, first)
	if m := st.Models[0]; m.State != runnerapi.ModelReady || m.Backend != "peer (process)" || m.WorkerPID == 0 {
		t.Fatalf("status: %+v", st.Models)
	}
	status, text, header := s.ask("ears")
	if status != http.StatusOK || !strings.Contains(text, `"model_name":"ears","model_version":"1","parameters":{"served_by":"local"}`) || header.Get("Edgeherd-Served-By") != "local" {
		t.Fatalf("infer: %d %s %v", status, text, header)
	}
	// The program only says no; the signature says why.
	if status, text, _ := s.post("ears", `{"inputs":[{"name":"input","datatype":"FP32","shape":[1],"data":[0]}]}`); status != http.StatusBadRequest || !strings.Contains(text, "shape is [1], wanted [-1 -1]") {
		t.Errorf("wrong shape: %d %s", status, text)
	}
	// What a wrong version does is seen beside the right one, which goes on.
	if p, err = edge.Probe(t.Context(), bad); err != nil || p.OK || p.GoldenPassed == p.GoldenTotal || !strings.Contains(p.Err, "golden") {
		t.Errorf("probe of the wrong version: %+v, %v", p, err)
	}
	if status, text, _ := s.ask("ears"); status != http.StatusOK || !strings.Contains(text, `"model_version":"1"`) {
		t.Errorf("after it: %d %s", status, text)
	}
	lying := packed.Signature
	lying.Outputs = append([]models.TensorSpec{{Name: "mood", DType: models.FP32, Shape: []int64{1}}}, lying.Outputs...)
	other := s.publish(models.Manifest{Name: "ears", Version: "4", Signature: lying,
		Backend: &models.Backend{Name: "peer", API: models.APIOIP, Model: "silero-vad", Version: "5"}}, map[string][]byte{models.GoldenFile: right})
	if p, err = edge.Probe(t.Context(), other); err != nil || p.OK || !strings.Contains(p.Err, `output "mood" is gone`) {
		t.Errorf("probe of one that promises more than there is: %+v, %v", p, err)
	}
	pid := st.Models[0].WorkerPID
	s.must(syscall.Kill(pid, syscall.SIGKILL))
	s.eventually("the program is started again", func() bool {
		st, err = edge.Status(t.Context())
		return err == nil && len(st.Models) == 1 && st.Models[0].State == runnerapi.ModelReady && st.Models[0].WorkerPID != pid && st.Models[0].Restarts == 1
	})
	if p, err = edge.Probe(t.Context(), second); err != nil || !p.OK {
		t.Fatalf("probe over gRPC: %+v, %v", p, err)
	}
	pid = st.Models[0].WorkerPID
	st = s.activate(edge, second)
	if status, after, _ := s.ask("ears"); status != http.StatusOK || strings.Replace(text, `"1"`, `"3"`, 1) != after {
		t.Errorf("REST in, gRPC on: %d %s, want as before: %s", status, after, text)
	}
	s.eventually("the program of the version before ends", func() bool { return gone(pid) })
	for _, m := range st.Models {
		if m.Ref == second {
			pid = m.WorkerPID
		}
	}
	s.must(r.Process.Kill())
	<-r.done
	s.eventually("a killed runner takes its programs along", func() bool { return gone(pid) })
}
