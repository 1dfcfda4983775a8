package tufclient_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
)

// T36: whatever a power cut or a dying disk made of the file, the next start
// works and the next refresh heals it.
func TestT36APowerCutAfterARefreshLeavesAWorkingClient(t *testing.T) {
	for name, damage := range map[string]func(whole []byte) []byte{
		"of length zero":       func([]byte) []byte { return nil },
		"gone":                 nil,
		"cut to a page":        func(b []byte) []byte { return b[:4096] },
		"cut in the middle":    func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":                func(b []byte) []byte { return make([]byte, len(b)) },
		"no database":          func([]byte) []byte { return []byte("hello") },
		"one meta page zeroed": func(b []byte) []byte { return append(make([]byte, 4096), b[4096:]...) },
		"all but meta zeroed":  func(b []byte) []byte { return append(bytes.Clone(b[:8192]), make([]byte, len(b)-8192)...) },
		"all but meta 0xff": func(b []byte) []byte {
			return append(bytes.Clone(b[:8192]), bytes.Repeat([]byte{0xff}, len(b)-8192)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.c.Close())
			whole, err := os.ReadFile(w.path)
			w.must(err)
			if damage == nil {
				w.must(os.Remove(w.path))
			} else {
				w.must(os.WriteFile(w.path, damage(whole), 0o600))
			}
			w.open()
			w.must(w.c.Refresh(t.Context()))
			w.must(w.listed(w.v1))
			w.open()
			w.must(w.listed(w.v1))
		})
	}
}

// What the disk has after each write of a refresh, with the bytes of the last
// write in part: the file opens, and knows the old view or the new one.
func TestT36EveryPrefixOfARefreshIsOldOrNew(t *testing.T) {
	w := newWorld(t)
	w.must(w.c.Close())
	before, err := os.ReadFile(w.path)
	w.must(err)
	w.open()
	v2 := w.Model("vad", "2.0.0", "two", 2)
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.c.Close())
	after, err := os.ReadFile(w.path)
	w.must(err)
	// bbolt writes data pages, syncs, then one meta page: any subset of the data
	// pages with the old meta, or all of them with a meta that is half written.
	const page = 4096
	grown := append(bytes.Clone(before), make([]byte, max(0, len(after)-len(before)))...)
	for cut := 2 * page; cut <= len(after); cut += page {
		image := bytes.Clone(grown)
		copy(image[2*page:], after[2*page:cut])
		w.must(w.c.Close())
		w.must(os.WriteFile(w.path, image, 0o600))
		w.open()
		if w.listed(w.v1) != nil || w.listed(v2) == nil {
			t.Fatalf("after %d bytes: old %v, new %v", cut, w.listed(w.v1), w.listed(v2))
		}
	}
	for _, meta := range []int{0, page} {
		image := bytes.Clone(after)
		copy(image[:2*page], before[:2*page])
		copy(image[meta:meta+40], after[meta:meta+40]) // torn
		w.must(w.c.Close())
		w.must(os.WriteFile(w.path, image, 0o600))
		w.open()
		if w.listed(w.v1) != nil {
			t.Fatalf("after a torn meta page: %v", w.listed(w.v1))
		}
	}
}

func TestANewIdentityBeginsFromItsOwnPin(t *testing.T) {
	w := newWorld(t)
	other := trusttest.New(t, w.Now)
	theirs := other.Model("ocr", "1.0.0", "ocr", 1)
	other.Publish()
	w.must(w.c.Close())
	w.Pin, w.Files = other.Pin, other.Files
	w.open()
	if err := w.listed(w.v1); err == nil {
		t.Error("the fleet of before is still believed")
	}
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(theirs))
}

func TestWhatCannotBeStoredIsNotActedOn(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(filepath.Dir(w.path), "missing")
	_, err := tufclient.Open(tufclient.Options{Path: filepath.Join(dir, "trust.db"), Root: w.Pin}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := tufclient.Open(tufclient.Options{Root: []byte("{}")}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a pin that is none was taken")
	}
}
