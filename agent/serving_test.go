package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// servingEvents are the words and errors of what was told of how models serve.
func servingEvents(t *testing.T, a *Agent) (told []string) {
	t.Helper()
	for _, b := range blocks(t, a, wire.KindEvents) {
		events, err := wire.DecodeEvents(b.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			var is wire.Serving
			if e.Type != wire.EventServing {
				continue
			}
			if err := json.Unmarshal(e.Body, &is); err != nil {
				t.Fatal(err)
			}
			told = append(told, fmt.Sprintf("%s|%s", e.Text, is.Err))
		}
	}
	return told
}

// TestWhyAModelDoesNotServeIsTold: whatever the reason, once, and that it has passed.
func TestWhyAModelDoesNotServeIsTold(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	vad := models.Ref{Name: "vad", Version: "1", Digest: blob.Sum([]byte("vad"))}
	synctest.Test(t, func(t *testing.T) {
		status := func(state runnerapi.ModelState, err string) {
			time.Sleep(10 * time.Second)
			a.noteServing(runnerapi.Status{Models: []runnerapi.ModelStatus{{Ref: vad, State: state, Err: err}}})
		}
		status(runnerapi.ModelLoading, "") // it is starting, which is no fault
		status(runnerapi.ModelReady, "")
		status(runnerapi.ModelFailed, "open libonnxruntime.so.1: no such file or directory")
		status(runnerapi.ModelFailed, "open libonnxruntime.so.1: no such file or directory")
		status(runnerapi.ModelFailed, "worker was killed: out of memory, try 1") // in other words, too soon
		status(runnerapi.ModelFailed, "worker was killed: out of memory, try 2")
		status(runnerapi.ModelReady, "")
		status(runnerapi.ModelFailed, "open libonnxruntime.so.1: no such file or directory")
		status(runnerapi.ModelLoading, "") // the runner was started again: neither well nor another fault
		status(runnerapi.ModelFailed, "open libonnxruntime.so.1: no such file or directory")
		status(runnerapi.ModelLoading, "")
		status(runnerapi.ModelReady, "")
		status(runnerapi.ModelLoading, "backend triton is not ready any more")
		a.noteServing(runnerapi.Status{Models: []runnerapi.ModelStatus{ // a version beside it does not load
			{Ref: models.Ref{Name: "vad", Version: "2"}, State: runnerapi.ModelFailed, Err: "bad"}, {Ref: vad, State: runnerapi.ModelReady}}})
		away := errors.New("connection refused")
		a.noteSilence(away, []models.Ref{vad}) // it may be starting
		time.Sleep(2 * time.Minute)
		a.noteSilence(away, []models.Ref{vad})
		status(runnerapi.ModelReady, "")
		const silent = "the runner does not answer; its log on the box says why (journalctl -u edgeherd-runner): connection refused"
		want := []string{
			"|",
			"vad:1 does not serve: open libonnxruntime.so.1: no such file or directory|open libonnxruntime.so.1: no such file or directory",
			"|worker was killed: out of memory, try 2",
			"vad:1 serves again|",
			"vad:1 does not serve: open libonnxruntime.so.1: no such file or directory|open libonnxruntime.so.1: no such file or directory",
			"vad:1 serves again|",
			"vad:1 does not serve: backend triton is not ready any more|backend triton is not ready any more",
			"vad:1 serves again|",
			"vad:1 does not serve: " + silent + "|" + silent,
			"vad:1 serves again|",
		}
		if got := servingEvents(t, a); !slices.Equal(got, want) {
			t.Errorf("told\n%q\nwant\n%q", got, want)
		}
	})
}
