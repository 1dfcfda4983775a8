package worker

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// alignment of tensors in the ring: ONNX Runtime's own allocators use 64 bytes,
// the width of a cache line and of an AVX-512 register.
const alignment = 64

func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// turns are the regions that Run copies inputs to: while the worker computes on
// one, the runner fills the other, so that the worker finds its next request
// without being woken. The others are lent.
const (
	turns   = 2
	regions = turns + leases
)

// ring is the memory that runner and worker share: regions of max bytes each.
// The file behind it is sparse, so that a region costs what was written to it,
// and sealed, so that neither side can take pages away under the other.
type ring struct {
	file *os.File
	mem  []byte
	keep int64 // bytes of a region that stay allocated between requests
	max  int64
	refs atomic.Int32 // users of mem in the runner
}

// hold keeps the memory mapped until release. It reports false when it no
// longer is.
func (r *ring) hold() bool {
	for {
		n := r.refs.Load()
		if n == 0 {
			return false
		}
		if r.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release unmaps the memory after its last user.
func (r *ring) release() error {
	if r.refs.Add(-1) > 0 {
		return nil
	}
	return joinNamed("free shared memory", unix.Munmap(r.mem), r.file.Close())
}

// createRing makes the ring in the runner.
func createRing(keep, max int64) (*ring, error) {
	fd, err := unix.MemfdCreate("edgeherd-tensors", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	r := &ring{file: os.NewFile(uintptr(fd), "edgeherd-tensors"), keep: keep, max: max}
	r.refs.Store(1)
	if err = r.file.Truncate(regions * max); err == nil {
		_, err = unix.FcntlInt(r.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err == nil {
		err = r.mapMemory()
	}
	if err != nil {
		r.file.Close()
		return nil, fmt.Errorf("create shared memory of %d bytes: %w", regions*max, err)
	}
	return r, nil
}

func (r *ring) mapMemory() error {
	mem, err := unix.Mmap(int(r.file.Fd()), 0, int(regions*r.max), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map %d bytes of shared memory: %w", regions*r.max, err)
	}
	r.mem = mem
	return nil
}

// covers reports whether the bytes lie inside the region that begins at base,
// for ranges that the other side named.
func (r *ring) covers(base, offset, length int64) bool {
	return base >= 0 && base%r.max == 0 && base < int64(len(r.mem)) &&
		offset >= base && length >= 0 && length <= r.max && offset-base <= r.max-length
}

// bytes is the range of a tensor; the caller has checked it.
func (r *ring) bytes(offset, length int64) []byte {
	return r.mem[offset : offset+length : offset+length]
}

// trim gives the pages of a region beyond keep back to the kernel after a
// request that used it up to end; a single large image must not stay resident.
func (r *ring) trim(base, end int64) {
	if from := base + r.keep; end > from {
		// Only memory is at stake: the next request works as well without it.
		_ = unix.Fallocate(int(r.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, end-from)
	}
}
