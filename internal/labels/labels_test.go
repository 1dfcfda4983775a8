package labels

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestSeedGivesTheSamePixels: figures of reading quality are
// comparable between machines and releases only while these stay.
func TestSeedGivesTheSamePixels(t *testing.T) {
	for _, kind := range append([]Kind{Clean}, Degraded()...) {
		a, b, other := Render(7, kind), Render(7, kind), Render(8, kind)
		if !bytes.Equal(a.Image.Pix, b.Image.Pix) || !reflect.DeepEqual(a.Lines, b.Lines) {
			t.Errorf("%s: two frames of one seed differ", kind)
		}
		if crc32.ChecksumIEEE(a.Image.Pix) == crc32.ChecksumIEEE(other.Image.Pix) || reflect.DeepEqual(a.Lines, other.Lines) {
			t.Errorf("%s: two seeds give one frame", kind)
		}
	}
}

func TestEveryKindChangesThePicture(t *testing.T) {
	clean := Render(7, Clean)
	for _, kind := range Degraded() {
		f := Render(7, kind)
		if !reflect.DeepEqual(f.Lines, clean.Lines) {
			t.Errorf("%s: other text than clean: %v", kind, f.Lines)
		}
		if bytes.Equal(f.Image.Pix, clean.Image.Pix) && f.Quality == clean.Quality {
			t.Errorf("%s: looks like clean", kind)
		}
	}
}

func TestLinesHaveTheirForm(t *testing.T) {
	for seed := range uint64(200) {
		lines := newLabel(rand.New(rand.NewPCG(seed, 0))).lines()
		var branch, consignment, a, b, qty int
		text := strings.Join(lines, "\n")
		if n, err := fmt.Sscanf(text, "BRANCH %03d\nCN%08d\nART-%04d-%02d", &branch, &consignment, &a, &b); n != 4 {
			t.Fatalf("seed %d: %q: %v", seed, text, err)
		}
		if n, err := fmt.Sscanf(lines[4], "QTY %d", &qty); n != 1 || branch < 1 || qty < 2 || len(lines) != 5 {
			t.Fatalf("seed %d: %q: %v", seed, text, err)
		}
	}
}

func TestFolderHoldsAllKindsAndTheTruth(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cam-1")
	const n, seed = 9, 100
	if err := WriteFolder(dir, n, seed); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, TruthFile))
	if err != nil {
		t.Fatal(err)
	}
	var truth map[string][]string
	if err := json.Unmarshal(data, &truth); err != nil {
		t.Fatal(err)
	}
	kinds := map[Kind]int{}
	for i := range n {
		kind := kindOf(i)
		kinds[kind]++
		name := fmt.Sprintf("%03d-%s.jpg", i, kind)
		if !reflect.DeepEqual(truth[name], Render(seed+int64(i), kind).Lines) {
			t.Errorf("%s: truth is %v", name, truth[name])
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := jpeg.DecodeConfig(f)
		f.Close()
		if err != nil || cfg.Width != Width || cfg.Height != Height {
			t.Errorf("%s: %d × %d, %v", name, cfg.Width, cfg.Height, err)
		}
	}
	if len(truth) != n || kinds[Clean] != 3 || len(kinds) != 1+len(Degraded()) {
		t.Errorf("%d frames of kinds %v", len(truth), kinds)
	}
	if err := WriteFolder(dir, n, seed); err != nil {
		t.Errorf("write over: %v", err)
	}
}

func TestClipIsWrittenWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clip.wav")
	if err := WriteClip(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, Clip()) || !bytes.HasPrefix(got, []byte("RIFF")) || len(got) > 100_000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
