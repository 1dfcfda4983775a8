package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// ErrMismatch says that bytes are not what their digest promises.
var ErrMismatch = errors.New("content does not match its digest")

// ErrNoRoom says that a blob does not fit: the disk or a limit is full.
var ErrNoRoom = errors.New("no room for the blob")

// A Store is a directory of blobs. Safe for concurrent use.
type Store struct{ dir string }

// Open returns the store in dir and creates it if needed.
func Open(dir string) (*Store, error) {
	for _, sub := range []string{"sha256", "stage"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("open blob store: %w", err)
		}
	}
	return &Store{dir: dir}, nil
}

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Path is where the blob lies once it is present.
func (s *Store) Path(d Digest) string { return filepath.Join(s.dir, "sha256", d.Hex()) }

// StagePath is where a download of the blob collects its bytes.
func (s *Store) StagePath(d Digest) string { return filepath.Join(s.dir, "stage", d.Hex()+".part") }

// Has reports whether the blob is present.
func (s *Store) Has(d Digest) bool {
	_, err := os.Stat(s.Path(d))
	return err == nil
}

// Size returns the length in bytes, or an error that is fs.ErrNotExist.
func (s *Store) Size(d Digest) (int64, error) {
	fi, err := os.Stat(s.Path(d))
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Get opens a blob for reading.
func (s *Store) Get(d Digest) (*os.File, error) { return os.Open(s.Path(d)) }

// ReadAll returns a small blob; more than limit bytes is an error.
func (s *Store) ReadAll(d Digest, limit int64) ([]byte, error) {
	f, err := s.Get(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("blob %s is longer than %d bytes", d.Short(), limit)
	}
	return data, nil
}

// Put stores what r delivers if its digest is d, else ErrMismatch.
// Putting a blob that is present reads r and changes nothing.
func (s *Store) Put(r io.Reader, d Digest) (err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "stage"), d.Hex()+".put-*")
	if err != nil {
		return fmt.Errorf("stage blob: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), r); err != nil {
		return fmt.Errorf("stage blob: %w", err)
	}
	if Digest(h.Sum(nil)) != d {
		return fmt.Errorf("blob %s: %w", d.Short(), ErrMismatch)
	}
	return s.finish(f, d)
}

// Adopt moves a staged file to its final name after reading it back from disk
// and checking its digest. On ErrMismatch the file stays where it was.
func (s *Store) Adopt(path string, d Digest) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("adopt blob: %w", err)
	}
	defer f.Close()
	got, _, err := SumReader(f)
	if err != nil {
		return fmt.Errorf("adopt blob: %w", err)
	}
	if got != d {
		return fmt.Errorf("blob %s: %w", d.Short(), ErrMismatch)
	}
	return s.finish(f, d)
}

func (s *Store) finish(f *os.File, d Digest) error {
	if err := f.Chmod(0o444); err != nil {
		return fmt.Errorf("finish blob: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync blob: %w", err)
	}
	return durable.Rename(f.Name(), s.Path(d))
}

// Delete removes a blob. A missing blob is not an error.
func (s *Store) Delete(d Digest) error { return durable.Remove(s.Path(d)) }

// FramesPath is where a download of the blob keeps its list of frames.
func (s *Store) FramesPath(d Digest) string {
	return filepath.Join(s.dir, "stage", d.Hex()+".frames")
}

// Unstage removes what a stopped download of the blob left behind.
func (s *Store) Unstage(d Digest) error {
	return errors.Join(durable.Remove(s.StagePath(d)), durable.Remove(s.FramesPath(d)))
}

// SweepStage removes what downloads and uploads left behind that nobody touched
// since before.
func (s *Store) SweepStage(before time.Time) error {
	dir := filepath.Join(s.dir, "stage")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep stage: %w", err)
	}
	var errs []error
	for _, e := range entries {
		// One that is gone by now needs no sweeping.
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			errs = append(errs, durable.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// List returns the digests present, in no order.
func (s *Store) List() ([]Digest, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "sha256"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Digest
	for _, e := range entries {
		if d, err := ParseDigest(prefix + e.Name()); err == nil {
			out = append(out, d)
		}
	}
	return out, nil
}
