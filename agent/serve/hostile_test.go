package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// lookup is an ONNX model of one Gather: y[i] = table[x[i]], of 4 numbers; an
// index beyond them is an error of the runtime.
func lookup() []byte {
	message := func(num protowire.Number, fields ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(fields, nil))
	}
	number := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	value := func(num protowire.Number, name string, dtype uint64) []byte {
		shape := message(2, message(1, message(2, []byte("n"))))
		return message(num, message(1, []byte(name)), message(2, message(1, number(1, dtype), shape)))
	}
	node := message(1, message(1, []byte("table")), message(1, []byte("x")), message(2, []byte("y")), message(4, []byte("Gather")))
	table := message(5, number(1, 4), number(2, 1), message(8, []byte("table")), message(9, floats(10, 11, 12, 13)))
	graph := message(7, node, message(2, []byte("g")), table, value(11, "x", 7), value(12, "y", 1))
	return bytes.Join([][]byte{number(1, 8), graph, message(8, number(2, 13))}, nil)
}

func TestABadRequestFailsAloneInItsBatch(t *testing.T) {
	b := newBox(t, nil)
	model := lookup()
	b.ready(b.publish("lookup", "1", model, model, nil))
	v, err := b.s.acquire("lookup", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	v.queue.set(batching{MaxItems: 8, Axes: worker.Axes{In: []int{0}, Out: []int{0}}})
	v.queue.mu.Lock()
	v.queue.running = depth // nobody runs before all wait
	v.queue.mu.Unlock()
	indices := []uint64{2, 99, 3}
	outs, errs := make([][]worker.Tensor, len(indices)), make([]error, len(indices))
	var clients sync.WaitGroup
	for i, at := range indices {
		clients.Go(func() {
			in := []worker.Tensor{{Name: "x", DType: models.INT64, Shape: []int64{1}, Data: binary.LittleEndian.AppendUint64(nil, at)}}
			outs[i], errs[i] = v.infer(t.Context(), &call{inputs: in})
		})
	}
	b.eventually("all wait", func() bool { return v.queue.length() == len(indices) })
	for range depth {
		v.queue.leave()
	}
	clients.Wait()
	for i, at := range indices {
		switch {
		case at == 99 && (errs[i] == nil || statusOf(errs[i]) != http.StatusBadRequest):
			t.Errorf("index 99: %v, want 400", errs[i])
		case at != 99 && (errs[i] != nil || !bytes.Equal(outs[i][0].Data, floats(float32(10+at)))):
			t.Errorf("index %d: %v, %v", at, outs[i], errs[i])
		}
	}
}

func TestDeclaredLengthsCannotOverflowTheGate(t *testing.T) {
	g := gate{maxRequests: 4, maxBytes: 100}
	first, err := g.enter(50)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.enter(math.MaxInt64); !errors.Is(err, errOverload) {
		t.Errorf("the largest length: %v, want an overload", err)
	}
	first.leave()
	if g.bytes.Load() != 0 || g.requests.Load() != 0 {
		t.Errorf("%d bytes and %d requests are left", g.bytes.Load(), g.requests.Load())
	}

	b := newBox(t, nil)
	model := echo()
	b.ready(b.publish("echo", "1", model, model, nil))
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v2/models/echo/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", int64(math.MaxInt64))
	head := make([]byte, 12)
	if _, err := conn.Read(head); err != nil || string(head) != "HTTP/1.1 413" {
		t.Errorf("the largest body: %q, %v, want 413", head, err)
	}
}

func TestClientsCannotMakeStatisticsGrow(t *testing.T) {
	var s stats
	for n := range int64(5000) {
		s.executed(n, worker.Cost{}, nil)
	}
	s.executed(math.MaxInt64, worker.Cost{}, nil)
	if n := len(s.read().batches); n > maxItems+32 {
		t.Errorf("%d sizes of batches are kept", n)
	}
	if s.read().items > 1<<32 {
		t.Errorf("%d items counted", s.read().items)
	}
}

func TestLongNamesAreNotRepeated(t *testing.T) {
	long := strings.Repeat("<", maxName+1)
	for _, text := range []string{
		`{"id":"` + long + `","inputs":[]}`,
		`{"inputs":[{"name":"` + long + `","datatype":"FP32","shape":[1],"data":[1]}]}`,
		`{"inputs":[{"name":"x","datatype":"` + long + `","shape":[1],"data":[1]}]}`,
		`{"inputs":[],"outputs":[{"name":"` + long + `"}]}`,
	} {
		if _, err := decodeAll([]byte(text), nil); err == nil || len(err.Error()) > 200 || statusOf(err) != http.StatusBadRequest {
			t.Errorf("%.30s…: %v", text, err)
		}
	}
	for num := protowire.Number(fieldModelName); num <= fieldID; num++ {
		d := grpcDecoder{reserve: free}
		if err := d.decode(protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), long)); err == nil || len(err.Error()) > 200 {
			t.Errorf("field %d: %v", num, err)
		}
	}
	d := grpcDecoder{reserve: free}
	if err := d.decode(bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, fieldRawIn, protowire.BytesType), nil), maxTensors+1)); err == nil {
		t.Error("any number of raw_input_contents passes")
	}
}

func TestTextsInJSONAreReservedInFull(t *testing.T) {
	reserved := int64(0)
	d := decoder{reserve: func(n int64) error { reserved += n; return nil }}
	text := strings.Repeat("a", 10*arenaStep)
	if err := d.decode([]byte(`{"inputs":[{"name":"x","datatype":"BYTES","shape":[2],"data":["`+text+`","b"]}]}`), nil); err != nil {
		t.Fatal(err)
	}
	if reserved < int64(len(text)) {
		t.Errorf("%d bytes reserved for %d", reserved, len(text))
	}
}

// TestADeafStreamLosesItsPlace reads nothing of what it asked for.
func TestADeafStreamLosesItsPlace(t *testing.T) {
	b := newBox(t, func(o *Options) { o.Timeout = 3 * time.Second })
	model := echo()
	b.ready(b.publish("echo", "1", model, model, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := b.overGRPC().ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20 // more than both ends buffer
	in := []worker.Tensor{{Name: "x", DType: models.FP32, Shape: []int64{size / 4}, Data: make([]byte, size)}}
	for range 2 { // gRPC takes one answer to send, and waits with the second
		if err := stream.Send(grpcRequest("echo", in, nil)); err != nil {
			t.Fatal(err)
		}
	}
	b.eventually("it has lost its place", func() bool {
		return b.s.streams.Load() == 0 && b.s.gate.requests.Load() == 0 && b.s.gate.bytes.Load() == 0
	})
}

func TestImagesReserveWhatTheirKindNeeds(t *testing.T) {
	const side = 64
	for _, c := range []struct {
		name string
		data []byte
		want int64 // bytes a pixel, at least
	}{
		{"PNG of 16 bits", asPNG(image.NewNRGBA64(image.Rect(0, 0, side, side))), 8},
		{"PNG", asPNG(picture(side, side)), 4},
	} {
		reserved := int64(0)
		l := layout{channels: 3, height: 1, width: 1}
		if _, err := l.open(c.data, func(n int64) error { reserved += n; return nil }); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if reserved < c.want*side*side || reserved >= 2*c.want*side*side {
			t.Errorf("%s: %d bytes reserved, want %d a pixel", c.name, reserved, c.want)
		}
	}
	baseline := asJPEG(picture(8, 8))
	if progressive(baseline) {
		t.Error("a baseline JPEG counts as progressive")
	}
	at := bytes.Index(baseline, []byte{0xff, 0xc0})
	changed := bytes.Clone(baseline)
	changed[at+1] = 0xc2
	if !progressive(changed) || !progressive([]byte("\xff\xd8garbage")) {
		t.Error("a progressive JPEG, or one that hides what it is, counts as baseline")
	}
}

func TestAPortOpenToOthersIsToldOf(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:8000": false, "[::1]:8000": false, "0.0.0.0:8000": true, "[::]:8000": true, "192.0.2.1:8000": true} {
		var out bytes.Buffer
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		(&Server{log: slog.New(slog.NewTextHandler(&out, nil))}).warnOpen(tcp)
		if got := strings.Contains(out.String(), "level=WARN"); got != want {
			t.Errorf("%s: warned %v, want %v", addr, got, want)
		}
	}
}
