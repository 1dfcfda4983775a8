package api

import (
	"fmt"
	"net/http"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// keepFree stays free on the disk of the blobs: often the database is on it, and
// takes no message of any box without room.
const keepFree = 1 << 30

// room is what uploads under way were promised of the disk. Ready for use as it is.
type room struct {
	mu       sync.Mutex // guards promised
	promised int64
}

// take promises room for so many bytes, or says what is missing before the first of
// them is written. What is written meanwhile counts twice, which only errs towards room.
func (m *room) take(dir string, free func(dir string) (int64, error), size int64) (give func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	has, err := free(dir) // under the lock: an upload that ends now is either written or promised
	if err != nil {
		return nil, fmt.Errorf("look how much room %s has: %w", dir, err)
	}
	if size > has-m.promised-keepFree {
		return nil, fleetapi.Problem(http.StatusInsufficientStorage, fmt.Sprintf("%d bytes have no room on the controller's disk: %d are free, other uploads take %d of them, and %d stay free", size, has, m.promised, int64(keepFree)),
			"Make room: edgeherd model list, and edgeherd model retire NAME:VERSION for what no box needs; or give it a larger disk. Then push again, which sends what is missing.")
	}
	m.promised += size
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.promised -= size
	}, nil
}

// freeBytes is what an unprivileged program may still write.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	return int64(fs.Bavail) * int64(fs.Bsize), err
}
