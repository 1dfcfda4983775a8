package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

const sineLength = 1 << 14

// sines is a model that takes the sine of x so many times: its cost grows with
// the number, its signature does not.
func sines(count int) []byte {
	msg := func(n protowire.Number, content ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(content, nil))
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	tensor := func(field protowire.Number, name string) []byte {
		return msg(field, msg(1, []byte(name)), msg(2, msg(1, num(1, 1), msg(2, msg(1, num(1, sineLength))))))
	}
	var nodes []byte
	for i := range count {
		from, to := fmt.Sprint("t", i), fmt.Sprint("t", i+1)
		if i == 0 {
			from = "x"
		}
		if i == count-1 {
			to = "y"
		}
		nodes = append(nodes, msg(1, msg(1, []byte(from)), msg(2, []byte(to)), msg(3, fmt.Append(nil, "n", i)), msg(4, []byte("Sin")))...)
	}
	return bytes.Join([][]byte{num(1, 8), msg(7, nodes, msg(2, []byte("sines")), tensor(11, "x"), tensor(12, "y")), msg(8, num(2, 17))}, nil)
}

// sineGolden wants zeros within the tolerance of this processor; that of others
// no sine meets.
func sineGolden(within float64) models.Golden {
	x := models.TensorSpec{Name: "x", DType: models.FP32, Shape: []int64{sineLength}}
	y := x
	y.Name = "y"
	in := make([]float32, sineLength)
	for i := range in {
		in[i] = float32(i) / 100
	}
	return models.Golden{V: models.GoldenVersion, Cases: []models.GoldenCase{{Name: "ramp",
		Inputs: []models.GoldenInput{{TensorSpec: x, Data: floats(in...)}},
		Outputs: []models.GoldenWant{{TensorSpec: y, Data: make([]byte, 4*sineLength), Abs: 1e-9,
			On: map[string]models.Tolerance{"cpu-" + runtime.GOARCH: {Abs: within}}}}}}}
}

// laddered publishes a model whose variants take so many sines, each with the
// tolerance of its golden samples.
func (b *box) laddered(version string, counts []int, within []float64) models.Ref {
	b.t.Helper()
	m := models.Manifest{V: models.ManifestVersion, Name: "sines", Version: version}
	add := func(path string, data []byte) {
		m.Files = append(m.Files, models.File{Path: path, Digest: b.put(data), SizeBytes: int64(len(data))})
	}
	for i, n := range counts {
		v := models.Variant{Name: fmt.Sprint("v", i), Path: fmt.Sprintf("v%d.onnx", i), Golden: fmt.Sprintf("v%d.json", i)}
		if i == 0 {
			v.Path, v.Golden = models.ModelFile, ""
		}
		m.Variants = append(m.Variants, v)
		golden, err := json.Marshal(sineGolden(within[i]))
		if err != nil {
			b.t.Fatal(err)
		}
		add(v.Path, sines(n))
		add(v.GoldenPath(), golden)
	}
	info, err := models.ReadONNX(bytes.NewReader(sines(1)))
	if err != nil {
		b.t.Fatal(err)
	}
	m.Signature = info.Signature
	return b.sign(m, b.key)
}

// heat tells the runner how many rungs to go down.
func (b *box) heat(rung int) {
	b.t.Helper()
	if err := b.edge.SetDuty(b.t.Context(), runnerapi.Duty{Level: "full", MaxRateRatio: 1, ValidSeconds: 60, Rung: &rung}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) serves(ref models.Ref, variant string) {
	b.t.Helper()
	b.eventually("variant "+variant+" serves", func() bool { return b.status(ref).Variant == variant })
}

func sineRequest(parameters string) []byte {
	in := strings.TrimSuffix(strings.Repeat("0.5,", sineLength), ",")
	return fmt.Appendf(nil, `{"parameters":{%s},"inputs":[{"name":"x","datatype":"FP32","shape":[%d],"data":[%s]}]}`, parameters, sineLength, in)
}

// TestHotBoxServesCheaperVariantsThatProvedThemselves: of four variants one
// answers wrongly and one is no cheaper; the ladder leaves them out.
func TestHotBoxServesCheaperVariantsThatProvedThemselves(t *testing.T) {
	b := newBox(t, func(o *Options) { o.State = t.TempDir() })
	ref := b.laddered("1", []int{64, 16, 200, 1}, []float64{2, 1e-9, 2, 2})
	p, err := b.edge.Probe(t.Context(), ref)
	if err != nil || !p.OK {
		t.Fatalf("probe %+v, %v", p, err)
	}
	b.exercised(ref, "v0", "v3")
	b.ready(ref)
	m := b.status(ref)
	if m.VariantCause != runnerapi.VariantCool || m.Variants[0].HeatFrom != "rapl" || m.Variants[3].JoulesPerItem != 1 {
		t.Errorf("cause %q, variants %+v", m.VariantCause, m.Variants)
	}
	if len(m.Variants) != 4 || m.Rungs() != 1 || m.Variant != "v0" {
		t.Fatalf("status %+v, want four variants, one rung, v0 serving", m)
	}
	for i, want := range []string{"", `golden case "ramp"`, "v0 takes", ""} {
		if got := m.Variants[i]; !strings.Contains(got.Skipped, want) || (want == "") != (got.Skipped == "") {
			t.Errorf("variant %d: %+v, want skipped with %q", i, got, want)
		}
	}
	if m.Variants[3].PeakRSSBytes == 0 || m.Variants[3].SecondsPerItem <= 0 {
		t.Errorf("variant measured as %+v", m.Variants[3])
	}
	b.heat(2) // more than there are
	b.serves(ref, "v3")
	path := "/v2/models/sines/infer"
	r := b.post(path, sineRequest(""))
	if r.status != http.StatusOK || r.Parameters.Variant != "v3" {
		t.Errorf("answer %d %q of variant %q, want v3", r.status, r.Error, r.Parameters.Variant)
	}
	if r := b.post(path, sineRequest(`"min_variant":"v3"`)); r.status != http.StatusOK {
		t.Errorf("min_variant v3: %d %s", r.status, r.Error)
	}
	b.refuses(path)
	if m := b.status(ref); m.VariantCause != "load" || m.PinnedRefused != 3 || m.Failures != 0 {
		t.Errorf("cause %q, %d refused, %d failures; want the last cause, and no failure of the model", m.VariantCause, m.PinnedRefused, m.Failures)
	}
	if r := b.post(path, sineRequest(`"min_variant":"v9"`)); r.status != http.StatusBadRequest || !strings.Contains(r.Error, `no variant "v9"`) {
		t.Errorf("min_variant v9: %d %q", r.status, r.Error)
	}
	if r := b.post(path, sineRequest(`"min_variant":9`)); r.status != http.StatusBadRequest {
		t.Errorf("min_variant 9: %d %q", r.status, r.Error)
	}
	b.heat(0)
	b.serves(ref, "v0")
	if r := b.post(path, sineRequest(`"min_variant":"v0"`)); r.status != http.StatusOK || r.Parameters.Variant != "v0" {
		t.Errorf("after it has cooled: %d %q of %q", r.status, r.Error, r.Parameters.Variant)
	}
	resp, err := http.Get(b.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), `edgeherd_runner_variant_requests_total{model="sines",version="1",variant="v3"} 2`) {
		t.Errorf("metrics, %v:\n%s", err, text)
	}
}

// exercised makes variants compute, and tells the runner that each draws a tenth
// of the one before.
func (b *box) exercised(ref models.Ref, variants ...string) {
	b.t.Helper()
	less := runnerapi.Heat{}
	for i, name := range variants {
		wait, err := b.edge.Exercise(b.t.Context(), ref, runnerapi.Exercise{Variant: name, Seconds: 0.02})
		if err != nil {
			b.t.Fatal(err)
		}
		if done, err := wait(); err != nil || done.Items == 0 || done.Seconds < 0.02 {
			b.t.Errorf("exercise of %s: %+v, %v", name, done, err)
		}
		less[name] = runnerapi.VariantHeat{Watts: 5, JoulesPerItem: math.Pow10(1 - i), HeatFrom: "rapl"}
	}
	for _, bad := range []runnerapi.Exercise{{Variant: "v9", Seconds: 1}, {Variant: ""}} {
		if _, err := b.edge.Exercise(b.t.Context(), ref, bad); err == nil || !strings.Contains(err.Error(), "no variant") {
			b.t.Errorf("exercise %+v: %v", bad, err)
		}
	}
	if vs, err := b.edge.SetHeat(b.t.Context(), ref, less); err != nil || vs[len(vs)-1].Skipped != "" {
		b.t.Errorf("with a tenth of the heat: %+v, %v", vs, err)
	}
}

// TestJoulesDecideWhereASensorSawThem: and seconds where none could.
func TestJoulesDecideWhereASensorSawThem(t *testing.T) {
	seen := func(seconds, joules float64) runnerapi.VariantStatus {
		return runnerapi.VariantStatus{Name: "v", SecondsPerItem: seconds, VariantHeat: runnerapi.VariantHeat{JoulesPerItem: joules}}
	}
	for _, c := range []struct {
		best, other runnerapi.VariantStatus
		skipped     string
	}{
		{seen(1, 10), seen(0.5, 9.5), "9.5 J an item"},
		{seen(1, 10), seen(2, 5), ""}, // slower and cooler
		{seen(1, 0), seen(2, 5), "µs an item"},
		{seen(1, 10), seen(0.5, 0), ""},
	} {
		rungs := []runnerapi.VariantStatus{c.best, c.other}
		skipDearer(rungs)
		if got := rungs[1].Skipped; !strings.Contains(got, c.skipped) || (c.skipped == "") != (got == "") {
			t.Errorf("%+v below %+v: skipped %q, want %q", c.other, c.best, got, c.skipped)
		}
	}
}

// refuses shows that a call which insists on a better variant is told what keeps
// it from it, and for how long.
func (b *box) refuses(path string) {
	b.t.Helper()
	two := 2
	for _, c := range []struct {
		duty  runnerapi.Duty
		said  string
		after string
	}{
		{runnerapi.Duty{RungCause: "hot", RungReason: "die 84 °C, limit 95 °C", RungSeconds: 120}, "too hot for it (die 84 °C, limit 95 °C); try again in 120 s", "120"},
		{runnerapi.Duty{RungCause: "power", RungReason: "on battery", RungSeconds: 300}, "to draw less power (on battery); try again in 300 s", "300"},
		{runnerapi.Duty{RungCause: "load", RungSeconds: -1}, "more requests than it can answer with it; try again in 1 s", "1"},
	} {
		c.duty.Level, c.duty.Rung = "full", &two
		if err := b.edge.SetDuty(b.t.Context(), c.duty); err != nil {
			b.t.Fatal(err)
		}
		r := b.post(path, sineRequest(`"min_variant":"v1"`))
		if r.status != http.StatusServiceUnavailable || !strings.Contains(r.Error, c.said) || r.header.Get("Retry-After") != c.after {
			b.t.Errorf("%s: %d, Retry-After %q, %q", c.duty.RungCause, r.status, r.header.Get("Retry-After"), r.Error)
		}
	}
}

// TestStepsFailNoRequest: clients go on while the ladder goes up and down.
func TestStepsFailNoRequest(t *testing.T) {
	b := newBox(t, nil)
	ref := b.laddered("1", []int{48, 8, 1}, []float64{2, 2, 2})
	if p, err := b.edge.Probe(t.Context(), ref); err != nil || !p.OK {
		t.Fatalf("probe %+v, %v", p, err)
	}
	b.ready(ref)
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var answered atomic.Int64
	for range 3 {
		clients.Go(func() {
			for ctx.Err() == nil {
				r, err := send(t.Context(), http.DefaultClient, b.url+"/v2/models/sines/infer", sineRequest(""))
				if err != nil || r.status != http.StatusOK || r.Parameters.Variant == "" {
					t.Errorf("answer %d %q, %v", r.status, r.Error, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	for _, rung := range []int{1, 0, 1, 0} { // between two that stay loaded
		b.heat(rung)
		b.serves(ref, fmt.Sprint("v", rung))
		n := answered.Load()
		b.eventually("clients are answered", func() bool { return answered.Load() > n+3 || t.Failed() })
	}
	stop()
	clients.Wait()
	b.heat(2) // the warm one makes way
	b.serves(ref, "v2")
	if m := b.status(ref); m.Restarts != 0 || m.Failures != 0 {
		t.Errorf("%d restarts, %d failures", m.Restarts, m.Failures)
	}
}

// TestLadderOutlivesTheRunnerAndOneThatWasNotProbedHasNone: what was measured
// is kept; without it nobody knows that a variant is right on this box.
func TestLadderOutlivesTheRunnerAndOneThatWasNotProbedHasNone(t *testing.T) {
	b := newBox(t, func(o *Options) { o.State = t.TempDir() })
	ref := b.laddered("1", []int{48, 1}, []float64{2, 2})
	b.heat(1)
	b.ready(ref)
	if m := b.status(ref); m.Variant != "v0" || m.Rungs() != 0 {
		t.Errorf("never probed: %+v", m)
	}
	if p, err := b.edge.Probe(t.Context(), ref); err != nil || !p.OK {
		t.Fatalf("probe %+v, %v", p, err)
	}
	b.serves(ref, "v1")
	v, err := b.s.acquire("sines", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	again := b.s.newVersion(ref, v.source) // as after a restart
	b.s.begin(t.Context(), again)
	defer again.retire()
	<-again.loaded
	b.eventually("the ladder is known", func() bool { return again.serving() == 1 })
}

func TestDeadWorkerOfAVariantComesBackAsThatVariant(t *testing.T) {
	b := newBox(t, nil)
	ref := b.laddered("1", []int{48, 1}, []float64{2, 2})
	if p, err := b.edge.Probe(t.Context(), ref); err != nil || !p.OK {
		t.Fatalf("probe %+v, %v", p, err)
	}
	b.ready(ref)
	b.heat(1)
	b.serves(ref, "v1")
	if err := syscall.Kill(b.status(ref).WorkerPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is back", func() bool {
		m := b.status(ref)
		return m.Restarts == 1 && m.State == runnerapi.ModelReady
	})
	if r := b.post("/v2/models/sines/infer", sineRequest("")); r.status != http.StatusOK || r.Parameters.Variant != "v1" {
		t.Errorf("answer %d %q of %q", r.status, r.Error, r.Parameters.Variant)
	}
}

func TestGRPCNamesTheVariant(t *testing.T) {
	b := newBox(t, nil)
	ref := b.laddered("1", []int{1, 1}, []float64{2, 2})
	b.ready(ref)
	in := sineGolden(2).Cases[0].Inputs[0]
	req := grpcRequest("sines", []worker.Tensor{{Name: in.Name, DType: in.DType, Shape: in.Shape, Data: in.Data}}, nil)
	got, err := b.overGRPC().ModelInfer(t.Context(), req)
	if err != nil || got.Parameters["variant"].GetStringParam() != "v0" || len(got.RawOutputContents) != 1 {
		t.Fatalf("parameters %v, %v", got.GetParameters(), err)
	}
	req.Parameters = map[string]*oip.InferParameter{"min_variant": {ParameterChoice: &oip.InferParameter_StringParam{StringParam: "v7"}}}
	if _, err := b.overGRPC().ModelInfer(t.Context(), req); err == nil || !strings.Contains(err.Error(), `no variant "v7"`) {
		t.Errorf("min_variant v7: %v", err)
	}
}

func TestVariantsThatAreNotCheaperHereAreSkipped(t *testing.T) {
	for _, tt := range []struct {
		name string
		cost []float64
		want []bool
	}{
		{"each cheaper", []float64{9, 5, 2}, []bool{false, false, false}},
		{"dearer than the best", []float64{9, 11, 2}, []bool{false, true, false}},
		{"within the noise", []float64{9, 8.5, 8}, []bool{false, true, false}},
		{"dearer than the one above", []float64{9, 3, 4}, []bool{false, false, true}},
		{"what is skipped is no yardstick", []float64{9, 0, 5}, []bool{false, true, false}},
	} {
		var rungs []runnerapi.VariantStatus
		for i, c := range tt.cost {
			r := runnerapi.VariantStatus{Name: fmt.Sprint(i), SecondsPerItem: c}
			if c == 0 {
				r.Skipped = "wrong"
			}
			rungs = append(rungs, r)
		}
		skipDearer(rungs)
		for i, want := range tt.want {
			if (rungs[i].Skipped != "") != want {
				t.Errorf("%s: variant %d skipped %q, want %v", tt.name, i, rungs[i].Skipped, want)
			}
		}
	}
}
