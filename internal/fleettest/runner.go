package fleettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// resultEvery is how often an imitated runner finishes a piece of work.
const resultEvery = 5 * time.Second

// Runner imitates edgeherd-runner at the level of its socket. It survives its
// agent, as the real one does.
type Runner struct {
	box    *Box
	server *http.Server
	work   *process

	mu         sync.Mutex // guards the fields below
	results    []runnerapi.Result
	next       uint64
	acked      uint64
	made       []string // items of all results, ever
	active     runnerapi.Active
	file       os.FileInfo // that it was read from
	loaded     map[blob.Digest]behaviour
	candidates map[blob.Digest]bool
	switches   []string // name:version in the order of activation
	duty       runnerapi.Duty
}

func newRunner(f *Fleet, b *Box) *Runner {
	r := &Runner{box: b, loaded: map[blob.Digest]behaviour{}, candidates: map[blob.Digest]bool{}}
	l, err := f.Net.Listen(b.runnerAddr())
	if err != nil {
		f.T.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /edge/v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, r.status()) })
	mux.HandleFunc("POST /edge/v1/candidates", r.probe)
	mux.HandleFunc("DELETE /edge/v1/candidates/{digest}", r.drop)
	mux.HandleFunc("POST /edge/v1/candidates/{digest}/shadow", r.shadow)
	mux.HandleFunc("POST /edge/v1/reload", func(w http.ResponseWriter, _ *http.Request) { r.reload(); reply(w, r.status()) })
	mux.HandleFunc("GET /edge/v1/results", r.list)
	mux.HandleFunc("POST /edge/v1/results/ack", r.ack)
	mux.HandleFunc("POST /edge/v1/duty", func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		_ = json.NewDecoder(req.Body).Decode(&r.duty) // the real runner checks it
	})
	r.server = &http.Server{Handler: mux}
	r.work = start(func(ctx context.Context) error { return r.run(ctx) })
	go func() {
		if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			f.T.Errorf("runner of %s: %v", b.Name, err)
		}
	}()
	return r
}

// Rest ends the making of results: in tests of weeks they are most of the work.
func (r *Runner) Rest() { _ = r.work.stop() } // returns nil always

func (r *Runner) close() {
	r.reload() // what was activated must still be there
	r.server.Close()
	_ = r.work.stop() // returns nil always
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a peer that left needs no answer
}

// run makes results while models serve.
func (r *Runner) run(ctx context.Context) error {
	tick := time.NewTicker(resultEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.mu.Lock()
			r.next++
			item := fmt.Sprintf("%s-%d", r.box.Name, r.next)
			r.results = append(r.results, runnerapi.Result{
				Cursor: r.next, UnixMs: r.box.now().UnixMilli(), Input: "camera", Pipeline: "label-reader",
				Item: item, Text: "BRANCH 042", Want: "BRANCH 042", Score: 0.99, LatencyMs: 12,
			})
			r.made = append(r.made, item)
			r.mu.Unlock()
		}
	}
}

// Ledger returns the items that the agent has taken over for good, and those
// that still wait in the outbox.
func (r *Runner) Ledger() (taken, waiting []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.made[:r.acked]...), append([]string(nil), r.made[r.acked:]...)
}

// Switches lists the versions that were activated, in order.
func (r *Runner) Switches() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.switches...)
}

func (r *Runner) activePath() string {
	return filepath.Join(r.box.dir, "agent", "models", "active.json")
}

// reload reads active.json as the real runner does: every file it names must
// be there.
func (r *Runner) reload() {
	var a runnerapi.Active
	found, err := durable.Journal{Path: r.activePath(), Version: runnerapi.ActiveVersion}.Load(&a)
	if err != nil || !found {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := map[blob.Digest]bool{}
	for _, m := range r.active.Models {
		was[m.Digest] = true
	}
	for _, m := range a.Models {
		b, err := r.load(a.Blobs, m)
		if err != nil {
			r.box.fleet.T.Errorf("%s: active.json names %s, which does not load: %v", r.box.Name, m, err)
			continue
		}
		r.loaded[m.Digest] = b
		if !was[m.Digest] {
			r.switches = append(r.switches, m.String())
		}
		delete(r.candidates, m.Digest)
	}
	r.active = a
}

// load opens a model from the blob store of the box and reads its behaviour.
func (r *Runner) load(blobs string, ref models.Ref) (behaviour, error) {
	bs, err := blob.Open(blobs)
	if err != nil {
		return "", err
	}
	envelope, err := bs.ReadAll(ref.Digest, trust.MaxEnvelopeBytes)
	if err != nil {
		return "", err
	}
	// The imitation trusts what the agent has checked.
	var e struct {
		Payload []byte `json:"payload"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return "", err
	}
	m, err := models.DecodeManifest(e.Payload)
	if err != nil {
		return "", err
	}
	for _, file := range m.Files {
		if size, err := bs.Size(file.Digest); err != nil || size != file.SizeBytes {
			return "", fmt.Errorf("file %s: size %d, %w", file.Path, size, errors.Join(err, os.ErrInvalid))
		}
	}
	file, _ := m.File(models.ModelFile)
	data, err := bs.ReadAll(file.Digest, 64<<20)
	if err != nil {
		return "", err
	}
	return behaviourOf(data), nil
}

func (r *Runner) status() runnerapi.Status {
	// Looking at every file anew for each question was a tenth of what the tests cost.
	if info, err := os.Stat(r.activePath()); err == nil && !r.seen(info) {
		r.reload()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := runnerapi.Status{Version: "test", RuntimeVersion: "imitation", PID: 1, Generation: r.active.Generation, OutboxRecords: int64(len(r.results))}
	for _, m := range r.active.Models {
		ms := runnerapi.ModelStatus{Ref: m, State: runnerapi.ModelReady, Requests: 1000}
		if r.loaded[m.Digest] == failsInTrial {
			ms.Failures = 900
		}
		s.Models = append(s.Models, ms)
	}
	r.settings(&s)
	return s
}

// seen says whether active.json is the file that it was, and remembers it.
func (r *Runner) seen(info os.FileInfo) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.file
	r.file = info
	return was != nil && os.SameFile(was, info) && was.ModTime().Equal(info.ModTime())
}

// settings imitates how the runner takes the fleet's up: an input whose path has
// the word missing does not work.
func (r *Runner) settings(s *runnerapi.Status) {
	var file runnerapi.Settings
	var content struct {
		Inputs []struct{ Name, Pipeline, Path string }
	}
	path := filepath.Join(filepath.Dir(r.activePath()), runnerapi.SettingsFile)
	if found, err := (durable.Journal{Path: path, Version: runnerapi.SettingsVersion}).Load(&file); err != nil || !found {
		return
	}
	s.Settings = &runnerapi.SettingsStatus{Digest: file.Digest}
	if err := json.Unmarshal(file.Content, &content); err != nil {
		s.Settings.Err = err.Error()
	}
	for _, in := range content.Inputs {
		st := runnerapi.InputStatus{Name: in.Name, Pipeline: in.Pipeline}
		if strings.Contains(in.Path, "missing") {
			st.Err = "open " + in.Path + ": no such file or directory"
		}
		s.Inputs = append(s.Inputs, st)
	}
}

func (r *Runner) probe(w http.ResponseWriter, req *http.Request) {
	var ref models.Ref
	if err := json.NewDecoder(req.Body).Decode(&ref); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := runnerapi.Probe{Ref: ref, LoadSeconds: 0.1, PeakRSSBytes: 30 << 20, SecondsPerItem: 0.001, GoldenTotal: 2}
	b, err := r.load(filepath.Join(r.box.dir, "agent", "blobs"), ref)
	switch {
	case err != nil:
		p.Err = err.Error()
	case b == failsGolden:
		p.GoldenPassed, p.Err = 1, "golden sample 2: output differs"
	default:
		p.OK, p.GoldenPassed = true, 2
	}
	r.mu.Lock()
	r.candidates[ref.Digest] = p.OK
	r.mu.Unlock()
	reply(w, p)
}

// shadow lets a candidate agree with what serves.
func (r *Runner) shadow(w http.ResponseWriter, req *http.Request) {
	d, err := blob.ParseDigest("sha256:" + req.PathValue("digest"))
	s := r.status()
	r.mu.Lock()
	ok := err == nil && r.candidates[d]
	r.mu.Unlock()
	if !ok {
		http.Error(w, "no such candidate", http.StatusNotFound)
		return
	}
	s.Models = append(s.Models, runnerapi.ModelStatus{Ref: models.Ref{Digest: d}, State: runnerapi.ModelCandidate,
		Shadow: &runnerapi.Shadow{Seen: 100, Compared: 60, Agreement: 1, LatencyRatio: 1}})
	reply(w, s)
}

func (r *Runner) drop(w http.ResponseWriter, req *http.Request) {
	d, err := blob.ParseDigest("sha256:" + req.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.candidates, d)
	w.WriteHeader(http.StatusNoContent)
}

func (r *Runner) list(w http.ResponseWriter, req *http.Request) {
	after, _ := strconv.ParseUint(req.FormValue("after"), 10, 64)
	most, _ := strconv.Atoi(req.FormValue("max"))
	r.mu.Lock()
	defer r.mu.Unlock()
	out := runnerapi.Results{Outbox: "outbox-" + r.box.Name, Records: []runnerapi.Result{}}
	for _, rec := range r.results {
		if rec.Cursor > after && len(out.Records) < most {
			out.Records = append(out.Records, rec)
			out.Next = rec.Cursor
		}
	}
	reply(w, out)
}

func (r *Runner) ack(w http.ResponseWriter, req *http.Request) {
	var a runnerapi.AckRequest
	if err := json.NewDecoder(req.Body).Decode(&a); err != nil || !strings.HasPrefix(a.Outbox, "outbox-") {
		http.Error(w, "bad acknowledgement", http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.results) > 0 && r.results[0].Cursor <= a.Cursor {
		r.results = r.results[1:]
	}
	r.acked = max(r.acked, a.Cursor)
	w.WriteHeader(http.StatusNoContent)
}
