package pipeline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/edgeherd/edgeherd/internal/labels"
)

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
	const w, pad = 512, 480
	rule := speechRule{start: 0.5, end: 0.35, hop: w, least: 4000, silence: 1600, padding: pad}
	tests := []struct {
		name  string
		probs []float32
		want  []segment
	}{
		{"none", seq(0.1, 20), nil},
		{"one", seq(0.1, 10, 0.9, 10, 0.1, 10), []segment{{from: 10*w - pad, to: 20*w + pad}}},
		{"too short", seq(0.1, 10, 0.9, 7, 0.1, 10), nil},
		{"a breath inside", seq(0.1, 2, 0.9, 8, 0.1, 3, 0.9, 8, 0.1, 8), []segment{{from: 2*w - pad, to: 21*w + pad}}},
		{"murmur keeps it open", seq(0.9, 8, 0.4, 20, 0.1, 8), []segment{{from: 0, to: 28*w + pad}}},
		{"to the end", seq(0.1, 4, 0.9, 10), []segment{{from: 4*w - pad, to: 14 * w}}},
		{"two", seq(0.9, 8, 0.1, 10, 0.9, 8, 0.1, 5), []segment{{from: 0, to: 8*w + pad}, {from: 18*w - pad, to: 26*w + pad}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := rule.segments(tt.probs, len(tt.probs)*w); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got, want := describe("speech", []segment{{from: 5600, to: 19200}}, 32000), "0.35-1.20 s; speech 42 % of 2.0 s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWindowComesWithTheEndOfTheOneBefore(t *testing.T) {
	clip := make([]float32, 512+100)
	for i := range clip {
		clip[i] = float32(i + 1)
	}
	cut := windowing{input: "input", size: 512, context: 64}
	for _, tt := range []struct{ at, first, context, last int }{
		{0, 0, 1, 512},                  // silence before the clip
		{512, 512 - 64 + 1, 512 + 1, 0}, // and after it
	} {
		v, err := numbers(cut.window(clip, tt.at))
		if err != nil {
			t.Fatal(err)
		}
		got := []int{int(v[0]), int(v[64]), int(v[len(v)-1])}
		if want := []int{tt.first, tt.context, tt.last}; len(v) != 64+512 || !reflect.DeepEqual(got, want) {
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
	got, err := ParseWAV(good)
	if want := []float32{0, 0.5, -1}; err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	listed := append(bytes.Clone(good[:36]), append([]byte("LIST\x03\x00\x00\x00abc\x00"), good[36:]...)...)
	if got, err := ParseWAV(listed); err != nil || len(got) != 3 {
		t.Errorf("with a part of odd length before the data: %v, %v", got, err)
	}
	if got, err := ParseWAV(change(40, 0xff, 0xff, 0xff, 0xff)); err != nil || len(got) != 3 {
		t.Errorf("of unknown length: %v, %v", got, err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "cut in its data": good[:len(good)-1], "cut in its format": good[:30],
		"stereo": change(22, 2), "8 kHz": change(24, 0x40, 0x1f), "8 bits": change(34, 8), "a-law": change(20, 6),
		"no data": good[:36],
	} {
		if got, err := ParseWAV(data); err == nil || got != nil {
			t.Errorf("%s: %v without an error", name, got)
		}
	}
	if _, err := ParseWAV([]byte("hello, world")); !errors.Is(err, errNotWAV) {
		t.Errorf("text: %v, want %v", err, errNotWAV)
	}
}

func FuzzWAV(f *testing.F) {
	f.Add(wav([]int16{1, 2, 3}))
	f.Add(labels.Clip()[:2000])
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseWAV(data)
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
		again, err := ParseWAV(wav(pcm))
		if err != nil || len(again) != len(got) || len(got) > 0 && !reflect.DeepEqual(again, got) {
			t.Fatalf("%d samples became %d: %v", len(got), len(again), err)
		}
	})
}
