package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// load sends requests from several clients until stop and counts the answers.
type load struct {
	done   sync.WaitGroup
	cancel context.CancelFunc
	good   atomic.Int64
	mu     sync.Mutex
	bad    []string
	seen   map[string]bool // versions that answered
}

func (b *box) load(clients int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, seen: map[string]bool{}}
	body, header := binaryRequest(voice())
	for range clients {
		l.done.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				r, err := send(context.WithoutCancel(ctx), client, b.url+inferVoice, body, HeaderLength, header)
				l.mu.Lock()
				switch {
				case err != nil:
					l.bad = append(l.bad, err.Error())
				case r.status != http.StatusOK:
					l.bad = append(l.bad, fmt.Sprint(r.status, " ", r.Error))
				default:
					l.good.Add(1)
					l.seen[r.Version] = true
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// stop ends the load and returns what failed.
func (l *load) stop() []string {
	l.cancel()
	l.done.Wait()
	return l.bad
}

// TestNoRequestFailsDuringASwitch goes back and forth between two versions
// under load, over the API and by the watched file alone.
func TestNoRequestFailsDuringASwitch(t *testing.T) {
	b := newBox(t, nil)
	v5, v6 := b.demo("silero-vad-5.0.0", "vad", "5"), b.demo("silero-vad-6.0.0", "vad", "6")
	b.ready(v5)
	l := b.load(8)
	for i, ref := range []models.Ref{v6, v5, v6, v5, v6, v5} {
		if i%2 == 0 {
			b.ready(ref)
		} else {
			b.write(ref)
			b.eventually("the watch switches", func() bool { return b.status(ref).State == runnerapi.ModelReady })
		}
		before := l.good.Load()
		b.eventually("requests go on", func() bool { return l.good.Load() > before+20 })
	}
	if bad := l.stop(); len(bad) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(bad), l.good.Load(), bad[0])
	}
	if !l.seen["5"] || !l.seen["6"] {
		t.Errorf("versions that answered: %v", l.seen)
	}
	b.eventually("retired versions are unloaded", func() bool { return len(b.s.known()) == 1 })
	t.Logf("%d requests", l.good.Load())
}

// TestOnlyRequestsUnderWayDieWithTheWorker kills the worker again and again.
func TestOnlyRequestsUnderWayDieWithTheWorker(t *testing.T) {
	const clients, kills = 4, 5
	b := newBox(t, nil)
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(ref)
	l := b.load(clients)
	pid := 0
	for range kills {
		b.eventually("a new worker serves", func() bool {
			st := b.status(ref)
			ok := st.State == runnerapi.ModelReady && st.WorkerPID != 0 && st.WorkerPID != pid
			if ok {
				pid = st.WorkerPID
			}
			return ok
		})
		before := l.good.Load()
		b.eventually("requests are answered", func() bool { return l.good.Load() > before+20 })
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	before := l.good.Load()
	b.eventually("requests are answered after the last kill", func() bool { return l.good.Load() > before+20 })
	bad := l.stop()
	// At most one request per client is under way at each kill.
	if len(bad) > clients*kills {
		t.Errorf("%d requests failed, at most %d were under way: %s", len(bad), clients*kills, bad[len(bad)-1])
	}
	for _, text := range bad {
		if !strings.Contains(text, "503") || !strings.Contains(text, "worker process died") {
			t.Errorf("failed with %s", text)
		}
	}
	st := b.status(ref)
	if st.Restarts != kills || int(st.Failures) != len(bad) {
		t.Errorf("status says %d restarts and %d failures, want %d and %d", st.Restarts, st.Failures, kills, len(bad))
	}
}

// golden makes samples from what a model answers, shifted by off.
func (b *box) golden(folder string, off float32) *models.Golden {
	b.t.Helper()
	opts := b.s.opts.Worker
	path := filepath.Join(b.t.TempDir(), models.ModelFile)
	if err := os.WriteFile(path, modelBytes(b.t, folder), 0o600); err != nil {
		b.t.Fatal(err)
	}
	opts.Model = path
	w, err := worker.Start(b.t.Context(), opts, b.s.log)
	if err != nil {
		b.t.Fatal(err)
	}
	defer w.Close()
	out, err := w.Infer(b.t.Context(), voice(), []string{"output"})
	if err != nil {
		b.t.Fatal(err)
	}
	data := bytes.Clone(out[0].Data)
	if off != 0 {
		data = floats(off)
	}
	c := models.GoldenCase{Name: "sine", Outputs: []models.GoldenWant{{
		TensorSpec: models.TensorSpec{Name: "output", DType: models.FP32, Shape: out[0].Shape}, Data: data, Abs: 1e-3,
	}}}
	for _, in := range voice() {
		c.Inputs = append(c.Inputs, models.GoldenInput{TensorSpec: models.TensorSpec{Name: in.Name, DType: in.DType, Shape: in.Shape}, Data: in.Data})
	}
	return &models.Golden{V: models.GoldenVersion, Cases: []models.GoldenCase{c}}
}

// TestCandidateIsProvedBesideWhatServes: measured and warm, then switched to
// without a second load; and a refused one leaves nothing behind.
func TestCandidateIsProvedBesideWhatServes(t *testing.T) {
	b := newBox(t, nil)
	v5 := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(v5)
	data := modelBytes(t, "silero-vad-6.0.0")
	good := b.publish("vad", "6", data, data, b.golden("silero-vad-6.0.0", 0))
	wrong := b.publish("vad", "6-wrong", data, data, b.golden("silero-vad-6.0.0", 0.75))
	l := b.load(2)

	p, err := b.edge.Probe(t.Context(), wrong)
	if err != nil || p.OK || p.GoldenPassed != 0 || p.GoldenTotal != 1 || !strings.Contains(p.Err, `"sine"`) || !strings.Contains(p.Err, `"output"`) {
		t.Errorf("probe of wrong answers: %+v, %v", p, err)
	}
	if st := b.status(wrong); st.State != "" {
		t.Errorf("the refused candidate is still %s", st.State)
	}
	p, err = b.edge.Probe(t.Context(), good)
	if err != nil || !p.OK || p.GoldenPassed != 1 || p.LoadSeconds <= 0 || p.PeakRSSBytes < 10<<20 || p.SecondsPerItem <= 0 {
		t.Errorf("probe: %+v, %v", p, err)
	}
	st := b.status(good)
	if st.State != runnerapi.ModelCandidate || b.status(v5).State != runnerapi.ModelReady {
		t.Errorf("after the probe the candidate is %s, version 5 %s", st.State, b.status(v5).State)
	}
	b.ready(good)
	if now := b.status(good); now.WorkerPID != st.WorkerPID {
		t.Errorf("worker %d serves, %d was warm", now.WorkerPID, st.WorkerPID)
	}
	// Probing or dropping what serves changes nothing.
	if p, err := b.edge.Probe(t.Context(), good); err != nil || !p.OK {
		t.Errorf("probe of what serves: %+v, %v", p, err)
	}
	if err := b.edge.Drop(t.Context(), good); err != nil || b.status(good).State != runnerapi.ModelReady {
		t.Errorf("drop of what serves: %v, %s", err, b.status(good).State)
	}
	if p, err := b.edge.Probe(t.Context(), v5); err != nil || !p.OK || p.GoldenTotal != 0 {
		t.Errorf("probe without golden samples: %+v, %v", p, err)
	}
	if err := b.edge.Drop(t.Context(), v5); err != nil || b.status(v5).State != "" {
		t.Errorf("dropped candidate is still %s, %v", b.status(v5).State, err)
	}
	if bad := l.stop(); len(bad) > 0 {
		t.Errorf("%d requests failed meanwhile, the first: %s", len(bad), bad[0])
	}
}

// TestBadVersionsAreRefusedWhileTheOldServes tries every kind as a candidate
// and as the version that active.json names.
func TestBadVersionsAreRefusedWhileTheOldServes(t *testing.T) {
	b := newBox(t, func(o *Options) { o.Worker.MaxDataBytes = 48 << 20 })
	v5 := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(v5)
	v6 := modelBytes(t, "silero-vad-6.0.0")
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 100<<10)
	_, _ = r.Read(noise)
	damaged := b.publish("vad", "damaged", bytes.Clone(append(v6, 0)), v6, nil)
	missing := b.publish("vad", "missing", append(bytes.Clone(v6), 1), v6, nil)
	for version, spoil := range map[string]func(path string) error{
		"damaged": func(path string) error { // one bit, and the same length
			data := append(bytes.Clone(v6), 0)
			data[len(data)/2] ^= 1
			return os.WriteFile(path, data, 0o600)
		},
		"missing": os.Remove,
	} {
		extra := map[string]byte{"damaged": 0, "missing": 1}[version]
		path := b.blobs.Path(b.put(append(bytes.Clone(v6), extra)))
		if err := errors.Join(os.Chmod(path, 0o600), spoil(path)); err != nil {
			t.Fatal(err)
		}
	}
	stranger, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	info, err := models.ReadONNX(bytes.NewReader(v6))
	if err != nil {
		t.Fatal(err)
	}
	manifest := models.Manifest{V: models.ManifestVersion, Name: "vad", Version: "unsigned", Signature: info.Signature,
		Files: []models.File{{Path: models.ModelFile, Digest: b.put(v6), SizeBytes: int64(len(v6))}}}
	longer := manifest
	longer.Version = "longer"
	longer.Files = []models.File{{Path: models.ModelFile, Digest: b.put(v6), SizeBytes: int64(len(v6)) + 1}}
	renamed := b.publish("vad", "renamed", v6, v6, nil)
	renamed.Version = "other"
	unknown := models.Ref{Name: "vad", Version: "unknown", Digest: renamed.Digest}
	unknown.Digest[0] ^= 1
	for _, tc := range []struct {
		ref     models.Ref
		want    string
		damaged bool // what the agent can mend
	}{
		{b.publish("vad", "truncated", v6[:len(v6)/2], v6, nil), "Protobuf parsing failed", false},
		{b.publish("vad", "random", noise, v6, nil), "load model", false},
		{b.publish("vad", "large", padded(v6, 64<<20), v6, nil), "memory", false},
		{b.publish("vad", "liar", modelBytes(t, "silero-vad-legacy"), v6, nil), "differs from its manifest", false},
		{damaged, "does not match its digest", true},
		{missing, "blob store", true},
		{b.sign(manifest, stranger), "trusted key", false},
		{b.sign(longer, b.key), "manifest says", true},
		{renamed, "vad:renamed", false},
		{unknown, "read manifest", true},
	} {
		p, err := b.edge.Probe(t.Context(), tc.ref)
		if err != nil || p.OK || !strings.Contains(p.Err, tc.want) || p.Damaged != tc.damaged {
			t.Errorf("probe of %s: %+v, %v; want %q, damaged %v", tc.ref, p, err, tc.want, tc.damaged)
		}
		b.activate(tc.ref)
		if st := b.status(tc.ref); st.State != runnerapi.ModelFailed || !strings.Contains(st.Err, tc.want) || st.Damaged != tc.damaged {
			t.Errorf("%s is %s, %q, damaged %v; want failed, %q, %v", tc.ref, st.State, st.Err, st.Damaged, tc.want, tc.damaged)
		}
		body, header := binaryRequest(voice())
		if r := b.post(inferVoice, body, HeaderLength, header); r.status != http.StatusOK || r.Version != "5" {
			t.Errorf("under %s: %d %s from version %q", tc.ref, r.status, r.Error, r.Version)
		}
	}
	if got := len(b.s.known()); got != 1 {
		t.Errorf("%d versions are loaded, want the old one", got)
	}
}

// padded adds an unknown protobuf field (1000) of size bytes to a model: still
// well-formed, but a reader must hold it.
func padded(model []byte, size int) []byte {
	out := binary.AppendUvarint(bytes.Clone(model), 1000<<3|2)
	out = binary.AppendUvarint(out, uint64(size))
	return append(out, make([]byte, size)...)
}

// TestModelComesBackWhenItsFilesDo: active.json names a version whose blobs
// arrive later; nobody calls the runner.
func TestModelComesBackWhenItsFilesDo(t *testing.T) {
	b := newBox(t, nil)
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	path := b.blobs.Path(ref.Digest)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	b.write(ref)
	b.eventually("the version is reported as failed", func() bool { return b.status(ref).State == runnerapi.ModelFailed })
	if resp, err := http.Get(b.url + "/v2/health/ready"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready: %v, %v", resp.Status, err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	b.eventually("the version serves", func() bool { return b.status(ref).State == runnerapi.ModelReady })
}

// TestCPUTimeNeverDecreases reads it across deaths and switches of workers.
func TestCPUTimeNeverDecreases(t *testing.T) {
	b := newBox(t, nil)
	v5, v6 := b.demo("silero-vad-5.0.0", "vad", "5"), b.demo("silero-vad-6.0.0", "vad", "6")
	b.ready(v5)
	l := b.load(2)
	var last float64
	check := func() {
		st, err := b.edge.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.CPUSeconds < last {
			t.Fatalf("CPU time went from %v to %v", last, st.CPUSeconds)
		}
		last = st.CPUSeconds
	}
	for i := range 6 {
		check()
		start := last
		b.eventually("work costs", func() bool { check(); return last > start+0.05 })
		switch i % 3 {
		case 0:
			b.ready(v6)
		case 1:
			if err := syscall.Kill(b.status(v6).WorkerPID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			b.eventually("a worker serves", func() bool { check(); return b.status(v6).State == runnerapi.ModelReady })
		default:
			b.ready(v5)
		}
	}
	l.stop()
}
