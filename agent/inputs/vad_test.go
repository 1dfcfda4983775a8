package inputs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/models"
)

// TestSpeechIsFoundAndSilenceIsNot runs both versions that fleets roll between.
func TestSpeechIsFoundAndSilenceIsNot(t *testing.T) {
	clip, err := parseWAV(labels.Clip())
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"silero-vad-5.0.0", "silero-vad-6.0.0"} {
		t.Run(folder, func(t *testing.T) {
			v := &voiceActivity{infer: startModels(t, map[string]string{vadModel: folder}).infer}
			// Three seconds of a voice between two of silence.
			pause := make([]float32, sampleRate)
			got, err := v.read(context.Background(), append(append(append([]float32(nil), pause...), clip...), pause...))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(got.text, got.score)
			probs, _, err := v.probabilities(context.Background(), clip)
			if err != nil {
				t.Fatal(err)
			}
			speech := 0
			for _, s := range segments(probs, len(clip)) {
				speech += s.to - s.from
			}
			if speech < len(clip)/2 {
				t.Errorf("%d of %d samples are speech, want most", speech, len(clip))
			}
			silent, err := v.read(context.Background(), make([]float32, 2*sampleRate))
			if err != nil {
				t.Fatal(err)
			}
			if silent.text != "no speech in 2.0 s" || silent.score < 0.9 {
				t.Errorf("silence reads %q with score %v", silent.text, silent.score)
			}
			if want := []string{strings.Replace(folder, "vad-", "vad:", 1)}; !reflect.DeepEqual(got.models, want) {
				t.Errorf("models %v, want %v", got.models, want)
			}
		})
	}
}

func TestClipIsReadAgainWhenTheModelIsSwitchedInIt(t *testing.T) {
	calls := 0
	v := &voiceActivity{infer: func(context.Context, string, []worker.Tensor) ([]worker.Tensor, models.Ref, error) {
		calls++
		ref := models.Ref{Name: vadModel, Version: "5"}
		if calls > 2 {
			ref.Version = "6"
		}
		state := fp32([]int64{2, 1, 128}, make([]float32, 256)...)
		state.Name = "stateN"
		out := fp32([]int64{1, 1}, 0.9)
		out.Name = "output"
		return []worker.Tensor{out, state}, ref, nil
	}}
	got, err := v.read(context.Background(), make([]float32, 4*vadWindow))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"silero-vad:6"}; !reflect.DeepEqual(got.models, want) || calls != 3+4 {
		t.Errorf("models %v after %d calls, want %v after 7", got.models, calls, want)
	}
}

func TestSegmentsByHand(t *testing.T) {
	// A window is 32 ms; 4 windows of silence (128 ms) end a segment, 8 windows
	// of speech (256 ms) are enough, padding is 480 samples.
	seq := func(pairs ...float32) (p []float32) { // probability, count, …
		for i := 0; i < len(pairs); i += 2 {
			for range int(pairs[i+1]) {
				p = append(p, pairs[i])
			}
		}
		return p
	}
	const w, pad = vadWindow, speechPadding
	tests := []struct {
		name  string
		probs []float32
		want  []segment
	}{
		{"none", seq(0.1, 20), nil},
		{"one", seq(0.1, 10, 0.9, 10, 0.1, 10), []segment{{10*w - pad, 20*w + pad}}},
		{"too short", seq(0.1, 10, 0.9, 7, 0.1, 10), nil},
		{"a breath inside", seq(0.1, 2, 0.9, 8, 0.1, 3, 0.9, 8, 0.1, 8), []segment{{2*w - pad, 21*w + pad}}},
		{"murmur keeps it open", seq(0.9, 8, 0.4, 20, 0.1, 8), []segment{{0, 28*w + pad}}},
		{"to the end", seq(0.1, 4, 0.9, 10), []segment{{4*w - pad, 14 * w}}},
		{"two", seq(0.9, 8, 0.1, 10, 0.9, 8, 0.1, 5), []segment{{0, 8*w + pad}, {18*w - pad, 26*w + pad}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := segments(tt.probs, len(tt.probs)*w); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got, want := describe([]segment{{5600, 19200}}, 32000), "0.35-1.20 s; speech 42 % of 2.0 s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWindowComesWithTheEndOfTheOneBefore(t *testing.T) {
	clip := make([]float32, vadWindow+100)
	for i := range clip {
		clip[i] = float32(i + 1)
	}
	state := fp32([]int64{2, 1, 128}, make([]float32, vadState)...)
	for _, tt := range []struct{ at, first, context, last int }{
		{0, 0, 1, vadWindow}, // silence before the clip
		{vadWindow, vadWindow - vadContext + 1, vadWindow + 1, 0}, // and after it
	} {
		v, err := floats(vadInputs(clip, tt.at, state)[0])
		if err != nil {
			t.Fatal(err)
		}
		got := []int{int(v[0]), int(v[vadContext]), int(v[len(v)-1])}
		if want := []int{tt.first, tt.context, tt.last}; len(v) != vadContext+vadWindow || !reflect.DeepEqual(got, want) {
			t.Errorf("window at %d: starts, goes on and ends with %v of %d, want %v", tt.at, got, len(v), want)
		}
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
	for _, v := range []uint16{1, 1, sampleRate, 0, 2 * sampleRate, 0, 2, 16} {
		b.Write(le.AppendUint16(nil, v))
	}
	b.WriteString("data")
	b.Write(le.AppendUint32(nil, uint32(2*len(pcm))))
	for _, v := range pcm {
		b.Write(le.AppendUint16(nil, uint16(v)))
	}
	return b.Bytes()
}

func TestWAVIsReadOrRefused(t *testing.T) {
	good := wav([]int16{0, 16384, -32768})
	got, err := parseWAV(good)
	if want := []float32{0, 0.5, -1}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	listed := append(bytes.Clone(good[:36]), append([]byte("LIST\x03\x00\x00\x00abc\x00"), good[36:]...)...)
	if got, err := parseWAV(listed); err != nil || len(got) != 3 {
		t.Errorf("with a part of odd length before the data: %v, %v", got, err)
	}
	if got, err := parseWAV(change(40, 0xff, 0xff, 0xff, 0xff)); err != nil || len(got) != 3 {
		t.Errorf("of unknown length: %v, %v", got, err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "cut in its data": good[:len(good)-1], "cut in its format": good[:30],
		"stereo": change(22, 2), "8 kHz": change(24, 0x40, 0x1f), "8 bits": change(34, 8), "a-law": change(20, 6),
		"no data": good[:36],
	} {
		if got, err := parseWAV(data); err == nil || got != nil {
			t.Errorf("%s: %v without an error", name, got)
		}
	}
	if _, err := parseWAV([]byte("hello, world")); !errors.Is(err, errNotWAV) {
		t.Errorf("text: %v, want %v", err, errNotWAV)
	}
}

func FuzzWAV(f *testing.F) {
	f.Add(wav([]int16{1, 2, 3}))
	f.Add(labels.Clip()[:2000])
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseWAV(data)
		if err != nil {
			if got != nil {
				t.Fatalf("%d samples with %v", len(got), err)
			}
			return
		}
		// What was read can be written, and reads the same again.
		pcm := make([]int16, len(got))
		for i, v := range got {
			pcm[i] = int16(v * 32768)
		}
		again, err := parseWAV(wav(pcm))
		if err != nil || len(again) != len(got) || len(got) > 0 && !reflect.DeepEqual(again, got) {
			t.Fatalf("%d samples became %d: %v", len(got), len(again), err)
		}
	})
}
