package serve

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// echo is an ONNX model (onnx.proto3) of one Identity node: y = x, FP32, any length.
func echo() []byte {
	message := func(num protowire.Number, fields ...[]byte) []byte {
		var body []byte
		for _, f := range fields {
			body = append(body, f...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), body)
	}
	number := func(num protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
	}
	value := func(num protowire.Number, name string) []byte {
		shape := message(2, message(1, message(2, []byte("n"))))
		return message(num, message(1, []byte(name)), message(2, message(1, number(1, 1), shape)))
	}
	node := message(1, message(1, []byte("x")), message(2, []byte("y")), message(4, []byte("Identity")))
	graph := message(7, node, message(2, []byte("g")), value(11, "x"), value(12, "y"))
	var model []byte
	for _, f := range [][]byte{number(1, 8), graph, message(8, number(2, 13))} {
		model = append(model, f...)
	}
	return model
}

// TestSlowClientsLoseTheirPlace: one that stops sending its request, and one
// that does not read its answer.
func TestSlowClientsLoseTheirPlace(t *testing.T) {
	b := newBox(t, func(o *Options) { o.Timeout = 3 * time.Second; o.MaxInFlight = 2 })
	model := echo()
	b.ready(b.publish("echo", "1", model, model, nil))
	dial := func(format string, args ...any) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, format, args...)
		return conn
	}
	const size = 16 << 20 // more than the kernel buffers on a connection
	head := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"FP32","shape":[%d],"parameters":{"binary_data_size":%d}}]}`, size/4, size)
	const post = "POST /v2/models/echo/infer HTTP/1.1\r\nHost: localhost\r\n"
	silent := dial(post+"Content-Length: %d\r\n\r\n%s", 100, `{"inputs"`)
	deaf := dial(post+"%s: %d\r\nContent-Length: %d\r\n\r\n%s", HeaderLength, len(head), len(head)+size, head)
	go func() { _, _ = deaf.Write(make([]byte, size)) }()
	b.eventually("both hold a place", func() bool { return b.s.gate.requests.Load() == 2 })
	b.eventually("both have lost it", func() bool { return b.s.gate.requests.Load() == 0 })
	// An error is answered although the rest of its request never comes.
	lost := dial("POST /v2/models/none/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	for conn, status := range map[net.Conn]string{silent: "408", lost: "404"} {
		text, err := io.ReadAll(conn)
		if err != nil || !bytes.HasPrefix(text, []byte("HTTP/1.1 "+status)) || !bytes.Contains(text, []byte("\r\nConnection: close\r\n")) || !bytes.Contains(text, []byte(`{"error":`)) {
			t.Errorf("a request that did not come whole: %q, %v; want %s", text, err, status)
		}
	}
	if r := b.post("/v2/models/echo/infer", []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2.5]}]}`)); r.status != http.StatusOK || string(r.Outputs[0].Data) != "[1,2.5]" {
		t.Errorf("afterwards: %+v", r)
	}
}

// TestARefusalDoesNotWaitForABodyThatNeedNotCome: the client asks before it
// sends, or has more to send than anybody reads for nothing.
func TestARefusalDoesNotWaitForABodyThatNeedNotCome(t *testing.T) {
	srv := httptest.NewServer(survives(slog.New(slog.DiscardHandler), time.Hour, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, tooLarge(1))
	})))
	defer srv.CloseClientConnections() // first, or Close waits for the body
	for _, header := range []string{"Content-Length: 100\r\nExpect: 100-continue", "Content-Length: 1000000"} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Minute)) // else a failure takes an hour
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", header)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%q: %v", header, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
			t.Errorf("%q: %s, close %v", header, resp.Status, resp.Close)
		}
	}
}

// TestModelThatCannotStartAgainIsToldAtOnce: its file rots, its worker dies;
// and it serves again when the file is whole.
func TestModelThatCannotStartAgainIsToldAtOnce(t *testing.T) {
	b := newBox(t, nil)
	model := echo()
	ref := b.publish("echo", "1", model, model, nil)
	b.ready(ref)
	path := b.blobs.Path(b.put(model))
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(b.status(ref).WorkerPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("the model is reported as failed", func() bool { return b.status(ref).State == runnerapi.ModelFailed })
	request := []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`)
	if r := b.post("/v2/models/echo/infer", request); r.status != http.StatusServiceUnavailable || !strings.Contains(r.Error, "blob store") {
		t.Errorf("while it cannot start: %d %s", r.status, r.Error)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	b.eventually("it serves again", func() bool {
		return b.post("/v2/models/echo/infer", request).status == http.StatusOK
	})
}

// TestDeadCandidateIsNotSwitchedTo: it was proved, then its worker and file died.
func TestDeadCandidateIsNotSwitchedTo(t *testing.T) {
	b := newBox(t, nil)
	model := echo()
	old := b.publish("echo", "1", model, model, nil)
	b.ready(old)
	other := padded(model, 10)
	next := b.publish("echo", "2", other, model, nil)
	if p, err := b.edge.Probe(t.Context(), next); err != nil || !p.OK {
		t.Fatalf("probe: %+v, %v", p, err)
	}
	if err := os.Remove(b.blobs.Path(b.put(other))); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(b.status(next).WorkerPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("the candidate is down", func() bool { return b.status(next).State == runnerapi.ModelFailed })
	b.activate(next)
	if st := b.status(next); st.State != runnerapi.ModelFailed {
		t.Errorf("the dead candidate is %s", st.State)
	}
	r := b.post("/v2/models/echo/infer", []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`))
	if r.status != http.StatusOK || r.Version != "1" {
		t.Errorf("%d %s from version %q, want the old one", r.status, r.Error, r.Version)
	}
}

// TestClientsThatCloseHalfOrAllLoseTheirPlace: after the request, in the middle
// of the body, and in the middle of the header.
func TestClientsThatCloseHalfOrAllLoseTheirPlace(t *testing.T) {
	b := newBox(t, nil)
	model := echo()
	b.ready(b.publish("echo", "1", model, model, nil))
	const body = `{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}`
	request := fmt.Sprintf("POST /v2/models/echo/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for _, cut := range []int{len(request), len(request) - 10, 40} {
		for _, whole := range []bool{false, true} {
			conn, err := net.Dial("unix", b.socket)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, request[:cut])
			if whole {
				conn.Close()
				continue
			}
			if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
	}
	b.eventually("no place is held", func() bool { return b.s.gate.requests.Load() == 0 && b.s.gate.bytes.Load() == 0 })
	if r := b.post("/v2/models/echo/infer", []byte(body)); r.status != http.StatusOK {
		t.Errorf("afterwards: %+v", r)
	}
}
