package bench

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// box is a real edgeherd-runner process that serves demo models.
type box struct {
	t       *testing.T
	http    string
	edge    *runnerapi.Client
	active  runnerapi.Active
	journal durable.Journal
}

// use switches to the models named.
func (b *box) use(refs []models.Ref) {
	b.t.Helper()
	next := b.active
	b.active.Generation++
	next.Generation, next.Models = b.active.Generation, refs
	check(b.t, b.journal.Save(next))
	st, err := b.edge.Reload(b.t.Context())
	check(b.t, err)
	for _, m := range st.Models {
		if m.Err != "" {
			b.t.Fatalf("%s: %s", m.Ref, m.Err)
		}
	}
}

// startRunner lays out what enrolment and agent leave on a box, and starts the
// runner on it. inputs is the YAML of its cameras, or empty.
func startRunner(t *testing.T, demos []string, inputs string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "eh") // t.TempDir has a name too long for a socket
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	key, err := trust.NewKey()
	check(t, err)
	identityDir := filepath.Join(dir, "identity")
	check(t, os.MkdirAll(identityDir, 0o700))
	ca, err := identity.OpenCA(filepath.Join(dir, "ca"), time.Now)
	check(t, err)
	check(t, identity.Enrol(identityDir, ca, identity.Box{ID: identity.NewID(), Name: "bench", Site: "s", Keyring: trust.DevelopmentKeyring(key.Public())}))
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	check(t, err)
	active := runnerapi.Active{Generation: 1, Blobs: blobs.Dir()}
	for _, demo := range demos {
		active.Models = append(active.Models, install(t, blobs, assets.Model(t, demo), key))
	}
	activePath := filepath.Join(dir, "active.json")
	journal := durable.Journal{Path: activePath, Version: runnerapi.ActiveVersion}
	check(t, journal.Save(active))
	b := &box{t: t, http: freeAddress(t), edge: runnerapi.Dial(filepath.Join(dir, "r.sock")), active: active, journal: journal}
	t.Cleanup(b.edge.Close)
	config := filepath.Join(dir, "runner.yaml")
	check(t, os.WriteFile(config, fmt.Appendf(nil, "http: %s\nsocket: %s\nstate: %s\nactive: %s\nidentity: %s\nlibrary: %s\n%s",
		b.http, filepath.Join(dir, "r.sock"), filepath.Join(dir, "runner"), activePath, identityDir, assets.Library(t), inputs), 0o600))
	start(t, "edgeherd-runner", "run", "--config", config)
	eventually(t, "all models serve", time.Minute, func() bool {
		st, err := b.edge.Status(t.Context())
		ready := 0
		for _, m := range st.Models {
			if m.State == runnerapi.ModelReady {
				ready++
			}
		}
		return err == nil && ready == len(demos)
	})
	return b
}

// install puts a signed version into the blob store.
func install(t *testing.T, blobs *blob.Store, dir string, key trust.PrivateKey) models.Ref {
	t.Helper()
	manifest, files, err := models.Pack(dir)
	check(t, err)
	for digest, path := range files {
		f, err := os.Open(path)
		check(t, err)
		check(t, blobs.Put(f, digest))
		f.Close()
	}
	payload, err := manifest.Encode()
	check(t, err)
	envelope, err := trust.Sign(trust.TypeModel, payload, key)
	check(t, err)
	check(t, blobs.Put(bytes.NewReader(envelope), blob.Sum(envelope)))
	return models.Ref{Name: manifest.Name, Version: manifest.Version, Digest: blob.Sum(envelope)}
}

// freeAddress is told to the runner before it starts.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	check(t, err)
	return address
}

// cpu is CPU seconds of runner and workers together, and of the workers.
type cpu struct{ total, workers float64 }

func (a cpu) minus(b cpu) cpu { return cpu{a.total - b.total, a.workers - b.workers} }

// cost reads both. The workers' clock ticks every 10 ms, so spans of a second
// and more are right to a percent.
func (b *box) cost() cpu {
	b.t.Helper()
	st, err := b.edge.Status(b.t.Context())
	check(b.t, err)
	c := cpu{total: st.CPUSeconds}
	for _, m := range st.Models {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.WorkerPID))
		check(b.t, err)
		// utime and stime are the 14th and 15th field, after a name in parentheses.
		for _, field := range strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[11:13] {
			ticks, err := strconv.ParseFloat(field, 64)
			check(b.t, err)
			c.workers += ticks / 100 // USER_HZ
		}
	}
	return c
}

const (
	runnerRounds   = 5
	runnerSpan     = 2 * time.Second
	classifyFloats = 3 * 48 * 192 // 110 KB
)

// runnerCost prices the server around ONNX Runtime.
//
// isolation is CPU time of both processes above a tight loop in one process, of
// the smallest demo model, and of one of a few microseconds that the benchmark
// writes: what the boundary costs is lost in the noise of the text direction
// classifier (110 KB, 0.7 ms), for which the ratio counts. boundary is what its calls spend outside ONNX Runtime, beside
// what it takes that another process wakes up, works and answers with a byte;
// empty-call is the elapsed time of a call that carries 4 bytes.
// worker-share holds the worker's part of the isolation; ONNX Runtime's own share
// is measured by serve-share.
func runnerCost(t *testing.T) []Figure {
	figures := isolationCost(t)
	b := startRunner(t, []string{"ocr-cls-2.0.0"}, "")
	b.load(runnerSpan / 4) // warm up
	var shares, micros, rates []float64
	for range runnerRounds {
		before := b.cost()
		n := b.load(runnerSpan)
		c := b.cost().minus(before)
		shares = append(shares, c.workers/c.total)
		micros = append(micros, c.total*1e6/float64(n))
		rates = append(rates, float64(n)/runnerSpan.Seconds())
	}
	return append(figures,
		Figure{Name: "cpu-per-request", Value: median(micros), Unit: "us"},
		Figure{Name: "worker-share-of-cpu", Value: median(shares), Unit: "ratio", Beside: "of the CPU of runner and worker", Goal: Goal{AtLeast: 0.8}},
		Figure{Name: "requests", Value: median(rates), Unit: "1/s"})
}

// isolationCost runs the benchmarks of package worker, the models in turn. The
// median of the runs counts, and of a run the best of its rounds.
func isolationCost(t *testing.T) []Figure {
	const yard = "ONNX Runtime in one process, same input"
	seen := map[string][]float64{}
	see := func(name string, v float64) { seen[name] = append(seen[name], v) }
	for range 5 {
		for _, model := range []string{"square", "voice", "classifier"} {
			out := goTest(t, "./agent/worker", "-run", "^$", "-bench", "^BenchmarkIsolation$/^"+model+"$", "-benchtime", "40x")
			for _, unit := range []string{"raw", "over-raw", "copied-over-raw", "boundary", "boundary-median", "echo-of-work-median"} {
				see(model+"/"+unit, metric(t, out, unit+"-cpu-us"))
			}
		}
		see("empty", metric(t, goTest(t, "./agent/worker", "-run", "^$", "-bench", "^BenchmarkRoundTrip$/^4B$", "-benchtime", "2000x"), "ns/op")/1000)
	}
	of := func(name string) float64 { return median(seen[name]) }
	above := func(model string) string { return fmt.Sprintf("%s: %.1f us", yard, of(model+"/raw")) }
	return []Figure{
		{Name: "isolation", Value: of("voice/over-raw"), Unit: "us", Beside: above("voice"), Goal: Goal{AtMost: 30}},
		{Name: "isolation-copied", Value: of("voice/copied-over-raw"), Unit: "us", Beside: "the inputs are copied to the worker"},
		{Name: "isolation-6kb", Value: of("square/over-raw"), Unit: "us", Beside: above("square"), Goal: Goal{AtMost: 30}},
		Figure{Name: "isolation-110kb", Value: of("classifier/raw") + of("classifier/over-raw"), Unit: "us"}.Against(yard, of("classifier/raw")),
		{Name: "boundary", Value: of("classifier/boundary"), Unit: "us", Goal: Goal{AtMost: 30}},
		Figure{Name: "boundary-median", Value: of("classifier/boundary-median"), Unit: "us"}.
			Against("a byte to another process that works, and back", of("classifier/echo-of-work-median")),
		{Name: "empty-call", Value: of("empty"), Unit: "us"},
	}
}

// load keeps four connections busy for a while and returns the answers.
func (b *box) load(span time.Duration) int64 {
	b.t.Helper()
	head := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"FP32","shape":[1,3,48,192],"parameters":{"binary_data_size":%d}}]}`, classifyFloats*4)
	body := append([]byte(head), make([]byte, classifyFloats*4)...)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var answers atomic.Int64
	var all sync.WaitGroup
	until := time.Now().Add(span)
	for range 4 {
		all.Go(func() {
			for time.Now().Before(until) {
				if err := infer(client, "http://"+b.http+"/v2/models/ocr-cls/infer", body, len(head)); err != nil {
					b.t.Error(err)
					return
				}
				answers.Add(1)
			}
		})
	}
	all.Wait()
	return answers.Load()
}

func infer(client *http.Client, url string, body []byte, head int) error {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(head))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return err
}
