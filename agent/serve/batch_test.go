package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// goldenOf is the golden samples of a demo model.
func goldenOf(t testing.TB, folder string) *models.Golden {
	t.Helper()
	golden, err := models.ReadGolden(filepath.Join(assets.Model(t, folder), models.GoldenFile))
	if err != nil {
		t.Fatal(err)
	}
	return &golden
}

// proved publishes a demo model with its golden samples.
func (b *box) proved(folder, name, version string) models.Ref {
	b.t.Helper()
	data := modelBytes(b.t, folder)
	return b.publish(name, version, data, data, goldenOf(b.t, folder))
}

// TestAxesAreFoundAndProved also shows the model whose state is batched on axis 1.
func TestAxesAreFoundAndProved(t *testing.T) {
	b := newBox(t, nil)
	for _, tc := range []struct {
		folder, want string
	}{
		{"silero-vad-5.0.0", "{[0 1 -1] [0 1]}"},
		{"ocr-cls-2.0.0", "{[0] [0]}"},
	} {
		ref := b.proved(tc.folder, "m", tc.folder)
		p := b.s.Probe(t.Context(), ref)
		if !p.OK || len(p.Batches) == 0 {
			t.Fatalf("%s: %+v", tc.folder, p)
		}
		v, err := b.s.load(t.Context(), ref, b.s.blobs())
		if err != nil {
			t.Fatal(err)
		}
		w, err := v.worker(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := findAxes(t.Context(), w, *goldenOf(t, tc.folder))
		if err != nil || fmt.Sprint(got.Axes) != tc.want {
			t.Errorf("%s: axes %v, %v, want %s", tc.folder, got.Axes, err, tc.want)
		}
	}
}

func TestBatchesAreMadeOnlyWhereTheySave(t *testing.T) {
	for _, tc := range []struct {
		name string
		each []float64 // of 1, 2, 4 and so on items
		want int
	}{
		{"nothing measured", nil, 0},
		{"no gain", []float64{10, 10, 10, 10}, 0},
		{"a gain within the noise", []float64{10, 9.5, 9, 8.9}, 0},
		{"worse when larger", []float64{10, 6, 5, 8}, 4},
		{"hardly better when larger", []float64{10, 6, 5, 4.9, 4.88}, 4},
		{"better and better", []float64{10, 7, 5, 4, 3, 2}, 32},
	} {
		var costs []runnerapi.BatchCost
		for i, each := range tc.each {
			costs = append(costs, runnerapi.BatchCost{Items: 1 << i, CPUSecondsPerItem: each})
		}
		if got := worthwhile(costs); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestManyClientsShareRuns checks that each gets the answer to its own request,
// also while others give up.
func TestManyClientsShareRuns(t *testing.T) {
	b := newBox(t, nil)
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(ref)
	v, err := b.s.acquire("vad", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	random := rand.New(rand.NewPCG(1, 2))
	var requests, alone [16]*call
	var want [16][]worker.Tensor
	for i := range requests {
		in := voice()
		samples := make([]float32, 512)
		for k := range samples {
			samples[k] = random.Float32()
		}
		in[0].Data = floats(samples...)
		requests[i], alone[i] = &call{inputs: in}, &call{inputs: in}
		if want[i], err = v.infer(t.Context(), alone[i]); err != nil {
			t.Fatal(err)
		}
	}
	v.queue.set(batching{MaxItems: 8, Axes: worker.Axes{In: []int{0, 1, -1}, Out: []int{0, 1}}})
	before := v.stats.read()
	var clients sync.WaitGroup
	const rounds = 20
	for i, c := range requests {
		clients.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if i == 0 {
					go cancel() // at any moment
				}
				outs, err := v.infer(ctx, &call{inputs: c.inputs})
				cancel()
				if err != nil {
					if i != 0 || !errors.Is(err, worker.ErrDeadline) {
						t.Errorf("client %d, round %d: %v", i, round, err)
					}
					continue
				}
				a, _ := numbers(&outs[1])
				b, _ := numbers(&want[i][1])
				for k := range a {
					if d := a[k] - b[k]; d > 1e-5 || d < -1e-5 {
						t.Errorf("client %d, round %d: element %d is %v, alone %v", i, round, k, a[k], b[k])
						return
					}
				}
			}
		})
	}
	clients.Wait()
	after := v.stats.read()
	if items, runs := after.items-before.items, after.executions-before.executions; runs >= items {
		t.Errorf("%d items in %d runs, want fewer runs", items, runs)
	}
}

// TestQueueIsBoundedAndKnowsPriorities fills a queue whose model is busy.
func TestQueueIsBoundedAndKnowsPriorities(t *testing.T) {
	q := &queue{max: 3}
	var leaders [depth]job
	for i := range leaders {
		if lead, err := q.enter(t.Context(), &leaders[i]); !lead || err != nil {
			t.Fatalf("an idle queue: %v, %v", lead, err)
		}
	}
	order := make(chan string, 8)
	var all sync.WaitGroup
	wait := func(name string, priority uint64, length int) {
		all.Go(func() {
			lead, err := q.enter(t.Context(), &job{priority: priority})
			if err != nil {
				order <- name + " refused"
			} else if lead {
				order <- name
				q.leave()
			}
		})
		for q.length() != length { // the goroutine above is on its way
			select {
			case got := <-order:
				order <- got
				return
			default:
			}
		}
	}
	wait("low", 200, 1)
	wait("default", 0, 2)
	wait("high", 1, 3)
	if _, err := q.enter(t.Context(), &job{priority: 300}); statusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("a full queue: %v, want overload", err)
	}
	wait("urgent", 1, 4) // never 4: it takes the place of the lowest
	q.leave()
	all.Wait()
	var got []string
	for len(order) > 0 {
		got = append(got, <-order)
	}
	if text := strings.Join(got, ", "); text != "low refused, high, urgent, default" {
		t.Errorf("got %s", text)
	}
}

// TestWhatWasMeasuredOutlivesTheRunner starts a second server on the same disk.
func TestWhatWasMeasuredOutlivesTheRunner(t *testing.T) {
	state := t.TempDir()
	b := newBox(t, func(o *Options) { o.State = state })
	ref := b.proved("silero-vad-5.0.0", "vad", "5")
	if p := b.s.Probe(t.Context(), ref); !p.OK {
		t.Fatalf("%+v", p)
	}
	b.ready(ref)
	v, err := b.s.acquire("vad", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	known, ok := v.measured.read(v.opts)
	if !ok || known.DataBytes == 0 || known.GraphBytes == 0 {
		t.Fatalf("nothing is kept: %+v", known)
	}
	// What the probe found depends on the machine; the second must take it as it is.
	known.Batching = batching{MaxItems: 4, Axes: worker.Axes{In: []int{0, 1, -1}, Out: []int{0, 1}}}
	if err := v.measured.write(v.opts, known); err != nil {
		t.Fatal(err)
	}
	again := b.s.newVersion(ref, v.source)
	b.s.begin(t.Context(), again)
	<-again.loaded
	defer again.retire()
	if again.loadErr != nil || again.opts.Graph == "" || again.opts.MaxDataBytes == 0 || again.queue.plan().MaxItems != 4 {
		t.Errorf("the second start: %v, graph %q, %d bytes, %+v", again.loadErr, again.opts.Graph, again.opts.MaxDataBytes, again.queue.plan())
	}
	one, err := v.infer(t.Context(), &call{inputs: voice()})
	if err != nil {
		t.Fatal(err)
	}
	two, err := again.infer(t.Context(), &call{inputs: voice()})
	if err != nil || !bytes.Equal(one[0].Data, two[0].Data) {
		t.Errorf("the saved graph answers otherwise: %v", err)
	}
	// A graph that rotted is not loaded.
	path, err := v.measured.graph(v.opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := v.opts
	opts.Graph = ""
	if _, ok := v.measured.apply(&opts); !ok || opts.Graph != "" {
		t.Errorf("a damaged graph is used: %q", opts.Graph)
	}
}

// TestRepositoryIsSteeredOnTheSocketOnly unloads a model and loads it again.
func TestRepositoryIsSteeredOnTheSocketOnly(t *testing.T) {
	b := newBox(t, nil)
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(ref)
	client := b.overGRPC()
	for _, verb := range []string{"load", "unload"} {
		if r := b.post("/v2/repository/models/vad/"+verb, nil); r.status != http.StatusForbidden || !strings.Contains(r.Error, "unix socket") {
			t.Errorf("%s over TCP: %d %s", verb, r.status, r.Error)
		}
	}
	index := func() *oip.RepositoryIndexResponse_ModelIndex {
		t.Helper()
		got, err := client.RepositoryIndex(t.Context(), &oip.RepositoryIndexRequest{})
		if err != nil || len(got.Models) != 1 {
			t.Fatalf("index: %v, %v", got, err)
		}
		return got.Models[0]
	}
	if got := index(); got.State != "READY" || got.Version != "5" {
		t.Errorf("index %v", got)
	}
	if _, err := client.RepositoryModelUnload(t.Context(), &oip.RepositoryModelUnloadRequest{ModelName: "vad"}); err != nil {
		t.Fatal(err)
	}
	if got := index(); got.State != "UNAVAILABLE" || got.Reason == "" {
		t.Errorf("index after unload: %v", got)
	}
	body, header := binaryRequest(voice())
	if r := b.post("/v2/models/vad/infer", body, HeaderLength, header); r.status != http.StatusNotFound {
		t.Errorf("infer after unload: %d", r.status)
	}
	if _, err := client.RepositoryModelLoad(t.Context(), &oip.RepositoryModelLoadRequest{ModelName: "nobody"}); err == nil {
		t.Error("a model that active.json does not name is loaded")
	}
	if _, err := client.RepositoryModelLoad(t.Context(), &oip.RepositoryModelLoadRequest{ModelName: "vad"}); err != nil {
		t.Fatal(err)
	}
	if r := b.post("/v2/models/vad/infer", body, HeaderLength, header); r.status != http.StatusOK {
		t.Errorf("infer after load: %d %s", r.status, r.Error)
	}
}

// TestStatisticsCountRequestsAndRuns compares both forms.
func TestStatisticsCountRequestsAndRuns(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
	body, header := binaryRequest(voice())
	for range 3 {
		b.post("/v2/models/vad/infer", body, HeaderLength, header)
	}
	b.post("/v2/models/vad/infer", body[:10])
	client := b.overGRPC()
	got, err := client.ModelStatistics(t.Context(), &oip.ModelStatisticsRequest{})
	if err != nil || len(got.ModelStats) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	m := got.ModelStats[0]
	i := m.InferenceStats
	if m.InferenceCount != 3 || m.ExecutionCount != 3 || i.Success.Count != 3 || i.Fail.Count != 1 || i.ComputeInfer.Count != 3 || i.ComputeInfer.Ns == 0 || m.LastInference == 0 || len(m.BatchStats) != 1 || m.BatchStats[0].BatchSize != 1 {
		t.Errorf("statistics: %v", m)
	}
	resp, err := http.Get(b.url + "/v2/models/vad/versions/5/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Stats []modelStats `json:"model_stats"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list.Stats) != 1 || list.Stats[0].Inferences != 3 || list.Stats[0].Stats["compute_infer"].Ns != i.ComputeInfer.Ns {
		t.Errorf("over HTTP: %+v, %v", list, err)
	}
	c, err := client.ModelConfig(t.Context(), &oip.ModelConfigRequest{Name: "vad"})
	if err != nil || len(c.Config.Input) != 3 || c.Config.Input[2].DataType != oip.DataType_TYPE_INT64 || c.Config.Platform != platform {
		t.Errorf("configuration: %v, %v", c, err)
	}
}

// TestClassesComeBestFirst asks for the two best of two directions.
func TestClassesComeBestFirst(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("ocr-cls-2.0.0", "cls", "2"))
	text := `{"inputs":[{"name":"x","datatype":"FP32","shape":[2,3,48,192],"data":[` + strings.TrimSuffix(strings.Repeat("0.5,", 2*3*48*192), ",") + `]}],"outputs":[{"name":%q,"parameters":{"classification":2}}]}`
	v, err := b.s.acquire("cls", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	r := b.post("/v2/models/cls/infer", fmt.Appendf(nil, text, v.signature().Outputs[0].Name))
	var classes []string
	if r.status != http.StatusOK || r.Outputs[0].DType != models.BYTES || fmt.Sprint(r.Outputs[0].Shape) != "[2 2]" || json.Unmarshal(r.Outputs[0].Data, &classes) != nil || len(classes) != 4 {
		t.Fatalf("%d %s: %+v", r.status, r.Error, r.Outputs)
	}
	for i := 0; i < 4; i += 2 {
		if classes[i] < classes[i+1] || !strings.Contains(classes[i], ":") {
			t.Errorf("row %d: %v", i/2, classes[i:i+2])
		}
	}
}

// TestAJobLeavesTheQueueWhenItsTimeIsUp, twice, since timers are used again.
func TestAJobLeavesTheQueueWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue{max: 4}
		for range depth {
			if lead, err := q.enter(t.Context(), &job{}); !lead || err != nil {
				t.Fatalf("an empty queue: %v, %v", lead, err)
			}
		}
		for range 2 {
			began := time.Now()
			lead, err := q.enter(t.Context(), &job{until: began.Add(time.Second)})
			if lead || statusOf(err) != http.StatusGatewayTimeout || time.Since(began) != time.Second || q.length() != 0 {
				t.Errorf("lead %v, %v after %v, %d wait", lead, err, time.Since(began), q.length())
			}
		}
	})
}

// TestAJobEndsWhenItsCallerGivesUp, whichever way that is said: the run of a
// batch goes on for the most patient of its callers and no longer.
func TestAJobEndsWhenItsCallerGivesUp(t *testing.T) {
	soon, late, never := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour), time.Time{}
	for _, tc := range []struct{ call, ctx, want time.Time }{
		{never, never, never}, {soon, never, soon}, {never, soon, soon}, {soon, late, soon}, {late, soon, soon},
	} {
		ctx, cancel := within(t.Context(), tc.ctx)
		if got := (&call{until: tc.call}).ends(ctx); !got.Equal(tc.want) {
			t.Errorf("call %v, context %v: %v", tc.call, tc.ctx, got)
		}
		cancel()
	}
}
