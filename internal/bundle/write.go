package bundle

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Source gives what is written. What it returns for a blob is hashed on its way:
// a bundle that cannot be taken shall not leave the house.
type Source struct {
	Trust   map[string][]byte
	Desired map[identity.ID][]byte
	Blob    func(ctx context.Context, d blob.Digest) (io.ReadCloser, error)
}

// open reads the entry of a name.
func (s Source) open(ctx context.Context, name string) (io.ReadCloser, blob.Digest, error) {
	if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
		d, err := blob.ParseDigest("sha256:" + hex)
		if err != nil {
			return nil, d, err
		}
		r, err := s.Blob(ctx, d)
		return r, d, err
	}
	data := s.Trust[strings.TrimPrefix(name, "trust/")]
	if box, ok := strings.CutPrefix(name, "desired/"); ok {
		data = s.Desired[identity.ID(strings.TrimSuffix(box, ".json"))]
	}
	return io.NopCloser(strings.NewReader(string(data))), blob.Sum(data), nil
}

// each gives every entry to put, the index first, and checks what it read.
func (x Index) each(ctx context.Context, s Source, put func(name string, size int64, r io.Reader) error) error {
	if err := x.check(); err != nil {
		return err
	}
	names, sizes, err := x.names()
	if err != nil {
		return err
	}
	index, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return err
	}
	if err := put(indexName, int64(len(index)), strings.NewReader(string(index))); err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(ctx, s, name, sizes[name], put); err != nil {
			return fmt.Errorf("write %s into the bundle: %w", name, err)
		}
	}
	return nil
}

func copyEntry(ctx context.Context, s Source, name string, size int64, put func(string, int64, io.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, want, err := s.open(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	sum := blob.NewSummer(io.LimitReader(r, size))
	if err := put(name, size, sum); err != nil {
		return err
	}
	if got := sum.Digest(); got != want {
		return fmt.Errorf("it is %s: %w", got.Short(), blob.ErrMismatch)
	}
	return nil
}

// WriteTar writes a bundle as one tar.
func WriteTar(ctx context.Context, w io.Writer, x Index, s Source) error {
	t := tar.NewWriter(w)
	err := x.each(ctx, s, func(name string, size int64, r io.Reader) error {
		// GNU: lengths from 8 GiB on without a head of their own.
		if err := t.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o444, ModTime: x.Made.Truncate(time.Second), Format: tar.FormatGNU}); err != nil {
			return err
		}
		n, err := io.Copy(t, r)
		if err == nil && n != size {
			err = fmt.Errorf("it ends after %d of %d bytes", n, size)
		}
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}

// SourceOf an open bundle, to write it in the other form.
func SourceOf(b *Bundle) (Source, error) {
	s := Source{Trust: map[string][]byte{}, Desired: map[identity.ID][]byte{}, Blob: func(_ context.Context, d blob.Digest) (io.ReadCloser, error) {
		r, err := b.Blob(d)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(r), nil
	}}
	var err error
	for _, e := range b.Trust {
		if s.Trust[e.Name], err = b.Document(e.Name); err != nil {
			return s, err
		}
	}
	for _, e := range b.Desired {
		if s.Desired[e.Box], err = b.DesiredOf(e.Box); err != nil {
			return s, err
		}
	}
	return s, nil
}

// WriteFolder writes a bundle as a folder, for a stick that takes no file of that
// size: FAT ends at 4 GiB. The index comes last, so that a folder with one is
// whole.
func WriteFolder(ctx context.Context, dir string, x Index, s Source) error {
	if err := durable.Remove(filepath.Join(dir, indexName)); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	var index []byte
	err := x.each(ctx, s, func(name string, size int64, r io.Reader) (err error) {
		if name == indexName {
			index, err = io.ReadAll(r)
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return writeEntry(path, size, r)
	})
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, indexName), index, 0o644)
}

// writeEntry copies one file of a folder.
func writeEntry(path string, size int64, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".part-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = fmt.Errorf("it ends after %d of %d bytes", n, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	return durable.Rename(f.Name(), path)
}
