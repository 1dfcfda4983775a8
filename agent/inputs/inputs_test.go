package inputs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// voice is an Infer that hears silence in every window, or fails.
type voice struct {
	mu  sync.Mutex
	err error
}

func (v *voice) set(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

func (v *voice) infer(context.Context, string, []worker.Tensor) ([]worker.Tensor, models.Ref, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return nil, models.Ref{}, v.err
	}
	out, state := fp32([]int64{1, 1}, 0.25), fp32([]int64{2, 1, 128}, make([]float32, 256)...)
	out.Name, state.Name = "output", "stateN"
	return []worker.Tensor{out, state}, models.Ref{Name: vadModel, Version: "5"}, nil
}

func noFile(string, string) (string, error) { return "", errors.New("no files here") }

// listen starts Inputs with one microphone of one window per item and an
// interval of 1 s. The returned function ends Run and waits for it.
func listen(t *testing.T, v *voice) (*Inputs, func()) {
	t.Helper()
	dir := t.TempDir()
	clip := filepath.Join(dir, "clip.wav")
	if err := os.WriteFile(clip, wav(make([]int16, vadWindow)), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := New(Options{
		Sources: []Source{{Name: "mic", Kind: "audio", Pipeline: "voice-activity", Path: clip}},
		Infer:   v.infer, ModelFile: noFile, Outbox: filepath.Join(dir, "outbox.db"),
	}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	return in, runInputs(t, in)
}

func runInputs(t *testing.T, in *Inputs) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestDutyStretchesTheIntervalUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, stop := listen(t, &voice{})
		defer stop()
		items := func() uint64 {
			synctest.Wait()
			return in.Status()[0].Items
		}
		expect := func(when string, during time.Duration, want uint64) {
			t.Helper()
			before := items()
			time.Sleep(during)
			if got := items() - before; got != want {
				t.Errorf("%s: %d items in %v, want %d", when, got, during, want)
			}
		}
		time.Sleep(500 * time.Millisecond) // between two items
		if got := items(); got != 1 {
			t.Errorf("%d items at the start, want 1", got)
		}
		expect("full", 10*time.Second, 10)
		in.SetDuty(runnerapi.Duty{Level: "minimal", MaxRateRatio: 0.25, ValidSeconds: 60})
		expect("a quarter", 40*time.Second, 10)
		in.SetDuty(runnerapi.Duty{Level: "paused", MaxRateRatio: 0, ValidSeconds: 30})
		expect("paused", 30*time.Second-time.Millisecond, 0)
		expect("expired", 10*time.Second, 10)
		in.SetDuty(runnerapi.Duty{Level: "full", MaxRateRatio: 7, ValidSeconds: 60})
		expect("never above full", 10*time.Second, 10)
		in.SetDuty(runnerapi.Duty{Level: "full", MaxRateRatio: math.NaN(), ValidSeconds: math.Inf(1)})
		expect("nonsense stops", time.Hour, 0)
		in.SetDuty(runnerapi.Duty{Level: "reduced", MaxRateRatio: 0.5, ValidSeconds: math.NaN()})
		expect("without validity it is full", 10*time.Second, 10)
	})
}

func TestResultsAreCommittedWithinSecondsAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, stop := listen(t, &voice{})
		time.Sleep(10*time.Second + time.Millisecond)
		r, err := in.Results(0, 100)
		if err != nil || len(r.Records) < 8 {
			t.Errorf("%d results after 10 s of one per second (%v), want at least 8", len(r.Records), err)
		}
		if n, dropped := in.Counts(); n != 11 || dropped != 0 {
			t.Errorf("%d results and %d dropped, want 11 and 0", n, dropped)
		}
		rec := r.Records[0]
		if rec.Input != "mic" || rec.Pipeline != "voice-activity" || rec.Item != "clip.wav" || rec.Text != "no speech in 0.0 s" ||
			rec.Score != 0.75 || rec.UnixMs == 0 || fmt.Sprint(rec.Models) != "[silero-vad:5]" {
			t.Errorf("record %+v", rec)
		}
		stop()
		again, err := openOutbox(in.outbox.path, 1<<20, time.Now, testLog())
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := again.counts(); n != 11 {
			t.Errorf("%d results on disk after the end, want 11", n)
		}
		if err := again.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestMissingModelIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voice{}
		v.set(fmt.Errorf("silero-vad: %w", ErrNoModel))
		in, stop := listen(t, v)
		defer stop()
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		if s := in.Status()[0]; s.Items != 0 || s.Failures != 0 || !strings.Contains(s.Err, "not active") {
			t.Errorf("without a model: %+v", s)
		}
		v.set(errors.New("worker died"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := in.Status()[0]; s.Items != 0 || s.Failures != 2 || s.Err == "" {
			t.Errorf("with a broken one: %+v", s)
		}
		v.set(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if s := in.Status()[0]; s.Items != 5 || s.Failures != 2 || s.Err != "" || math.Abs(s.RateHz-1) > 0.01 {
			t.Errorf("with a model: %+v", s)
		}
	})
}

// TestBadFramesDoNotStopTheCamera runs a real folder with real models; it holds
// good frames, a cut one, a bomb, text, and a directory.
func TestBadFramesDoNotStopTheCamera(t *testing.T) {
	b := startModels(t, ocrFolders)
	dir := t.TempDir()
	if err := labels.WriteFolder(dir, 2, 42); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "000-clean.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"000-a-cut.jpg": good[:len(good)/2], "000-b-bomb.jpg": bomb(good), "000-c-text.jpg": []byte("not a picture"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "000-d-folder.jpg"), 0o700); err != nil {
		t.Fatal(err)
	}
	in, err := New(Options{
		Sources: []Source{{Name: "cam", Kind: "folder", Pipeline: "label-reader", Path: dir, Interval: time.Millisecond}},
		Infer:   b.infer, ModelFile: b.modelFile, Outbox: filepath.Join(t.TempDir(), "outbox.db"),
	}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	stop := runInputs(t, in)
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for in.Status()[0].Items < 3 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no progress: %+v", in.Status())
		}
	}
	if s := in.Status()[0]; s.Failures < 4 {
		t.Errorf("%d failures, want at least 4: %+v", s.Failures, s)
	}
	if err := in.outbox.commit(); err != nil {
		t.Fatal(err)
	}
	r, err := in.Results(0, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"000-clean.jpg", "001-tilted.jpg", "000-clean.jpg"} {
		rec := r.Records[i]
		if rec.Item != name || rec.Want == "" || rec.Text != rec.Want || rec.Score < 0.9 || rec.LatencyMs <= 0 || len(rec.Models) != 3 {
			t.Errorf("record %d: %+v, want %s read right", i, rec, name)
		}
	}
}

// bomb claims 60,000 × 60,000 pixels in the frame header of a JPEG.
func bomb(jpg []byte) []byte {
	b := bytes.Clone(jpg)
	at := bytes.Index(b, []byte{0xff, 0xc0})
	copy(b[at+5:], []byte{0xea, 0x60, 0xea, 0x60})
	return b
}

func TestBombIsRefusedBeforeItIsDecoded(t *testing.T) {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 8, 8)), nil); err != nil {
		t.Fatal(err)
	}
	if p, err := decodeFrame(buf.Bytes()); err != nil || p.w != 8 || p.h != 8 {
		t.Errorf("8 × 8: %d × %d, %v", p.w, p.h, err)
	}
	if _, err := decodeFrame(bomb(buf.Bytes())); err == nil || !strings.Contains(err.Error(), "60000 × 60000") {
		t.Errorf("bomb: %v", err)
	}
}

func TestTruthNeedNotBeThereButMustParse(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.jpg", "a.JPEG", "c.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := reel{path: dir, exts: []string{".jpg", ".jpeg"}}
	next := func(wantName, wantText string) {
		t.Helper()
		path, err := r.advance()
		if err != nil || filepath.Base(path) != wantName || r.want(path) != wantText {
			t.Errorf("%s with %q, %v; want %s with %q", path, r.want(path), err, wantName, wantText)
		}
	}
	next("a.JPEG", "")
	next("b.jpg", "")
	truth, err := json.Marshal(map[string][]string{"b.jpg": {"two", "lines"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, truthFile), truth, 0o600); err != nil {
		t.Fatal(err)
	}
	next("a.JPEG", "")
	next("b.jpg", "two\nlines")
	if err := os.WriteFile(filepath.Join(dir, truthFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.advance(); err == nil {
		t.Error("a damaged truth.json went unnoticed")
	}
	next("a.JPEG", "") // and did not stop the source
	r.path = filepath.Join(dir, "none")
	next("b.jpg", "")
	if _, err := r.advance(); err == nil {
		t.Error("a missing folder went unnoticed")
	}
}

func TestSourcesAreChecked(t *testing.T) {
	good := Source{Name: "mic", Kind: "audio", Pipeline: "voice-activity", Path: "/x"}
	change := func(f func(*Source)) []Source {
		s := good
		f(&s)
		return []Source{s}
	}
	for name, sources := range map[string][]Source{
		"no name":           change(func(s *Source) { s.Name = "" }),
		"no path":           change(func(s *Source) { s.Path = "" }),
		"unknown kind":      change(func(s *Source) { s.Kind = "rtsp" }),
		"wrong pipeline":    change(func(s *Source) { s.Pipeline = "label-reader" }),
		"negative interval": change(func(s *Source) { s.Interval = -1 }),
		"two of one name":   {good, good},
	} {
		path := filepath.Join(t.TempDir(), "outbox.db")
		if _, err := New(Options{Sources: sources, Infer: (&voice{}).infer, ModelFile: noFile, Outbox: path}, testLog()); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: left an outbox behind", name)
		}
	}
}

func TestRateFallsWhenItemsStop(t *testing.T) {
	start := time.Unix(1000, 0)
	times := []time.Time{start, start.Add(2 * time.Second), start.Add(4 * time.Second)}
	for _, tt := range []struct {
		after time.Duration
		want  float64
	}{{5 * time.Second, 0.5}, {8 * time.Second, 0.5}, {14 * time.Second, 0.1}} {
		if got := rate(times, start.Add(tt.after)); got != tt.want {
			t.Errorf("%v after the start: %v, want %v", tt.after, got, tt.want)
		}
	}
	if got := rate(times[:1], start); got != 0 {
		t.Errorf("one item: %v", got)
	}
}

// FuzzFrame: whatever the bytes, decoding ends with planes of the picture's size
// or with an error.
func FuzzFrame(f *testing.F) {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 16, 8)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(bomb(buf.Bytes()))
	f.Add([]byte("\xff\xd8\xff\xe0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodeFrame(data)
		if err != nil {
			if p.c[0] != nil {
				t.Fatalf("a picture with %v", err)
			}
			return
		}
		if p.w <= 0 || p.h <= 0 || p.w*p.h > maxPixels || len(p.c[0]) != p.w*p.h {
			t.Fatalf("%d × %d with %d pixels", p.w, p.h, len(p.c[0]))
		}
	})
}
