package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// voiceFrame is a request of the voice detector for n voices at once.
func voiceFrame(n int, seed uint64) *Request {
	random := rand.New(rand.NewPCG(seed, 0))
	values := func(count int) []byte {
		v := make([]float32, count)
		for i := range v {
			v[i] = random.Float32()*2 - 1
		}
		return floats(v...)
	}
	return &Request{In: []Tensor{
		{Name: "input", DType: models.FP32, Shape: []int64{int64(n), 512}, Data: values(n * 512)},
		{Name: "state", DType: models.FP32, Shape: []int64{2, int64(n), 128}, Data: values(2 * n * 128)},
		{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: binary.LittleEndian.AppendUint64(nil, 16000)},
	}}
}

// TestABatchAnswersLikeItsParts puts requests together along axis 0 of one
// tensor and axis 1 of another, with a third that all share.
func TestABatchAnswersLikeItsParts(t *testing.T) {
	w := start(t, Options{Model: assets.File(t, "models", "silero-vad-5.0.0", "model.onnx")})
	axes := Axes{In: []int{0, 1, -1}, Out: []int{0, 1}}
	for round := range 3 { // the later ones with outputs bound in advance
		var batch Batch
		batch.Axes = axes
		placed := 0
		batch.Placed = func() { placed++ }
		for i, n := range []int{1, 3, 2} {
			batch.Requests = append(batch.Requests, voiceFrame(n, uint64(10*round+i)))
		}
		if _, err := w.Run(t.Context(), &batch); err != nil || placed != 1 {
			t.Fatalf("batch: %v, Placed called %d times", err, placed)
		}
		for i, r := range batch.Requests {
			want, err := w.Infer(t.Context(), r.In, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, o := range r.Out {
				if fmt.Sprint(o.Shape) != fmt.Sprint(want[k].Shape) || len(o.Data) != len(want[k].Data) {
					t.Fatalf("request %d, output %s: shape %v of %d bytes, want %v of %d", i, o.Name, o.Shape, len(o.Data), want[k].Shape, len(want[k].Data))
				}
				for e := range len(o.Data) / 4 {
					if d := float(o.Data, e) - float(want[k].Data, e); d > 1e-5 || d < -1e-5 {
						t.Fatalf("request %d, output %s: element %d is %v, alone %v", i, o.Name, e, float(o.Data, e), float(want[k].Data, e))
					}
				}
			}
		}
	}
	a, b := voiceFrame(1, 1), voiceFrame(2, 2)
	for _, r := range []*Request{a, b} {
		if err := w.Check(r); err != nil {
			t.Fatal(err)
		}
	}
	if !axes.Fits(a, b) || axes.Items(b) != 2 {
		t.Errorf("two requests of one shape do not fit, or have %d items", axes.Items(b))
	}
	b.In[2].Data = binary.LittleEndian.AppendUint64(nil, 8000)
	if axes.Fits(a, b) {
		t.Error("requests with different shared inputs fit")
	}
	wrong := Batch{Requests: []*Request{voiceFrame(1, 1), voiceFrame(1, 2)}, Axes: Axes{In: []int{0, 1, -1}, Out: []int{1, 0}}}
	if _, err := w.Run(t.Context(), &wrong); err == nil || !strings.Contains(err.Error(), "wanted 2 items along axis") {
		t.Errorf("wrong axes of outputs: %v", err)
	}
}

// TestOutputsMayVaryInShape uses a model whose output's shape depends on the data.
func TestOutputsMayVaryInShape(t *testing.T) {
	w := startGraph(t, unary("NonZero", models.FP32, models.INT64, dims(1)), Options{})
	for _, c := range []struct {
		in   []float32
		want int
	}{{[]float32{1, 0, 1}, 2}, {[]float32{1, 0, 1}, 2}, {[]float32{1, 0, 1}, 2}, {[]float32{1, 1, 1}, 3}, {[]float32{0, 0, 0}, 0}, {[]float32{0, 0, 1}, 1}, {[]float32{1, 0, 1}, 2}} {
		got, err := w.Infer(t.Context(), []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{3}, Data: floats(c.in...)}}, nil)
		if err != nil || len(got[0].Data) != 8*c.want || fmt.Sprint(got[0].Shape) != fmt.Sprintf("[1 %d]", c.want) {
			t.Fatalf("%v: got %v, %v, want %d indices", c.in, got, err, c.want)
		}
	}
}

// TestEachGetsItsOwnAnswer has many callers at once, some of whom give up.
func TestEachGetsItsOwnAnswer(t *testing.T) {
	w := startGraph(t, unary("Identity", models.FP32, models.FP32, dims(1)), Options{Grace: time.Minute})
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1))
			for i := range 300 {
				data := bytes.Repeat(floats(float32(c*1000+i)), 1+random.IntN(3000))
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					time.AfterFunc(time.Duration(random.IntN(100))*time.Microsecond, cancel)
				}
				got, err := w.Infer(ctx, []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{int64(len(data) / 4)}, Data: data}}, nil)
				gaveUp := ctx.Err() != nil
				cancel()
				if err != nil {
					if !gaveUp || !errors.Is(err, ErrDeadline) {
						t.Errorf("caller %d, call %d: %v", c, i, err)
					}
					continue
				}
				if !bytes.Equal(got[0].Data, data) {
					t.Errorf("caller %d, call %d: an answer of %d bytes that is not its own", c, i, len(got[0].Data))
				}
			}
		})
	}
	callers.Wait()
}

// TestACallerThatGivesUpInTheQueueHarmsNobody lets one batch compute while the
// next, already handed to the worker, is abandoned: its grace begins with its
// turn, or the batch that computes for longer would be killed for it.
func TestACallerThatGivesUpInTheQueueHarmsNobody(t *testing.T) {
	const grace = time.Second // of a loaded machine, to say that it is skipped
	w := startGraph(t, chain(40), Options{Grace: grace})
	newest := func() chan struct{} {
		w.order.Lock()
		defer w.order.Unlock()
		return w.newest
	}
	handed := func(give func() error) chan error { // returns once the worker has it
		before, end := newest(), make(chan error, 1)
		go func() { end <- give() }()
		for newest() == before {
			<-time.After(time.Millisecond)
		}
		return end
	}
	const n = 400
	long := []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{n, n}, Data: make([]byte, 4*n*n)}}
	pid := pidOf(t, w)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // so that the first takes as long as we like
		t.Fatal(err)
	}
	first := handed(func() error { _, err := w.Infer(context.WithoutCancel(t.Context()), long, nil); return err })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	small := []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{1, 1}, Data: floats(1)}}
	second := handed(func() error { _, err := w.Infer(ctx, small, nil); return err })
	cancel()
	if err := <-second; !errors.Is(err, ErrDeadline) {
		t.Errorf("the one that gave up: %v", err)
	}
	<-time.After(2 * grace)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Errorf("the one before it: %v", err)
	}
	if got, err := w.Infer(t.Context(), small, nil); err != nil || !bytes.Equal(got[0].Data, floats(1)) {
		t.Errorf("the one after it: %v, %v", got, err)
	}
}

// TestProvidersAreTriedInOrder names some that this library was built without.
func TestProvidersAreTriedInOrder(t *testing.T) {
	g := unary("Identity", models.FP32, models.FP32, dims(1))
	w := startGraph(t, g, Options{Providers: []Provider{{Name: "TensorRT"}, {Name: "CUDA", Options: map[string]string{"device_id": "0"}}, {Name: "OpenVINO"}, {Name: CPU}}})
	got := w.Runtime()
	if got.Provider != CPU || len(got.Skipped) != 3 || !strings.HasPrefix(got.Skipped[1], "CUDA: ") || got.Version == "" || got.Build == "" || len(got.Available) == 0 {
		t.Errorf("runtime is %+v, want CPU after three that are not there", got)
	}
	if _, err := w.Infer(t.Context(), vector(3), nil); err != nil {
		t.Error(err)
	}
	_, err := Start(t.Context(), Options{Library: runtimeLibrary(t), Model: g.write(t), Providers: []Provider{{Name: "CUDA"}}}, testLog())
	if err == nil || !strings.Contains(err.Error(), "provider CUDA") {
		t.Errorf("no provider left: %v, want the one asked for", err)
	}
	_, err = Start(t.Context(), Options{Library: runtimeLibrary(t), Model: g.write(t), Providers: []Provider{{Name: "Nonsense"}}}, testLog())
	if err == nil || !strings.Contains(err.Error(), "built without it") || !strings.Contains(err.Error(), "CPUExecutionProvider") {
		t.Errorf("an unknown provider: %v, want those that are there", err)
	}
}

// TestAppendingAProviderReachesTheRightFunctions calls the functions of the
// table for providers this library lacks; each must refuse, naming what it lacks.
func TestAppendingAProviderReachesTheRightFunctions(t *testing.T) {
	lib, err := openLibrary(runtimeLibrary(t))
	if err != nil {
		t.Fatal(err)
	}
	var env, options uintptr
	if err := errors.Join(lib.try(slotCreateEnv, 3, uintptr(unsafe.Pointer(cBytes("test"))), uintptr(unsafe.Pointer(&env))),
		lib.try(slotCreateSessionOptions, uintptr(unsafe.Pointer(&options)))); err != nil {
		t.Fatal(err)
	}
	s := &session{lib: lib}
	for name, want := range map[string]string{"CUDA": "providers_shared", "TensorRT": "providers_shared", "Nonsense": "nonsense"} {
		if err := s.appendProvider(options, Provider{Name: name, Options: map[string]string{"a": "b"}}); err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
			t.Errorf("%s: %v, want an error that names it", name, err)
		}
	}
}

// TestASavedGraphAnswersAlike loads the optimised graph that the first worker wrote.
func TestASavedGraphAnswersAlike(t *testing.T) {
	saved := t.TempDir() + "/graph.onnx"
	opts := Options{Model: assets.File(t, "models", "ocr-cls-2.0.0", "model.onnx"), SaveGraph: saved}
	first, err := start(t, opts).Infer(t.Context(), classify(), nil)
	if err != nil {
		t.Fatal(err)
	}
	opts.Graph, opts.SaveGraph, opts.Model = saved, "", "/nonexistent"
	again, err := start(t, opts).Infer(t.Context(), classify(), nil)
	if err != nil || !bytes.Equal(first[0].Data, again[0].Data) {
		t.Errorf("got %v, %v, want %v", again, err, first)
	}
}

// TestALeaseHoldsInputsAndOutputs reads the memory that the worker wrote, also
// after the worker has gone, and finds leases exhausted and given back.
func TestALeaseHoldsInputsAndOutputs(t *testing.T) {
	w := startGraph(t, unary("Identity", models.FP32, models.FP32, dims(1)), Options{SlotBytes: 4096, MaxSlotBytes: 1 << 20})
	ask := func(l *Lease, at, n int, v float32) *Request {
		t.Helper()
		data := l.Bytes()[at : at+4*n]
		copy(data, bytes.Repeat(floats(v), n))
		r := &Request{In: []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{int64(n)}, Data: data}}, Lease: l}
		if _, err := w.Run(t.Context(), &Batch{Requests: []*Request{r}}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.Out[0].Data, bytes.Repeat(floats(v), n)) {
			t.Errorf("%d values at %d: a wrong answer", n, at)
		}
		return r
	}
	var all []*Lease
	for i := range leases {
		l := w.Lease(256 << 10)
		if l == nil {
			t.Fatalf("no lease %d", i)
		}
		all = append(all, l)
	}
	if w.Lease(1) != nil || w.Lease(1<<20) != nil {
		t.Error("more leases than there are, or a larger one")
	}
	var last *Request
	for round := range 3 {
		for i, l := range all {
			ask(l, 64*i, 1000+i, float32(10*round+i)) // aligned
			last = ask(l, 64*i+4, 30000, float32(10*round+i))
		}
	}
	if got, err := w.Infer(t.Context(), vector(10), nil); err != nil || len(got[0].Data) != 40 {
		t.Errorf("beside the leases: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(last.Out[0].Data[:4], floats(23)) {
		t.Error("the answer went with the worker")
	}
	for _, l := range all {
		l.Release()
	}
	if w.Lease(64) != nil {
		t.Error("a closed worker lends memory")
	}
}
