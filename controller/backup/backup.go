// Package backup saves all that a controller needs to come back, and restores it.
//
// A backup is one tar file: first a manifest with the size and SHA-256 of every
// other file in it, then the database and the state directory. It appears under
// its name when it is whole and synced, or not at all. It holds the private
// keys of the fleet: whoever can read it can pose as the controller. It does not
// hold keys/secrets.key, without which the secrets of boxes stay encrypted.
//
//	manifest.json          Manifest
//	store.db or store.dump the database: a SQLite file, or pg_dump's archive
//	state/…                the state directory, without database, lock and blobs
//	blobs/…                models and releases, if asked for
//
// The one rule a caller can break: restore into a directory that no controller
// uses; Restore refuses one that is locked.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// Format and version of the manifest.
const (
	format  = "edgeherd-backup"
	version = 1
)

// Names in a backup.
const (
	manifestName = "manifest.json"
	sqliteName   = "store.db"
	dumpName     = "store.dump"
	stateDir     = "state"
	blobDir      = "blobs"
	// secretsKey decrypts the secrets of boxes in the database. A backup that had
	// both would hold camera passwords in the clear.
	secretsKey = "keys/secrets.key"
)

// Options say where a controller's things are. State is required.
type Options struct {
	State string
	// Blobs is the folder of models and releases; default State/blobs.
	Blobs string
	// Database and PasswordFile are as in store.Options; empty means SQLite in State.
	Database, PasswordFile string
	// Bucket says where models and releases are when the folder is a cache before a
	// bucket; empty: there is none.
	Bucket string
	// WithBlobs has models and releases in the backup as well.
	WithBlobs bool
	// Program is the version that writes the backup.
	Program string
	// WallClock stamps the backup; nil means time.Now.
	WallClock func() time.Time
}

func (o Options) store() store.Options {
	if o.Database != "" {
		return store.Options{Database: o.Database, PasswordFile: o.PasswordFile}
	}
	return store.Options{Path: filepath.Join(o.State, sqliteName)}
}

func (o Options) blobs() string {
	if o.Blobs != "" {
		return o.Blobs
	}
	return filepath.Join(o.State, blobDir)
}

// Manifest is what a backup says of itself.
type Manifest struct {
	Format  string    `json:"format"`
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Program string    `json:"program"`
	Engine  string    `json:"engine"` // sqlite or postgres
	Run     string    `json:"run"`
	LSN     uint64    `json:"lsn"` // at least
	Files   []File    `json:"files"`
	// Blobs are needed beside the backup unless they are among Files.
	Blobs     []File `json:"blobs"`
	WithBlobs bool   `json:"with_blobs"`
	// Bucket holds models and releases, and is no part of the backup.
	Bucket string `json:"bucket,omitempty"`
	// WithoutKey: keys/secrets.key was left out.
	WithoutKey bool `json:"without_secrets_key,omitempty"`
}

// File is one file of a backup.
type File struct {
	Name   string      `json:"name"`
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256,omitempty"`
	Mode   fs.FileMode `json:"mode,omitempty"`
	from   string
}

// Write makes a backup while controllers run.
func Write(ctx context.Context, opts Options, file string) (m Manifest, err error) {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if opts.WithBlobs && opts.Bucket != "" {
		return m, fmt.Errorf("models and releases are in the bucket %s, and the folder is only a cache of it: a backup would have some of them. Save the bucket by its own means, such as versions and replication, and leave out --with-blobs", opts.Bucket)
	}
	if opts, err = opts.resolved(file); err != nil {
		return m, err
	}
	if _, err := os.Lstat(file); err == nil {
		return m, fmt.Errorf("%s exists: choose another name, or remove it", file)
	}
	work, err := os.MkdirTemp(filepath.Dir(file), ".edgeherd-backup-")
	if err != nil {
		return m, fmt.Errorf("make room for the backup: %w", err)
	}
	defer os.RemoveAll(work)
	m = Manifest{Format: format, Version: version, Created: opts.WallClock().UTC().Truncate(time.Second), Program: opts.Program, Engine: "sqlite", WithBlobs: opts.WithBlobs, Bucket: opts.Bucket}
	db := File{Name: sqliteName}
	if opts.Database != "" {
		m.Engine, db.Name = "postgres", dumpName
	}
	db.from, db.Mode = filepath.Join(work, db.Name), 0o600
	saved, err := store.Save(ctx, opts.store(), db.from)
	if err != nil {
		return m, err
	}
	m.Run, m.LSN = saved.Run.String(), saved.LSN
	m.Files = append(m.Files, db)
	if err := m.collect(opts); err != nil {
		return m, fmt.Errorf("look through the state directory: %w", err)
	}
	for i := range m.Files {
		f := &m.Files[i]
		if f.Size, f.SHA256, err = sum(f.from); err != nil {
			return m, fmt.Errorf("read what is to be saved: %w", err)
		}
	}
	part := filepath.Join(work, "backup.tar")
	if err := m.write(ctx, part); err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	if err := durable.Rename(part, file); err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	return m, nil
}

// resolved follows links to the directories, since a walk does not, and makes
// sure that file is in neither: each backup would hold all the ones before it.
func (o Options) resolved(file string) (Options, error) {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return o, fmt.Errorf("look at the folder of the backup: %w", err)
	}
	o.Blobs = o.blobs()
	for _, top := range []*string{&o.State, &o.Blobs} {
		real, err := filepath.Abs(*top)
		if err == nil {
			real, err = filepath.EvalSymlinks(real)
		}
		if top == &o.Blobs && errors.Is(err, fs.ErrNotExist) {
			continue // nothing was pushed yet
		}
		if err != nil {
			return o, fmt.Errorf("no state directory: %w; name it with --state", err)
		}
		if *top = real; inside(dir, real) {
			return o, fmt.Errorf("%s is inside of what is saved: choose a folder outside of %s", file, real)
		}
	}
	return o, nil
}

// inside reports whether a resolved path is a directory or below it.
func inside(name, dir string) bool {
	rel, err := filepath.Rel(dir, name)
	return err == nil && filepath.IsLocal(rel)
}

// collect lists the state directory, and the blobs.
func (m *Manifest) collect(opts Options) error {
	err := walk(opts.State, func(name, from string, info fs.FileInfo) error {
		top, _, _ := strings.Cut(name, "/")
		if name == secretsKey {
			m.WithoutKey = true
			return nil
		}
		if top == "lock" || top == blobDir || strings.HasPrefix(name, sqliteName) || inside(from, opts.Blobs) {
			return nil
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is a link, which a backup does not follow: put what it leads to in its place", from)
		}
		m.Files = append(m.Files, File{Name: path.Join(stateDir, name), Mode: info.Mode().Perm(), from: from})
		return nil
	})
	if err != nil {
		return err
	}
	err = walk(opts.Blobs, func(name, from string, info fs.FileInfo) error {
		if strings.HasPrefix(name, "stage/") || !info.Mode().IsRegular() {
			return nil // not whole yet, or none
		}
		name = path.Join(blobDir, name)
		m.Blobs = append(m.Blobs, File{Name: name, Size: info.Size()})
		if m.WithBlobs {
			m.Files = append(m.Files, File{Name: name, Mode: info.Mode().Perm(), from: from})
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was pushed yet
	}
	return err
}

// walk tells of files and of links.
func walk(dir string, each func(name, from string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() && d.Type() != fs.ModeSymlink {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return each(filepath.ToSlash(name), p, info)
	})
}

func sum(file string) (size int64, digest string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

func (m *Manifest) write(ctx context.Context, part string) (err error) {
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := add(w, File{Name: manifestName, Size: int64(len(text)), Mode: 0o600}, m.Created, bytes.NewReader(text)); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.copy(w, f); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Sync()
}

func (m *Manifest) copy(w *tar.Writer, f File) error {
	in, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer in.Close()
	h := sha256.New()
	if err := add(w, f, m.Created, io.TeeReader(io.LimitReader(in, f.Size), h)); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%s changed meanwhile; run it again", f.from)
	}
	return nil
}

func add(w *tar.Writer, f File, at time.Time, from io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Name: f.Name, Size: f.Size, Mode: int64(f.Mode), ModTime: at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := io.Copy(w, from); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	return nil
}
