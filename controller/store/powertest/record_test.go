package powertest

import (
	"bufio"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tracing are the arguments of strace up to the program: one file a thread, with
// paths for numbers of files, and all that is written.
func tracing(into string) []string {
	return []string{
		"-ff", "-ttt", "-y", "-xx", "-s", "4000000", "--seccomp-bpf", "-e", "signal=none", "-o", into, "-e",
		"trace=openat,lseek,write,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat",
	}
}

// op is what happened to one file.
type op struct {
	at   time.Time
	kind string // open, write, size, grow, sync, rename, link, remove
	path string
	to   string // of rename and link
	off  int64  // or size
	data []byte
}

var (
	line    = regexp.MustCompile(`^(\d+)\.(\d{6}) (\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?`)
	fdFirst = regexp.MustCompile(`^\d+<([^>]*)>(?:, )?(.*)$`)
	hexText = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
	numbers = regexp.MustCompile(`(-?\d+)(?:, (-?\d+))?$`)
)

// read reads a recording of what happened below dir.
func read(t *testing.T, prefix, dir string) (ops []op) {
	t.Helper()
	files, err := filepath.Glob(prefix + ".*")
	must(t, err)
	for _, name := range files {
		ops = append(ops, readThread(t, name, dir)...)
	}
	slices.SortStableFunc(ops, func(a, b op) int { return a.at.Compare(b.at) })
	offsets := map[string]int64{} // of write, which has none of its own
	for i := range ops {
		o := &ops[i]
		switch o.kind {
		case "open":
			offsets[o.path] = 0
		case "seek":
			offsets[o.path] = o.off
		case "append":
			o.kind, o.off = "write", offsets[o.path]
			offsets[o.path] += int64(len(o.data))
		}
	}
	return slices.DeleteFunc(ops, func(o op) bool { return o.kind == "seek" })
}

func readThread(t *testing.T, name, dir string) (ops []op) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil || strings.HasPrefix(m[5], "-") {
			continue // signals, ends of threads, calls that failed
		}
		sec, _ := strconv.ParseInt(m[1], 10, 64)
		micro, _ := strconv.ParseInt(m[2], 10, 64)
		o, ok := operation(t, m[3], m[4], m[6])
		if !ok {
			continue
		}
		for _, p := range []*string{&o.path, &o.to} {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p) // PostgreSQL works there
			}
		}
		if o.at = time.UnixMicro(sec*1e6 + micro); strings.HasPrefix(o.path, dir+"/") {
			ops = append(ops, o)
		}
	}
	must(t, lines.Err())
	return ops
}

// operation reads one call.
func operation(t *testing.T, call, args, result string) (o op, ok bool) {
	t.Helper()
	var texts []string
	for _, m := range hexText.FindAllStringSubmatch(args, -1) {
		texts = append(texts, unhex(t, m[1]))
	}
	switch call {
	case "openat":
		if strings.Contains(args, "O_TRUNC") {
			return op{kind: "size", path: unhex(t, result)}, true
		}
		return op{kind: "open", path: unhex(t, result)}, true
	case "rename", "renameat", "renameat2":
		return op{kind: "rename", path: texts[0], to: texts[1]}, true
	case "link", "linkat":
		return op{kind: "link", path: texts[0], to: texts[1]}, true
	case "unlink", "unlinkat":
		return op{kind: "remove", path: texts[0]}, true
	}
	m := fdFirst.FindStringSubmatch(args)
	if m == nil {
		return o, false
	}
	o.path, o.data = unhex(t, m[1]), []byte(strings.Join(texts, ""))
	tail := numbers.FindStringSubmatch(m[2])
	last := func(n int) int64 {
		v, err := strconv.ParseInt(tail[n], 10, 64)
		must(t, err)
		return v
	}
	switch call {
	case "fsync", "fdatasync":
		o.kind = "sync"
	case "write":
		o.kind = "append"
	case "pwrite64", "pwritev":
		o.kind, o.off = "write", last(2)
	case "ftruncate":
		o.kind, o.off = "size", last(1)
	case "fallocate":
		o.kind, o.off = "grow", last(1)+last(2)
	case "lseek":
		if !strings.HasSuffix(m[2], "SEEK_SET") {
			return o, false
		}
		m := regexp.MustCompile(`^(\d+), `).FindStringSubmatch(m[2])
		o.off, _ = strconv.ParseInt(m[1], 10, 64)
		o.kind = "seek"
	}
	return o, true
}

func unhex(t *testing.T, text string) string {
	t.Helper()
	raw, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
	must(t, err)
	return string(raw)
}

// inode is a file, whatever it is called.
type inode struct {
	data   []byte
	synced int // index of the last sync before the cut
}

// image makes the files below dir, which are as they were before the recording,
// what a power cut before ops[cut] leaves.
func image(t *testing.T, ops []op, cut int, from, dir string, rng *rand.Rand) {
	t.Helper()
	names := map[string]*inode{}
	find := func(path string) *inode {
		if _, seen := names[path]; !seen {
			data, err := os.ReadFile(strings.Replace(path, from, dir, 1))
			if err != nil {
				data = nil
			}
			names[path] = &inode{data: data, synced: -1}
		}
		return names[path]
	}
	at := make([]*inode, cut)
	for i, o := range ops[:cut] {
		node := find(o.path)
		if node == nil { // removed, and opened again
			node = &inode{synced: -1}
			names[o.path] = node
		}
		at[i] = node
		switch o.kind {
		case "sync":
			node.synced = i
		case "rename":
			names[o.to], names[o.path] = node, nil
		case "link":
			names[o.to] = node
		case "remove":
			names[o.path] = nil
		}
	}
	for i, o := range ops[:cut] {
		at[i].apply(o, i < at[i].synced, rng)
	}
	for path, node := range names {
		path = strings.Replace(path, from, dir, 1)
		if node == nil {
			must(t, os.RemoveAll(path))
		} else if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
			must(t, os.WriteFile(path, node.data, 0o600))
		}
	}
}

func (n *inode) grow(size int64) {
	if more := size - int64(len(n.data)); more > 0 {
		n.data = append(n.data, make([]byte, more)...)
	}
}

// apply does one operation, or what is left of it if it was not synced.
func (n *inode) apply(o op, sure bool, rng *rand.Rand) {
	const sector = 512
	switch o.kind {
	case "size":
		if sure || rng.IntN(2) == 0 {
			n.grow(o.off)
			n.data = n.data[:o.off]
		}
	case "grow":
		if sure || rng.IntN(2) == 0 {
			n.grow(o.off)
		}
	case "write":
		keep := rng.IntN(3) // all, none, or some sectors
		for from := 0; from < len(o.data); from += sector {
			if sure || keep == 0 || keep == 1 && rng.IntN(2) == 0 {
				part := o.data[from:min(from+sector, len(o.data))]
				n.grow(o.off + int64(from+len(part)))
				copy(n.data[o.off+int64(from):], part)
			}
		}
	}
}
