package worker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// alignment of tensors in the slot: ONNX Runtime's own allocators use 64 bytes,
// the width of a cache line and of an AVX-512 register.
const alignment = 64

func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }

// slot is the memory that runner and worker share. All of max is mapped at
// once; the file behind it grows with ftruncate from either side. The mapping
// beyond the end of the file costs address space only, but touching it is a
// SIGBUS, so every access is preceded by reserve.
type slot struct {
	file *os.File
	mem  []byte
	keep int64 // bytes that stay allocated between requests
	size int64 // of the file, as far as this side knows; never less in truth
}

// createSlot makes the slot in the runner. The seal keeps a broken worker from
// shrinking the file under the runner's feet.
func createSlot(size, max int64) (*slot, error) {
	fd, err := unix.MemfdCreate("edgeherd-tensors", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "edgeherd-tensors")
	s := &slot{file: f, keep: size}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("size shared memory: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal shared memory: %w", err)
	}
	s.size = size
	if err := s.mapMemory(max); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

func (s *slot) mapMemory(max int64) error {
	mem, err := unix.Mmap(int(s.file.Fd()), 0, int(max), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map %d bytes of shared memory: %w", max, err)
	}
	s.mem = mem
	return nil
}

// reserve makes the first n bytes usable. It fails when n exceeds the mapping.
func (s *slot) reserve(n int64) error {
	if n <= s.size {
		return nil
	}
	if n > int64(len(s.mem)) {
		return fmt.Errorf("%d bytes of tensors exceed the limit of %d bytes", n, len(s.mem))
	}
	info, err := s.file.Stat() // the other side may have grown it
	if err != nil {
		return fmt.Errorf("size of shared memory: %w", err)
	}
	s.size = info.Size()
	if n <= s.size {
		return nil
	}
	// Half as much again, so that a slowly growing batch does not come back here each time.
	size := min(n+n/2, int64(len(s.mem)))
	if err := s.file.Truncate(size); err != nil {
		return fmt.Errorf("grow shared memory to %d bytes: %w", size, err)
	}
	s.size = size
	return nil
}

// covers reports whether the bytes lie inside the file, for ranges that the
// other side named.
func (s *slot) covers(offset, length int64) bool {
	if offset < 0 || length < 0 || offset > int64(len(s.mem))-length {
		return false
	}
	if offset+length > s.size {
		if info, err := s.file.Stat(); err == nil {
			s.size = info.Size()
		}
	}
	return offset+length <= s.size
}

// bytes is the range of a tensor; the caller has checked it.
func (s *slot) bytes(offset, length int64) []byte {
	return s.mem[offset : offset+length : offset+length]
}

// trim gives the pages beyond keep back to the kernel after a request that
// used the first n bytes; a single large image must not stay resident.
func (s *slot) trim(n int64) {
	if n > s.keep {
		// Only memory is at stake: the next request works as well without it.
		_ = unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.keep, n-s.keep)
	}
}

func (s *slot) close() error {
	return joinNamed("free shared memory", unix.Munmap(s.mem), s.file.Close())
}
