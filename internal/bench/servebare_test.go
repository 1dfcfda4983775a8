package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/timerslack"
)

// asBare has TestMain be a server of net/http that does nothing else.
const asBare = "EDGEHERD_BENCH_BARE"

// serveBare reads the body of each request into memory that it has, and answers
// with the same bytes always: what no server built on net/http goes below. Its
// arguments are the numbers of bytes of the answer and of its JSON. It prints
// its address and ends when its input does.
func serveBare(ctx context.Context, args []string) error {
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	answer := make([]byte, size)
	pool := sync.Pool{New: func() any { return new([64 << 10]byte) }}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v2/models/{model}/infer", func(w http.ResponseWriter, r *http.Request) {
		memory := pool.Get().(*[64 << 10]byte)
		defer pool.Put(memory)
		if _, err := io.ReadFull(r.Body, memory[:r.ContentLength]); err != nil {
			panic(http.ErrAbortHandler)
		}
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Inference-Header-Content-Length", args[1])
		h.Set("Content-Length", args[0])
		_, _ = w.Write(answer) // the client may have left
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = srv.Close()
	}()
	fmt.Println(l.Addr())
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// bare is that server as a process.
type bare struct {
	addr string
	pid  int
}

// startBare answers as the runner does to request.
func startBare(t *testing.T, b *box, w workload) bare {
	t.Helper()
	body, head := w.body()
	size, text := b.answerSize(w.model, body, head)
	cmd := exec.Command(os.Args[0], strconv.Itoa(size), text)
	cmd.Env = append(os.Environ(), asBare+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, timerslack.Start(cmd, timerslack.Server)) // as the runner has it
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // it says what went wrong itself
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	check(t, err)
	return bare{line[:len(line)-1], cmd.Process.Pid}
}

// answerSize is how long the answer of the runner is, and how long it says that its JSON is.
func (b *box) answerSize(model string, body []byte, head int) (size int, text string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "http://"+b.http+"/v2/models/"+model+"/infer", bytes.NewReader(body))
	check(b.t, err)
	req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(head))
	resp, err := http.DefaultClient.Do(req)
	check(b.t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	check(b.t, err)
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %s", resp.Status, answer)
	}
	return len(answer), resp.Header.Get("Inference-Header-Content-Length")
}

// perRequest is the CPU time of the process for a request, in microseconds.
func (s bare) perRequest(t *testing.T, connections int, request []byte, span time.Duration) float64 {
	t.Helper()
	before := cpuOf(t, s.pid)
	n, _ := drive(t, s.addr, connections, request, span)
	return (cpuOf(t, s.pid) - before) * 1e6 / float64(n)
}
