package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Codes of SQLite (sqlite3.h). On a full disk some calls tell of an I/O error
// alone, such as the one that makes room for the index of the log.
const (
	sqliteIOErr = 10
	sqliteFull  = 13
)

// roomToStart is what opening a database writes at most: the index of the log,
// and pages of a migration.
const roomToStart = 1 << 20

// explainDisk says of an error of a database file that its disk is full, if it
// is: which one, how much is free, and what to do.
func explainDisk(path string, err error) error {
	dir := filepath.Dir(path)
	var fs unix.Statfs_t
	if err == nil || unix.Statfs(dir, &fs) != nil {
		return err
	}
	free := fs.Bavail * uint64(fs.Bsize)
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
	var fault interface{ Code() int } // *sqlite.Error
	if errors.As(err, &fault) {
		full = full || fault.Code()&0xff == sqliteFull || fault.Code()&0xff == sqliteIOErr && free < roomToStart
	}
	if !full {
		return err
	}
	return fmt.Errorf("the disk at %s is full: %d bytes are free there, and starting takes %d; delete or move other files of it, or make it larger, "+
		"and start again: nothing that was stored is lost: %w", mountOf(dir), free, roomToStart, err)
}

// mountOf is the highest directory on the file system of dir.
func mountOf(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	for {
		above := filepath.Dir(dir)
		if above == dir || device(above) != device(dir) {
			return dir
		}
		dir = above
	}
}

func device(dir string) uint64 {
	info, err := os.Stat(dir)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Dev)
}
