package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// TestMain lets the test binary be its own worker, as the runner is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		if err := worker.Main(context.Background(), os.Args[2:], os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// box is a server with real workers over a blob store, both addresses open.
type box struct {
	t      testing.TB
	dir    string
	blobs  *blob.Store
	key    trust.PrivateKey
	active durable.Journal
	gen    uint64
	s      *Server
	url    string // of the protocol on TCP
	socket string
	edge   *runnerapi.Client
	log    *logBuffer
}

// logBuffer collects the log and prints it when the test fails.
type logBuffer struct{ lines chan string }

func (l *logBuffer) Write(p []byte) (int, error) {
	select {
	case l.lines <- string(p):
	default:
	}
	return len(p), nil
}

// newBox starts a server; change may adjust its options and may be nil.
func newBox(t testing.TB, change func(*Options)) *box {
	t.Helper()
	library := assets.Library(t)
	b := &box{t: t, dir: t.TempDir(), log: &logBuffer{make(chan string, 4096)}}
	var err error
	if b.key, err = trust.NewKey(); err != nil {
		t.Fatal(err)
	}
	if b.blobs, err = blob.Open(filepath.Join(b.dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	b.active = durable.Journal{Path: filepath.Join(b.dir, "models", "active.json"), Version: runnerapi.ActiveVersion}
	if err := os.Mkdir(filepath.Dir(b.active.Path), 0o755); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "eh") // socket paths are limited to 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	b.socket = filepath.Join(short, "r.sock")
	opts := Options{
		Active: b.active.Path, Library: library, HTTP: "127.0.0.1:0", Socket: b.socket, Version: "test",
		Keyring: func() (trust.Keyring, error) { return trust.DevelopmentKeyring(b.key.Public()), nil },
	}
	if change != nil {
		change(&opts)
	}
	if b.s, err = New(opts, slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	b.start()
	return b
}

// start runs the server until the test ends.
func (b *box) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.s.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
		if b.t.Failed() {
			for len(b.log.lines) > 0 {
				b.t.Log(strings.TrimSpace(<-b.log.lines))
			}
		}
	})
	b.edge = runnerapi.Dial(b.socket)
	b.t.Cleanup(b.edge.Close)
	b.eventually("the server listens", func() bool {
		conn, err := net.Dial("unix", b.socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if b.s.opts.HTTP != "" {
		b.url = "http://" + b.address()
	}
}

// overSocket is a client of the unix socket.
func (b *box) overSocket() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.socket)
	}}}
}

// address of the TCP listener, which is logged.
func (b *box) address() string {
	for {
		select {
		case line := <-b.log.lines:
			if _, rest, ok := strings.Cut(line, "msg=serving addr=127.0.0.1:"); ok {
				return "127.0.0.1:" + strings.TrimSpace(rest)
			}
		case <-b.t.Context().Done():
			b.t.Fatal("no TCP address was logged")
		}
	}
}

// eventually polls cond for at most 2 min, which no healthy run needs.
func (b *box) eventually(what string, cond func() bool) {
	b.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if cond() {
			return
		}
	}
	b.t.Fatalf("not within 2 min: %s", what)
}

// put stores bytes.
func (b *box) put(data []byte) blob.Digest {
	b.t.Helper()
	d := blob.Sum(data)
	if err := b.blobs.Put(bytes.NewReader(data), d); err != nil {
		b.t.Fatal(err)
	}
	return d
}

// publish stores a model with a signed manifest. Its signature is read from
// like, which is model itself unless the test lies.
func (b *box) publish(name, version string, model, like []byte, golden *models.Golden) models.Ref {
	b.t.Helper()
	info, err := models.ReadONNX(bytes.NewReader(like))
	if err != nil {
		b.t.Fatal(err)
	}
	m := models.Manifest{V: models.ManifestVersion, Name: name, Version: version, Signature: info.Signature}
	m.Files = append(m.Files, models.File{Path: models.ModelFile, Digest: b.put(model), SizeBytes: int64(len(model))})
	if golden != nil {
		data, err := json.Marshal(golden)
		if err != nil {
			b.t.Fatal(err)
		}
		m.Files = append(m.Files, models.File{Path: models.GoldenFile, Digest: b.put(data), SizeBytes: int64(len(data))})
	}
	return b.sign(m, b.key)
}

func (b *box) sign(m models.Manifest, key trust.PrivateKey) models.Ref {
	b.t.Helper()
	payload, err := m.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	envelope, err := trust.Sign(trust.TypeModel, payload, key)
	if err != nil {
		b.t.Fatal(err)
	}
	return models.Ref{Name: m.Name, Version: m.Version, Digest: b.put(envelope)}
}

// demo publishes one of the demo models.
func (b *box) demo(folder, name, version string) models.Ref {
	b.t.Helper()
	data := modelBytes(b.t, folder)
	return b.publish(name, version, data, data, nil)
}

func modelBytes(t testing.TB, folder string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(assets.Model(t, folder), models.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// activate writes active.json and waits for the switch.
func (b *box) activate(refs ...models.Ref) runnerapi.Status {
	b.t.Helper()
	b.write(refs...)
	st, err := b.edge.Reload(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

func (b *box) write(refs ...models.Ref) {
	b.t.Helper()
	b.gen++
	if err := b.active.Save(runnerapi.Active{Generation: b.gen, Blobs: filepath.Join(b.dir, "blobs"), Models: refs}); err != nil {
		b.t.Fatal(err)
	}
}

// ready activates and insists on success.
func (b *box) ready(refs ...models.Ref) {
	b.t.Helper()
	for _, m := range b.activate(refs...).Models {
		if m.State != runnerapi.ModelReady {
			b.t.Fatalf("%s is %s: %s", m.Ref, m.State, m.Err)
		}
	}
}

// status of one version; the zero value when it is not there.
func (b *box) status(ref models.Ref) runnerapi.ModelStatus {
	b.t.Helper()
	st, err := b.edge.Status(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range st.Models {
		if m.Ref == ref {
			return m
		}
	}
	return runnerapi.ModelStatus{}
}

// reply is an answer of the protocol, with binary tensors put in their place.
type reply struct {
	status  int
	header  http.Header
	Error   string `json:"error"`
	ID      string `json:"id"`
	Name    string `json:"model_name"`
	Version string `json:"model_version"`

	Parameters struct {
		Variant string `json:"variant"`
	} `json:"parameters"`
	Outputs []struct {
		Name       string          `json:"name"`
		DType      models.DType    `json:"datatype"`
		Shape      []int64         `json:"shape"`
		Data       json.RawMessage `json:"data"`
		Parameters struct {
			Size *int64 `json:"binary_data_size"`
		} `json:"parameters"`
		raw []byte
	} `json:"outputs"`
}

// post sends a body; header pairs follow.
func (b *box) post(path string, body []byte, headers ...string) reply {
	b.t.Helper()
	r, err := send(b.t.Context(), http.DefaultClient, b.url+path, body, headers...)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func send(ctx context.Context, client *http.Client, url string, body []byte, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode, header: resp.Header}
	text, tail := data, []byte(nil)
	if n := resp.Header.Get(HeaderLength); n != "" {
		size, err := strconv.Atoi(n)
		if err != nil || size > len(data) {
			return r, fmt.Errorf("bad %s %q for %d bytes", HeaderLength, n, len(data))
		}
		text, tail = data[:size], data[size:]
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("answer %q: %w", text, err)
	}
	for i := range r.Outputs {
		if size := r.Outputs[i].Parameters.Size; size != nil {
			if *size > int64(len(tail)) {
				return r, fmt.Errorf("output %d wants %d of %d bytes", i, *size, len(tail))
			}
			r.Outputs[i].raw, tail = tail[:*size], tail[*size:]
		}
	}
	if len(tail) > 0 {
		return r, fmt.Errorf("%d bytes after the last output", len(tail))
	}
	return r, nil
}

// voice is an input of the voice detector: a sine, the zero state, 16 kHz.
func voice() []worker.Tensor {
	samples := make([]float32, 512)
	for i := range samples {
		samples[i] = float32(math.Sin(float64(i) / 7))
	}
	rate := binary.LittleEndian.AppendUint64(nil, 16000)
	return []worker.Tensor{
		{Name: "input", DType: models.FP32, Shape: []int64{1, 512}, Data: floats(samples...)},
		{Name: "state", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: make([]byte, 4*256)},
		{Name: "sr", DType: models.INT64, Shape: []int64{}, Data: rate},
	}
}

func floats(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// binaryRequest is a request with every tensor as binary data, in and out.
func binaryRequest(in []worker.Tensor) (body []byte, header string) {
	var inputs []string
	var tail []byte
	for _, t := range in {
		name, _ := json.Marshal(t.Name)
		shape, _ := json.Marshal(append([]int64{}, t.Shape...))
		inputs = append(inputs, fmt.Sprintf(`{"name":%s,"datatype":%q,"shape":%s,"parameters":{"binary_data_size":%d}}`, name, t.DType, shape, len(t.Data)))
		tail = append(tail, t.Data...)
	}
	text := `{"parameters":{"binary_data_output":true},"inputs":[` + strings.Join(inputs, ",") + `]}`
	return append([]byte(text), tail...), strconv.Itoa(len(text))
}

// jsonRequest is the same request in JSON; FP32 and INT64 only.
func jsonRequest(in []worker.Tensor) []byte {
	c := call{}
	outs := in
	text, _, err := appendAnswer(nil, models.Ref{Name: "m", Version: "1"}, &c, outs)
	if err != nil {
		panic(err)
	}
	return bytes.Replace(text, []byte(`"outputs"`), []byte(`"inputs"`), 1)
}
