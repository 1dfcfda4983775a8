package pipeline_test

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/inputs/pipelinetest"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/labels"
)

// TestSpeechIsFoundAndSilenceIsNot runs both versions that fleets roll between.
func TestSpeechIsFoundAndSilenceIsNot(t *testing.T) {
	clip, err := pipeline.ParseWAV(labels.Clip())
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"silero-vad-5.0.0", "silero-vad-6.0.0"} {
		t.Run(folder, func(t *testing.T) {
			b := pipelinetest.Start(t, folder)
			r := pipeline.New("voice-activity", b.Infer, b)
			// Three seconds of a voice between two of silence.
			pause := make([]float32, 16000)
			got, err := r.Clip(context.Background(), append(append(append([]float32(nil), pause...), clip...), pause...))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(got.Text, got.Score)
			var speech float64
			for _, f := range got.Findings {
				if f.Label != "speech" || f.Score < 0.5 || f.FromSeconds < 0.9 {
					t.Errorf("finding %+v", f)
				}
				speech += f.ToSeconds - f.FromSeconds
			}
			if total := float64(len(clip)) / 16000; speech < total/2 || len(got.Seen) < 90 {
				t.Errorf("%v of %v s are speech, %d windows, want most", speech, total, len(got.Seen))
			}
			silent, err := r.Clip(context.Background(), make([]float32, 2*16000))
			if err != nil {
				t.Fatal(err)
			}
			if silent.Text != "no speech in 2.0 s" || silent.Score < 0.9 {
				t.Errorf("silence reads %q with score %v", silent.Text, silent.Score)
			}
			if want := []string{strings.Replace(folder, "vad-", "vad:", 1)}; !reflect.DeepEqual(got.Models, want) {
				t.Errorf("models %v, want %v", got.Models, want)
			}
		})
	}
}

// TestClipIsHeardAgainWhenTheModelIsSwitchedInIt: the state of one version means
// nothing to another.
func TestClipIsHeardAgainWhenTheModelIsSwitchedInIt(t *testing.T) {
	b := pipelinetest.Start(t, "silero-vad-5.0.0")
	calls := 0
	infer := func(ctx context.Context, model string, in []worker.Tensor) ([]worker.Tensor, pipeline.By, error) {
		if calls++; calls == 3 {
			b.Swap(t, "silero-vad-6.0.0")
		}
		return b.Infer(ctx, model, in)
	}
	got, err := pipeline.New("voice-activity", infer, b).Clip(t.Context(), make([]float32, 4*512))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"silero-vad:6.0.0"}; !reflect.DeepEqual(got.Models, want) || calls != 3+4 {
		t.Errorf("models %v after %d calls, want %v after 7", got.Models, calls, want)
	}
}
