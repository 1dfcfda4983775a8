package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

func identity(t testing.TB, opts Options) *Worker {
	return startGraph(t, unary("Identity", models.FP32, models.FP32, dims(1)), opts)
}

func vector(n int) []Tensor {
	return []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{int64(n)}, Data: make([]byte, 4*n)}}
}

// TestBadRequestsAreNamedAndHarmless checks that each fault is told with what
// was wanted and what was given, before the worker sees a byte.
func TestBadRequestsAreNamedAndHarmless(t *testing.T) {
	w := startGraph(t, graph{
		nodes: []node{{op: "MatMul", in: []string{"a", "b"}, out: []string{"c"}}, {op: "Identity", in: []string{"s"}, out: []string{"r"}}, {op: "Not", in: []string{"n"}, out: []string{"m"}}},
		in: []value{
			{name: "a", dtype: models.FP32, shape: []int64{-1, 2}}, {name: "b", dtype: models.FP32, shape: []int64{-1, -1}},
			{name: "s", dtype: models.BYTES, shape: dims(1)}, {name: "n", dtype: models.BOOL, shape: dims(1)},
		},
		out: []value{{name: "c", dtype: models.FP32, shape: dims(2)}, {name: "r", dtype: models.BYTES, shape: dims(1)}, {name: "m", dtype: models.BOOL, shape: dims(1)}},
	}, Options{})
	good := func() []Tensor {
		return []Tensor{
			{Name: "a", DType: models.FP32, Shape: []int64{1, 2}, Data: floats(1, 2)},
			{Name: "b", DType: models.FP32, Shape: []int64{2, 1}, Data: floats(3, 4)},
			{Name: "s", DType: models.BYTES, Shape: []int64{1}, Data: texts("s")},
			{Name: "n", DType: models.BOOL, Shape: []int64{1}, Data: []byte{1}},
		}
	}
	cases := []struct {
		name    string
		change  func(in []Tensor) []Tensor
		outputs []string
		want    []string
	}{
		{"an output twice", func(in []Tensor) []Tensor { return in }, []string{"c", "c"}, []string{`"c" is asked for twice`}},
		{"unknown input", func(in []Tensor) []Tensor { in[0].Name = "z"; return in }, nil, []string{`no input "z"`, `"a", "b"`}},
		{"input twice", func(in []Tensor) []Tensor { in[1] = in[0]; return in }, nil, []string{`"a" is given twice`}},
		{"missing input", func(in []Tensor) []Tensor { return in[1:] }, nil, []string{`input "a"`, "FP32", "[-1 2]", "missing"}},
		{"wrong type", func(in []Tensor) []Tensor { in[0].DType = models.FP64; return in }, nil, []string{`"a"`, "FP64, wanted FP32"}},
		{"wrong rank", func(in []Tensor) []Tensor { in[0].Shape = []int64{2}; return in }, nil, []string{`"a"`, "[2], wanted [-1 2]"}},
		{"wrong dimension", func(in []Tensor) []Tensor { in[0].Shape = []int64{2, 1}; return in }, nil, []string{"[2 1], wanted [-1 2]"}},
		{"negative dimension", func(in []Tensor) []Tensor { in[0].Shape = []int64{-1, 2}; return in }, nil, []string{"negative"}},
		{"overflowing shape", func(in []Tensor) []Tensor { in[1].Shape = []int64{1 << 40, 1 << 40}; return in }, nil, []string{"beyond all memory"}},
		{"too few bytes", func(in []Tensor) []Tensor { in[0].Data = in[0].Data[:7]; return in }, nil, []string{"7 bytes, wanted 8"}},
		{"too many bytes", func(in []Tensor) []Tensor { in[0].Data = make([]byte, 12); return in }, nil, []string{"12 bytes, wanted 8"}},
		{"text cut short", func(in []Tensor) []Tensor { in[2].Data = in[2].Data[:4]; return in }, nil, []string{`"s"`, "inside element 0 of 1"}},
		{"too many texts", func(in []Tensor) []Tensor { in[2].Data = texts("s", "t"); return in }, nil, []string{"2 elements, wanted 1"}},
		{"bool of two", func(in []Tensor) []Tensor { in[3].Data[0] = 2; return in }, nil, []string{`"n"`, "0 or 1"}},
		{"unknown output", func(in []Tensor) []Tensor { return in }, []string{"c", "q"}, []string{`no output "q"`, `"c", "r", "m"`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := w.Infer(t.Context(), c.change(good()), c.outputs)
			if !errors.Is(err, ErrBadInput) {
				t.Fatalf("got %v, want ErrBadInput", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
	// Shapes that fit the signature and not each other are found by the model itself.
	in := good()
	in[1] = Tensor{Name: "b", DType: models.FP32, Shape: []int64{3, 1}, Data: floats(1, 2, 3)}
	if _, err := w.Infer(t.Context(), in, nil); err == nil || errors.Is(err, ErrDied) {
		t.Errorf("mismatched MatMul: got %v, want an error of the model", err)
	}
	got, err := w.Infer(t.Context(), good(), []string{"m", "c"})
	if err != nil || len(got) != 2 || got[0].Name != "m" || !bytes.Equal(got[1].Data, floats(11)) {
		t.Errorf("a good request after the bad ones: got %v, %v", got, err)
	}
}

// TestStartTellsWhyAModelCannotServe checks the reasons of failed starts.
func TestStartTellsWhyAModelCannotServe(t *testing.T) {
	lib := runtimeLibrary(t)
	silero, err := os.ReadFile(assets.File(t, "models", "silero-vad-5.0.0", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	random := make([]byte, 4096)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(random)
	good := unary("Identity", models.FP32, models.FP32, dims(1))
	unknown := unary("NoSuchOperator", models.FP32, models.FP32, dims(1))
	cases := []struct {
		name, library, model string
		want                 []string
	}{
		{"truncated model", lib, file("cut.onnx", silero[:len(silero)/2]), []string{"cut.onnx", "Protobuf parsing failed"}},
		{"random model", lib, file("random.onnx", random), []string{"random.onnx", "Protobuf parsing failed"}},
		{"missing model", lib, filepath.Join(dir, "none.onnx"), []string{"none.onnx", "doesn't exist"}},
		{"unknown operator", lib, unknown.write(t), []string{"NoSuchOperator"}},
		{"missing library", filepath.Join(dir, "libnone.so"), good.write(t), []string{"libnone.so", "cannot open shared object file", "1.24"}},
		{"library of another processor", assets.LibraryFor(t, otherArch()), good.write(t), []string{"linux-" + otherArch(), "1.24"}},
		{"another library", "libm.so.6", good.write(t), []string{"libm.so.6", "not an ONNX Runtime library"}},
		{"no library", "", good.write(t), []string{"no library path"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, err := Start(t.Context(), Options{Library: c.library, Model: c.model}, testLog())
			if err == nil {
				w.Close()
				t.Fatal("the worker started")
			}
			if errors.Is(err, ErrDied) {
				t.Errorf("the worker died instead of telling: %v", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func otherArch() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// TestStartTellsWhyAProcessIsNoWorker covers commands that never answer.
func TestStartTellsWhyAProcessIsNoWorker(t *testing.T) {
	lib := runtimeLibrary(t)
	for _, c := range []struct {
		name    string
		command []string
		want    string
	}{
		{"ends at once", []string{"/bin/sh", "-c", "echo cannot work today >&2; exit 3"}, "exit status 3: cannot work today"},
		{"does not exist", []string{"/nonexistent/runner"}, "no such file"},
		{"speaks otherwise", []string{"/bin/sh", "-c", `printf '\002\000\000\000no' >&3; sleep 60`}, "no edgeherd worker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Start(t.Context(), Options{Library: lib, Model: "m", Command: c.command, Grace: 10 * time.Millisecond}, testLog())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, Options{Library: lib, Model: "m", Command: []string{"/bin/sleep", "60"}, Grace: 10 * time.Millisecond}, testLog())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a start that hangs: got %v, want the deadline", err)
	}
}

// TestKillFailsOnlyWhatWasInFlight kills the worker under load.
func TestKillFailsOnlyWhatWasInFlight(t *testing.T) {
	w := identity(t, Options{})
	other := identity(t, Options{})
	pid := pidOf(t, w)
	var served sync.WaitGroup
	var callers sync.WaitGroup
	served.Add(4)
	for range 4 {
		callers.Go(func() {
			for i := 0; ; i++ {
				_, err := w.Infer(t.Context(), vector(1000), nil)
				if i == 0 {
					served.Done()
				}
				if err != nil {
					if !errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "signal: killed") {
						t.Errorf("got %v, want ErrDied with the signal", err)
					}
					return
				}
			}
		})
	}
	served.Wait()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	callers.Wait()
	<-w.Done()
	if !errors.Is(w.Err(), ErrDied) {
		t.Errorf("Err is %v, want ErrDied", w.Err())
	}
	if _, err := w.Infer(t.Context(), vector(1), nil); !errors.Is(err, ErrDied) {
		t.Errorf("a later request: got %v, want ErrDied", err)
	}
	if u, err := w.Usage(); err != nil || u.CPU <= 0 || u.RSSBytes != 0 {
		t.Errorf("usage after the end: %+v, %v", u, err)
	}
	if _, err := other.Infer(t.Context(), vector(1), nil); err != nil {
		t.Errorf("another worker: %v", err)
	}
}

func pidOf(t *testing.T, w *Worker) int {
	t.Helper()
	u, err := w.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u.PID
}

// longRun is an input that keeps chain(200) busy for minutes if nobody stops it.
func longRun() []Tensor {
	const n = 1500
	return []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{n, n}, Data: make([]byte, 4*n*n)}}
}

// TestDeadlineStopsTheModelAndKeepsTheWorker also cancels without a deadline.
func TestDeadlineStopsTheModelAndKeepsTheWorker(t *testing.T) {
	w := startGraph(t, chain(200), Options{Grace: time.Minute})
	for _, c := range []struct {
		name string
		make func() (context.Context, context.CancelFunc)
		want error
	}{
		{"deadline", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 50*time.Millisecond)
		}, context.DeadlineExceeded},
		{"cancel", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		}, context.Canceled},
		{"over before it began", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return ctx, cancel
		}, context.Canceled},
	} {
		ctx, cancel := c.make()
		_, err := w.Infer(ctx, longRun(), nil)
		cancel()
		if !errors.Is(err, ErrDeadline) || !errors.Is(err, c.want) {
			t.Fatalf("%s: got %v, want ErrDeadline and %v", c.name, err, c.want)
		}
		small := []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{1, 1}, Data: floats(1)}}
		got, err := w.Infer(t.Context(), small, nil)
		if err != nil || !bytes.Equal(got[0].Data, floats(1)) {
			t.Fatalf("%s: the next request: %v, %v", c.name, got, err)
		}
	}
}

// TestHungWorkerIsKilledAfterTheGrace stops the process so that it cannot obey.
func TestHungWorkerIsKilledAfterTheGrace(t *testing.T) {
	w := identity(t, Options{Grace: 20 * time.Millisecond})
	if err := syscall.Kill(pidOf(t, w), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.Infer(ctx, vector(1), nil); !errors.Is(err, ErrDeadline) || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v, want ErrDeadline that tells of the kill", err)
	}
	<-w.Done()
	if !errors.Is(w.Err(), ErrDied) {
		t.Errorf("Err is %v, want ErrDied", w.Err())
	}
}

// TestAnEndIsSeenThoughAnotherProcessHoldsTheSocket: something that the worker
// started may outlive it, with all that it has inherited.
func TestAnEndIsSeenThoughAnotherProcessHoldsTheSocket(t *testing.T) {
	w := identity(t, Options{Command: []string{"/bin/sh", "-c", `sleep 60 2>&- & exec "$0" worker`, os.Args[0]}})
	pid := pidOf(t, w)
	t.Cleanup(func() { _ = syscall.Kill(-pid, syscall.SIGKILL) }) // the group: sleep is still there
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	go func() { _ = syscall.Kill(pid, syscall.SIGKILL) }() // while Infer waits, or just before
	if _, err := w.Infer(ctx, vector(1), nil); !errors.Is(err, ErrDied) {
		t.Errorf("got %v, want ErrDied", err)
	}
}

// TestMemoryLimitRefusesTheModelCleanly loads a 10 MB model into 4 MB.
func TestMemoryLimitRefusesTheModelCleanly(t *testing.T) {
	opts := Options{Library: runtimeLibrary(t), Model: assets.File(t, "models", "ocr-rec-4.0.0", "model.onnx"), MaxDataBytes: 4 << 20}
	w, err := Start(t.Context(), opts, testLog())
	if err == nil {
		w.Close()
		t.Fatal("the model was loaded")
	}
	if errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "may use 4194304 bytes") {
		t.Errorf("got %v, want a refusal that names the limit", err)
	}
	opts.MaxDataBytes = 256 << 20
	w, err = Start(t.Context(), opts, testLog())
	if err != nil {
		t.Fatalf("with 256 MB: %v", err)
	}
	w.Close()
}

// TestMemoryLimitFailsTheRequestOnly runs into the limit after the load.
func TestMemoryLimitFailsTheRequestOnly(t *testing.T) {
	w := startGraph(t, chain(3), Options{MaxDataBytes: 32 << 20})
	const n = 4000 // 64 MB for each intermediate
	in := []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{n, n}, Data: make([]byte, 4*n*n)}}
	_, err := w.Infer(t.Context(), in, nil)
	if err == nil || !outOfMemory(err.Error()) {
		t.Errorf("got %v, want an allocation failure", err)
	}
	small := []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{1, 1}, Data: floats(2)}}
	if got, err := w.Infer(t.Context(), small, nil); err != nil || !bytes.Equal(got[0].Data, floats(16)) {
		t.Errorf("the next request: %v, %v", got, err)
	}
}

// TestSlotGrowsAndShrinks sends requests and answers beyond the kept size.
func TestSlotGrowsAndShrinks(t *testing.T) {
	// Expanding [n,1]+[1,n] makes the answer far larger than the request.
	g := graph{
		nodes: []node{{op: "Add", in: []string{"a", "b"}, out: []string{"c"}}},
		in:    []value{{name: "a", dtype: models.FP32, shape: dims(2)}, {name: "b", dtype: models.FP32, shape: dims(2)}},
		out:   []value{{name: "c", dtype: models.FP32, shape: dims(2)}},
	}
	w := startGraph(t, g, Options{SlotBytes: 4096, MaxSlotBytes: 16 << 20})
	ask := func(n int) ([]Tensor, error) {
		data := make([]byte, 4*n)
		binary.LittleEndian.PutUint32(data[4*(n-1):], 0x3f800000) // last element 1
		return w.Infer(t.Context(), []Tensor{
			{Name: "a", DType: models.FP32, Shape: []int64{int64(n), 1}, Data: data},
			{Name: "b", DType: models.FP32, Shape: []int64{1, int64(n)}, Data: data},
		}, nil)
	}
	for _, n := range []int{1, 1000, 3, 1500, 2000, 100} {
		got, err := ask(n)
		if err != nil {
			t.Fatalf("n = %d: %v", n, err)
		}
		if last := got[0].Data[len(got[0].Data)-4:]; len(got[0].Data) != 4*n*n || !bytes.Equal(last, floats(2)) {
			t.Errorf("n = %d: %d bytes, last element % x", n, len(got[0].Data), last)
		}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(w.ring.file.Fd()), &stat); err != nil || stat.Blocks*512 > 192<<10 {
		t.Errorf("%d bytes of shared memory stay allocated (%v), want about the 64 KiB to keep in each region", stat.Blocks*512, err)
	}
	if _, err := ask(2100); err == nil || errors.Is(err, ErrDied) || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("an answer over the limit: got %v, want the limit named", err)
	}
	if _, err := ask(3 << 20); !errors.Is(err, ErrBadInput) || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("a request over the limit: got %v, want ErrBadInput with the limit", err)
	}
	if _, err := ask(5); err != nil {
		t.Errorf("after the limits: %v", err)
	}
}

// TestNothingLeaksOverFiftyRestarts counts descriptors, mappings and children.
func TestNothingLeaksOverFiftyRestarts(t *testing.T) {
	g := unary("Identity", models.FP32, models.FP32, dims(1))
	opts := Options{Library: runtimeLibrary(t), Model: g.write(t)}
	cycle := func() {
		w, err := Start(t.Context(), opts, testLog())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Infer(t.Context(), vector(10), nil); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Close(), w.Err()); err != nil {
			t.Fatalf("after Close: %v", err)
		}
	}
	cycle()
	descriptors, mappings := resources(t)
	for range 50 {
		cycle()
	}
	descriptorsAfter, mappingsAfter := resources(t)
	if descriptorsAfter > descriptors || mappingsAfter > mappings {
		t.Errorf("after 50 cycles: %d descriptors (before: %d), %d slots mapped (before: %d)", descriptorsAfter, descriptors, mappingsAfter, mappings)
	}
}

func resources(t *testing.T) (descriptors, slots int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries), bytes.Count(maps, []byte("edgeherd-tensors"))
}

// TestWorkerEndsWithItsRunner closes the runner's end of the control pipe, as
// the kernel does when a runner is killed.
func TestWorkerEndsWithItsRunner(t *testing.T) {
	w := identity(t, Options{})
	pid := pidOf(t, w)
	if err := w.control.Close(); err != nil {
		t.Fatal(err)
	}
	<-w.Done()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v, want none", pid, err)
	}
}
