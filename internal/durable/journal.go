package durable

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A Journal is one JSON value on disk with the version of its shape.
// The zero Version is refused. Not safe for concurrent use.
type Journal struct {
	Path    string
	Version int
	// OnSave, if set, runs after the value has reached the disk. Crash tests
	// return an error from it to stop the program at exactly that point.
	OnSave func() error
}

type journalFile struct {
	Version int             `json:"version"`
	State   json.RawMessage `json:"state"`
}

// Load reads the journal into v. It reports false when there is none yet.
// A journal of a newer version, or one that does not parse, is an error: the
// caller decides whether to start afresh.
func (j Journal) Load(v any) (bool, error) {
	data, err := os.ReadFile(j.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read journal: %w", err)
	}
	var f journalFile
	if err := json.Unmarshal(data, &f); err != nil {
		return false, fmt.Errorf("parse journal %s: %w", j.Path, err)
	}
	if f.Version != j.Version {
		return false, fmt.Errorf("journal %s has version %d, this program reads %d", j.Path, f.Version, j.Version)
	}
	if err := json.Unmarshal(f.State, v); err != nil {
		return false, fmt.Errorf("parse journal %s: %w", j.Path, err)
	}
	return true, nil
}

// Save replaces the journal with v.
func (j Journal) Save(v any) error {
	if j.Version == 0 {
		panic("durable: journal without a version")
	}
	state, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode journal %s: %w", j.Path, err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetIndent("", "  ")
	if err := enc.Encode(journalFile{Version: j.Version, State: state}); err != nil {
		return fmt.Errorf("encode journal %s: %w", j.Path, err)
	}
	if err := WriteFile(j.Path, buf.Bytes(), 0o600); err != nil {
		return err
	}
	if j.OnSave != nil {
		return j.OnSave()
	}
	return nil
}
