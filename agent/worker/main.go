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
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Descriptors the worker inherits, in the order of exec.Cmd.ExtraFiles.
const (
	socketFD  = 3
	controlFD = 4
	slotFD    = 5
)

// config is the first frame to the worker.
type config struct {
	Library      string `json:"library"`
	Model        string `json:"model"`
	Threads      int    `json:"threads"`
	MaxDataBytes uint64 `json:"max_data_bytes"`
	Nice         int    `json:"nice"`
	MaxSlotBytes int64  `json:"max_slot_bytes"`
}

// loaded is the first frame from the worker.
type loaded struct {
	Version string `json:"version,omitempty"`
	In      []port `json:"in,omitempty"`
	Out     []port `json:"out,omitempty"`
	Failure string `json:"failure,omitempty"` // why no model is loaded
}

// Main is the body of the worker process. It returns when the runner closes the
// socket or ctx ends between two requests. args must be empty: the configuration comes
// through the inherited socket. Nothing is written to the writer: ONNX
// Runtime prints to the descriptor itself.
func Main(ctx context.Context, args []string, _ io.Writer) error {
	if _, err := unix.GetsockoptInt(socketFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || len(args) != 0 {
		return errors.New("start worker: this verb is started by edgeherd-runner itself and takes no arguments; use `edgeherd-runner` to serve models")
	}
	// ONNX Runtime calls and the blocking reads of the socket stay on one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
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
	socket  *bufio.Reader
	slot    *slot
	session *session

	frame, reply []byte
	request      request
	answer       answer
	inputs       []bound

	mu        sync.Mutex // guards the fields below
	running   uint64     // request in infer, 0 = none
	cancelled uint64     // newest request to abandon
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
	if err := p.open(&c); err != nil {
		l.Failure = err.Error()
		if c.MaxDataBytes > 0 && outOfMemory(l.Failure) {
			l.Failure += fmt.Sprintf(" (the model may use %d bytes; raise its memory limit or choose a smaller variant)", c.MaxDataBytes)
		}
	} else {
		l.Version, l.In, l.Out = p.session.lib.version, p.session.in, p.session.out
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

func (p *process) open(c *config) error {
	preferForOOM()
	p.slot = &slot{file: os.NewFile(slotFD, "edgeherd-tensors")}
	if err := p.slot.mapMemory(c.MaxSlotBytes); err != nil {
		return err
	}
	lib, err := openLibrary(c.Library)
	if err != nil {
		return err
	}
	if err := limitData(c.MaxDataBytes); err != nil {
		return err
	}
	if err := lowerPriority(c.Nice); err != nil {
		return err
	}
	p.session, err = newSession(lib, c.Model, c.Threads)
	return err
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
	p.cancelled = id
	if p.running == id {
		p.session.terminate()
	}
}

// begin reports false when the request was abandoned before it started.
func (p *process) begin(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancelled == id {
		return false
	}
	p.running = id
	return true
}

// end reports whether the request was abandoned while it ran.
func (p *process) end() (cancelled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cancelled = p.cancelled == p.running
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
		p.infer()
		p.reply = appendAnswer(p.reply, &p.answer)
		if _, err := rawFD(socketFD).Write(p.reply); err != nil {
			return fmt.Errorf("answer request: %w", err)
		}
	}
}

// infer fills p.answer from p.request.
func (p *process) infer() {
	r, a := &p.request, &p.answer
	*a = answer{id: r.id, outs: a.outs[:0]}
	end, err := p.bindInputs()
	if err != nil {
		a.code, a.text = codeFailed, err.Error()
		return
	}
	if !p.begin(r.id) {
		a.code = codeTerminated
		return
	}
	tooLarge := false
	err = p.session.infer(p.inputs, r.outs, func(port int, shape []int64, size int) ([]byte, error) {
		s := span{port: port, offset: align(end), length: int64(size), shape: shape}
		end = s.offset + s.length
		if err := p.slot.reserve(end); err != nil {
			tooLarge = true
			return nil, err
		}
		a.outs = append(a.outs, s)
		return p.slot.bytes(s.offset, s.length), nil
	})
	cancelled := p.end()
	if err == nil {
		return
	}
	a.code, a.text = codeFailed, err.Error()
	var status *ortError
	switch {
	case tooLarge:
		a.code = codeTooLarge
	case cancelled:
		a.code = codeTerminated
	case errors.As(err, &status) && status.code == ortInvalidArgument:
		a.code = codeBadInput
	}
}

// bindInputs returns the end of the last input in the slot.
func (p *process) bindInputs() (end int64, err error) {
	p.inputs = p.inputs[:0]
	for i := range p.request.in {
		s := &p.request.in[i]
		if s.port < 0 || s.port >= len(p.session.in) || !p.slot.covers(s.offset, s.length) {
			return 0, errFrame
		}
		p.inputs = append(p.inputs, bound{port: s.port, shape: s.shape, data: p.slot.bytes(s.offset, s.length)})
		end = max(end, s.offset+s.length)
	}
	for _, o := range p.request.outs {
		if o < 0 || o >= len(p.session.out) {
			return 0, errFrame
		}
	}
	return end, nil
}

// rawFD reads and writes a descriptor with blocking calls: one request at a
// time needs no poller, and the thread wakes faster without it.
type rawFD int

func (fd rawFD) close() error { return unix.Close(int(fd)) }

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
