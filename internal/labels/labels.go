// Package labels makes what the simulated cameras and microphones of a demo
// fleet see and hear: pictures of shipping labels whose text is known, and one
// short recording of a voice.
//
// Vocabulary: a frame is one camera picture, 640 × 480, of one label on
// cardboard; its lines are the text that is really on it, top to bottom; a kind
// says what is wrong with the picture (nothing, tilted, out of focus …). The
// same seed and kind give the same pixels on every machine.
//
// On disk a folder of frames is NNN-kind.jpg beside truth.json, which maps each
// file name to its lines; a pipeline that reads the folder can so be judged.
// clip.wav is a public-domain recording, see LICENSE-clip.txt.
//
// The one rule a caller can break: a Frame's image is the caller's own to
// change, its Lines are not.
package labels

import (
	"bytes"
	_ "embed" // clip.wav
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// Width and Height are the size of a frame in pixels.
const (
	Width  = 640
	Height = 480
)

// TruthFile is the name of the file that tells what is on each frame.
const TruthFile = "truth.json"

// Kind says what is wrong with a frame.
type Kind string

// The kinds of frames.
const (
	Clean      Kind = "clean"
	Tilted     Kind = "tilted"     // turned by 3 to 9 degrees either way
	UpsideDown Kind = "upsidedown" // turned by 180 degrees, give or take 3
	Blurred    Kind = "blurred"    // out of focus
	Shaded     Kind = "shaded"     // light from one side, a lamp's spot
	Noisy      Kind = "noisy"      // a sensor in the dark
	Squeezed   Kind = "squeezed"   // JPEG quality 8 to 16, a thin link
)

// Degraded lists all kinds but Clean.
func Degraded() []Kind {
	return []Kind{Tilted, UpsideDown, Blurred, Shaded, Noisy, Squeezed}
}

// Frame is one picture of a label.
type Frame struct {
	Name  string // <seed>-<kind>, without extension
	Kind  Kind
	Image *image.RGBA
	// Lines is the text on the label, top to bottom.
	Lines []string
	// Quality is the JPEG quality that the camera uses, 1 to 100.
	Quality int
}

// Render draws the frame of a seed. An unknown kind is drawn clean.
func Render(seed int64, kind Kind) Frame {
	rng := rand.New(rand.NewPCG(uint64(seed), 0x6c6162656c73))
	l := newLabel(rng)
	f := Frame{
		Name:    fmt.Sprintf("%d-%s", seed, kind),
		Kind:    kind,
		Image:   image.NewRGBA(image.Rect(0, 0, Width, Height)),
		Lines:   l.lines(),
		Quality: 90,
	}
	cardboard(f.Image, rng)
	l.draw(f.Image, rng)
	degrade(&f, rng)
	return f
}

// JPEG encodes the frame as its camera would.
func (f Frame) JPEG() ([]byte, error) {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, f.Image, &jpeg.Options{Quality: f.Quality}); err != nil {
		return nil, fmt.Errorf("encode frame %s: %w", f.Name, err)
	}
	return buf.Bytes(), nil
}

// WriteFolder fills dir with n frames and truth.json. Every third frame is
// clean, the others go through all kinds in turn. truth.json comes last: a
// folder that has it is complete.
func WriteFolder(dir string, n int, seed int64) error {
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make frame folder: %w", err)
	}
	truth := make(map[string][]string, n)
	for i := range n {
		f := Render(seed+int64(i), kindOf(i))
		data, err := f.JPEG()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%03d-%s.jpg", i, f.Kind)
		if err := writeFrame(filepath.Join(dir, name), data); err != nil {
			return fmt.Errorf("write frame folder: %w", err)
		}
		truth[name] = slices.Clone(f.Lines)
	}
	data, err := json.MarshalIndent(truth, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", TruthFile, err)
	}
	return durable.WriteFile(filepath.Join(dir, TruthFile), append(data, '\n'), 0o644)
}

// writeFrame does without the syncs of internal/durable: a frame is no state,
// its seed draws it again.
func writeFrame(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func kindOf(i int) Kind {
	if i%3 == 0 {
		return Clean
	}
	d := Degraded()
	return d[(i-i/3-1)%len(d)]
}

//go:embed clip.wav
var clip []byte

// Clip returns a WAV file (16 kHz, mono, 16 bit) of 3.0 s of speech.
func Clip() []byte { return bytes.Clone(clip) }

// WriteClip writes Clip to path.
func WriteClip(path string) error { return durable.WriteFile(path, clip, 0o644) }
