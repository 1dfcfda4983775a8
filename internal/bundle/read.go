package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// openTar reads the heads of a tar and remembers where each content lies.
func (b *Bundle) openTar(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	b.files = append(b.files, f)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = broken("it is neither a file nor a folder")
	}
	if err != nil {
		return err
	}
	if err := packed(f, path); err != nil {
		return err
	}
	return b.readTar(f, info.Size())
}

// packed refuses a file that somebody packed for the way, and says how to undo it.
func packed(f io.ReaderAt, path string) error {
	var head [6]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, k := range []struct{ begins, way string }{
		{"\x1f\x8b", "gunzip -k"}, {"\x28\xb5\x2f\xfd", "unzstd"}, {"\xfd7zXZ", "unxz -k"}, {"BZh", "bunzip2 -k"}, {"PK\x03\x04", "unzip"},
	} {
		if strings.HasPrefix(string(head[:n]), k.begins) {
			return fmt.Errorf("it is packed; a bundle is read as it was exported, unpack it first: %s %s", k.way, path)
		}
	}
	return nil
}

// file is what a tar is read from.
type file interface {
	io.ReadSeeker
	io.ReaderAt
}

func (b *Bundle) readTar(f file, size int64) (err error) {
	r := tar.NewReader(f) // it reads no further than the head, so that f stands where the content begins
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken("read its entry %d: %w; copy it again, or name a bundle", n+1, err)
		}
		name, err := tarName(h)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		at, err := f.Seek(0, io.SeekCurrent)
		switch {
		case err != nil:
			return err
		case n > maxEntries:
			return broken("it has more than %d entries", maxEntries)
		case h.Size < 0 || at+h.Size > size:
			return broken("%.80s ends after the end of the file: it was cut short; copy it again", name)
		case b.entries[name] != nil:
			return broken("it has %.80q twice", name)
		}
		b.entries[name] = io.NewSectionReader(f, at, h.Size)
	}
	index := b.entries[indexName] // wherever it is: tar packs a folder in any order
	if index == nil {
		return broken("it has no %s: it is no bundle, or was cut short", indexName)
	}
	if b.Index, err = readIndex(index, index.Size()); err != nil {
		return err
	}
	return b.compare()
}

// tarName is the name of an entry; "" is one to pass over. Sparse files would read
// longer than they are.
func tarName(h *tar.Header) (string, error) {
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		return "", nil
	default:
		return "", broken("its entry %.80q is of type %q, not a file", h.Name, h.Typeflag)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return "", broken("its entry %.80q is sparse", h.Name)
		}
	}
	name := strings.TrimPrefix(h.Name, "./")
	return name, checkName(name)
}

// checkName refuses what is none of the names of a bundle.
func checkName(name string) error {
	if name == indexName {
		return nil
	}
	for _, dir := range []string{"trust/", "desired/", "blobs/sha256/"} {
		if base, ok := strings.CutPrefix(name, dir); ok && base != "" && !strings.ContainsAny(base, "/\\\x00") && base != ".." && base != "." {
			return nil
		}
	}
	return broken("it has an entry %.80q, which no bundle has", name)
}

// openFolder opens the files of a folder. os.Root keeps links inside it.
func (b *Bundle) openFolder(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	b.files = append(b.files, root)
	index, size, err := openRegular(root, indexName)
	if errors.Is(err, fs.ErrNotExist) {
		return broken("the folder has no %s: name the folder that has it", indexName)
	}
	if err != nil {
		return err
	}
	b.files = append(b.files, index)
	if b.Index, err = readIndex(index, size); err != nil {
		return err
	}
	names, _, err := b.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		f, size, err := openRegular(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // compare tells of it
		}
		if err != nil {
			return err
		}
		b.entries[name] = io.NewSectionReader(f, 0, size)
		b.files = append(b.files, f)
	}
	return b.compare()
}

func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	// Whoever opens a pipe waits for who writes into it.
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = broken("%s is not a file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}
