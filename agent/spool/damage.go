package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// keptDamaged is how many files that were set aside are kept.
const keptDamaged = 2

// inspect returns what is wrong with the file, nil if it may be opened.
func (s *Spool) inspect() error {
	info, err := os.Stat(s.opts.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // new, or the first write never came about
	}
	if err != nil {
		return nil // opening it will say it better
	}
	if err := checkExtent(s.opts.Path, info.Size()); err != nil {
		return err
	}
	if _, err := os.Stat(s.opts.Path + ".open"); err == nil {
		return s.opts.Check(s.opts.Path)
	}
	return nil
}

// CheckFile reads the whole structure of a spool file. A damaged one may crash
// the process instead of giving an error; see Options.Check.
func CheckFile(path string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("check spool %s: %v", path, r)
		}
	}()
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := checkExtent(path, info.Size()); err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("check spool %s: %w", path, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		var first error
		for err := range tx.Check() { // must be read to its end
			if first == nil {
				first = fmt.Errorf("check spool %s: %w", path, err)
			}
		}
		return first
	})
}

// checkExtent compares the file's length with what the newest sound meta page
// says. bbolt would map the file and die of SIGBUS beyond its end.
func checkExtent(path string, size int64) error {
	const (
		magic     = 0xED0CDAED
		metaStart = 16 // behind the page header
		metaBytes = 64 // its last 8 are the FNV-1a of the others
	)
	f, err := os.Open(path)
	if err != nil {
		return nil // opening it will say it better
	}
	defer f.Close()
	var end int64
	var newest uint64
	for _, at := range []int64{0, int64(os.Getpagesize())} {
		var m [metaStart + metaBytes]byte
		if _, err := f.ReadAt(m[:], at); err != nil {
			continue
		}
		meta := m[metaStart:]
		sum := fnv.New64a()
		sum.Write(meta[:56])
		if binary.NativeEndian.Uint32(meta) != magic || binary.NativeEndian.Uint64(meta[56:]) != sum.Sum64() {
			continue
		}
		if tx := binary.NativeEndian.Uint64(meta[48:]); end == 0 || tx > newest {
			newest = tx
			end = int64(binary.NativeEndian.Uint32(meta[8:])) * int64(binary.NativeEndian.Uint64(meta[40:]))
		}
	}
	switch {
	case end == 0:
		return fmt.Errorf("spool %s has no sound meta page", path)
	case size < end:
		return fmt.Errorf("spool %s has %d bytes and should have %d", path, size, end)
	}
	return nil
}

// setAside renames the file and removes all but the last that were set aside.
func (s *Spool) setAside() error {
	stamp := s.opts.WallClock().UTC().Format("20060102T150405.000000000")
	if err := durable.Rename(s.opts.Path, s.opts.Path+".corrupt-"+stamp); err != nil {
		return err
	}
	old, err := filepath.Glob(s.opts.Path + ".corrupt-*")
	if err != nil {
		return err
	}
	slices.Sort(old)
	for _, path := range old[:max(0, len(old)-keptDamaged)] {
		if err := durable.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
