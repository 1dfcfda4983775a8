package accept

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Memory and disk are tried within bounds that leave room for what runs here.
const (
	chunk       = 1 << 20
	leastMemory = 16 << 20
	leastDisk   = 8 << 20
)

// pressure holds as much memory as may be taken, asks the runner meanwhile, and
// reads all bytes back. The memory is the kernel's own, outside of this
// program's heap, and given back before it returns.
func (t *test) pressure(ctx context.Context, l *loaded) {
	size := t.memoryRoom()
	if size < leastMemory {
		return
	}
	held, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return // told as too little room
	}
	defer func() { _ = unix.Munmap(held) }() // ends with the process at the latest
	for at := 0; at < len(held); at += chunk {
		if ctx.Err() != nil {
			return
		}
		fill(held[at:min(at+chunk, len(held))], uint64(at))
		t.tell(Event{Level: t.level, Step: "memory", Done: float64(at) / float64(2*len(held))})
	}
	_, l.runnerAnswers = t.status(ctx)
	l.pressureBytes = size
	want := make([]byte, chunk)
	for at := 0; at < len(held) && ctx.Err() == nil; at += chunk {
		part := held[at:min(at+chunk, len(held))]
		fill(want[:len(part)], uint64(at))
		if !bytes.Equal(part, want[:len(part)]) {
			l.pressureErr = fmt.Sprintf("at byte %d", at)
			return
		}
		t.tell(Event{Level: t.level, Step: "memory", Done: 0.5 + float64(at)/float64(2*len(held))})
	}
}

// memoryRoom is a quarter of what is available, half of what the control group
// leaves, and no more than the options say.
func (t *test) memoryRoom() int64 {
	room := t.opts.MemoryBytes
	// The host's memory is what is taken, also on a simulated board.
	for line := range strings.Lines((tree{"/"}).text("proc/meminfo")) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			room = min(room, kb<<10/4)
		}
	}
	if left, bounded := groupRoom(); bounded {
		room = min(room, left/2)
	}
	return room / chunk * chunk
}

// groupRoom is what the control group of this process has left (cgroup v2).
func groupRoom() (int64, bool) {
	host := tree{"/"}
	_, group, ok := strings.Cut(host.text("proc/self/cgroup"), "0::")
	if !ok {
		return 0, false
	}
	group, _, _ = strings.Cut(group, "\n")
	least, bounded := int64(0), false
	for ; ; group = group[:strings.LastIndexByte(group, '/')] {
		limit, limited := host.number("sys/fs/cgroup", group, "memory.max") // "max" is no number
		used, known := host.number("sys/fs/cgroup", group, "memory.current")
		if left := limit - used; limited && known && (!bounded || left < least) {
			least, bounded = left, true
		}
		if strings.LastIndexByte(group, '/') < 0 {
			return least, bounded
		}
	}
}

// fill writes bytes that do not compress and that their place alone gives
// (xorshift64*, Vigna 2016).
func fill(p []byte, seed uint64) {
	x := seed*0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d
	for i := 0; i+8 <= len(p); i += 8 {
		x ^= x >> 12
		x ^= x << 25
		x ^= x >> 27
		binary.LittleEndian.PutUint64(p[i:], x*0x2545f4914f6cdd1d)
	}
}

var errOtherBytes = errors.New("other bytes came back than were written")

// tryDisk writes a file through to the disk, reads it back and removes it.
func (t *test) tryDisk(ctx context.Context, l *loaded) {
	var s unix.Statfs_t
	size := t.opts.DiskBytes
	if err := unix.Statfs(t.opts.State, &s); err != nil {
		l.write.err = err.Error()
		l.read.err = l.write.err
		return
	}
	if size = min(size, int64(s.Bavail)*s.Bsize/10) / chunk * chunk; size < leastDisk {
		l.write.tight, l.read.tight = true, true
		return
	}
	f, err := os.CreateTemp(t.opts.State, ".accept-*")
	if err != nil {
		l.write.err, l.read.err = err.Error(), err.Error()
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	l.write = t.timed(size, func() error { return t.writeThrough(ctx, f, size) })
	if l.write.err != "" {
		l.read.err = l.write.err
		return
	}
	// Only pages that are on the disk are dropped, so that they come from there.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		l.read.err = err.Error()
		return
	}
	l.read = t.timed(size, func() error { return t.readBack(ctx, f) })
}

func (t *test) timed(size int64, do func() error) throughput {
	began := time.Now()
	err := do()
	through := throughput{bytes: size, took: time.Since(began)}
	if err != nil {
		through.err = err.Error()
	}
	return through
}

func (t *test) writeThrough(ctx context.Context, f *os.File, size int64) error {
	part := make([]byte, chunk)
	for at := int64(0); at < size; at += chunk {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fill(part, uint64(at))
		if _, err := f.Write(part); err != nil {
			return err
		}
		t.tell(Event{Level: t.level, Step: "disk", Done: float64(at) / float64(2*size)})
	}
	return f.Sync()
}

func (t *test) readBack(ctx context.Context, f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	part, want := make([]byte, chunk), make([]byte, chunk)
	for at := uint64(0); ; at += chunk {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := io.ReadFull(f, part)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		fill(want, at)
		if !bytes.Equal(part[:n], want) {
			return errOtherBytes
		}
	}
}
