package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// site is the disk of a box on which one model is active.
type site struct {
	t      testing.TB
	dir    string
	socket string
	http   string
	config string
	model  string // name of the one model
	key    trust.PrivateKey
	store  *blob.Store
}

// newSite lays out what enrolment and agent leave on a box, with one
// demo model, active under its name without the version.
func newSite(t testing.TB, demo string) *site {
	t.Helper()
	short, err := os.MkdirTemp("", "eh") // socket paths are limited to 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	s := &site{t: t, model: demo[:strings.LastIndexByte(demo, '-')], dir: t.TempDir(), socket: filepath.Join(short, "r.sock"), http: freeAddress(t)}
	s.config = filepath.Join(s.dir, "runner.yaml")
	s.must(os.WriteFile(s.config, fmt.Appendf(nil, "http: %s\nsocket: %s\nstate: %s\nactive: %s\nidentity: %s\nlibrary: %s\n",
		s.http, s.socket, filepath.Join(s.dir, "runner"), filepath.Join(s.dir, "agent/models/active.json"),
		filepath.Join(s.dir, "identity"), assets.Library(t)), 0o600))

	key, err := trust.NewKey()
	s.must(err)
	s.key = key
	identityDir := filepath.Join(s.dir, "identity")
	s.must(os.MkdirAll(identityDir, 0o700))
	ca, err := identity.OpenCA(filepath.Join(s.dir, "ca"), time.Now)
	s.must(err)
	s.must(identity.Enrol(identityDir, ca, identity.Box{ID: identity.NewID(), Name: "test", Site: "s", Keyring: trust.DevelopmentKeyring(key.Public())}))

	store, err := blob.Open(filepath.Join(s.dir, "agent/blobs"))
	s.must(err)
	s.store = store
	data, err := os.ReadFile(filepath.Join(assets.Model(t, demo), models.ModelFile))
	s.must(err)
	packed, _, err := models.Pack(assets.Model(t, demo))
	s.must(err)
	payload, err := models.Manifest{V: models.ManifestVersion, Name: s.model, Version: "5", Signature: packed.Signature, Pipelines: packed.Pipelines,
		Files: []models.File{{Path: models.ModelFile, Digest: blob.Sum(data), SizeBytes: int64(len(data))}}}.Encode()
	s.must(err)
	envelope, err := trust.Sign(trust.TypeModel, payload, key)
	s.must(err)
	for _, b := range [][]byte{data, envelope} {
		s.must(store.Put(bytes.NewReader(b), blob.Sum(b)))
	}
	s.must(os.MkdirAll(filepath.Join(s.dir, "agent/models"), 0o755))
	s.must(durable.Journal{Path: filepath.Join(s.dir, "agent/models/active.json"), Version: runnerapi.ActiveVersion}.Save(runnerapi.Active{
		Generation: 7, Models: []models.Ref{{Name: s.model, Version: "5", Digest: blob.Sum(envelope)}}}))
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// freeAddress is told to the runner before it starts.
func freeAddress(t testing.TB) string {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// runner is a running program.
type runner struct {
	*exec.Cmd
	out  *bytes.Buffer // read after ended
	done chan struct{}
}

func (s *site) start(args ...string) *runner {
	s.t.Helper()
	self, err := os.Executable()
	s.must(err)
	r := &runner{out: new(bytes.Buffer), done: make(chan struct{})}
	r.Cmd = &exec.Cmd{Path: self, Args: append([]string{"edgeherd-runner", "run", "--config", s.config}, args...), Stdout: r.out, Stderr: r.out}
	s.must(r.Start())
	go func() {
		_ = r.Wait() // tests look at ProcessState
		close(r.done)
	}()
	s.t.Cleanup(func() {
		_ = r.Process.Kill()
		<-r.done
		if s.t.Failed() {
			s.t.Logf("runner %d:\n%s", r.Process.Pid, r.out)
		}
	})
	return r
}

// eventually polls cond for at most 2 min, which no healthy run needs.
func (s *site) eventually(what string, cond func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if cond() {
			return
		}
	}
	s.t.Fatalf("not within 2 min: %s", what)
}

// status waits until the model serves.
func (s *site) status() runnerapi.Status {
	s.t.Helper()
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	var st runnerapi.Status
	s.eventually("the model serves", func() bool {
		var err error
		st, err = edge.Status(s.t.Context())
		return err == nil && len(st.Models) == 1 && st.Models[0].State == runnerapi.ModelReady
	})
	return st
}

// infer sends one request over TCP and insists on an answer.
func (s *site) infer() {
	s.t.Helper()
	body := voiceRequest(func(i int) float64 { return math.Sin(float64(i) / 7) })
	resp, err := http.Post("http://"+s.http+"/v2/models/"+s.model+"/infer", "application/json", strings.NewReader(body))
	s.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	s.must(err)
	if resp.StatusCode != http.StatusOK || !bytes.Contains(data, []byte(`"name":"output"`)) {
		s.t.Fatalf("infer: %s %s", resp.Status, data)
	}
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// TestKilledRunnerComesBackByItself: no worker survives it, and the same
// command serves again over the socket file that the dead one left.
func TestKilledRunnerComesBackByItself(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	r := s.start()
	st := s.status()
	s.infer()
	if st.PID != r.Process.Pid || st.Generation != 7 || st.RuntimeVersion == "" || st.Models[0].WorkerPID == r.Process.Pid {
		t.Errorf("status: %+v", st)
	}
	s.must(r.Process.Kill())
	<-r.done
	s.eventually("the worker ends with its runner", func() bool { return gone(st.Models[0].WorkerPID) })
	if _, err := os.Lstat(s.socket); err != nil {
		t.Errorf("this test wants a stale socket: %v", err)
	}
	s.start()
	if again := s.status(); again.PID == st.PID {
		t.Errorf("process %d is back from the dead", again.PID)
	}
	s.infer()
}

func TestTerminatedRunnerLeavesNothing(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	r := s.start()
	st := s.status()
	s.must(r.Process.Signal(syscall.SIGTERM))
	<-r.done
	if code := r.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if pid := st.Models[0].WorkerPID; !gone(pid) {
		t.Errorf("worker %d is still there", pid)
	}
	if _, err := os.Lstat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket is still there: %v", err)
	}
}

// TestSecondRunnerLeavesTheFirstAlone by socket and by port.
func TestSecondRunnerLeavesTheFirstAlone(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	s.start()
	s.status()
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"--http", "off"}, []string{s.socket, "another runner", "socket:"}},
		{[]string{"--socket", "off"}, []string{s.http, "another program has this port", "`http:`"}},
	} {
		second := s.start(append(tc.args, "--state", filepath.Join(s.dir, "second"))...)
		<-second.done
		if code := second.ProcessState.ExitCode(); code != 1 {
			t.Errorf("%v: exit code %d", tc.args, code)
		}
		for _, want := range tc.want {
			if !strings.Contains(second.out.String(), want) {
				t.Errorf("%v: %q is not in\n%s", tc.args, want, second.out)
			}
		}
	}
	s.status()
	s.infer()
}

// TestUnwritableStateDoesNotStopTheModels: the inputs say why they are off.
func TestUnwritableStateDoesNotStopTheModels(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	config, err := os.ReadFile(s.config)
	s.must(err)
	// Below a file nothing can be made, by root neither.
	config = append(config, "inputs:\n  - name: dock\n    kind: folder\n    pipeline: label-reader\n    path: /nowhere\n"...)
	s.must(os.WriteFile(s.config, config, 0o600))
	for _, dir := range []string{"agent/blobs/sha256", "agent/blobs/stage", "agent/blobs", "agent/models"} {
		s.must(os.Chmod(filepath.Join(s.dir, dir), 0o555))
		t.Cleanup(func() { os.Chmod(filepath.Join(s.dir, dir), 0o755) })
	}
	s.start("--state", filepath.Join(s.config, "state"))
	st := s.status()
	s.infer()
	if len(st.Inputs) != 1 || !strings.Contains(st.Inputs[0].Err, "not a directory") {
		t.Errorf("inputs: %+v", st.Inputs)
	}
}

// TestResultsOfAnInputReachTheAgentOnce: a clip is heard by the active model,
// its result waits over a kill -9, and is gone once it is acknowledged.
func TestResultsOfAnInputReachTheAgentOnce(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	clip := filepath.Join(s.dir, "clip.wav")
	s.must(os.WriteFile(clip, wave(2*16000), 0o600))
	config, err := os.ReadFile(s.config)
	s.must(err)
	config = fmt.Appendf(config, "inputs:\n  - name: dock\n    kind: audio\n    pipeline: voice-activity\n    path: %s\n    interval: 100ms\n", clip)
	s.must(os.WriteFile(s.config, config, 0o600))
	r := s.start()
	s.status()
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	var first runnerapi.Results
	s.eventually("a result waits", func() bool {
		first, err = edge.Results(t.Context(), 0, 1)
		return err == nil && len(first.Records) == 1
	})
	if got := first.Records[0]; got.Input != "dock" || len(got.Models) != 1 || got.Models[0] != "silero-vad:5" {
		t.Errorf("result: %+v", got)
	}
	s.must(r.Process.Kill())
	<-r.done
	s.start()
	s.status()
	again, err := edge.Results(t.Context(), 0, 1)
	if err != nil || len(again.Records) != 1 || again.Records[0].Cursor != first.Records[0].Cursor || again.Outbox != first.Outbox {
		t.Errorf("after kill -9: %+v, %v; want %+v", again, err, first)
	}
	s.must(edge.Ack(t.Context(), first.Outbox, first.Next))
	left, err := edge.Results(t.Context(), 0, 1)
	if err != nil || len(left.Records) > 0 && left.Records[0].Cursor <= first.Next {
		t.Errorf("after the acknowledgement: %+v, %v", left, err)
	}
}

// wave is a WAV file of n samples of a sine: 16 kHz, one channel, 16 bits.
func wave(n int) []byte {
	data := make([]byte, 0, 44+2*n)
	data = append(data, "RIFF"...)
	data = binary.LittleEndian.AppendUint32(data, uint32(36+2*n))
	data = append(data, "WAVEfmt "...)
	for _, v := range []uint32{16, 1 | 1<<16, 16000, 32000, 2 | 16<<16} {
		data = binary.LittleEndian.AppendUint32(data, v)
	}
	data = append(data, "data"...)
	data = binary.LittleEndian.AppendUint32(data, uint32(2*n))
	for i := range n {
		data = binary.LittleEndian.AppendUint16(data, uint16(int16(8000*math.Sin(float64(i)/7))))
	}
	return data
}
