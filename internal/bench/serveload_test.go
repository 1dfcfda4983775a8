package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tensor is one input of a request that is sent again and again.
type tensor struct {
	name, dtype string
	shape       []int64
	data        []byte
}

// workload is a request with its model.
type workload struct {
	model string
	in    []tensor
}

// ramp is a saw-tooth of n floats between -1 and 1.
func ramp(n int) []byte {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i%200)/100-1))
	}
	return b
}

// classify is an image of 110 KB, about 0.65 ms of inference on a quiet machine.
func classify() workload {
	return workload{"ocr-cls", []tensor{{"x", "FP32", []int64{1, 3, 48, 192}, ramp(3 * 48 * 192)}}}
}

// detect is an image of 1 MB, about 20 ms.
func detect() workload {
	return workload{"ocr-det", []tensor{{"x", "FP32", []int64{1, 3, 288, 288}, ramp(3 * 288 * 288)}}}
}

// listen is 32 ms of sound, about 80 µs, for n voices in one request.
func listen(n int64) workload {
	return workload{"silero-vad", []tensor{
		{"input", "FP32", []int64{n, 512}, ramp(int(n) * 512)},
		{"state", "FP32", []int64{2, n, 128}, make([]byte, 4*256*n)},
		{"sr", "INT64", []int64{}, binary.LittleEndian.AppendUint64(nil, 16000)},
	}}
}

// body is the request with binary tensors; head is the length of its JSON.
func (w workload) body() (body []byte, head int) {
	var inputs []string
	var tail []byte
	for _, t := range w.in {
		inputs = append(inputs, fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":%s,"parameters":{"binary_data_size":%d}}`, t.name, t.dtype, dims(t.shape), len(t.data)))
		tail = append(tail, t.data...)
	}
	text := `{"parameters":{"binary_data_output":true},"inputs":[` + strings.Join(inputs, ",") + `]}`
	return append([]byte(text), tail...), len(text)
}

func dims(shape []int64) string { return strings.ReplaceAll(fmt.Sprint(shape), " ", ",") }

// raw is the request as bytes of HTTP/1.1.
func (w workload) raw() []byte {
	body, head := w.body()
	return append(fmt.Appendf(nil, "POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n", w.model, head, len(body)), body...)
}

// client is one connection of a client that spends little.
type client struct {
	net.Conn
	in *bufio.Reader
}

func dialClient(addr string) (*client, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	conn, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReaderSize(conn, 64<<10)}, nil
}

// ask sends the bytes of a request and skips the answer.
func (w *client) ask(request []byte) (status int, err error) {
	if _, err := w.Write(request); err != nil {
		return 0, err
	}
	length := 0
	for first := true; ; first = false {
		line, err := w.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if first {
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, err
			}
		}
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(n))); err != nil {
				return 0, err
			}
		}
		if len(line) == 2 {
			_, err = w.in.Discard(length)
			return status, err
		}
	}
}

// drive keeps connections busy for a while and returns how many were answered
// with 200 and how many with 503.
func drive(t *testing.T, addr string, connections int, request []byte, span time.Duration) (answered, refused int64) {
	t.Helper()
	var good, shed atomic.Int64
	var all sync.WaitGroup
	until := time.Now().Add(span)
	for range connections {
		all.Go(func() {
			w, err := dialClient(addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			for time.Now().Before(until) {
				switch status, err := w.ask(request); {
				case err != nil:
					t.Error(err)
					return
				case status == http.StatusOK:
					good.Add(1)
				case status == http.StatusServiceUnavailable:
					shed.Add(1)
				default:
					t.Errorf("status %d", status)
					return
				}
			}
		})
	}
	all.Wait()
	return good.Load(), shed.Load()
}

// counters are sums of the runner's metrics over all models.
func (b *box) counters() map[string]float64 {
	b.t.Helper()
	resp, err := http.Get("http://" + b.http + "/metrics")
	check(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(b.t, err)
	sums := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" {
			continue
		}
		name, _, _ = strings.Cut(name, "{")
		v, err := strconv.ParseFloat(value, 64)
		check(b.t, err)
		sums[name] += v
	}
	return sums
}

// spent is what a while of load took of the CPU.
type spent struct {
	answers       int64
	items, runs   float64
	total, onnx   float64 // CPU seconds
	wall, refused float64
}

func (b *box) spend(load func() (int64, int64)) spent {
	b.t.Helper()
	before, began := b.counters(), time.Now()
	answers, refused := load()
	wall := time.Since(began).Seconds()
	after := b.counters()
	diff := func(name string) float64 { return after[name] - before[name] }
	return spent{
		answers: answers, refused: float64(refused), wall: wall,
		items: diff("nv_inference_count"), runs: diff("nv_inference_exec_count"),
		total: diff("edgeherd_runner_cpu_seconds_total"), onnx: diff("edgeherd_runner_runtime_cpu_seconds_total"),
	}
}

// prove probes a model, so that the runner knows whether batches save.
func (b *box) prove(model string) {
	b.t.Helper()
	st, err := b.edge.Status(b.t.Context())
	check(b.t, err)
	for _, m := range st.Models {
		if m.Name != model {
			continue
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
		defer cancel()
		p, err := b.edge.Probe(ctx, m.Ref)
		check(b.t, err)
		if !p.OK {
			b.t.Fatalf("probe of %s: %s", model, p.Err)
		}
		b.t.Logf("%s: batches of %d: %v", model, p.MaxBatch, p.Batches)
	}
}
