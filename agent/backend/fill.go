package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/models"
)

// Launch is what one version fills into a Config.
type Launch struct {
	Manifest models.Manifest
	// ID tells this version's containers from all others.
	ID string
	// Dir is a directory for the version's files under their own names, made by
	// Lay; Blobs is where those names lead.
	Dir, Blobs string
	// Port is free on 127.0.0.1.
	Port int
}

// fill replaces the places of one argument.
func (l Launch) fill(text string) (string, error) {
	var faults []error
	out := placeForm.ReplaceAllStringFunc(text, func(place string) string {
		kind, key, _ := strings.Cut(strings.Trim(place, "{}"), ":")
		switch kind {
		case "port":
			return strconv.Itoa(l.Port)
		case "dir":
			return l.Dir
		case "model":
			return l.Manifest.Name
		case "version":
			return l.Manifest.Version
		case "file":
			if _, ok := l.Manifest.File(key); !ok {
				faults = append(faults, fmt.Errorf("the model has no file %q, which runner.yaml asks for", key))
			}
			return filepath.Join(l.Dir, filepath.FromSlash(key))
		}
		v, ok := l.Manifest.Backend.Parameters[key]
		if !ok {
			faults = append(faults, fmt.Errorf("the model has no parameter %q, which runner.yaml asks for", key))
		}
		return v
	})
	return out, errors.Join(faults...)
}

func (l Launch) fillAll(texts []string) ([]string, error) {
	out := make([]string, len(texts))
	var faults []error
	for i, text := range texts {
		var err error
		out[i], err = l.fill(text)
		faults = append(faults, err)
	}
	return out, errors.Join(faults...)
}

// Lay makes Dir anew, with a link for each file: blobs are named by digest,
// and programs look for names.
func (l Launch) Lay(path func(name string) (string, error)) error {
	err := os.RemoveAll(l.Dir)
	if err == nil {
		err = os.MkdirAll(l.Dir, 0o755)
	}
	for _, f := range l.Manifest.Files {
		if err != nil {
			break
		}
		link := filepath.Join(l.Dir, filepath.FromSlash(f.Path))
		var target string
		if target, err = path(f.Path); err == nil {
			target, err = filepath.Abs(target)
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(link), 0o755)
		}
		if err == nil {
			err = os.Symlink(target, link)
		}
	}
	if err != nil {
		return fmt.Errorf("lay out the files of model %s: %w", l.Manifest.Name, err)
	}
	return nil
}

// Clear removes what Lay made.
func (l Launch) Clear() error {
	if err := os.RemoveAll(l.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove links to the files of model %s: %w", l.Manifest.Name, err)
	}
	return nil
}
