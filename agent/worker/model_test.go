package worker

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// classify is a request for the OCR direction classifier: 1x3x48x192 floats, 110 KB.
func classify() []Tensor {
	shape := []int64{1, 3, 48, 192}
	return []Tensor{{Name: "x", DType: models.FP32, Shape: shape, Data: ramp(3 * 48 * 192)}}
}

// ramp is a saw-tooth between -1 and 1.
func ramp(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, floats(float32(i%200)/100-1)...)
	}
	return b
}

func float(b []byte, i int) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
}

// TestSileroKeepsItsStateBetweenCalls feeds speech-like frames to the voice
// detector and its own state back into it.
func TestSileroKeepsItsStateBetweenCalls(t *testing.T) {
	w := start(t, Options{Model: assets.File(t, "models", "silero-vad-5.0.0", "model.onnx")})
	sig := w.Signature()
	if len(sig.Inputs) != 3 || len(sig.Outputs) != 2 {
		t.Fatalf("signature is %+v", sig)
	}
	for _, spec := range sig.Inputs {
		if spec.Name == "sr" && (spec.DType != models.INT64 || spec.Shape != nil) {
			t.Errorf("sr is %+v, want an INT64 scalar", spec)
		}
	}
	state := make([]byte, 4*2*128)
	rate := binary.LittleEndian.AppendUint64(nil, 16000)
	for frame := range 5 {
		got, err := w.Infer(t.Context(), []Tensor{
			{Name: "input", DType: models.FP32, Shape: []int64{1, 512}, Data: ramp(512)},
			{Name: "state", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: state},
			{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: rate},
		}, []string{"output", "stateN"})
		if err != nil {
			t.Fatal(err)
		}
		if p := float(got[0].Data, 0); p < 0 || p > 1 {
			t.Errorf("frame %d: probability %v", frame, p)
		}
		if bytes.Equal(got[1].Data, state) {
			t.Errorf("frame %d: the state did not change", frame)
		}
		state = got[1].Data
	}
}

// TestClassifierGivesTheSameAnswerInAndOutOfProcess compares with a session in
// this process, bit for bit.
func TestClassifierGivesTheSameAnswerInAndOutOfProcess(t *testing.T) {
	w := start(t, Options{Model: assets.File(t, "models", "ocr-cls-2.0.0", "model.onnx"), Nice: 5})
	got, err := w.Infer(t.Context(), classify(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if sum := float(got[0].Data, 0) + float(got[0].Data, 1); math.Abs(sum-1) > 1e-5 {
		t.Errorf("probabilities sum to %v", sum)
	}
	if want := inProcess(t)(); !bytes.Equal(got[0].Data, want) {
		t.Errorf("got % x, want % x", got[0].Data, want)
	}
	u, err := w.Usage()
	if err != nil || u.CPU <= 0 || u.RSSBytes <= 0 || u.PeakRSSBytes < u.RSSBytes {
		t.Errorf("usage %+v, %v", u, err)
	}
	if w.LoadTime() <= 0 || w.RuntimeVersion() == "" {
		t.Errorf("load time %v, runtime version %q", w.LoadTime(), w.RuntimeVersion())
	}
}

// inProcess returns a call of the classifier through a session in this process.
func inProcess(t testing.TB) func() []byte {
	lib, err := openLibrary(runtimeLibrary(t))
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := lib.inventory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSession(lib, sessionSpec{model: assets.File(t, "models", "ocr-cls-2.0.0", "model.onnx"), threads: 1}, []Provider{{Name: CPU}}, &runtime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	ring, err := createRing(1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.release() })
	p := &process{ring: ring}
	p.use(s, 1)
	p.session = s
	in := classify()[0]
	copy(ring.bytes(0, int64(len(in.Data))), in.Data)
	p.request = request{id: 1, in: []span{{length: int64(len(in.Data)), shape: in.Shape}}, outs: []int{0}}
	key := appendRequest(nil, &p.request)[12:]
	return func() []byte {
		p.infer(key)
		if p.answer.code != codeOK {
			t.Fatal(p.answer.text)
		}
		return ring.bytes(p.answer.outs[0].offset, p.answer.outs[0].length)
	}
}

// BenchmarkIsolation prices the process boundary for the classifier. Three ways
// take turns, so that all see the same machine: a tight loop in this process
// (raw), a thread of this process that is woken for each call, as in any
// server (woken), and the worker. The least round counts, as CPU time of both
// processes; what a wake-up costs depends much on the machine. The boundary is
// what both processes spend outside ONNX Runtime: over-raw holds beside it that
// ONNX Runtime itself is slower with caches that another process has used.
func BenchmarkIsolation(b *testing.B) {
	local := inProcess(b)
	w := start(b, Options{Model: assets.File(b, "models", "ocr-cls-2.0.0", "model.onnx")})
	in := classify()
	wake := wakened(b, local)
	var onnx time.Duration
	ways := []func(){
		func() { local() },
		wake,
		func() {
			cost, err := w.Run(b.Context(), &Batch{Requests: []*Request{{In: in}}})
			if err != nil {
				b.Fatal(err)
			}
			onnx += cost.CPU
		},
	}
	const calls = 20
	var boundary []float64
	cpu, wall := make([][]float64, len(ways)), make([][]float64, len(ways))
	for b.Loop() {
		for i, call := range ways {
			onnx = 0
			began, before := time.Now(), cpuOf(b, w)
			for range calls {
				call()
			}
			cpu[i] = append(cpu[i], float64((cpuOf(b, w)-before).Nanoseconds())/1000/calls)
			if i == len(ways)-1 {
				boundary = append(boundary, cpu[i][len(cpu[i])-1]-float64(onnx.Nanoseconds())/1000/calls)
			}
			wall[i] = append(wall[i], float64(time.Since(began).Nanoseconds())/1000/calls)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(slices.Min(cpu[0]), "raw-cpu-us")
	b.ReportMetric(slices.Min(cpu[2])-slices.Min(cpu[0]), "over-raw-cpu-us")
	b.ReportMetric(slices.Min(cpu[2])-slices.Min(cpu[1]), "over-woken-cpu-us")
	b.ReportMetric(slices.Min(boundary), "boundary-cpu-us")
	b.ReportMetric(slices.Min(wall[2])-slices.Min(wall[1]), "over-woken-wall-us")
}

// wakened moves call to a thread of its own, reached through a socket.
func wakened(b *testing.B, call func() []byte) func() {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	near, far := rawFD(pair[0]), rawFD(pair[1])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		var one [1]byte
		for {
			if _, err := far.Read(one[:]); err != nil {
				return
			}
			call()
			_, _ = far.Write(one[:])
		}
	}()
	b.Cleanup(func() { _ = near.close(); <-ended; _ = far.close() })
	return func() {
		var one [1]byte
		if _, err := near.Write(one[:]); err != nil {
			b.Fatal(err)
		}
		if _, err := near.Read(one[:]); err != nil {
			b.Fatal(err)
		}
	}
}

// cpuOf is the CPU time of this process and of the worker.
func cpuOf(b *testing.B, w *Worker) time.Duration {
	b.Helper()
	theirs, err := cpuTime(w.cmd.Process.Pid)
	if err != nil {
		b.Fatal(err)
	}
	var own unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &own); err != nil {
		b.Fatal(err)
	}
	return theirs + time.Duration(own.Nano())
}

// BenchmarkRoundTrip measures the transport alone: 110 KB through a model that
// does nothing but one copy.
func BenchmarkRoundTrip(b *testing.B) {
	w := identity(b, Options{})
	for _, size := range []int{1, 27648} {
		b.Run(map[int]string{1: "4B", 27648: "110KB"}[size], func(b *testing.B) {
			in := vector(size)
			for b.Loop() {
				if _, err := w.Infer(b.Context(), in, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
