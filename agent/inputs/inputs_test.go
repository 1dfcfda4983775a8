package inputs

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipelinetest"
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

func (v *voice) infer(context.Context, string, []worker.Tensor) ([]worker.Tensor, By, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return nil, By{}, v.err
	}
	out := worker.Tensor{Name: "output", DType: models.FP32, Shape: []int64{1, 1}, Data: []byte{0, 0, 0x80, 0x3e}} // 0.25
	state := worker.Tensor{Name: "stateN", DType: models.FP32, Shape: []int64{2, 1, 128}, Data: make([]byte, 1024)}
	return []worker.Tensor{out, state}, By{Ref: voiceRef}, nil
}

var voiceRef = models.Ref{Name: "silero-vad", Version: "5"}

func (v *voice) Serving() ([]models.Ref, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if errors.Is(v.err, ErrNoModel) {
		return nil, nil
	}
	return []models.Ref{voiceRef}, nil
}

func (v *voice) Manifest(models.Ref) (m models.Manifest, err error) {
	return m, json.Unmarshal([]byte(`{"name": "silero-vad", "version": "5",
		"signature": {"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, -1]}, {"name": "state", "datatype": "FP32", "shape": [2, -1, 128]}],
			"outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 1]}, {"name": "stateN", "datatype": "FP32", "shape": [2, -1, 128]}]},
		"pipelines": [{"name": "voice-activity", "takes": "audio", "stages": [{"windows": {"input": "input", "size": 512, "context": 64}},
			{"carry": {"input": "state", "output": "stateN"}}, {"run": {}}, {"segments": {"output": "output", "label": "speech"}}]}]}`), &m)
}

func (v *voice) File(models.Ref, string) (string, error) { return "", errors.New("no files here") }

// listen starts Inputs with one microphone of one window per item and an
// interval of 1 s. The returned function ends Run and waits for it.
func listen(t *testing.T, v *voice) (*Inputs, func()) {
	t.Helper()
	return listenEvery(t, v, time.Second)
}

func listenEvery(t *testing.T, v *voice, interval time.Duration) (*Inputs, func()) {
	t.Helper()
	dir := t.TempDir()
	clip := filepath.Join(dir, "clip.wav")
	if err := os.WriteFile(clip, wav(make([]int16, 512)), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := New(Options{
		Sources: []Source{{Name: "mic", Kind: "audio", Pipeline: "voice-activity", Path: clip, Interval: interval}},
		Infer:   v.infer, Catalog: v, Outbox: filepath.Join(dir, "outbox.db"),
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
		if n, _ := again.counts(); n != 12 {
			t.Errorf("%d results on disk after the end, want 11 and one of what was seen", n)
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
	b := pipelinetest.Start(t, ocrFolders...)
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
		Infer:   b.Infer, Catalog: b, Outbox: filepath.Join(t.TempDir(), "outbox.db"),
	}, testLog())
	if err != nil {
		t.Fatal(err)
	}
	stop := runInputs(t, in)
	defer stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
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
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mic := Source{Name: "mic", Kind: "audio", Pipeline: "voice-activity", Path: "/x"}
	cam := Source{Name: "cam", Kind: "http", Pipeline: "p", URL: "http://192.0.2.1/snap"}
	with := func(s Source, f func(*Source)) []Source {
		f(&s)
		return []Source{s}
	}
	for want, sources := range map[string][]Source{
		"name and pipeline are required":    with(mic, func(s *Source) { s.Name = "" }),
		"input \"mic\": name and pipeline":  with(mic, func(s *Source) { s.Pipeline = "" }),
		"path is required":                  with(mic, func(s *Source) { s.Path = "" }),
		"use folder, http, stream or audio": with(mic, func(s *Source) { s.Kind = "rtsp" }),
		"is negative":                       with(mic, func(s *Source) { s.Interval = -1 }),
		"two sources are called":            {mic, mic},
		"kind audio does not take url":      with(mic, func(s *Source) { s.URL = "http://x/" }),
		"url is no address of http, https":  with(cam, func(s *Source) { s.URL = "rtsp://192.0.2.1/" }),
		"use username and password_file":    with(cam, func(s *Source) { s.URL = "http://me:hush@192.0.2.1/" }),
		"username and password_file go":     with(cam, func(s *Source) { s.Username = "me" }),
		"both given":                        with(cam, func(s *Source) { s.Username, s.PasswordFile, s.TokenFile = "me", secret, secret }),
		"kind http does not take transport": with(cam, func(s *Source) { s.Transport = "tcp" }),
		"transport is \"quic\"":             with(cam, func(s *Source) { s.Kind, s.URL, s.Transport = "stream", "rtsp://192.0.2.1/", "quic" }),
		"max_width 9000":                    with(cam, func(s *Source) { s.Kind, s.URL, s.MaxWidth = "stream", "rtsp://192.0.2.1/", 9000 }),
		"read ca_file":                      with(cam, func(s *Source) { s.CAFile = "/nowhere" }),
		"holds no certificate":              with(cam, func(s *Source) { s.CAFile = secret }),
	} {
		path := filepath.Join(t.TempDir(), "outbox.db")
		v := &voice{}
		_, err := New(Options{Sources: sources, Infer: v.infer, Catalog: v, Outbox: path}, testLog())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want %q and no password", err, want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: left an outbox behind", want)
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

// wav builds a WAV file around samples.
func wav(pcm []int16) []byte {
	var b bytes.Buffer
	le := binary.LittleEndian
	b.WriteString("RIFF")
	b.Write(le.AppendUint32(nil, uint32(36+2*len(pcm))))
	b.WriteString("WAVEfmt ")
	b.Write(le.AppendUint32(nil, 16))
	for _, v := range []uint16{1, 1, 16000, 0, 2 * 16000, 0, 2, 16} {
		b.Write(le.AppendUint16(nil, v))
	}
	b.WriteString("data")
	b.Write(le.AppendUint32(nil, uint32(2*len(pcm))))
	for _, v := range pcm {
		b.Write(le.AppendUint16(nil, uint16(v)))
	}
	return b.Bytes()
}
