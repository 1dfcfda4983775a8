package dial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzProxyAnswer: whatever a proxy answers is a fault that tells no secret, or
// a tunnel from which nothing is missing.
func FuzzProxyAnswer(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200\n\n", "HTTP/1.1 200 OK\r\n\r\nearly", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 204 x\r\n\r\n",
		"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", "HTTP/1.1 407 x\r\nProxy-Authenticate: ,Basic\r\n\r\n",
		"HTTP/1.1 302 x\r\nLocation: http://portal\r\n\r\n", "HTTP/1.1 403 x\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 99999999999 x\r\n\r\n", "",
	} {
		f.Add([]byte(text))
	}
	const secret = "hunter2"
	auth := filepath.Join(f.TempDir(), "auth")
	if err := os.WriteFile(auth, []byte("edge:"+secret), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			defer far.Close()
			if _, err := far.Read(make([]byte, 4096)); err == nil {
				far.Write(answer) // an error means that enough was read
			}
		}()
		d := &Dialer{proxy: "proxy:3128", log: slog.New(slog.DiscardHandler), opts: Options{
			ProxyAuth: auth, Net: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		}}
		conn, err := d.connect(t.Context(), way{address: "ctl:8443", name: "way"})
		if err != nil {
			var fault *Fault
			if !errors.As(err, &fault) || fault.Stage != StageProxy || conn != nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%v, %v", conn, err)
			}
			if _, err := near.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the connection was left open: %v", err)
			}
			<-served
			return
		}
		rest, _ := io.ReadAll(conn)
		conn.Close()
		<-served
		head, whole := bytes.CutSuffix(answer, rest)
		if !whole || !bytes.HasSuffix(head, []byte("\n")) {
			t.Errorf("of %q the tunnel gives %q", answer, rest)
		}
	})
}
