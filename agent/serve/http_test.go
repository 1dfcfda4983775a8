package serve

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

const inferVoice = "/v2/models/vad/infer"

// TestBothFormsAgree sends one request in JSON and in binary, with every mix of
// output forms, and over TCP and the socket.
func TestBothFormsAgree(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5.0.0"))
	body, header := binaryRequest(voice())
	want := b.post(inferVoice, body, HeaderLength, header)
	if want.status != http.StatusOK || len(want.Outputs) != 2 || want.Name != "vad" || want.Version != "5.0.0" {
		t.Fatalf("binary request: %+v", want)
	}
	text := jsonRequest(voice())
	asked := func(id, outputs string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"parameters":{"binary_data_output":true},"outputs":[%s],%s`, id, outputs, text[1:])
	}
	for _, tc := range []struct {
		name string
		body []byte
		raw  []bool // form of each output
	}{
		{"all JSON", text, []bool{false, false}},
		{"binary by request", fmt.Appendf(nil, `{"parameters":{"binary_data_output":true},%s`, text[1:]), []bool{true, true}},
		{"binary by output", asked("7", `{"name":"output","parameters":{"binary_data":false}},{"name":"stateN"}`), []bool{false, true}},
	} {
		got := b.post(inferVoice, tc.body)
		if got.status != http.StatusOK || len(got.Outputs) != 2 {
			t.Errorf("%s: %+v", tc.name, got)
			continue
		}
		for i, o := range got.Outputs {
			raw := o.raw
			if !tc.raw[i] {
				var values []float32
				if err := json.Unmarshal(o.Data, &values); err != nil {
					t.Fatal(err)
				}
				raw = floats(values...)
			}
			if (o.raw != nil) != tc.raw[i] || !bytes.Equal(raw, want.Outputs[i].raw) {
				t.Errorf("%s: output %s differs from the binary answer", tc.name, o.Name)
			}
		}
	}
	if got := b.post(inferVoice, asked("seven", `{"name":"output"}`)); got.ID != "seven" || len(got.Outputs) != 1 || got.Outputs[0].Name != "output" {
		t.Errorf("one output with id: %+v", got)
	}
	over := b.overSocket()
	defer over.CloseIdleConnections()
	got, err := send(t.Context(), over, "http://runner/v2/models/vad/versions/5.0.0/infer", body, HeaderLength, header)
	if err != nil || !bytes.Equal(got.Outputs[0].raw, want.Outputs[0].raw) {
		t.Errorf("over the socket: %+v, %v", got, err)
	}
}

func TestCompressedAndChunkedBodies(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
	text := jsonRequest(voice())
	var zipped, deflated bytes.Buffer
	for _, w := range []io.WriteCloser{gzip.NewWriter(&zipped), zlib.NewWriter(&deflated)} {
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	if r := b.post(inferVoice, zipped.Bytes(), "Content-Encoding", "gzip"); r.status != http.StatusOK {
		t.Errorf("gzip: %d %s", r.status, r.Error)
	}
	if r := b.post(inferVoice, deflated.Bytes(), "Content-Encoding", "deflate"); r.status != http.StatusOK {
		t.Errorf("deflate: %d %s", r.status, r.Error)
	}
	if r := b.post(inferVoice, text, "Content-Encoding", "gzip"); r.status != http.StatusBadRequest {
		t.Errorf("not gzip: %d %s", r.status, r.Error)
	}
	if r := b.post(inferVoice, text, "Content-Encoding", "br"); r.status != http.StatusUnsupportedMediaType {
		t.Errorf("brotli: %d %s", r.status, r.Error)
	}
	resp, err := http.Post(b.url+inferVoice, "", struct{ io.Reader }{bytes.NewReader(text)}) // no length: chunked
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("chunked: %d", resp.StatusCode)
	}
	b.answersAreCompressed(text)
}

// answersAreCompressed asks for both forms in both codings. What comes must be,
// when it is undone, what comes without; HeaderLength is of that.
func (b *box) answersAreCompressed(text []byte) {
	b.t.Helper()
	raw, header := binaryRequest(voice())
	small := fmt.Appendf(nil, `{"outputs":[{"name":"output"}],%s`, text[1:])
	for _, tc := range []struct {
		name   string
		body   []byte
		header string
		accept string
		coding string
	}{
		{"JSON", text, "", "gzip", "gzip"},
		{"JSON", text, "", "gzip;q=0.5, deflate", "deflate"},
		{"binary", raw, header, "deflate, gzip", "gzip"},
		{"binary", raw, header, "deflate", "deflate"},
		{"binary", raw, header, "br", ""},
		{"too small to pay", small, "", "gzip", ""},
	} {
		ask := func(accept string) (http.Header, []byte) {
			req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+inferVoice, bytes.NewReader(tc.body))
			if err != nil {
				b.t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", accept) // so that the client does not undo it
			if tc.header != "" {
				req.Header.Set(HeaderLength, tc.header)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				b.t.Fatal(err)
			}
			defer resp.Body.Close()
			data, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(data)) {
				b.t.Fatalf("%s, %s: %d %v, %d of %d bytes", tc.name, accept, resp.StatusCode, err, len(data), resp.ContentLength)
			}
			return resp.Header, data
		}
		plain, want := ask("identity")
		got, data := ask(tc.accept)
		if got.Get("Content-Encoding") != tc.coding || got.Get(HeaderLength) != plain.Get(HeaderLength) || got.Get("Content-Type") != plain.Get("Content-Type") {
			b.t.Errorf("%s, %s: header %v, without %v", tc.name, tc.accept, got, plain)
		}
		if tc.coding == "" {
			continue
		}
		shorter := len(data) < len(want)
		var undo io.Reader
		var err error
		if tc.coding == "gzip" {
			undo, err = gzip.NewReader(bytes.NewReader(data))
		} else {
			undo, err = zlib.NewReader(bytes.NewReader(data))
		}
		if err == nil {
			data, err = io.ReadAll(undo)
		}
		if err != nil || !bytes.Equal(data, want) || !shorter {
			b.t.Errorf("%s, %s: %v, shorter %v; %d bytes undone, %d without", tc.name, tc.accept, err, shorter, len(data), len(want))
		}
	}
	if held := b.s.gate.bytes.Load(); held != 0 {
		b.t.Errorf("%d bytes are still reserved", held)
	}
}

// TestAcceptEncodingIsWeighed follows RFC 9110, 12.5.3.
func TestAcceptEncodingIsWeighed(t *testing.T) {
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "deflate": "deflate", "deflate, gzip": "gzip", "br": "", "*": "gzip", "X-GZIP": "gzip",
		"gzip;q=0": "", "gzip;q=0, *": "deflate", "gzip;q=0.2,deflate;q=0.7": "deflate", "gzip;q=0.5, identity": "",
		"identity;q=0.5, gzip": "gzip", "gzip, identity": "gzip", "*;q=0": "", "gzip;q=much": "", "gzip;q=2": "", "gzip ; q = 0.9 , , ;": "gzip",
		"gzip;level=1;q=0": "", "gzip;q=NaN": "",
	} {
		if got := encodingFor([]string{accept}); got != want {
			t.Errorf("%q: %q, want %q", accept, got, want)
		}
	}
	if got := encodingFor([]string{"br", "deflate"}); got != "deflate" {
		t.Errorf("two lines: %q", got)
	}
	var none encoders
	noise := make([]byte, 4096)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	if _, ok := none.encode(codeGzip, make([]byte, 0, len(noise)), noise, nil); ok {
		t.Error("noise is sent longer than it is")
	}
}

// isAnswered sends requests without a body, as probes and wrong clients do.
func (b *box) isAnswered() {
	b.t.Helper()
	for _, tc := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"HEAD", "/v2/health/live", 200, ""},
		{"HEAD", "/v2/health/ready", 200, ""},
		{"POST", "/v2/health/ready", 405, "GET, HEAD"},
		{"GET", inferVoice, 405, "POST"},
		{"PUT", "/v2/models/vad/versions/5/infer", 405, "POST"},
		{"DELETE", "/v2/models/vad", 405, "GET, HEAD"},
		{"POST", "/v2/models/stats", 405, "GET, HEAD"},
		{"GET", "/v2/repository/index", 405, "POST"},
		{"GET", "/v2/repository/models/vad/load", 405, "POST"},
		{"OPTIONS", "/v1/chat/completions", 405, "POST"},
		{"GET", "/v1/files", 404, ""},
		{"GET", "/v2/models/vad/explain", 404, ""},
		{"GET", "/v2/logging", 404, ""},
		{"GET", "/", 404, ""},
		{"GET", "/edge/v1/status", 404, ""},
	} {
		req, err := http.NewRequestWithContext(b.t.Context(), tc.method, b.url+tc.path, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tc.status || resp.Header.Get("Allow") != tc.allow ||
			resp.Header.Get("Content-Type") != "application/json" || tc.method != "HEAD" && !bytes.HasPrefix(text, []byte(`{"error":`)) {
			b.t.Errorf("%s %s: %d %s, Allow %q, want %d %q; %v", tc.method, tc.path, resp.StatusCode, text, resp.Header.Get("Allow"), tc.status, tc.allow, err)
		}
	}
}

// TestFaultsOfARequestAreNamed is the error table of the protocol.
func TestFaultsOfARequestAreNamed(t *testing.T) {
	b := newBox(t, func(o *Options) { o.MaxBodyBytes = 64 << 10; o.Timeout = 20 * time.Second })
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
	in := voice()
	body, header := binaryRequest(in)
	split := func(i int, f func(*worker.Tensor)) (string, []byte) {
		out := voice()
		f(&out[i])
		text, h := binaryRequest(out)
		return h, text
	}
	wrongType, wrongTypeBody := split(0, func(x *worker.Tensor) { x.DType = models.INT32 })
	wrongShape, wrongShapeBody := split(1, func(x *worker.Tensor) { x.Shape = []int64{2, 1, 64} })
	wrongRank, wrongRankBody := split(0, func(x *worker.Tensor) { x.Shape = []int64{512} })
	short, shortBody := split(0, func(x *worker.Tensor) { x.Data = x.Data[:100] })
	unknown, unknownBody := split(2, func(x *worker.Tensor) { x.Name = "rate" })
	half, halfBody := split(0, func(x *worker.Tensor) { x.DType, x.Data = models.FP16, x.Data[:1024] })
	for _, tc := range []struct {
		name   string
		path   string
		header string
		body   []byte
		status int
		want   string
	}{
		{"fine", inferVoice, header, body, 200, ""},
		{"unknown model", "/v2/models/cat/infer", header, body, 404, `"cat"`},
		{"unknown version", "/v2/models/vad/versions/9/infer", header, body, 404, `"9"`},
		{"unknown path", "/v2/models/vad/explain", "", nil, 404, "explain"},
		{"agent's path on TCP", "/edge/v1/reload", "", nil, 404, "edge"},
		{"wrong type", inferVoice, wrongType, wrongTypeBody, 400, `"input"`},
		{"half precision", inferVoice, half, halfBody, 400, `"input"`},
		{"wrong shape", inferVoice, wrongShape, wrongShapeBody, 400, `"state"`},
		{"wrong rank", inferVoice, wrongRank, wrongRankBody, 400, `"input"`},
		{"wrong length", inferVoice, short, shortBody, 400, `"input"`},
		{"unknown input", inferVoice, unknown, unknownBody, 400, `"rate"`},
		{"missing input", inferVoice, "", []byte(`{"inputs":[]}`), 400, `missing`},
		{"unknown output", inferVoice, "", fmt.Appendf(nil, `{"outputs":[{"name":"y"}],%s`, jsonRequest(in)[1:]), 400, `"y"`},
		{"bytes left over", inferVoice, header, append(bytes.Clone(body), 0), 400, "binary_data_size"},
		{"bytes missing", inferVoice, header, body[:len(body)-1], 400, `"sr"`},
		{"header beyond body", inferVoice, "999999", body, 400, HeaderLength},
		{"header no number", inferVoice, "-1", body, 400, HeaderLength},
		{"no JSON", inferVoice, "", []byte("hello"), 400, "JSON"},
		{"empty", inferVoice, "", nil, 400, "JSON"},
		{"deep JSON", inferVoice, "", []byte(strings.Repeat(`{"a":`, 5000)), 400, "deeper"},
		{"deep data", inferVoice, "", []byte(`{"inputs":[{"name":"input","datatype":"FP32","shape":[1],"data":` + strings.Repeat("[", 5000)), 400, "deeper"},
		{"too large", inferVoice, "", bytes.Repeat([]byte(" "), 64<<10+1), 413, "65536"},
		{"classification", inferVoice, "", fmt.Appendf(nil, `{"outputs":[{"name":"output","parameters":{"classification":"two"}}],%s`, jsonRequest(in)[1:]), 400, "classification"},
		{"half in JSON", inferVoice, "", []byte(`{"inputs":[{"name":"input","datatype":"FP16","shape":[1],"data":[1]}]}`), 400, "binary"},
		{"huge shape", inferVoice, "", []byte(`{"inputs":[{"name":"input","datatype":"FP32","shape":[2147483648,2147483648,2147483648],"data":[1]}]}`), 400, `"input"`},
		{"deadline", inferVoice, "", fmt.Appendf(nil, `{"parameters":{"timeout":1},%s`, jsonRequest(in)[1:]), 504, ""},
	} {
		headers := []string{HeaderLength, tc.header}
		if tc.header == "" {
			headers = nil
		}
		got := b.post(tc.path, tc.body, headers...)
		if got.status != tc.status || !strings.Contains(got.Error, tc.want) || (got.status >= 400) != (got.Error != "") {
			t.Errorf("%s: %d %q, want %d naming %s", tc.name, got.status, got.Error, tc.status, tc.want)
		}
	}
	if r := b.post(inferVoice, body, HeaderLength, header); r.status != http.StatusOK {
		t.Errorf("after all faults: %d %s", r.status, r.Error)
	}
}

// TestOverloadIsToldBeforeTheBodyIsRead holds one request in its body.
func TestOverloadIsToldBeforeTheBodyIsRead(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Options)
	}{
		{"places", func(o *Options) { o.MaxInFlight = 1 }},
		{"bytes", func(o *Options) { o.MaxBodyBytes, o.MaxHeldBytes = 5<<10, 5<<10 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBox(t, tc.change)
			b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
			body, header := binaryRequest(voice())
			conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\n%s: %s\r\nContent-Length: %d\r\n\r\n", inferVoice, HeaderLength, header, len(body))
			b.eventually("the first request holds its place", func() bool { return b.s.gate.requests.Load() == 1 })
			got := b.post(inferVoice, body, HeaderLength, header)
			if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
				t.Errorf("second request: %d %q, Retry-After %q", got.status, got.Error, got.header.Get("Retry-After"))
			}
			if _, err := conn.Write(body); err != nil {
				t.Fatal(err)
			}
			b.eventually("the first request is answered", func() bool { return b.s.gate.requests.Load() == 0 })
			if got := b.post(inferVoice, body, HeaderLength, header); got.status != http.StatusOK {
				t.Errorf("third request: %d %s", got.status, got.Error)
			}
			if held := b.s.gate.bytes.Load(); held != 0 {
				t.Errorf("%d bytes are still reserved", held)
			}
		})
	}
}

func TestMetadataFollowsTheProtocol(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"), b.demo("silero-vad-6.0.0", "vad", "6"))
	get := func(path string, into any) int {
		t.Helper()
		resp, err := http.Get(b.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return resp.StatusCode
	}
	var server struct {
		Name, Version string
		Extensions    []string
	}
	if code := get("/v2", &server); code != 200 || server.Name != "edgeherd-runner" || server.Extensions[0] != "binary_tensor_data" {
		t.Errorf("/v2: %d %+v", code, server)
	}
	var yes struct{ Live, Ready bool }
	if code := get("/v2/health/live", &yes); code != 200 || !yes.Live {
		t.Errorf("live: %d %+v", code, yes)
	}
	if code := get("/v2/health/ready", &yes); code != 200 || !yes.Ready {
		t.Errorf("ready: %d %+v", code, yes)
	}
	var model struct {
		Name, Platform string
		Versions       []string
		Inputs         []models.TensorSpec
	}
	if code := get("/v2/models/vad", &model); code != 200 || fmt.Sprint(model.Versions) != "[5 6]" || len(model.Inputs) != 3 {
		t.Errorf("model: %d %+v", code, model)
	}
	var ready struct {
		Name  string
		Ready bool
	}
	if code := get("/v2/models/vad/versions/5/ready", &ready); code != 200 || !ready.Ready || ready.Name != "vad" {
		t.Errorf("model ready: %d %+v", code, ready)
	}
	if code := get("/v2/models/cat/ready", &ready); code != 404 {
		t.Errorf("unknown model ready: %d", code)
	}
	b.isAnswered()
	body, header := binaryRequest(voice())
	if got := b.post(inferVoice, body, HeaderLength, header); got.Version != "6" {
		t.Errorf("without a version %q answers, want the last of active.json", got.Version)
	}
	b.post(inferVoice, []byte("{}"))
	resp, err := http.Get(b.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`nv_inference_request_success{model="vad",version="6"} 1`, `nv_inference_request_failure{model="vad",version="6"} 1`,
		`nv_inference_count{model="vad",version="6"} 1`, `nv_inference_request_duration_us{model="vad",version="6"} `,
		`edgeherd_runner_worker_restarts_total{model="vad",version="5"} 0`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %s in\n%s", want, text)
		}
	}
}
