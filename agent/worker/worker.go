package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/timerslack"
	"github.com/edgeherd/edgeherd/models"
)

// Errors that callers tell apart.
var (
	// ErrDied: the worker process has ended; this Worker serves no more.
	ErrDied = errors.New("worker process died")
	// ErrBadInput: the request does not fit the model; the worker is fine.
	ErrBadInput = errors.New("bad input")
	// ErrDeadline: the context ended first; it wraps the cause too.
	ErrDeadline = errors.New("inference abandoned")
)

// Options of Start.
type Options struct {
	Library      string        // path of libonnxruntime.so.1; required
	Model        string        // path of the .onnx file; required
	Command      []string      // how to start a process that calls Main; default: this executable with the argument "worker"
	Threads      int           // threads of one inference; default 1
	MaxDataBytes uint64        // private memory the model may use (RLIMIT_DATA above the bare runtime); default 0 = no limit
	SlotBytes    int64         // shared memory kept between requests, twice; default 4 MiB. Larger requests grow it and shrink it again
	MaxSlotBytes int64         // bound on inputs plus outputs of one run; default 256 MiB
	Nice         int           // niceness of the process, 0..19; default 0
	CPUs         []int         // processors it may run on; default all
	Providers    []Provider    // execution providers, the first that works is used; default CPU
	Graph        string        // load this optimised graph, which SaveGraph made, in place of Model; default none
	SaveGraph    string        // write the optimised graph to this path, if the provider can; default none
	Grace        time.Duration // how long an abandoned inference may take to stop before the process is killed; default 2 s
	Stderr       io.Writer     // what the process prints; default: dropped, but for the reason of a crash

	// Files says where the files lie that Model keeps weights in, by the name that
	// it gives them: in the same folder as Model; default: beside it, under that name.
	Files map[string]string
}

func (o Options) withDefaults() (Options, error) {
	if len(o.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find own executable: %w", err)
		}
		o.Command = []string{self, "worker"}
	}
	if o.Threads == 0 {
		o.Threads = 1
	}
	if o.SlotBytes == 0 {
		o.SlotBytes = 4 << 20
	}
	if o.MaxSlotBytes == 0 {
		o.MaxSlotBytes = 256 << 20
	}
	o.MaxSlotBytes = (o.MaxSlotBytes + 1<<16 - 1) &^ (1<<16 - 1) // whole pages, also of 64 KiB
	o.SlotBytes = min((o.SlotBytes+1<<16-1)&^(1<<16-1), o.MaxSlotBytes)
	if len(o.Providers) == 0 {
		o.Providers = []Provider{{Name: CPU}}
	}
	if o.Grace == 0 {
		o.Grace = 2 * time.Second
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	return o, nil
}

// Worker is the runner's side of one worker process.
type Worker struct {
	log     *slog.Logger
	opts    Options
	loaded  loaded
	in, out []port
	took    time.Duration

	cmd     *exec.Cmd
	control *os.File // write end
	tail    *tail
	done    chan struct{}
	err     error // written before done is closed
	closing atomic.Bool
	peakRSS atomic.Int64 // last reading, for Usage after the end

	free    chan int // regions whose turn it is not
	lent    chan int // regions that may be lent
	regions [regions]region
	ring    *ring
	conn    *os.File      // blocks; a read ends with an answer or with the process
	reader  *bufio.Reader // belongs to the holder of the oldest request
	ended   sync.Once

	order  sync.Mutex // guards all below: requests are sent in this order
	lastID uint64
	newest chan struct{} // closed when the answer to the last request has been read
}

// Start spawns the process and waits until the model is loaded. ctx bounds the
// start only. On failure the error holds the reason ONNX Runtime gave. An
// execution provider that takes the process down with it is left out.
func Start(ctx context.Context, opts Options, log *slog.Logger) (*Worker, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	for {
		w, err := attempt(ctx, opts, log)
		if err == nil || len(opts.Providers) == 1 || !errors.Is(err, ErrDied) || ctx.Err() != nil {
			return w, err
		}
		log.Warn("execution provider left out, the worker died with it", "provider", opts.Providers[0].Name, "err", err)
		opts.Providers = opts.Providers[1:]
	}
}

func attempt(ctx context.Context, opts Options, log *slog.Logger) (*Worker, error) {
	began := time.Now()
	w := &Worker{log: log, opts: opts, done: make(chan struct{}), free: make(chan int, turns), lent: make(chan int, leases), tail: &tail{}, newest: make(chan struct{})}
	close(w.newest)
	var err error
	if w.ring, err = createRing(opts.SlotBytes, opts.MaxSlotBytes); err != nil {
		return nil, fmt.Errorf("start worker: %w", err)
	}
	if err := w.spawn(); err != nil {
		return nil, errors.Join(fmt.Errorf("start worker %s: %w", opts.Command[0], err), w.ring.release())
	}
	for i := range w.regions {
		w.regions[i].base = int64(i) * opts.MaxSlotBytes
		if i < turns {
			w.free <- i
		} else {
			w.lent <- i
		}
	}
	model, remove, err := opts.lay()
	if err == nil {
		err = w.handshake(ctx, model)
		remove()
	}
	if err != nil {
		_ = w.Close() // err is the reason, the process is ended either way
		return nil, fmt.Errorf("start worker: %w", err)
	}
	w.took = time.Since(began)
	log.Debug("worker started", "pid", w.cmd.Process.Pid, "took", w.took)
	return w, nil
}

// spawn starts the process with its three descriptors and the goroutine that
// waits for its end.
func (w *Worker) spawn() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("create socket: %w", err)
	}
	// Both ends block: with a poller in between, each answer would wake a second thread.
	conn, theirs := os.NewFile(uintptr(pair[0]), "worker"), os.NewFile(uintptr(pair[1]), "runner")
	defer theirs.Close()
	controlRead, controlWrite, err := os.Pipe()
	if err != nil {
		conn.Close()
		return fmt.Errorf("create control pipe: %w", err)
	}
	defer controlRead.Close()

	cmd := exec.Command(w.opts.Command[0], w.opts.Command[1:]...)
	cmd.ExtraFiles = []*os.File{socketFD - 3: theirs, controlFD - 3: controlRead, ringFD - 3: w.ring.file}
	cmd.Stderr = io.MultiWriter(w.tail, w.opts.Stderr)
	cmd.WaitDelay = time.Second
	// Two malloc arenas: more only fragment, the process has one busy thread.
	cmd.Env = append(os.Environ(), "MALLOC_ARENA_MAX=2")
	// A group of its own: Ctrl-C in a terminal reaches the runner only, which drains first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := timerslack.Start(cmd, timerslack.Worker); err != nil {
		conn.Close()
		controlWrite.Close()
		return err
	}
	w.cmd, w.control, w.conn = cmd, controlWrite, conn
	w.reader = bufio.NewReaderSize(w.conn, 16<<10)
	go w.wait()
	return nil
}

// wait reaps the process and tells everybody. A process that it started, and
// that holds the socket still, must not keep the reader waiting; what has been
// answered can be read all the same.
func (w *Worker) wait() {
	_ = w.cmd.Wait() // the state below says more
	if raw, err := w.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // fails when it is closed
	}
	if !w.closing.Load() {
		reason := w.cmd.ProcessState.String()
		if text := w.tail.reason(); text != "" {
			reason += ": " + text
		}
		w.err = fmt.Errorf("%w: process %d: %s", ErrDied, w.cmd.Process.Pid, reason)
		w.log.Debug("worker ended", "pid", w.cmd.Process.Pid, "err", w.err)
	}
	close(w.done)
}

// handshake sends the configuration and waits for the loaded model.
func (w *Worker) handshake(ctx context.Context, model string) error {
	text, err := json.Marshal(&config{
		Library: w.opts.Library, Model: model, Threads: w.opts.Threads, Providers: w.opts.Providers,
		Graph: w.opts.Graph, SaveGraph: w.opts.SaveGraph, CPUs: w.opts.CPUs,
		MaxDataBytes: w.opts.MaxDataBytes, Nice: w.opts.Nice, MaxSlotBytes: w.opts.MaxSlotBytes,
	})
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.cmd.Process.Kill() }) // ends the read below
	defer stop()
	_, err = w.conn.Write(endFrame(append(beginFrame(nil), text...)))
	var body []byte
	if err == nil {
		body, err = readFrame(w.reader, nil)
	}
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("load model %s: %w", w.opts.Model, context.Cause(ctx))
		}
		return fmt.Errorf("load model %s: %w", w.opts.Model, w.lost())
	}
	var l loaded
	if err := json.Unmarshal(body, &l); err != nil {
		return fmt.Errorf("read the worker's first answer (%q is no edgeherd worker?): %w", w.opts.Command, err)
	}
	if l.Failure != "" {
		return errors.New(l.Failure)
	}
	w.loaded, w.in, w.out = l, l.In, l.Out
	return nil
}

// lost makes sure that the process has ended and returns why it did.
func (w *Worker) lost() error {
	select {
	case <-w.done:
	case <-time.After(time.Second): // a closed socket comes a moment before the exit
		_ = w.cmd.Process.Kill()
		<-w.done
	}
	if w.err != nil {
		return w.err
	}
	return fmt.Errorf("%w: closed by the runner", ErrDied)
}

// Signature is what the loaded model takes and gives.
func (w *Worker) Signature() models.Signature {
	var sig models.Signature
	for _, p := range w.in {
		sig.Inputs = append(sig.Inputs, p.Spec)
	}
	for _, p := range w.out {
		sig.Outputs = append(sig.Outputs, p.Spec)
	}
	return sig
}

// LoadTime is the time from the start of the process to the loaded model.
func (w *Worker) LoadTime() time.Duration { return w.took }

// Runtime describes ONNX Runtime as this worker found it.
func (w *Worker) Runtime() Runtime { return w.loaded.Runtime }

// Done is closed when the process has ended.
func (w *Worker) Done() <-chan struct{} { return w.done }

// Err is nil while the process runs and after Close, else why it ended.
func (w *Worker) Err() error {
	select {
	case <-w.done:
		return w.err
	default:
		return nil
	}
}

// Close ends the process, waits for it and frees the shared memory. An
// inference under way fails with ErrDied. Further calls do nothing.
func (w *Worker) Close() error {
	w.closing.Store(true)
	_ = w.control.Close() // end-of-file ends the process; closing twice is harmless
	select {
	case <-w.done:
	case <-time.After(w.opts.Grace):
		_ = w.cmd.Process.Kill()
		<-w.done
	}
	var err error
	w.ended.Do(func() {
		for range turns {
			<-w.free // a run under way has seen the end of the socket
		}
		err = joinNamed("close worker", w.conn.Close(), w.ring.release())
		for i := range turns {
			w.free <- i // later runs learn that the process is gone
		}
	})
	return err
}
