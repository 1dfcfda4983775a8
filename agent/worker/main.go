package worker

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/timerslack"
)

// Descriptors the worker inherits, in the order of exec.Cmd.ExtraFiles.
const (
	socketFD  = 3
	controlFD = 4
	ringFD    = 5
)

// config is the first frame to the worker.
type config struct {
	Library      string     `json:"library"`
	Model        string     `json:"model"`
	Graph        string     `json:"graph,omitempty"`
	SaveGraph    string     `json:"save_graph,omitempty"`
	Threads      int        `json:"threads"`
	Providers    []Provider `json:"providers"`
	CPUs         []int      `json:"cpus,omitempty"`
	MaxDataBytes uint64     `json:"max_data_bytes"`
	Nice         int        `json:"nice"`
	MaxSlotBytes int64      `json:"max_slot_bytes"`
}

// loaded is the first frame from the worker.
type loaded struct {
	Runtime
	In        []port `json:"in,omitempty"`
	Out       []port `json:"out,omitempty"`
	DataBytes int64  `json:"data_bytes"`        // private memory before the model was loaded
	Failure   string `json:"failure,omitempty"` // why no model is loaded
}

// Main is the body of the worker process. It returns when the runner closes the
// socket or ctx ends between two requests. args must be empty: the configuration comes
// through the inherited socket. Nothing is written to the writer: ONNX
// Runtime prints to the descriptor itself.
func Main(ctx context.Context, args []string, _ io.Writer) error {
	if _, err := unix.GetsockoptInt(socketFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || len(args) != 0 {
		return errors.New("start worker: this verb is started by edgeherd-runner itself and takes no arguments; use `edgeherd-runner` to serve models")
	}
	for _, fd := range [...]int{socketFD, controlFD, ringFD} {
		unix.CloseOnExec(fd) // a program that a driver starts has no part in this
	}
	// ONNX Runtime calls and the blocking reads of the socket stay on one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The monitor thread keeps what the runner gave; drivers of accelerators,
	// whose threads this one starts, sleep for short times. A sandbox that refuses
	// the call refused it to the runner as well.
	_ = timerslack.Set(timerslack.Usual)
	stop := context.AfterFunc(ctx, func() { _ = unix.Shutdown(socketFD, unix.SHUT_RD) })
	defer stop()

	p := &process{socket: bufio.NewReaderSize(rawFD(socketFD), 16<<10)}
	go p.watchControl()
	if err := p.load(); err != nil {
		return err
	}
	return p.serve()
}

// process is the state of the worker process.
type process struct {
	socket   *bufio.Reader
	ring     *ring
	session  *session
	bindings bindings
	cpuClock int32 // of ONNX Runtime's work

	frame, reply []byte
	request      request
	answer       answer

	mu        sync.Mutex // guards the fields below
	running   uint64     // request in infer, 0 = none
	cancelled []uint64   // requests to abandon that have not been answered
}

// load answers the first frame. A failure is told to the runner, not returned.
func (p *process) load() error {
	body, err := readFrame(p.socket, nil)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var c config
	if err := json.Unmarshal(body, &c); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var l loaded
	if err := p.open(&c, &l); err != nil {
		l.Failure = err.Error()
		if c.MaxDataBytes > 0 && outOfMemory(l.Failure) {
			l.Failure += fmt.Sprintf(" (the model may use %d bytes; raise its memory limit or choose a smaller variant)", c.MaxDataBytes)
		}
	} else {
		l.In, l.Out = p.session.in, p.session.out
	}
	text, err := json.Marshal(&l)
	if err != nil {
		return fmt.Errorf("describe model: %w", err)
	}
	if _, err := rawFD(socketFD).Write(endFrame(append(beginFrame(nil), text...))); err != nil {
		return fmt.Errorf("answer the runner: %w", err)
	}
	return nil
}

func outOfMemory(text string) bool {
	return strings.Contains(text, "bad_alloc") || strings.Contains(text, "Failed to allocate memory")
}

func (p *process) open(c *config, l *loaded) error {
	preferForOOM()
	p.ring = &ring{file: os.NewFile(ringFD, "edgeherd-tensors"), max: c.MaxSlotBytes}
	if err := p.ring.mapMemory(); err != nil {
		return err
	}
	lib, err := openLibrary(c.Library)
	if err != nil {
		return err
	}
	if l.Runtime, err = lib.inventory(); err != nil {
		return err
	}
	if l.DataBytes, err = limitData(c.MaxDataBytes); err != nil {
		return err
	}
	if err := restrict(c.Nice, c.CPUs); err != nil {
		return err
	}
	p.session, err = openSession(lib, sessionSpec{model: c.Model, graph: c.Graph, saveGraph: c.SaveGraph, threads: c.Threads}, c.Providers, &l.Runtime)
	p.use(p.session, c.Threads)
	return err
}

// use makes the process answer with a session.
func (p *process) use(s *session, threads int) {
	p.bindings = bindings{session: s, ring: p.ring}
	p.cpuClock = unix.CLOCK_THREAD_CPUTIME_ID
	if threads > 1 {
		p.cpuClock = unix.CLOCK_PROCESS_CPUTIME_ID
	}
}

// watchControl reads ids of requests to abandon. End-of-file means that the
// runner is gone, whatever the cause; the process then ends at once, because
// the main thread may be inside a kernel that never returns.
func (p *process) watchControl() {
	var id [8]byte
	for {
		if _, err := io.ReadFull(rawFD(controlFD), id[:]); err != nil {
			unix.Exit(0) // without exit hooks: none of them may delay the end
		}
		p.cancel(binary.LittleEndian.Uint64(id[:]))
	}
}

func (p *process) cancel(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancelled = append(p.cancelled, id)
	if p.running == id {
		p.session.terminate()
	}
}

// begin reports false when the request was abandoned before it started.
func (p *process) begin(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.cancelled, id) {
		p.forget(id)
		return false
	}
	p.running = id
	return true
}

// terminated reports whether the running request has been abandoned.
func (p *process) terminated() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.cancelled, p.running)
}

// forget drops what was said about requests up to id: they are numbered in the
// order in which they are answered. p.mu is held.
func (p *process) forget(id uint64) {
	p.cancelled = slices.DeleteFunc(p.cancelled, func(c uint64) bool { return c <= id })
}

// end reports whether the request was abandoned while it ran.
func (p *process) end() (cancelled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cancelled) == 0 {
		p.running = 0
		return false
	}
	cancelled = slices.Contains(p.cancelled, p.running)
	p.forget(p.running)
	p.running = 0
	if cancelled {
		p.session.resume()
	}
	return cancelled
}

func (p *process) serve() error {
	for {
		body, err := readFrame(p.socket, p.frame)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		p.frame = body
		if err := decodeRequest(body, &p.request); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		p.infer(body[8:])
		p.reply = appendAnswer(p.reply, &p.answer)
		if _, err := rawFD(socketFD).Write(p.reply); err != nil {
			return fmt.Errorf("answer request: %w", err)
		}
	}
}

// errTooLarge: the outputs do not fit behind the inputs.
var errTooLarge = errors.New("inputs and outputs exceed the limit for one request")

// infer fills p.answer from p.request, whose frame behind the id is key.
func (p *process) infer(key []byte) {
	r, a := &p.request, &p.answer
	*a = answer{id: r.id, outs: a.outs[:0]}
	d, keep, err := p.bindings.find(key, r)
	if err != nil {
		a.code, a.text = codeFailed, err.Error()
		return
	}
	if !keep {
		defer p.bindings.drop(d)
	}
	if !p.begin(r.id) {
		a.code = codeTerminated
		return
	}
	began, cpu := time.Now(), p.cpu()
	err = p.bindings.run(d, p.terminated)
	a.run, a.cpu = time.Since(began), p.cpu()-cpu
	cancelled := p.end()
	if err == nil {
		a.outs, err = p.bindings.outputs(d, r, r.end())
	}
	if err == nil {
		return
	}
	a.code, a.text = codeFailed, err.Error()
	var status *ortError
	switch {
	case errors.Is(err, errTooLarge):
		a.code = codeTooLarge
	case cancelled:
		a.code = codeTerminated
	case errors.As(err, &status) && status.code == ortInvalidArgument:
		a.code = codeBadInput
	}
}

// cpu reads the clock of the CPU time that inference takes: that of this
// thread, or of all when ONNX Runtime has threads of its own.
func (p *process) cpu() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(p.cpuClock, &t) // exists since Linux 2.6.12; a zero is a missing figure only
	return time.Duration(t.Nano())
}

// end is where the inputs end in the ring.
func (r *request) end() int64 {
	end := r.base
	for i := range r.in {
		end = max(end, r.in[i].offset+r.in[i].length)
	}
	return end
}

// rawFD reads and writes a descriptor with blocking calls: one request at a
// time needs no poller, and the thread wakes faster without it.
type rawFD int

func (fd rawFD) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (fd rawFD) Write(b []byte) (int, error) {
	for sent := 0; sent < len(b); {
		n, err := unix.SendmsgN(int(fd), b[sent:], nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return sent, err
		}
		sent += max(n, 0)
	}
	return len(b), nil
}
