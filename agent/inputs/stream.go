package inputs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/internal/timerslack"
)

// How a stream that ended or stalled is opened anew: the wait doubles from the
// first to the last, and starts over once frames have come for a minute.
const (
	streamFirstWait = time.Second
	streamLastWait  = time.Minute
	streamWell      = time.Minute
	// streamGrace is how long ffmpeg may take to end when asked.
	streamGrace  = 2 * time.Second
	maxComplaint = 4 << 10 // bytes of what ffmpeg says
)

// stream is a camera that ffmpeg follows: it decodes, scales frames to what the
// pipeline needs and writes them to a pipe as PPM, which is raw RGB with its
// size in front. Of the frames only the newest is kept, so a slow pipeline is
// never behind.
type stream struct {
	cfg   Source
	sizes *pipeline.Runner
	now   func() time.Time
	log   *slog.Logger
	// old says that this ffmpeg is of before version 5, whose scripts know no
	// options: it tries UDP and then TCP.
	old bool

	mu     sync.Mutex // guards all below
	newest []byte     // a PPM picture
	n      uint64     // frames so far
	taken  uint64     // the frame that next returned last
	err    error      // why no frames come
	fresh  chan struct{}
}

func newStream(cfg Source, sizes *pipeline.Runner, now func() time.Time, log *slog.Logger) *stream {
	return &stream{cfg: cfg, sizes: sizes, now: now, log: log.With("input", cfg.Name), fresh: make(chan struct{})}
}

// next returns the newest frame; it waits for one that was not returned yet.
func (s *stream) next(ctx context.Context) (shot, error) {
	timer := time.NewTimer(s.cfg.Timeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		data, n, err, fresh := s.newest, s.n, s.err, s.fresh
		ready := n > s.taken
		if ready {
			s.taken = n
		}
		s.mu.Unlock()
		if ready {
			frame, err := pipeline.DecodeFrame(data)
			if err != nil {
				return shot{}, fmt.Errorf("frame of stream: %w", err)
			}
			return shot{name: fmt.Sprintf("frame-%d", n), frame: frame}, nil
		}
		if err != nil {
			return shot{}, err
		}
		select {
		case <-ctx.Done():
			return shot{}, ctx.Err()
		case <-timer.C:
			return shot{}, fmt.Errorf("stream brought no frame for %v", s.cfg.Timeout)
		case <-fresh:
		}
	}
}

// put makes a frame the newest; data is not used again by the caller.
func (s *stream) put(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest, s.err = data, nil
	s.n++
	s.wakeLocked()
}

func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.wakeLocked()
}

func (s *stream) wakeLocked() {
	close(s.fresh)
	s.fresh = make(chan struct{})
}

// run keeps ffmpeg running until ctx ends.
func (s *stream) run(ctx context.Context) {
	wait := streamFirstWait
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			return
		}
		s.fail(err)
		if time.Since(began) > streamWell {
			wait = streamFirstWait
		}
		s.log.Debug("stream ended", "took", time.Since(began), "err", err)
		// Cameras that lost power together should not be asked together.
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		wait = min(2*wait, streamLastWait)
	}
}

// once runs ffmpeg until it ends or stalls, and says why.
func (s *stream) once(ctx context.Context) error {
	address, secrets, err := s.address()
	if err != nil {
		return err
	}
	scale, err := s.scale()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, s.cfg.FFmpeg, s.arguments(scale)...)
	// The whole group: a script around ffmpeg would leave it behind, and it would
	// hold the pipe that is read here. What does not end when asked is killed.
	var kill *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		kill = time.AfterFunc(streamGrace, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
		if err := syscall.Kill(group, syscall.SIGTERM); !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.WaitDelay = 2 * streamGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is ours to pass on
	complaint := &tail{}
	cmd.Stderr = complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start ffmpeg: %w", err)
	}
	// The address goes through a pipe: arguments and environment of a process
	// are there for everybody on the box to read.
	cmd.Stdin = strings.NewReader(address)
	if err := timerslack.Start(cmd, timerslack.Usual); err != nil {
		return fmt.Errorf("start ffmpeg (package ffmpeg, or `ffmpeg:` of this input): %w", err)
	}
	stall := time.AfterFunc(s.cfg.Timeout, func() { cancel(fmt.Errorf("stream brought no frame for %v", s.cfg.Timeout)) })
	defer stall.Stop()
	readErr := readFrames(out, func(data []byte) {
		stall.Reset(s.cfg.Timeout)
		s.put(data)
	})
	cancel(nil)
	_, _ = io.Copy(io.Discard, out) // until it ends, so that Wait may close the pipe
	waitErr := cmd.Wait()
	if kill != nil {
		kill.Stop() // Wait has waited for Cancel
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		readErr = cause
	}
	said := complaint.text(secrets)
	s.old = s.old || complaint.has("unknown keyword")
	if said != "" {
		return fmt.Errorf("stream ended: %w: %s", readErr, said)
	}
	var exit *exec.ExitError
	if errors.As(waitErr, &exit) && !exit.Exited() { // our own signal
		waitErr = nil
	}
	return fmt.Errorf("stream ended: %w", errors.Join(readErr, waitErr))
}

// arguments of ffmpeg. The stream is named by a script for its concat reader
// on standard input.
func (s *stream) arguments(scale string) []string {
	// Twice the rate that items are taken at keeps the newest frame young and
	// spares what would be dropped.
	fps := min(max(2/s.cfg.Interval.Seconds(), 1), 30)
	return []string{
		"-hide_banner", "-loglevel", "error", "-nostats",
		"-protocol_whitelist", "pipe,rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto,hls,rtmp,srt",
		"-f", "concat", "-safe", "0", "-i", "pipe:0",
		"-map", "0:v:0", "-an", "-sn", "-dn",
		"-vf", fmt.Sprintf("fps=%.3f,%s", fps, scale),
		"-pix_fmt", "rgb24", "-f", "image2pipe", "-c:v", "ppm", "pipe:1",
	}
}

// scale asks the pipeline for the size it needs. A picture that it stretches is
// stretched here; one whose shape it keeps is only made to fit.
func (s *stream) scale() (string, error) {
	const keep = "scale=w='min(%d,iw)':h='min(%d,ih)':force_original_aspect_ratio=decrease:flags=area"
	p, err := s.sizes.Pipeline()
	if err != nil {
		return "", err
	}
	for _, st := range p.Stages[:1] {
		switch {
		case st.Name == "resize" && st.Has("width") && st.Has("height"):
			return fmt.Sprintf("scale=w=%d:h=%d:flags=area", st.Whole("width"), st.Whole("height")), nil
		case st.Name == "letterbox":
			return fmt.Sprintf(keep, st.Whole("width"), st.Whole("height")), nil
		}
	}
	return fmt.Sprintf(keep, s.cfg.MaxWidth, s.cfg.MaxHeight), nil
}

// address is the script for ffmpeg, and what must not be shown of it.
func (s *stream) address() (script string, hidden []string, err error) {
	u, err := url.Parse(s.cfg.URL)
	if err != nil {
		return "", nil, errors.New("open stream: its url cannot be read")
	}
	if u.RawQuery != "" {
		hidden = append(hidden, u.RawQuery)
	}
	if s.cfg.Username != "" {
		password, err := secrets.Read(s.cfg.PasswordFile)
		if err != nil {
			return "", nil, fmt.Errorf("open stream: password_file: %w", err)
		}
		u.User = url.UserPassword(s.cfg.Username, password)
		hidden = append(hidden, password, url.QueryEscape(password), url.PathEscape(password), u.User.String())
	}
	quoted := strings.ReplaceAll(u.String(), "'", "%27")
	if strings.ContainsAny(quoted, "\r\n") {
		return "", nil, errors.New("open stream: its url has more than one line")
	}
	script = "ffconcat version 1.0\nfile '" + quoted + "'\n"
	if !s.old && (u.Scheme == "rtsp" || u.Scheme == "rtsps") {
		// It would study the first 5 s otherwise; cameras tell what they send.
		script += "option rtsp_transport " + s.cfg.Transport + "\noption analyzeduration 1000000\n"
	}
	return script, hidden, nil
}

// readFrames cuts a stream of PPM pictures and hands each to use.
func readFrames(r io.Reader, use func(data []byte)) error {
	buf := make([]byte, 0, 64<<10)
	for {
		w, h, header, err := pipeline.PPMSize(buf)
		switch {
		case errors.Is(err, pipeline.ErrShort):
			n, err := r.Read(buf[len(buf):min(len(buf)+32, cap(buf))])
			buf = buf[:len(buf)+n]
			if err == nil {
				continue
			}
			if len(buf) == 0 && errors.Is(err, io.EOF) {
				return errors.New("ffmpeg brought no more frames")
			}
			return fmt.Errorf("read frame of ffmpeg: %w", err)
		case err != nil:
			return fmt.Errorf("read frame of ffmpeg: %w", err)
		}
		frame := make([]byte, header+3*w*h)
		n := copy(frame, buf)
		if _, err := io.ReadFull(r, frame[n:]); err != nil {
			return fmt.Errorf("read frame of ffmpeg: %w", err)
		}
		buf = append(buf[:0], buf[min(n, len(buf)):]...)
		use(frame)
	}
}

// tail keeps the end of what a program says.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > maxComplaint {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-maxComplaint:]...)
	}
	return len(p), nil
}

func (t *tail) has(text string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.buf, []byte(text))
}

// text is the last line without secrets.
func (t *tail) text(secrets []string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(bytes.ToValidUTF8(t.buf, nil))), "\n")
	said := strings.TrimSpace(lines[len(lines)-1])
	for _, secret := range secrets {
		said = strings.ReplaceAll(said, secret, "…")
	}
	if at := strings.Index(said, "://"); at >= 0 {
		if host := strings.IndexByte(said[at:], '@'); host >= 0 {
			said = said[:at+3] + "…" + said[at+host:]
		}
	}
	return said[:min(len(said), 300)]
}
