package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// TestEveryKeyOfTheFileIsAFieldOrLocalOnPurpose: a key of runner.yaml can be set
// by documents, or is named with the reason why not; and there are no others.
func TestEveryKeyOfTheFileIsAFieldOrLocalOnPurpose(t *testing.T) {
	var keys []string
	var walk func(of reflect.Type, at string)
	walk = func(of reflect.Type, at string) {
		for i := range of.NumField() {
			f := of.Field(i)
			tag := f.Tag.Get("yaml")
			switch {
			case tag == ",inline":
				walk(f.Type, at)
			case tag == "" || strings.HasSuffix(at, "[].") && tag == "name":
			default:
				keys = append(keys, at+tag)
				if tag == "backends" || tag == "providers" {
					break // as a whole
				}
				if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
					walk(f.Type.Elem(), at+tag+"[].")
				}
				if f.Type.Kind() == reflect.Struct {
					walk(f.Type, at+tag+".")
				}
			}
		}
	}
	walk(reflect.TypeFor[config](), "runner.")
	known := []string{}
	for _, f := range boxconfig.Fields() {
		if strings.HasPrefix(f.Path, "runner.") {
			known = append(known, f.Path)
		}
	}
	for _, l := range boxconfig.Locals() {
		if strings.HasPrefix(l.Path, "runner.") {
			known = append(known, l.Path)
		}
	}
	slices.Sort(keys)
	slices.Sort(known)
	if !slices.Equal(keys, known) {
		t.Errorf("the file has\n%v\ndocuments and reasons\n%v", keys, known)
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
	metrics := func() string {
		resp, err := http.Get("http://" + s.http + "/metrics")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return string(text)
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
	s.must(file.Save(runnerapi.Settings{Digest: "d2r", Content: json.RawMessage(`{"routes":[{"name":"away","model":"elsewhere","overflow":[{"name":"big","url":"http://10.1.1.1:1","place":"site"}]}]}`)}))
	s.eventually("a route of the fleet is taken up", func() bool {
		st, _ := now()
		return st.Settings.Digest == "d2r" && st.Settings.Err == "" && strings.Contains(metrics(), "site:big")
	})
	s.must(file.Save(runnerapi.Settings{Digest: "d2s", Content: json.RawMessage(`{"routes":[{"name":"away","model":"m","overflow":[{"name":"big","url":"http://10.1.1.1:1","place":"central"}]}]}`)}))
	s.eventually("one that would leave the site in the clear is not", func() bool {
		st, _ := now()
		return st.Settings.Digest == "d2s" && strings.Contains(st.Settings.Err, "what leaves the site is encrypted") && strings.Contains(metrics(), "elsewhere")
	})
	fleet("d3", "")
	s.eventually("what is withdrawn ends", func() bool {
		st, at := now()
		_, there := at["dock"]
		return st.Settings.Digest == "d3" && st.Settings.Err == "" && !there && at["own"].Items > 0
	})
}
