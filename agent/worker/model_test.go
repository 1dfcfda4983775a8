package worker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/timerslack"
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
	if want := inProcess(t, classifier(t))(); !bytes.Equal(got[0].Data, want) {
		t.Errorf("got % x, want % x", got[0].Data, want)
	}
	u, err := w.Usage()
	if err != nil || u.CPU <= 0 || u.RSSBytes <= 0 || u.PeakRSSBytes < u.RSSBytes {
		t.Errorf("usage %+v, %v", u, err)
	}
	if w.LoadTime() <= 0 || w.Runtime().Version == "" {
		t.Errorf("load time %v, runtime version %q", w.LoadTime(), w.Runtime().Version)
	}
}

// subject is a model with a request for it.
type subject struct {
	model string
	in    []Tensor
}

func classifier(t testing.TB) subject {
	return subject{assets.File(t, "models", "ocr-cls-2.0.0", "model.onnx"), classify()}
}

// detector is the voice detector with a frame of 32 ms.
func detector(t testing.TB) subject {
	return subject{assets.File(t, "models", "silero-vad-5.0.0", "model.onnx"), []Tensor{
		{Name: "input", DType: models.FP32, Shape: []int64{1, 512}, Data: ramp(512)},
		{Name: "state", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: make([]byte, 4*256)},
		{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: binary.LittleEndian.AppendUint64(nil, 16000)},
	}}
}

// square is a model of a few microseconds: the square of a matrix of 6 KB, as
// much as a key word detector takes and about the time that it takes.
func square(t testing.TB) subject {
	const side = 39
	return subject{chain(1).write(t), []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{side, side}, Data: ramp(side * side)}}}
}

// inProcess returns a call of a model through a session in this process.
func inProcess(t testing.TB, m subject) func() []byte {
	lib, err := openLibrary(runtimeLibrary(t))
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := lib.inventory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSession(lib, sessionSpec{model: m.model, threads: 1}, []Provider{{Name: CPU}}, &runtime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.lib.call(slotReleaseSession, s.handle) })
	ring, err := createRing(1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.release() })
	p := &process{ring: ring}
	p.use(s, 1)
	p.session = s
	p.request = request{id: 1}
	end := int64(0)
	for port, in := range m.in {
		if s.in[port].Spec.Name != in.Name {
			t.Fatalf("input %d of %s is %q, want %q", port, m.model, s.in[port].Spec.Name, in.Name)
		}
		at := span{port: port, offset: align(end), length: int64(len(in.Data)), shape: in.Shape}
		end = at.offset + at.length
		copy(ring.bytes(at.offset, at.length), in.Data)
		p.request.in = append(p.request.in, at)
	}
	for port := range s.out {
		p.request.outs = append(p.request.outs, port)
	}
	key := appendRequest(nil, &p.request)[12:]
	return func() []byte {
		p.infer(key)
		if p.answer.code != codeOK {
			t.Fatal(p.answer.text)
		}
		return ring.bytes(p.answer.outs[0].offset, p.answer.outs[0].length)
	}
}

// leased places the inputs of m in memory of the worker, as bodies of requests are.
func leased(b *testing.B, w *Worker, m subject) Request {
	size := int64(0)
	for _, in := range m.in {
		size = align(size) + int64(len(in.Data))
	}
	lease := w.Lease(size)
	b.Cleanup(lease.Release)
	shared, end := slices.Clone(m.in), int64(0)
	for i, in := range m.in {
		at := align(end)
		end = at + int64(len(in.Data))
		shared[i].Data = lease.Bytes()[at:end:end]
		copy(shared[i].Data, in.Data)
	}
	return Request{In: shared, Lease: lease}
}

// BenchmarkIsolation prices the process boundary for three models. These ways
// take turns, so that all see the same machine, and the least round counts, as
// CPU time of all processes:
//
//	raw      a tight loop in this process
//	woken    a thread of this process that is woken for each call, as in any server
//	over-raw the worker, inputs in shared memory as bodies of requests are, above raw
//	copied   the same with inputs that Run copies there
//	echo     a byte to another process and back; echo-of-work: after as much work as a call of the classifier
//
// The boundary is what runner and worker spend outside ONNX Runtime: over-raw
// holds beside it that ONNX Runtime itself is slower with caches that another
// process has used. No isolation costs less than echo-of-work. The difference of
// two large numbers hides the price: a small model shows it.
func BenchmarkIsolation(b *testing.B) {
	for _, m := range []struct {
		name  string
		of    func(testing.TB) subject
		calls int // in a round: some milliseconds of them
	}{{"square", square, 400}, {"voice", detector, 100}, {"classifier", classifier, 20}} {
		b.Run(m.name, func(b *testing.B) { isolation(b, m.of(b), m.calls) })
	}
}

func isolation(b *testing.B, m subject, calls int) {
	local := inProcess(b, m)
	w := start(b, Options{Model: m.model})
	wake := wakened(b, local)
	bare, other := echoed(b)
	var onnx time.Duration
	call := func(r Request) func() {
		return func() {
			once := r
			cost, err := w.Run(b.Context(), &Batch{Requests: []*Request{&once}})
			if err != nil {
				b.Fatal(err)
			}
			onnx += cost.CPU
		}
	}
	names := []string{"raw", "woken", "shared", "copied", "echo", "echo-of-work"}
	ways := []func(){func() { local() }, wake, call(leased(b, w, m)), call(Request{In: m.in}), func() { bare(0) }, func() { bare(1) }}
	cpu := map[string][]float64{}
	for b.Loop() {
		for i, way := range ways {
			calls := calls
			if names[i] == "echo-of-work" {
				calls = 20 // of a millisecond each
			}
			for range 3 {
				way() // its memory is in the caches again
			}
			onnx = 0
			before := cpuOf(b, w.cmd.Process.Pid, other)
			for range calls {
				way()
			}
			spent := float64((cpuOf(b, w.cmd.Process.Pid, other) - before).Nanoseconds()) / 1000 / float64(calls)
			cpu[names[i]] = append(cpu[names[i]], spent)
			if onnx > 0 {
				cpu[names[i]+"-boundary"] = append(cpu[names[i]+"-boundary"], spent-float64(onnx.Nanoseconds())/1000/float64(calls))
			}
		}
	}
	least := func(name string) float64 { return slices.Min(cpu[name]) }
	middle := func(name string) float64 { slices.Sort(cpu[name]); return cpu[name][len(cpu[name])/2] }
	work := float64(echoWork.Microseconds())
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(least("raw"), "raw-cpu-us")
	b.ReportMetric(least("shared")-least("raw"), "over-raw-cpu-us")
	b.ReportMetric(least("shared")-least("woken"), "over-woken-cpu-us")
	b.ReportMetric(least("copied")-least("raw"), "copied-over-raw-cpu-us")
	b.ReportMetric(least("shared-boundary"), "boundary-cpu-us")
	b.ReportMetric(middle("shared-boundary"), "boundary-median-cpu-us")
	b.ReportMetric(middle("copied-boundary"), "copied-boundary-median-cpu-us")
	b.ReportMetric(least("echo"), "echo-cpu-us")
	b.ReportMetric(least("echo-of-work")-work, "echo-of-work-cpu-us")
	b.ReportMetric(middle("echo-of-work")-work, "echo-of-work-median-cpu-us")
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
		// A thread that ends in Go must not have called C: purego 0.9.1 saves a
		// pointer over the return address of the thread's first frame.
		defer runtime.UnlockOSThread()
		var one [1]byte
		for {
			if _, err := far.Read(one[:]); err != nil {
				return
			}
			call()
			_, _ = far.Write(one[:])
		}
	}()
	b.Cleanup(func() { _ = unix.Close(int(near)); <-ended; _ = unix.Close(int(far)) })
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

// echoWork is about a run of the classifier.
const echoWork = 900 * time.Microsecond

// echo is a process that answers bytes, after echoWork where they are not
// zero, and does nothing else. Raw calls: Go's scheduler is not told.
func echo() {
	runtime.LockOSThread()
	clock := func() time.Duration {
		var t unix.Timespec
		_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&t)), 0)
		return time.Duration(t.Nano())
	}
	var b [1]byte
	at := uintptr(unsafe.Pointer(&b))
	for {
		if n, _, e := unix.RawSyscall(unix.SYS_READ, 0, at, 1); n == 0 || e != 0 && e != unix.EINTR {
			return
		}
		for until := clock() + echoWork; b[0] != 0 && clock() < until; {
		}
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, 0, at, 1)
	}
}

// echoed is the least that a call to another process can cost: a byte there
// and back, with a thread that waits in the kernel at either end.
func echoed(b *testing.B) (call func(work byte), pid int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	near, far := rawFD(pair[0]), os.NewFile(uintptr(pair[1]), "echo")
	cmd := exec.Command(os.Args[0], "echo")
	cmd.Stdin = far
	if err := errors.Join(timerslack.Start(cmd, timerslack.Worker), far.Close()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(int(near)); _ = cmd.Wait() })
	var one [1]byte
	return func(work byte) {
		one[0] = work
		for _, trap := range []uintptr{unix.SYS_WRITE, unix.SYS_READ} {
			if n, _, e := unix.RawSyscall(trap, uintptr(near), uintptr(unsafe.Pointer(&one)), 1); n != 1 {
				b.Fatal(e)
			}
		}
	}, cmd.Process.Pid
}

// cpuOf is the CPU time of this process and of others.
func cpuOf(b *testing.B, pids ...int) time.Duration {
	b.Helper()
	var own unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &own); err != nil {
		b.Fatal(err)
	}
	sum := time.Duration(own.Nano())
	for _, pid := range pids {
		theirs, err := cpuTime(pid)
		if err != nil {
			b.Fatal(err)
		}
		sum += theirs
	}
	return sum
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
