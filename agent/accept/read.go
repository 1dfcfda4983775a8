package accept

import (
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFile is more than any file of sysfs or procfs that is read here.
const maxFile = 16 << 10

// tree reads files below a root, never by os.ReadFile: some files of sysfs
// answer EAGAIN, on which Go waits for ever.
type tree struct{ root string }

func (t tree) path(elem ...string) string {
	return filepath.Join(append([]string{t.root}, elem...)...)
}

// text is the content of a file, "" when it cannot be read.
func (t tree) text(elem ...string) string {
	fd, err := unix.Open(t.path(elem...), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, maxFile)
	n, err := unix.Read(fd, buf)
	if err != nil || n < 0 {
		return ""
	}
	return strings.Trim(string(buf[:n]), " \t\n\x00")
}

// number is the content of a file that holds one integer.
func (t tree) number(elem ...string) (int64, bool) {
	n, err := strconv.ParseInt(t.text(elem...), 10, 64)
	return n, err == nil
}

// names are the entries of a directory, sorted.
func (t tree) names(elem ...string) []string {
	found, err := filepath.Glob(filepath.Join(t.path(elem...), "*"))
	if err != nil {
		return nil // a root with a bracket in its name
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// is says whether there is such a file.
func (t tree) is(elem ...string) bool {
	var s unix.Stat_t
	return unix.Stat(t.path(elem...), &s) == nil
}

// link is the last element of where a link leads.
func (t tree) link(elem ...string) string {
	buf := make([]byte, 1024)
	n, err := unix.Readlink(t.path(elem...), buf)
	if err != nil {
		return ""
	}
	return filepath.Base(string(buf[:n]))
}
