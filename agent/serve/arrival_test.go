package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
)

// TestLargeMessageHoldsMemoryBeforeItCame: a message that has only begun holds
// its length; where there is no memory left a call is refused at once, not when
// all has come, and what was held is free when the client leaves.
func TestLargeMessageHoldsMemoryBeforeItCame(t *testing.T) {
	b := newBox(t, func(o *Options) {
		o.GRPC, o.MaxBodyBytes, o.MaxHeldBytes = "127.0.0.1:0", 8<<20, 12<<20
	})
	conn, err := grpc.NewClient("unix:"+b.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	infer := func(ctx context.Context, size int) error {
		_, err := oip.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, &oip.ModelInferRequest{
			ModelName: "none", RawInputContents: [][]byte{make([]byte, size)}})
		return err
	}
	// The calls fail, since they have no inputs, but only when they have come.
	if err := infer(t.Context(), 7<<20); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("a large message into an idle server: %v", err)
	}
	b.eventually("memory is free", func() bool { return b.s.gate.bytes.Load() == 0 })
	half := newHalf(t, b.socket)
	half.open(1)
	half.data(1, 0, prefix(8<<20), make([]byte, 1000))
	b.eventually("the message holds its length", func() bool { return b.s.gate.bytes.Load() >= 8<<20 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := infer(ctx, 7<<20); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "overloaded") {
		t.Errorf("a message for which there is no memory: %v", err)
	}
	if err := infer(ctx, 1<<20); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a message for which there is: %v", err)
	}
	shed, other := b.s.gate.shed.Load(), newHalf(t, b.socket)
	other.open(1)
	other.data(1, 0, prefix(8<<20)) // and nothing else ever
	b.eventually("a message that has only begun is refused", func() bool { return b.s.gate.shed.Load() > shed })
	half.Close()
	b.eventually("memory is free again", func() bool { return b.s.gate.bytes.Load() == 0 })
	if err := infer(ctx, 7<<20); status.Code(err) != codes.InvalidArgument {
		t.Errorf("afterwards: %v", err)
	}
}

func prefix(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0}, n) }

// half is a client of HTTP/2 that begins what it likes.
type half struct {
	net.Conn
	t testing.TB
}

func newHalf(t testing.TB, socket string) *half {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	h := &half{conn, t}
	h.send([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), framed(4, 0, 0, nil)) // SETTINGS
	go io.Copy(io.Discard, conn)
	return h
}

func (h *half) send(pieces ...[]byte) {
	h.t.Helper()
	if _, err := h.Write(slices.Concat(pieces...)); err != nil {
		h.t.Fatal(err)
	}
}

// open begins a call of ModelInfer.
func (h *half) open(stream uint32) {
	var b []byte // HPACK: literals without indexing
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", inferMethod}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		b = append(append(append(b, 0, byte(len(f[0]))), f[0]...), byte(len(f[1])))
		b = append(b, f[1]...)
	}
	h.send(framed(frameHeaders, 4, stream, b)) // END_HEADERS
}

func (h *half) data(stream uint32, flags byte, pieces ...[]byte) {
	h.send(framed(frameData, flags, stream, slices.Concat(pieces...)))
}

func framed(kind, flags byte, stream uint32, content []byte) []byte {
	b := []byte{byte(len(content) >> 16), byte(len(content) >> 8), byte(len(content)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), content...)
}

// TestFramesAreTheSameHoweverTheyAreCut: padding and other frames between do
// not count, and what is read does not depend on how it came.
func TestFramesAreTheSameHoweverTheyAreCut(t *testing.T) {
	wire := slices.Concat(make([]byte, prefaceBytes), framed(4, 0, 0, make([]byte, 6)), framed(frameHeaders, 4, 1, []byte("head")),
		framed(frameData, 0, 1, []byte("abc")), framed(frameData, flagPadded, 1, []byte("\x02de..")), framed(frameData, 0, 1, nil),
		framed(frameData, flagPadded, 1, []byte("\x09x")), framed(8, 0, 1, make([]byte, 4)), framed(frameData, flagEndStream, 1, []byte("f")))
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		f := frames{preface: prefaceBytes}
		var got []byte
		var kinds []byte
		ended := 0
		for rest := wire; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			f.walk(bytes.Clone(rest[:n]), func(f frame) { kinds = append(kinds, f.kind) }, func(_ frame, b []byte) { got = append(got, b...) },
				func(f frame) {
					if f.ends() {
						ended++
					}
				})
			rest = rest[n:]
		}
		if string(got) != "abcdef" || !bytes.Equal(kinds, []byte{4, 1, 0, 0, 0, 0, 8, 0}) || ended != 1 {
			t.Fatalf("seed %d: %q of %v, %d ends", seed, got, kinds, ended)
		}
	}
}

// cutAnywhere walks bytes as frames, whole and in two pieces: both see the same.
func cutAnywhere(t *testing.T, b []byte) {
	t.Helper()
	walk := func(pieces ...[]byte) (kinds, content []byte) {
		var f frames
		for _, p := range pieces {
			f.walk(p, func(f frame) { kinds = append(kinds, f.kind) }, func(_ frame, b []byte) { content = append(content, b...) }, func(frame) {})
		}
		return kinds, content
	}
	kinds, content := walk(b)
	for _, at := range []int{len(b) / 3, len(b) / 2} {
		if k, c := walk(b[:at], b[at:]); !bytes.Equal(k, kinds) || !bytes.Equal(c, content) {
			t.Fatalf("cut at %d: %v %q, whole: %v %q", at, k, c, kinds, content)
		}
	}
}

// TestStrangersAreShownOut: names of others, connections beyond the bound, and
// faults of our own end one request each.
func TestStrangersAreShownOut(t *testing.T) {
	b := newBox(t, func(o *Options) { o.MaxConnections, o.Hosts = 3, []string{"infer.example"} })
	get := func(host string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/v2/health/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host, r.Close = host, true
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for host, want := range map[string]int{
		"": 200, "localhost:8000": 200, "10.1.2.3": 200, "[::1]:8000": 200, "infer.example": 200, "INFER.example.:80": 200,
		"evil.example": 421, "localhost.evil.example:8000": 421, "10.1.2.3.evil.example": 421,
	} {
		if got := get(host); got != want {
			t.Errorf("Host %q: %d, want %d", host, got, want)
		}
	}
	b.eventually("all have left", func() bool { return b.s.lobby.open.Load() == 0 })
	var held []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held = append(held, conn)
	}
	b.eventually("they are in", func() bool { return b.s.lobby.open.Load() == 3 })
	more, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	if _, err := more.Read(make([]byte, 1)); err == nil {
		t.Error("a connection too many is served")
	}
	held[0].Close()
	b.eventually("there is room again", func() bool { return b.s.lobby.open.Load() == 2 })
	if got := get(""); got != 200 {
		t.Errorf("afterwards: %d", got)
	}
}

// TestFaultOfOursFailsOneRequest: a panic is an answer, in HTTP and in gRPC.
func TestFaultOfOursFailsOneRequest(t *testing.T) {
	b := newBox(t, nil)
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(ref)
	v, err := b.s.acquire("vad", "")
	if err != nil {
		t.Fatal(err)
	}
	ladder := v.variants
	v.variants = nil // a broken invariant: naming the variant that ran fails
	body, header := binaryRequest(voice())
	r := b.post(inferVoice, body, HeaderLength, header)
	if r.status != http.StatusInternalServerError || !strings.Contains(r.Error, "fault of the runner") {
		t.Errorf("HTTP: %d %s", r.status, r.Error)
	}
	if _, err := b.overGRPC().ModelInfer(t.Context(), grpcRequest("vad", voice(), nil)); status.Code(err) != codes.Internal {
		t.Errorf("gRPC: %v", err)
	}
	v.variants = ladder
	v.release()
	if r := b.post(inferVoice, body, HeaderLength, header); r.status != http.StatusOK || b.s.gate.requests.Load() > 1 {
		t.Errorf("afterwards: %d %s, %d requests under way", r.status, r.Error, b.s.gate.requests.Load())
	}
}
