package delivery

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is a folder that can be full: a tmpfs, where the test may mount one.
type disk struct {
	t       *testing.T
	dir     string
	mounted bool
	full    bool
}

const diskBytes = 64 << 20

func newDisk(t *testing.T) *disk {
	d := &disk{t: t, dir: t.TempDir()}
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprint("size=", diskBytes)); err != nil {
		t.Logf("disks cannot be full here: %v", err)
		return d
	}
	d.mounted = true
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.dir, err)
		}
	})
	return d
}

// fill leaves no room beyond what is taken; it reports whether it could.
func (d *disk) fill() bool {
	if !d.mounted {
		return false
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	d.full = true
	// Pages may be taken between the two calls; then there is some room.
	d.resize(max(int64(st.Blocks-st.Bfree)*st.Bsize, st.Bsize))
	return true
}

func (d *disk) free() {
	if d.full {
		d.full = false
		d.resize(diskBytes)
	}
}

func (d *disk) resize(bytes int64) {
	err := unix.Mount("", d.dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprint("size=", bytes))
	if err != nil && !(d.full && err == unix.EINVAL) { // EINVAL: more was taken meanwhile
		d.t.Fatalf("resize %s: %v", d.dir, err)
	}
}
