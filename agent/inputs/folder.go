package inputs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds on what a source may bring; more is refused before it is read or
// decoded, since a small file can hold a huge picture.
const (
	maxFileBytes  = 16 << 20 // of one frame or clip (8 min of sound)
	maxTruthBytes = 4 << 20
	maxPixels     = 3840 * 2160 // a 4K camera; about 20 bytes each while it is read
	truthFile     = "truth.json"
)

// reel is the files of one source in the order of their names, over and over.
// The folder is read again at the start of each round.
type reel struct {
	path  string
	exts  []string
	truth map[string][]string

	names []string
	next  int
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

// decodeFrame decodes a JPEG picture unless it is larger than maxPixels.
func decodeFrame(data []byte) (planes, error) {
	cfg, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return planes{}, fmt.Errorf("read header of frame: %w", err)
	}
	if cfg.Width <= 0 || cfg.Height <= 0 || cfg.Width > maxPixels/cfg.Height {
		return planes{}, fmt.Errorf("frame has %d × %d pixels, at most %d are read", cfg.Width, cfg.Height, maxPixels)
	}
	img, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return planes{}, fmt.Errorf("decode frame: %w", err)
	}
	return toPlanes(img), nil
}

// pipeline turns the content of one file into a reading.
type pipeline func(ctx context.Context, data []byte) (reading, error)

// pipelineFor returns the pipeline of a source and the files it takes.
func pipelineFor(s Source, opts Options) (pipeline, []string, error) {
	switch {
	case s.Kind == "folder" && s.Pipeline == "label-reader":
		l := &labelReader{infer: opts.Infer, modelFile: opts.ModelFile}
		return func(ctx context.Context, data []byte) (reading, error) {
			p, err := decodeFrame(data)
			if err != nil {
				return reading{}, err
			}
			return l.read(ctx, p)
		}, []string{".jpg", ".jpeg"}, nil
	case s.Kind == "audio" && s.Pipeline == "voice-activity":
		v := &voiceActivity{infer: opts.Infer}
		return func(ctx context.Context, data []byte) (reading, error) {
			clip, err := parseWAV(data)
			if err != nil {
				return reading{}, err
			}
			return v.read(ctx, clip)
		}, []string{".wav"}, nil
	}
	return nil, nil, fmt.Errorf("input %s: kind %q with pipeline %q is unknown; use folder with label-reader, or audio with voice-activity",
		s.Name, s.Kind, s.Pipeline)
}
