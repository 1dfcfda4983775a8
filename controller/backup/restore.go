package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// maxManifest bounds what is read before anything is known of a file.
const maxManifest = 64 << 20

// ErrDamaged says that a backup is not what its manifest says.
var ErrDamaged = errors.New("the backup is damaged or not whole; take another one")

// Restored tells what Restore did.
type Restored struct {
	Manifest Manifest `json:"manifest"`
	// Before is where the state directory of before lies now; "" if there was none.
	Before string `json:"before,omitempty"`
	// Missing are blobs that the backup does not have and the state directory
	// of before did not have either: push them again.
	Missing []string `json:"missing,omitempty"`
	// KeyMissing: the secrets of boxes cannot be decrypted.
	KeyMissing bool `json:"secrets_key_missing,omitempty"`
}

// verify reads a backup and checks every file of it.
func verify(ctx context.Context, file string) (Manifest, error) {
	return read(ctx, file, func(File, io.Reader) error { return nil })
}

// Restore puts a backup in place of a state directory, and fills the database.
// What is there is replaced only with force; the directory of before is kept
// beside the new one.
func Restore(ctx context.Context, opts Options, file string, force bool) (r Restored, err error) {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if r.Manifest, err = verify(ctx, file); err != nil {
		return r, err
	}
	if (r.Manifest.Engine == "postgres") != (opts.Database != "") {
		return r, fmt.Errorf("the backup is of a %s database: %s", r.Manifest.Engine, map[string]string{
			"sqlite": "restore it without --database", "postgres": "name the database to fill with --database",
		}[r.Manifest.Engine])
	}
	unlock, occupied, err := claim(opts.State)
	if err != nil {
		return r, err
	}
	defer unlock()
	if occupied && !force {
		return r, fmt.Errorf("%s is not empty: %w; choose another --state, or replace it with --force (it is kept beside it)", opts.State, fs.ErrExist)
	}
	next := filepath.Clean(opts.State) + ".restoring"
	if err := os.RemoveAll(next); err != nil {
		return r, fmt.Errorf("remove what an earlier restore left: %w", err)
	}
	defer os.RemoveAll(next)
	if _, err := read(ctx, file, func(f File, from io.Reader) error { return unpack(opts.place(next, f.Name), f.Mode, from) }); err != nil {
		return r, fmt.Errorf("unpack: %w", err)
	}
	if r.Missing, err = keepBlobs(opts, next, r.Manifest.Blobs); err != nil {
		return r, fmt.Errorf("keep models and releases: %w", err)
	}
	if r.Manifest.Bucket != "" {
		r.Missing = nil // the folder was a cache
	}
	if r.KeyMissing, err = keepSecretsKey(opts.State, next, r.Manifest.WithoutKey); err != nil {
		return r, fmt.Errorf("keep the key of secrets: %w", err)
	}
	if opts.Database != "" {
		dump := filepath.Join(next, dumpName)
		err := store.Fill(ctx, opts.store(), dump, force)
		if errors.Is(err, store.ErrConflict) {
			return r, fmt.Errorf("%w; name an empty database, or replace it with --force", err)
		}
		if err := errors.Join(err, os.Remove(dump)); err != nil {
			return r, err
		}
	}
	if err := opts.note(ctx, next, "from the backup of "+r.Manifest.Created.UTC().Format(time.RFC3339)); err != nil {
		return r, err
	}
	if err := syncTree(next); err != nil {
		return r, err
	}
	if occupied {
		r.Before = filepath.Clean(opts.State) + ".before-" + opts.WallClock().UTC().Format("20060102T150405")
		err = durable.Rename(opts.State, r.Before)
	} else {
		err = os.RemoveAll(opts.State) // empty but for our lock
	}
	if err == nil {
		err = durable.Rename(next, opts.State)
	}
	if err != nil {
		return r, fmt.Errorf("put the restored directory in place: %w", err)
	}
	return r, nil
}

// note writes into the audit log of a database that it was put back, before
// anything else is. Its directory may not have its name yet.
func (o Options) note(ctx context.Context, dir, text string) error {
	s := store.Options{Database: o.Database, PasswordFile: o.PasswordFile, WallClock: o.WallClock}
	if o.Database == "" {
		s.Path = filepath.Join(dir, sqliteName)
	}
	d := audit.Itself(audit.Restored)
	d.Note = text
	return store.Note(ctx, s, d)
}

// Mark says of a database that was put back by other means that it came
// back from a backup. No controller may have it open.
func Mark(ctx context.Context, opts Options) (err error) {
	lock, err := durable.LockDir(opts.State)
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("a controller runs on %s: stop it first", opts.State)
	}
	if err != nil {
		return fmt.Errorf("look at the state directory: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if err := store.MarkRestored(ctx, opts.store()); err != nil {
		return err
	}
	return opts.note(ctx, opts.State, "by other means")
}

// keepSecretsKey takes the key that no backup holds over from the directory that
// is replaced, and reports whether it is missing.
func keepSecretsKey(from, next string, wanted bool) (missing bool, err error) {
	text, err := os.ReadFile(filepath.Join(from, filepath.FromSlash(secretsKey)))
	if errors.Is(err, fs.ErrNotExist) {
		return wanted, nil
	}
	if err != nil {
		return false, err
	}
	to := filepath.Join(next, filepath.FromSlash(secretsKey))
	if err := durable.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return false, err
	}
	return false, durable.WriteFile(to, text, 0o600)
}

// claim makes sure that no controller uses a directory.
func claim(dir string) (unlock func(), occupied bool, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, false, durable.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o700)
	}
	if err != nil {
		return nil, false, fmt.Errorf("look at the state directory: %w", err)
	}
	lock, err := durable.LockDir(dir)
	if errors.Is(err, durable.ErrLocked) {
		return nil, false, fmt.Errorf("a controller runs on %s: stop it first", dir)
	}
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		occupied = occupied || e.Name() != "lock"
	}
	return func() { lock.Close() }, occupied, nil
}

// read checks a backup while it hands over each file.
func read(ctx context.Context, file string, each func(File, io.Reader) error) (m Manifest, err error) {
	in, err := os.Open(file)
	if err != nil {
		return m, fmt.Errorf("open backup: %w", err)
	}
	defer in.Close()
	r := tar.NewReader(in)
	damaged := func(cause error) error { return fmt.Errorf("read %s: %w (%w)", file, ErrDamaged, cause) }
	head, err := r.Next()
	if err != nil || head.Name != manifestName || head.Size > maxManifest {
		return m, damaged(errors.Join(err, errors.New("it does not begin with a manifest")))
	}
	if err := json.NewDecoder(r).Decode(&m); err != nil || m.Format != format {
		return m, damaged(errors.Join(err, errors.New("the manifest is not ours")))
	}
	if m.Version > version {
		return m, fmt.Errorf("read %s: it has version %d, this program knows %d: run the newer edgeherd that wrote it", file, m.Version, version)
	}
	for _, f := range m.Files {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		head, err := r.Next()
		if err != nil {
			return m, damaged(fmt.Errorf("%s: %w", f.Name, err))
		}
		if head.Name != f.Name || head.Size != f.Size || head.Typeflag != tar.TypeReg || !filepath.IsLocal(f.Name) {
			return m, damaged(fmt.Errorf("%s is not what the manifest says", head.Name))
		}
		h := sha256.New()
		from := io.TeeReader(r, h)
		if err := each(f, from); err != nil {
			return m, err
		}
		if _, err := io.Copy(io.Discard, from); err != nil {
			return m, damaged(fmt.Errorf("%s: %w", f.Name, err))
		}
		if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
			return m, damaged(fmt.Errorf("%s has another checksum", f.Name))
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		return m, damaged(errors.New("there is more than the manifest says"))
	}
	return m, nil
}

// place is where a file of a backup goes while next becomes the state directory.
func (o Options) place(next, name string) string {
	if rest, ok := strings.CutPrefix(name, blobDir+"/"); ok && o.Blobs != "" {
		return filepath.Join(o.Blobs, filepath.FromSlash(rest))
	}
	return filepath.Join(next, filepath.FromSlash(strings.TrimPrefix(name, stateDir+"/")))
}

// unpack writes a file. One that is there is a blob, named by its content.
func unpack(to string, mode fs.FileMode, from io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode&0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, from); err != nil {
		return err
	}
	return out.Sync()
}

// keepBlobs links models and releases of before into the new directory, and
// lists those that are nowhere.
func keepBlobs(opts Options, next string, blobs []File) (missing []string, err error) {
	for _, b := range blobs {
		if !filepath.IsLocal(b.Name) {
			return nil, fmt.Errorf("%q: %w", b.Name, ErrDamaged)
		}
		to := opts.place(next, b.Name)
		if info, err := os.Stat(to); err == nil && info.Size() == b.Size {
			continue // it was in the backup, or is where it was
		}
		from := filepath.Join(opts.blobs(), filepath.FromSlash(strings.TrimPrefix(b.Name, blobDir+"/")))
		if info, err := os.Stat(from); err != nil || info.Size() != b.Size {
			missing = append(missing, strings.TrimPrefix(b.Name, blobDir+"/"))
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return nil, err
		}
		if err := os.Link(from, to); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// syncTree makes the names in a tree durable; its files are already.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = durable.SyncDir(p)
		}
		return err
	})
}
