package inputs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
)

// Bounds on what a source may bring; more is refused before it is read.
const (
	maxFileBytes  = 16 << 20 // of one frame or clip (8 min of sound)
	maxTruthBytes = 4 << 20
	truthFile     = "truth.json"
)

// reel is the files of one source in the order of their names, over and over.
// The folder is read again at the start of each round.
type reel struct {
	path  string
	exts  []string
	sound bool
	truth map[string][]string

	names []string
	next  int
}

func newReel(cfg Source) *reel {
	r := &reel{path: cfg.Path, exts: []string{".jpg", ".jpeg", ".png", ".ppm"}}
	if cfg.Kind == "audio" {
		r.exts, r.sound = []string{".wav"}, true
	}
	return r
}

// item reads and decodes the next file.
func (r *reel) item(context.Context) (shot, error) {
	path, err := r.advance()
	if err != nil {
		return shot{}, err
	}
	it := shot{name: filepath.Base(path), want: r.want(path)}
	data, err := readBounded(path, maxFileBytes)
	if err != nil {
		return shot{}, fmt.Errorf("read item: %w", err)
	}
	if r.sound {
		it.clip, err = pipeline.ParseWAV(data)
	} else {
		it.frame, err = pipeline.DecodeFrame(data)
	}
	if err != nil {
		return shot{}, fmt.Errorf("item %s: %w", it.name, err)
	}
	return it, nil
}

// advance returns the next file's path. A path that is a file is its own reel.
func (r *reel) advance() (string, error) {
	if r.next >= len(r.names) {
		if err := r.rewind(); err != nil {
			return "", err
		}
	}
	name := r.names[r.next]
	r.next++
	return name, nil
}

func (r *reel) rewind() error {
	r.names, r.next, r.truth = nil, 0, nil
	info, err := os.Stat(r.path)
	if err != nil {
		return fmt.Errorf("look at source: %w", err)
	}
	if !info.IsDir() {
		r.names = []string{r.path}
		return nil
	}
	entries, err := os.ReadDir(r.path) // sorted
	if err != nil {
		return fmt.Errorf("list source: %w", err)
	}
	for _, e := range entries {
		if slices.Contains(r.exts, strings.ToLower(filepath.Ext(e.Name()))) {
			r.names = append(r.names, filepath.Join(r.path, e.Name()))
		}
	}
	if len(r.names) == 0 {
		return fmt.Errorf("source folder %s has no %s file", r.path, strings.Join(r.exts, " or "))
	}
	data, err := readBounded(filepath.Join(r.path, truthFile), maxTruthBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r.truth)
	}
	if err != nil {
		r.truth = nil
		return fmt.Errorf("read what is on the frames from %s: %w", truthFile, err)
	}
	return nil
}

// want is the text that is really on a file, or empty.
func (r *reel) want(path string) string {
	return strings.Join(r.truth[filepath.Base(path)], "\n")
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path) // before open, which blocks on a named pipe
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, nil
}
