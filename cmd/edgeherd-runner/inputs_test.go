package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

func configOf(t *testing.T, text string) (config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runner.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return readConfig([]string{"--config", path}, func(string) string { return "" }, io.Discard)
}

// TestExampleOfTheDocumentIsRead: what docs/pipelines.md shows can be pasted.
func TestExampleOfTheDocumentIsRead(t *testing.T) {
	page, err := os.ReadFile("../../docs/pipelines.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml runner\n")
	block, _, _ = strings.Cut(block, "```")
	c, err := configOf(t, block)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Inputs) != 2 || c.Inputs[0].Interval != 500*time.Millisecond || c.Inputs[1].TokenFile == "" ||
		c.Results.HTTP == "" || len(c.Results.Targets) != 2 || c.Results.Targets[1].Topic != "shop/{input}/seen" {
		t.Errorf("read %+v\n%+v", c.Inputs, c.Results)
	}
}

func TestUnknownKeysOfInputsAndResultsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"inputs: [{name: a, adress: b}]":             "field adress is not a key of an input",
		"results: {htpp: x}":                         "field htpp is not a key of results",
		"results: {targets: [{name: a, adress: b}]}": "field adress is not a key of a target of results",
	} {
		if _, err := configOf(t, text); err == nil || !strings.Contains(err.Error(), "line 1: "+want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestProgramsOnTheBoxGetResults: the real runner, an input, a subscriber; and
// what the model answered leaves as a sketch with the results.
func TestProgramsOnTheBoxGetResults(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	clip := filepath.Join(s.dir, "clip.wav")
	s.must(os.WriteFile(clip, wave(16000), 0o600))
	addr := freeAddress(t)
	config, err := os.ReadFile(s.config)
	s.must(err)
	config = fmt.Appendf(config, "inputs: [{name: dock, kind: audio, pipeline: voice-activity, path: %s, interval: 50ms}]\nresults: {http: '%s'}\n", clip, addr)
	s.must(os.WriteFile(s.config, config, 0o600))
	r := s.start()
	s.status()
	resp, err := http.Get("http://" + addr + "/edge/v1/results?since=0&input=dock")
	s.must(err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	var got map[string]any
	for got == nil && lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			s.must(json.Unmarshal([]byte(data), &got))
		}
	}
	if got["input"] != "dock" || got["text"] != "no speech in 1.0 s" || got["cursor"] != nil || got["models"] == nil {
		t.Errorf("result %v", got)
	}
	if _, ok := got["findings"]; !ok {
		t.Errorf("no findings in %v", got)
	}
	s.must(r.Process.Signal(syscall.SIGTERM))
	<-r.done
	s.start()
	s.status()
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	sketches := 0
	s.eventually("the sketch of what was heard", func() bool {
		all, err := edge.Results(t.Context(), 0, 1000)
		for _, rec := range all.Records {
			if rec.Pipeline == "drift" && rec.Input == "dock" && rec.Models[0] == "silero-vad:5" {
				sketches++
			}
		}
		return err == nil && sketches > 0
	})
}

// TestPipelinesReadWhatServesInProduction: metadata lists versions there, and the
// keys that signed manifests before are nobody's.
func TestPipelinesReadWhatServesInProduction(t *testing.T) {
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := trust.NewKey()
	check(err)
	manifest, _, err := models.Pack(assets.Model(t, "silero-vad-5.0.0"))
	check(err)
	payload, err := manifest.Encode()
	check(err)
	envelope, err := trust.Sign(trust.TypeModel, payload, key)
	check(err)
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	check(err)
	ref := models.Ref{Name: manifest.Name, Version: manifest.Version, Digest: blob.Sum(envelope)}
	check(blobs.Put(bytes.NewReader(envelope), ref.Digest))
	active := filepath.Join(dir, "active.json")
	check((durable.Journal{Path: active, Version: runnerapi.ActiveVersion}).Save(runnerapi.Active{Generation: 1, Blobs: blobs.Dir()}))
	for production, want := range map[bool]bool{true: true, false: false} {
		s := shelf{active: active, keyring: func() (trust.Keyring, error) { return trust.Keyring{Targets: production}, nil }}
		if _, err := s.Manifest(ref); (err == nil) != want {
			t.Errorf("production %v: %v", production, err)
		}
	}
}
