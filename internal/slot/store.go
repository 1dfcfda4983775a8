package slot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// Environment variables by which the launcher tells the agent where it runs.
const (
	EnvSlot = "EDGEHERD_SLOT"
	EnvDir  = "EDGEHERD_LAUNCHER_STATE"
)

// ErrUnreadable says that launcher.json is damaged.
var ErrUnreadable = errors.New("launcher state is damaged")

// ErrOccupied says that there is an agent already.
var ErrOccupied = errors.New("an agent is installed already")

// Store is the launcher's directory.
type Store struct {
	Dir string
	// OnStep, if set, runs after each durable step. Crash tests return an
	// error from it to stop the program at exactly that point.
	OnStep func(step string) error
}

func (d Store) step(name string) error {
	if d.OnStep == nil {
		return nil
	}
	return d.OnStep(name)
}

// Path is where the program of a slot lies.
func (d Store) Path(id ID) string { return filepath.Join(d.Dir, "slots", string(id), "agent") }

// StagePath is where a program is written before Seal.
func (d Store) StagePath(id ID) string {
	return filepath.Join(d.Dir, "slots", string(id), ".agent.new")
}

func (d Store) statePath() string { return filepath.Join(d.Dir, "launcher.json") }

// Encode returns the text of launcher.json: JSON and a checksum line.
func Encode(s State) ([]byte, error) {
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode launcher state: %w", err)
	}
	return seal(append(body, '\n')), nil
}

func seal(body []byte) []byte {
	return fmt.Appendf(body, "%s\n", blob.Sum(body))
}

// maxStateBytes bounds launcher.json; 32 failures need 4 KB.
const maxStateBytes = 64 << 10

// Parse reads the text of launcher.json. Every error is ErrUnreadable.
func Parse(data []byte) (State, error) {
	if len(data) > maxStateBytes {
		return State{}, fmt.Errorf("%w: %d bytes", ErrUnreadable, len(data))
	}
	cut := bytes.LastIndexByte(bytes.TrimSuffix(data, []byte("\n")), '\n') + 1
	body := data[:cut]
	if !bytes.Equal(seal(bytes.Clone(body)), data) {
		return State{}, fmt.Errorf("%w: wrong checksum", ErrUnreadable)
	}
	var s State
	if err := json.Unmarshal(body, &s); err != nil {
		return State{}, fmt.Errorf("%w: %v", ErrUnreadable, err)
	}
	if err := s.validate(); err != nil {
		return State{}, fmt.Errorf("%w: %v", ErrUnreadable, err)
	}
	return s, nil
}

func (s State) validate() error {
	t := s.Trial
	switch {
	case s.V != FormatVersion:
		return fmt.Errorf("format %d, this program reads %d", s.V, FormatVersion)
	case !s.Good.Valid():
		return fmt.Errorf("good slot %q", s.Good)
	case t.Slot == "" && t != (Trial{}):
		return errors.New("trial without a slot")
	case t.Slot != "" && (t.Slot != s.Good.Other() || t.Tries < 0 || t.Max < 1 || t.Max > maxTries):
		return fmt.Errorf("trial %+v beside good slot %s", t, s.Good)
	case s.Backoff.Level < 0 || s.Backoff.Level > 8 || len(s.Backoff.Starts) > crashLoopStarts:
		return errors.New("back-off out of range")
	case len(s.Failed) > maxFailures:
		return fmt.Errorf("%d failures", len(s.Failed))
	}
	return nil
}

// Load reads the state. A missing file is fs.ErrNotExist, a damaged one is
// ErrUnreadable.
func (d Store) Load() (State, error) {
	data, err := os.ReadFile(d.statePath())
	if err != nil {
		return State{}, fmt.Errorf("read launcher state: %w", err)
	}
	s, err := Parse(data)
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", d.statePath(), err)
	}
	return s, nil
}

// Save replaces the state on disk and counts the generation.
func (d Store) Save(s State) error {
	s.Gen++
	data, err := Encode(s)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(d.statePath(), data, 0o644); err != nil {
		return fmt.Errorf("save launcher state: %w", err)
	}
	return d.step("state saved")
}

// Find hashes what lies in the slots.
func (d Store) Find() Facts {
	return Facts{Found: Pair[blob.Digest]{A: sumFile(d.Path(A)), B: sumFile(d.Path(B))}}
}

// sumFile returns the zero digest for what cannot be a program.
func sumFile(path string) blob.Digest {
	f, err := os.Open(path)
	if err != nil {
		return blob.Digest{}
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return blob.Digest{}
	}
	sum, n, err := blob.SumReader(f)
	if err != nil || n == 0 {
		return blob.Digest{}
	}
	return sum
}

// Choose picks the slot to start and saves the decision first. If it cannot be
// saved, the choice is one that needs no saving.
func (d Store) Choose(broken Pair[bool], now time.Time) (Choice, error) {
	s, loadErr := d.Load()
	known := loadErr == nil
	if errors.Is(loadErr, fs.ErrNotExist) {
		loadErr = nil
	}
	f := d.Find()
	f.Broken = broken
	c := Pick(s, known, f, now)
	if !c.Save {
		return c, loadErr
	}
	saveErr := d.Save(c.State)
	if saveErr != nil {
		f.ReadOnly = true
		c = Pick(s, known, f, now)
		c.Save = false
	}
	return c, errors.Join(loadErr, saveErr)
}

// Prepare creates the directory of a slot.
func (d Store) Prepare(id ID) error {
	for _, dir := range []string{d.Dir, filepath.Join(d.Dir, "slots"), filepath.Join(d.Dir, "slots", string(id))} {
		if err := durable.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("create slot %s: %w", id, err)
		}
	}
	return nil
}

// Seal makes the staged file the program of a slot: synced, read back, its
// digest compared, renamed.
func (d Store) Seal(id ID, want blob.Digest) error {
	path := d.StagePath(id)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("seal slot %s: %w", id, err)
	}
	defer f.Close()
	if err := errors.Join(f.Chmod(0o755), f.Sync()); err != nil {
		return fmt.Errorf("seal slot %s: %w", id, err)
	}
	if err := d.step("program synced"); err != nil {
		return err
	}
	got, _, err := blob.SumReader(f)
	if err != nil {
		return fmt.Errorf("seal slot %s: %w", id, err)
	}
	if got != want {
		return fmt.Errorf("seal slot %s: %w", id, blob.ErrMismatch)
	}
	if err := durable.Rename(path, d.Path(id)); err != nil {
		return fmt.Errorf("seal slot %s: %w", id, err)
	}
	return d.step("program renamed")
}

// Install puts the first agent of a box into slot a. It refuses with
// ErrOccupied if another agent is there; installing the same one again repairs
// a damaged slot and changes nothing else.
func (d Store) Install(program io.Reader) (blob.Digest, error) {
	s, err := d.Load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = State{V: FormatVersion, Good: A}
	case err != nil:
		return blob.Digest{}, fmt.Errorf("install agent: %w", err)
	}
	want, err := d.stage(s.Good, program)
	if err != nil {
		return blob.Digest{}, fmt.Errorf("install agent: %w", err)
	}
	defer os.Remove(d.StagePath(s.Good))
	if s.Gen > 0 && s.Sum.Of(s.Good) != want {
		return blob.Digest{}, fmt.Errorf("%s: %w", d.Dir, ErrOccupied)
	}
	if err := d.Seal(s.Good, want); err != nil {
		return blob.Digest{}, err
	}
	if s.Gen > 0 {
		return want, nil
	}
	s.Sum.A = want
	return want, d.Save(s)
}

func (d Store) stage(id ID, program io.Reader) (blob.Digest, error) {
	if err := d.Prepare(id); err != nil {
		return blob.Digest{}, err
	}
	f, err := os.OpenFile(d.StagePath(id), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return blob.Digest{}, err
	}
	defer f.Close()
	sum, n, err := blob.SumReader(io.TeeReader(program, f))
	if err == nil && n == 0 {
		err = errors.New("the file is empty")
	}
	return sum, err
}
