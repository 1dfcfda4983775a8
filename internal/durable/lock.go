package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process holds a directory.
var ErrLocked = errors.New("locked by another process")

// Lock is a directory or a file that is held.
type Lock struct{ file *os.File }

// Close gives it back, at once: a child of this process that has
// been forked and has not started its program yet shares the file, and would
// hold the lock a little longer.
func (l *Lock) Close() error {
	return errors.Join(unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
}

// LockDir takes DIR/lock, so that one process works on dir. The lock ends when
// it is closed or the process dies, however it dies (flock(2)).
func LockDir(dir string) (*Lock, error) {
	l, err := LockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock directory %s: %w", dir, err)
	}
	return l, nil
}

// LockFile takes a file that is there for that alone, and makes it if need be.
func LockFile(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, err
	}
	return &Lock{f}, nil
}
