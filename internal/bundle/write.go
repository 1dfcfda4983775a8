package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// WriteFolder writes the bundle whose tar is read from r as a folder, for a stick that
// takes no file of that size: FAT ends at 4 GiB. So the tar itself is written nowhere.
// The index comes last, so that a folder with one is whole; who opens it makes sure.
func WriteFolder(dir string, r io.Reader) error {
	t := tar.NewReader(r)
	var index []byte
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && n == 0 {
			err = durable.Remove(filepath.Join(dir, indexName))
		}
		if err == nil {
			err = writeFrom(t, h, dir, &index)
		}
		if err != nil {
			return err
		}
	}
	if index == nil {
		return broken("it has no %s: it is no bundle, or was cut short", indexName)
	}
	return durable.WriteFile(filepath.Join(dir, indexName), index, 0o644)
}

// writeFrom writes an entry of a tar, and keeps the index for later.
func writeFrom(t *tar.Reader, h *tar.Header, dir string, index *[]byte) error {
	name, err := tarName(h)
	if err != nil || name == "" {
		return err
	}
	if name == indexName {
		if *index, err = io.ReadAll(io.LimitReader(t, maxIndexBytes)); err == nil {
			_, err = readIndex(bytes.NewReader(*index), h.Size)
		}
		return err
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	sum := blob.NewSummer(t)
	if err := writeEntry(path, h.Size, sum); err != nil {
		return err
	}
	if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && sum.Digest().Hex() != hex {
		return errors.Join(fmt.Errorf("%s of the bundle is %s: %w", name, sum.Digest().Short(), blob.ErrMismatch), durable.Remove(path))
	}
	return nil
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
