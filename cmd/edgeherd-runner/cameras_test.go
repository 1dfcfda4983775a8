package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/results"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// TestFleetSettingsAreKeysOfTheFile: a field of a document is a key of
// runner.yaml, and what a document cannot set is left out for a reason.
func TestFleetSettingsAreKeysOfTheFile(t *testing.T) {
	// Programs to run and files to read are for who is on the box.
	never := []string{"name", "ffmpeg", "ca_file"}
	for prefix, of := range map[string]reflect.Type{"runner.inputs[].": reflect.TypeFor[inputs.Source](), "runner.results.targets[].": reflect.TypeFor[results.Target]()} {
		keys := []string{}
		for i := range of.NumField() {
			if tag := of.Field(i).Tag.Get("yaml"); tag != "" && !slices.Contains(never, tag) {
				keys = append(keys, tag)
			}
		}
		fields := []string{}
		for _, f := range boxconfig.Fields() {
			if rest, ok := strings.CutPrefix(f.Path, prefix); ok {
				fields = append(fields, rest)
			}
		}
		slices.Sort(keys)
		slices.Sort(fields)
		if !slices.Equal(keys, fields) {
			t.Errorf("%s: the file has %v, documents %v", prefix, keys, fields)
		}
	}
}

// TestCamerasFollowTheFleetWhileModelsServe: an input of the fleet begins to
// work in the running process, one that cannot be opened leaves those of before,
// and what runner.yaml has counts.
func TestCamerasFollowTheFleetWhileModelsServe(t *testing.T) {
	s := newSite(t, "silero-vad-5.0.0")
	clip := filepath.Join(s.dir, "clip.wav")
	s.must(os.WriteFile(clip, wave(16000), 0o600))
	s.configure("inputs: [{name: own, kind: audio, pipeline: voice-activity, path: %s, interval: 100ms}]\n", clip)
	file := durable.Journal{Path: filepath.Join(s.dir, "agent/models", runnerapi.SettingsFile), Version: runnerapi.SettingsVersion}
	fleet := func(digest, list string) {
		s.must(file.Save(runnerapi.Settings{Digest: digest, Content: json.RawMessage(`{"inputs":[` + list + `]}`)}))
	}
	input := func(name, kind, path string) string {
		return fmt.Sprintf(`{"name":%q,"kind":%q,"pipeline":"voice-activity","path":%q,"interval":"50ms","min_score":0}`, name, kind, path)
	}
	s.start()
	first := s.status()
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	now := func() (st runnerapi.Status, at map[string]runnerapi.InputStatus) {
		st, err := edge.Status(t.Context())
		at = map[string]runnerapi.InputStatus{}
		if err == nil {
			for _, in := range st.Inputs {
				at[in.Name] = in
			}
		}
		return st, at
	}
	fleet("d1", input("dock", "audio", clip)+","+input("own", "audio", "/nowhere"))
	s.eventually("the fleet's input works", func() bool {
		st, at := now()
		return st.Settings != nil && st.Settings.Digest == "d1" && st.Settings.Err == "" && at["dock"].Items > 0 && at["own"].Items > 0 &&
			slices.Equal(st.Settings.Local, []string{"runner.inputs[own]"})
	})
	fleet("d2", input("dock", "telescope", clip))
	s.eventually("what cannot be opened is told, and those of before work", func() bool {
		st, at := now()
		return st.Settings.Digest == "d2" && strings.Contains(st.Settings.Err, `kind "telescope" is unknown`) && at["dock"].Items > 0 && st.PID == first.PID
	})
	fleet("d3", "")
	s.eventually("what is withdrawn ends", func() bool {
		st, at := now()
		_, there := at["dock"]
		return st.Settings.Digest == "d3" && st.Settings.Err == "" && !there && at["own"].Items > 0
	})
}
