package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/timerslack"
	"github.com/edgeherd/edgeherd/models"
)

// TestMain makes the test binary its own worker process: Options.Command
// starts this executable with the argument "worker".
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		if err := Main(context.Background(), os.Args[2:], os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "echo" {
		echo()
		os.Exit(0)
	}
	timerslack.Restart(timerslack.Server) // as the runner does
	os.Exit(m.Run())
}

func runtimeLibrary(t testing.TB) string {
	return assets.Library(t)
}

func testLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// start runs a worker that ends with the test.
func start(t testing.TB, opts Options) *Worker {
	t.Helper()
	opts.Library = runtimeLibrary(t)
	w, err := Start(context.Background(), opts, testLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func startGraph(t testing.TB, g graph, opts Options) *Worker {
	t.Helper()
	opts.Model = g.write(t)
	return start(t, opts)
}

func floats(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

func texts(v ...string) []byte {
	var b []byte
	for _, s := range v {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

func repeat(n int, b ...byte) []byte { return bytes.Repeat(b, n) }

// TestIdentityKeepsEveryTypeAndShape sends each element type through a model
// that returns it.
func TestIdentityKeepsEveryTypeAndShape(t *testing.T) {
	cases := []struct {
		dtype models.DType
		shape []int64
		data  []byte
	}{
		{models.BOOL, []int64{3}, []byte{0, 1, 1}},
		{models.UINT8, []int64{2, 2}, []byte{0, 1, 254, 255}},
		{models.INT8, []int64{4}, []byte{0, 127, 128, 255}},
		{models.UINT16, []int64{2}, []byte{1, 2, 255, 255}},
		{models.INT16, []int64{1, 2}, []byte{0, 128, 255, 127}},
		{models.UINT32, []int64{1}, []byte{255, 255, 255, 255}},
		{models.INT32, []int64{1}, []byte{0, 0, 0, 128}},
		{models.UINT64, []int64{1}, repeat(8, 255)},
		{models.INT64, []int64{1}, []byte{0, 0, 0, 0, 0, 0, 0, 128}},
		{models.FP16, []int64{3}, []byte{0, 0x3c, 0, 0xbc, 0, 0x7c}}, // 1, -1, +Inf
		{models.BF16, []int64{2}, []byte{0x80, 0x3f, 0xc0, 0x7f}},    // 1, NaN
		{models.FP32, []int64{1, 1, 2}, floats(1.5, float32(math.Inf(-1)))},
		{models.FP64, []int64{1}, binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.Pi))},
		{models.BYTES, []int64{2, 2}, texts("", "a", "zwölf", "nul\x00inside")},
		{models.FP32, []int64{}, floats(42)},
		{models.BYTES, []int64{}, texts("scalar")},
		{models.INT64, []int64{}, repeat(8, 7)},
		{models.FP32, []int64{0}, []byte{}},
		{models.FP32, []int64{2, 0, 3}, []byte{}},
		{models.BYTES, []int64{0}, []byte{}},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s%v", c.dtype, c.shape), func(t *testing.T) {
			t.Parallel()
			w := startGraph(t, unary("Identity", c.dtype, c.dtype, dims(len(c.shape))), Options{})
			got, err := w.Infer(t.Context(), []Tensor{{Name: "x", DType: c.dtype, Shape: c.shape, Data: c.data}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := Tensor{Name: "y", DType: c.dtype, Shape: c.shape, Data: c.data}
			if len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// TestKernelsReadTheTypes makes ONNX Runtime interpret the bytes, not only copy them.
func TestKernelsReadTheTypes(t *testing.T) {
	cases := []struct {
		to   models.DType
		want []byte
	}{
		{models.BOOL, []byte{1, 0}},
		{models.UINT8, []byte{3, 0}},
		{models.INT64, append(binary.LittleEndian.AppendUint64(nil, 3), repeat(8, 0)...)},
		{models.FP16, []byte{0x00, 0x42, 0, 0}},
		{models.BF16, []byte{0x40, 0x40, 0, 0}},
		{models.FP64, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, math.Float64bits(3)), 0)},
		{models.BYTES, texts("3", "0")},
	}
	for _, c := range cases {
		t.Run(string(c.to), func(t *testing.T) {
			t.Parallel()
			w := startGraph(t, unary("Cast", models.FP32, c.to, dims(1)), Options{})
			got, err := w.Infer(t.Context(), []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{2}, Data: floats(3, 0)}}, []string{"y"})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got[0].Data, c.want) {
				t.Errorf("got % x, want % x", got[0].Data, c.want)
			}
		})
	}
}
