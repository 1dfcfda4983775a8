package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// ErrMismatch says that bytes are not what their digest promises.
var ErrMismatch = errors.New("content does not match its digest")

// ErrNoRoom says that a blob does not fit: the disk is full, which may pass, or
// it is ErrTooLarge.
var ErrNoRoom = errors.New("no room for the blob")

// ErrTooLarge says that a blob will never fit: a limit or the file system takes
// none of its size.
var ErrTooLarge = fmt.Errorf("too large: %w", ErrNoRoom)

// Remote is a store of others behind a directory: what is put goes there as well,
// and what the directory lacks comes from there. The directory is then a cache.
type Remote interface {
	// Put copies the file at path, which has been checked.
	Put(path string, d Digest) error
	// Open reads a blob; an error that is fs.ErrNotExist says that it is not there.
	Open(d Digest) (io.ReadSeekCloser, error)
	// Size is its length, with the same errors.
	Size(d Digest) (int64, error)
	// Delete removes a blob. A missing one is not an error.
	Delete(d Digest) error
}

// A Store is a directory of blobs. Safe for concurrent use.
type Store struct {
	dir    string
	remote Remote // nil: none
}

// Open returns the store in dir and creates it if needed.
func Open(dir string) (*Store, error) {
	for _, sub := range []string{"sha256", "stage"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("open blob store: %w", err)
		}
	}
	return &Store{dir: dir}, nil
}

// Backed returns the store with a remote one behind it.
func (s *Store) Backed(r Remote) *Store { return &Store{dir: s.dir, remote: r} }

// Dir is the directory of the store.
func (s *Store) Dir() string { return s.dir }

// Path is where the blob lies once it is present.
func (s *Store) Path(d Digest) string { return filepath.Join(s.dir, "sha256", d.Hex()) }

// StagePath is where a download of the blob collects its bytes.
func (s *Store) StagePath(d Digest) string { return filepath.Join(s.dir, "stage", d.Hex()+".part") }

// Has reports whether the blob is present.
func (s *Store) Has(d Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Size returns the length in bytes, or an error that is fs.ErrNotExist.
func (s *Store) Size(d Digest) (int64, error) {
	fi, err := os.Stat(s.Path(d))
	if err == nil {
		return fi.Size(), nil
	}
	if s.remote != nil && errors.Is(err, fs.ErrNotExist) {
		return s.remote.Size(d)
	}
	return 0, err
}

// Get opens a blob for reading; it is brought into the directory if it is
// elsewhere.
func (s *Store) Get(d Digest) (*os.File, error) {
	f, err := os.Open(s.Path(d))
	if s.remote == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	r, err := s.remote.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := s.put(r, d, durable.Rename); err != nil {
		return nil, err
	}
	return os.Open(s.Path(d))
}

// Stream reads a blob from where it is: nothing is brought into the directory.
func (s *Store) Stream(d Digest) (io.ReadSeekCloser, error) {
	f, err := os.Open(s.Path(d))
	if err == nil {
		return f, nil
	}
	if s.remote != nil && errors.Is(err, fs.ErrNotExist) {
		return s.remote.Open(d)
	}
	return nil, err
}

// Verify hashes a blob as it lies in the directory and, if there is one, in the
// remote store, and returns its length. What is wrong is ErrMismatch.
func (s *Store) Verify(d Digest) (n int64, err error) {
	check := func(r io.ReadCloser, where string) error {
		defer r.Close()
		got, size, err := SumReader(r)
		if n = size; err == nil && got != d {
			err = fmt.Errorf("%s it is %s: %w", where, got.Short(), ErrMismatch)
		}
		return err
	}
	f, err := os.Open(s.Path(d))
	if err == nil {
		err = check(f, "in the directory")
	} else if s.remote != nil && errors.Is(err, fs.ErrNotExist) {
		err = nil // a cache need not have it
	}
	if err != nil || s.remote == nil {
		return n, err
	}
	r, err := s.remote.Open(d)
	if err != nil {
		return 0, err
	}
	return n, check(r, "in the remote store")
}

// Trim removes the files that were read longest ago from the directory of a store
// with a remote one, until at most so many bytes are left. What the remote store
// does not have stays.
func (s *Store) Trim(most int64) error {
	if s.remote == nil {
		return nil
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	infos, total := map[Digest]fs.FileInfo{}, int64(0)
	for _, d := range list {
		if fi, err := os.Stat(s.Path(d)); err == nil {
			infos[d], total = fi, total+fi.Size()
		}
	}
	slices.SortFunc(list, func(a, b Digest) int { return usedAt(infos[a]).Compare(usedAt(infos[b])) })
	var errs []error
	for _, d := range list {
		if total <= most || infos[d] == nil {
			continue
		}
		if n, err := s.remote.Size(d); err != nil || n != infos[d].Size() {
			continue
		}
		errs = append(errs, durable.Remove(s.Path(d)))
		total -= infos[d].Size()
	}
	return errors.Join(errs...)
}

// usedAt is when a file was last read, as far as the filesystem keeps that, or
// written.
func usedAt(fi fs.FileInfo) (at time.Time) {
	if fi == nil {
		return at
	}
	at = fi.ModTime()
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		if read := time.Unix(st.Atim.Unix()); read.After(at) {
			at = read
		}
	}
	return at
}

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
func (s *Store) Put(r io.Reader, d Digest) error { return s.put(r, d, s.rename) }

func (s *Store) put(r io.Reader, d Digest, rename func(from, to string) error) error {
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
	return s.finish(f, d, rename)
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
	return s.finish(f, d, s.rename)
}

// rename gives a checked file its final name, in the remote store first.
func (s *Store) rename(from, to string) error {
	if s.remote != nil {
		d, err := ParseDigest(prefix + filepath.Base(to))
		if err == nil {
			err = s.remote.Put(from, d)
		}
		if err != nil {
			return err
		}
	}
	return durable.Rename(from, to)
}

func (s *Store) finish(f *os.File, d Digest, rename func(from, to string) error) error {
	if err := f.Chmod(0o444); err != nil {
		return fmt.Errorf("finish blob: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync blob: %w", err)
	}
	return rename(f.Name(), s.Path(d))
}

// Delete removes a blob. A missing blob is not an error.
func (s *Store) Delete(d Digest) error {
	err := durable.Remove(s.Path(d))
	if s.remote != nil {
		err = errors.Join(err, s.remote.Delete(d))
	}
	return err
}

// FramesPath is where a download of the blob keeps its list of frames.
func (s *Store) FramesPath(d Digest) string {
	return filepath.Join(s.dir, "stage", d.Hex()+".frames")
}

// Restage takes a blob whose content is damaged out of the directory, to where a
// download of it goes on with what is right.
func (s *Store) Restage(d Digest) error {
	path := s.Path(d)
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("restage blob: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return durable.Remove(path)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		return fmt.Errorf("restage blob: %w", err)
	}
	return durable.Rename(path, s.StagePath(d))
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
