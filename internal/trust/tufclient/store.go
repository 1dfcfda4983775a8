package tufclient

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// bucket holds all; pinKey the digest of the pin that it began with.
var bucketName, pinKey = []byte("trust"), []byte("@pin")

// store is trust.db.
type store struct {
	db   *bbolt.DB
	path string
}

// openStore opens the file, and makes a new one where it is none.
func openStore(opts Options) (*store, error) {
	s, err := openFile(opts)
	if err == nil || errors.Is(err, berrors.ErrTimeout) || errors.Is(err, os.ErrPermission) {
		return s, err
	}
	return (&store{path: opts.Path}).reset(opts)
}

func openFile(opts Options) (s *store, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recovered(&err)
	// A second process would have the lock for as long as it lives. The list of
	// free pages is stored: to find them bbolt walks over all pages in a goroutine
	// of its own, where nobody could recover from a damaged one.
	db, err := bbolt.Open(opts.Path, 0o600, &bbolt.Options{Timeout: time.Second, NoSync: opts.NoSync})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", opts.Path, err)
	}
	return &store{db, opts.Path}, nil
}

// recovered makes an error of what a damaged file does to bbolt, which maps it
// into memory and follows its page numbers, and a malformed document to the
// library of TUF.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("damaged: %v", p)
	}
}

// reset begins a new file.
func (s *store) reset(opts Options) (*store, error) {
	s.close()
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove a damaged file: %w", err)
	}
	return openFile(opts)
}

func (s *store) close() (err error) {
	defer recovered(&err)
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// load reads all documents; none when they began with another pin.
func (s *store) load(pin blob.Digest) (docs documents, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recovered(&err)
	docs = documents{}
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketName)
		if b == nil || !bytes.Equal(b.Get(pinKey), pin[:]) {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			if !bytes.Equal(k, pinKey) {
				docs[string(k)] = bytes.Clone(v)
			}
			return nil
		})
	})
	return docs, err
}

// save makes the file hold next; have is what it holds, nil when unknown.
func (s *store) save(pin blob.Digest, have, next documents) (err error) {
	if have != nil && same(have, next) {
		return nil
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recovered(&err)
	err = s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketName)
		if b != nil && !bytes.Equal(b.Get(pinKey), pin[:]) {
			if err := tx.DeleteBucket(bucketName); err != nil {
				return err
			}
			b = nil
		}
		if b == nil {
			var err error
			if b, err = tx.CreateBucket(bucketName); err != nil {
				return err
			}
			if err := b.Put(pinKey, pin[:]); err != nil {
				return err
			}
		}
		var gone [][]byte
		err := b.ForEach(func(k, _ []byte) error {
			if _, keep := next[string(k)]; !keep && !bytes.Equal(k, pinKey) {
				gone = append(gone, bytes.Clone(k))
			}
			return nil
		})
		for _, k := range gone {
			err = errors.Join(err, b.Delete(k))
		}
		for name, data := range next {
			if !bytes.Equal(b.Get([]byte(name)), data) {
				err = errors.Join(err, b.Put([]byte(name), data))
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("store metadata: %w", err)
	}
	return durable.SyncDir(filepath.Dir(s.path)) // the file itself may be new
}

func same(a, b documents) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if !bytes.Equal(v, b[k]) {
			return false
		}
	}
	return true
}
