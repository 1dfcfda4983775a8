package inputs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/internal/assets"
)

const streamPassword = "s3c'r%t@/"

// broadcast serves a video that ffmpeg made, to who knows the password.
type broadcast struct {
	video []byte

	mu     sync.Mutex // guards all below
	opened int
	// hold keeps a connection open after the video: the stream stalls.
	hold bool
}

func (b *broadcast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, p, ok := r.BasicAuth(); !ok || p != streamPassword {
		w.Header().Set("WWW-Authenticate", `Basic realm="cam"`)
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	b.mu.Lock()
	b.opened++
	hold := b.hold
	b.mu.Unlock()
	_, _ = w.Write(b.video)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	if hold {
		<-r.Context().Done()
	}
}

func (b *broadcast) times() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opened
}

// follow runs a stream of the camera until the test ends.
func follow(t *testing.T, b *broadcast, change func(*Source)) *stream {
	t.Helper()
	ffmpeg := assets.Program(t, "ffmpeg")
	var err error
	b.video, err = exec.CommandContext(t.Context(), ffmpeg, "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=8",
		"-c:v", "mpeg2video", "-threads", "1", "-f", "mpegts", "pipe:1").Output()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(b)
	cfg := Source{Name: "cam", Kind: "stream", Pipeline: "look", URL: srv.URL + "/live", FFmpeg: ffmpeg, Interval: 100 * time.Millisecond,
		Username: "me", PasswordFile: secretFile(t, streamPassword)}
	if change != nil {
		change(&cfg)
	}
	if cfg, err = cfg.withDefaults(); err != nil {
		t.Fatal(err)
	}
	s := newStream(cfg, pipeline.New("look", nil, looker{}), time.Now, testLog())
	stop := runStream(t, s)
	t.Cleanup(func() {
		stop()
		srv.CloseClientConnections()
		srv.Close()
	})
	return s
}

func runStream(t *testing.T, s *stream) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func (s *stream) frames() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// TestStreamBringsTheNewestFrameAtModelSize, and nobody on the box can read the
// camera's password in the list of processes.
func TestStreamBringsTheNewestFrameAtModelSize(t *testing.T) {
	t.Parallel()
	s := follow(t, &broadcast{hold: true}, nil)
	first, err := s.next(t.Context())
	if err != nil || first.frame.W != 64 || first.frame.H != 48 {
		t.Fatalf("first frame %d × %d, %v; want 64 × 48", first.frame.W, first.frame.H, err)
	}
	seen := 0
	for _, pid := range children(t) {
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // that of a test beside has ended
			}
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte("ffmpeg")) && file == "cmdline" {
				seen++
			}
			for _, secret := range []string{"s3c", "/live"} {
				if bytes.Contains(data, []byte(secret)) {
					t.Errorf("%s of ffmpeg holds %q: %q", file, secret, data)
				}
			}
		}
	}
	if seen == 0 {
		t.Errorf("%d ffmpeg processes, want some", seen)
	}
	// Whoever was busy gets the newest and nothing of what was missed.
	within(t, "ten frames more", func() bool { return s.frames() >= 10 })
	within(t, "the newest is taken", func() bool {
		before := s.frames()
		it, err := s.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return it.name == fmt.Sprintf("frame-%d", before)
	})
}

// children lists the processes that this one has started.
func children(t *testing.T) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		at := bytes.LastIndexByte(data, ')')
		var state string
		var parent int
		if _, err := fmt.Sscan(string(data[at+1:]), &state, &parent); err == nil && parent == os.Getpid() && state != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			out = append(out, pid)
		}
	}
	return out
}

func TestStreamIsOpenedAnewWhenItEndsAndWhenItStalls(t *testing.T) {
	t.Parallel()
	for _, hold := range []bool{false, true} {
		b := &broadcast{hold: hold}
		s := follow(t, b, func(c *Source) { c.Timeout = 5 * time.Second }) // ffmpeg needs a while to its first frame
		within(t, "the stream is opened again", func() bool { return b.times() >= 2 })
		n := s.frames()
		within(t, "it brings frames again", func() bool { return s.frames() > n })
	}
}

// TestStreamTroubleIsTold: what ffmpeg says reaches the status, the password not.
func TestStreamTroubleIsTold(t *testing.T) {
	t.Parallel()
	s := follow(t, &broadcast{}, func(c *Source) { c.PasswordFile = secretFile(t, "wr0ng'pass") })
	var err error
	within(t, "an error", func() bool { _, err = s.next(t.Context()); return err != nil })
	if !strings.Contains(err.Error(), "stream ended") || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("wrong password: %v", err)
	}
	t.Log(err)
	said := &tail{}
	fmt.Fprint(said, "x\n[rtsp] cannot open rtsp://me:p%40ss@cam/live?key=k1: p@ss is wrong\n")
	if got := said.text([]string{"p@ss", "p%40ss", "key=k1"}); strings.Contains(got, "p@ss") || strings.Contains(got, "p%40ss") || strings.Contains(got, "k1") || !strings.Contains(got, "@cam/live") {
		t.Errorf("told %q", got)
	}
	s.cfg.FFmpeg = "/nowhere/ffmpeg"
	if err := s.once(t.Context()); err == nil || !strings.Contains(err.Error(), "`ffmpeg:` of this input") {
		t.Errorf("without ffmpeg: %v", err)
	}
}

func TestSlowPipelineGetsTheNewestFrame(t *testing.T) {
	s := newStream(Source{Name: "cam", Timeout: time.Second}, nil, time.Now, testLog())
	for i := range 3 {
		s.put(fmt.Appendf(nil, "P6\n%d 1\n255\n%s", i+1, strings.Repeat("abc", i+1)))
	}
	if it, err := s.next(t.Context()); err != nil || it.frame.W != 3 || it.name != "frame-3" {
		t.Errorf("%s is %d wide, %v; want the third", it.name, it.frame.W, err)
	}
}

// scriptFile is a program. A test beside may start one while the file is open for
// writing, and its child hold it open for a moment more: "text file busy".
func scriptFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeFFmpeg is a shell script in ffmpeg's place.
func fakeFFmpeg(t *testing.T, script string, timeout time.Duration) *stream {
	t.Helper()
	path := scriptFile(t, script)
	cfg, err := Source{Name: "cam", Kind: "stream", Pipeline: "look", URL: "rtsp://192.0.2.1/live", FFmpeg: path, Timeout: timeout}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return newStream(cfg, pipeline.New("look", nil, looker{}), time.Now, testLog())
}

// TestOnlySilenceIsAStall: a stream that goes on is left alone however long.
func TestOnlySilenceIsAStall(t *testing.T) {
	t.Parallel()
	const frame = "printf 'P6\\n1 1\\n255\\nabc'\n"
	s := fakeFFmpeg(t, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do "+frame+"sleep 0.5; done\n", 5*time.Second)
	if err := s.once(t.Context()); err == nil || strings.Contains(err.Error(), "brought no frame for") || s.frames() != 12 {
		t.Errorf("%d of 12 frames, %v", s.frames(), err)
	}
	s = fakeFFmpeg(t, frame+"exec sleep 60\n", 500*time.Millisecond)
	if err := s.once(t.Context()); err == nil || !strings.Contains(err.Error(), "brought no frame for 500ms") {
		t.Errorf("silence: %v", err)
	}
}

// TestOldFFmpegIsAskedInItsOwnWords: before version 5 its scripts knew no options.
func TestOldFFmpegIsAskedInItsOwnWords(t *testing.T) {
	s := fakeFFmpeg(t, "if grep -q option; then echo \"[concat] Line 3: unknown keyword 'option'\" >&2; echo 'pipe:0: Invalid data' >&2; exit 1; fi\n"+
		"printf 'P6\\n1 1\\n255\\nabc'\n", 10*time.Second)
	if err := s.once(t.Context()); err == nil || !strings.Contains(err.Error(), "Invalid data") || s.frames() != 0 {
		t.Errorf("first: %v, %d frames", err, s.frames())
	}
	if err := s.once(t.Context()); err == nil || s.frames() != 1 {
		t.Errorf("second: %v, %d frames; want one", err, s.frames())
	}
}

func TestFramesAreCutFromThePipe(t *testing.T) {
	var pipe bytes.Buffer
	for i := range 3 {
		fmt.Fprintf(&pipe, "P6\n%d 1\n255\n%s", i+1, strings.Repeat("abc", i+1))
	}
	whole := pipe.Bytes()
	for cut := range len(whole) + 1 {
		var got []string
		err := readFrames(bytes.NewReader(whole[:cut]), func(data []byte) { got = append(got, string(data)) })
		if err == nil {
			t.Fatal("no end")
		}
		if want := strings.Count(strings.Join(got, ""), "P6"); len(got) != want || !strings.HasPrefix(string(whole), strings.Join(got, "")) {
			t.Fatalf("cut at %d: %q", cut, got)
		}
		if cut == len(whole) && len(got) != 3 {
			t.Errorf("%d frames, want 3", len(got))
		}
	}
	if err := readFrames(strings.NewReader("P6\n99999 99999\n255\n"), nil); err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("a huge frame: %v", err)
	}
}

// TestNothingIsLeftBehindByAScriptAroundFFmpeg: what it started holds the pipe
// and does not listen, and still ends with the stream.
func TestNothingIsLeftBehindByAScriptAroundFFmpeg(t *testing.T) {
	t.Parallel()
	note := filepath.Join(t.TempDir(), "pid")
	script := scriptFile(t, "trap '' TERM\nsleep 1000 &\necho $! >"+note+".new\nmv "+note+".new "+note+"\nwait\n")
	cfg, err := Source{Name: "cam", Kind: "stream", Pipeline: "look", URL: "rtsp://127.0.0.1:1/live", FFmpeg: script}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	stop := runStream(t, newStream(cfg, pipeline.New("look", nil, looker{}), time.Now, testLog()))
	pid := 0
	within(t, "the script started something", func() bool {
		data, err := os.ReadFile(note)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		return err == nil
	})
	stop() // returns, though the pipe was held
	within(t, "what it started has ended", func() bool {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		return err != nil || bytes.Contains(data, []byte(") Z "))
	})
}
