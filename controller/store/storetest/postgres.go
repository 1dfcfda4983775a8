// Package storetest runs PostgreSQL servers for tests.
//
// A Cluster is a real server of Debian's PostgreSQL in a directory of its own,
// reached only through a unix socket there. Tests that need one are skipped
// where PostgreSQL is not installed, unless EDGEHERD_REQUIRE_ASSETS is set.
//
//	DIR/data   the cluster      DIR/s   its socket      DIR/log   what it says
//
// The one rule a caller can break: Stop what was started; a server that its
// test forgot ends with the test's process.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// patience is how long a server may take to start or stop on a busy machine.
const patience = 5 * time.Minute

// ErrAbsent says that PostgreSQL is not installed.
var ErrAbsent = errors.New("PostgreSQL is not installed: apt-get install postgresql")

// Cluster is one PostgreSQL server.
type Cluster struct {
	Dir    string
	bin    string
	who    *syscall.Credential // nil: ourselves
	server *exec.Cmd
	// Tracer, if set, is a command that runs the server as its child's child, such
	// as strace -D with its arguments.
	Tracer []string
	ended  chan struct{} // closed when server has ended
}

// New makes a cluster, which is not started. args are for initdb.
func New(args ...string) (*Cluster, error) {
	c, err := empty()
	if err != nil {
		return nil, err
	}
	args = append([]string{"-D", c.data(), "--no-sync", "-E", "UTF8", "--locale=C", "-U", "edgeherd", "-A", "trust"}, args...)
	if _, err := c.Tool("initdb", args...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.Dir))
	}
	return c, nil
}

// Data is the folder of the cluster's files.
func (c *Cluster) Data() string { return c.data() }

func (c *Cluster) data() string   { return filepath.Join(c.Dir, "data") }
func (c *Cluster) socket() string { return filepath.Join(c.Dir, "s") }

func empty() (*Cluster, error) {
	bins, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(bins) == 0 {
		return nil, ErrAbsent
	}
	slices.Sort(bins)
	c := &Cluster{bin: filepath.Dir(bins[len(bins)-1])}
	if os.Getuid() == 0 { // PostgreSQL refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		c.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	// Short, since a socket's path has at most 107 bytes.
	if c.Dir, err = os.MkdirTemp("/tmp", "ehpg"); err != nil {
		return nil, err
	}
	for _, dir := range []string{c.Dir, c.socket()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if c.who != nil {
			if err := os.Chown(dir, int(c.who.Uid), int(c.who.Gid)); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// Tool runs one of PostgreSQL's programs, or one with a full path, as the
// server's user and returns what it printed.
func (c *Cluster) Tool(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.bin, name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	c.as(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return string(out), nil
}

func (c *Cluster) as(cmd *exec.Cmd) {
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), "PGHOST="+c.socket(), "PGUSER=edgeherd", "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.who, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}

// Start starts the server and waits until it takes connections. It syncs only
// where all is proved, or with the setting fsync=on: that a process is killed
// loses nothing of what the kernel has. Power cuts are the business of powertest.
func (c *Cluster) Start(settings ...string) error {
	args := []string{"-D", c.data(), "-c", "listen_addresses=", "-c", "unix_socket_directories=" + c.socket(),
		"-c", "fsync=" + fsync(), "-c", "max_connections=200", "-c", "shared_buffers=16MB", "-c", "logging_collector=off"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	// Killed processes need a moment to let go of their shared memory.
	late := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		err := c.start(args)
		if err == nil || !strings.Contains(err.Error(), "pre-existing shared memory") || time.Now().After(late) {
			return err
		}
	}
}

func fsync() string {
	if os.Getenv("EDGEHERD_PROVE") != "" {
		return "on"
	}
	return "off"
}

func (c *Cluster) start(args []string) error {
	log, err := os.Create(filepath.Join(c.Dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args = append(slices.Clone(c.Tracer), append([]string{filepath.Join(c.bin, "postgres")}, args...)...)
	c.server = exec.Command(args[0], args[1:]...)
	c.as(c.server)
	c.server.Stdout, c.server.Stderr = log, log
	if err := c.server.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	ended := make(chan struct{})
	c.ended = ended
	go func(cmd *exec.Cmd) { defer close(ended); cmd.Wait() }(c.server)
	return c.await()
}

func (c *Cluster) await() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		select {
		case <-c.ended:
			said, _ := os.ReadFile(filepath.Join(c.Dir, "log"))
			return fmt.Errorf("PostgreSQL ended at its start:\n%s", bytes.TrimSpace(said))
		case <-late:
			return errors.New("PostgreSQL does not answer")
		case <-tick.C:
			if _, err := c.Tool("pg_isready", "-q", "-d", "postgres"); err == nil {
				return nil
			}
		}
	}
}

// Stop ends the server: its sessions are cut.
func (c *Cluster) Stop() { c.end(syscall.SIGINT) }

// Kill ends the server and all its processes as a power cut does, but for what
// the kernel holds: SIGKILL.
func (c *Cluster) Kill() { c.end(syscall.SIGKILL) }

func (c *Cluster) end(sig syscall.Signal) {
	if c.server == nil {
		return
	}
	pid := c.server.Process.Pid
	var children []int // each leads a session of its own
	if list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)); err == nil && sig == syscall.SIGKILL {
		for _, text := range strings.Fields(string(list)) {
			if child, err := strconv.Atoi(text); err == nil {
				children = append(children, child)
			}
		}
	}
	syscall.Kill(pid, sig)
	for _, child := range children {
		syscall.Kill(child, sig)
	}
	<-c.ended
	c.server = nil
}

// Remove stops the server and removes its files.
func (c *Cluster) Remove() error {
	c.Stop()
	return os.RemoveAll(c.Dir)
}

// Copy copies the files of the cluster to a new one, which is not started. The
// server must have been stopped.
func (c *Cluster) Copy() (*Cluster, error) {
	to, err := empty()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("cp", "-a", c.data(), to.data())
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy cluster: %w\n%s", err, out)
	}
	return to, nil
}

// Own gives the files of the cluster to the server's user.
func (c *Cluster) Own() error {
	if c.who == nil {
		return nil
	}
	return filepath.WalkDir(c.data(), func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(c.who.Uid), int(c.who.Gid)))
	})
}

// Standby makes a copy of the running server that follows it.
func (c *Cluster) Standby() (*Cluster, error) {
	to, err := empty()
	if err != nil {
		return nil, err
	}
	if _, err := c.Tool("pg_basebackup", "-D", to.data(), "-R", "--checkpoint=fast", "--no-sync", "-h", c.socket(), "-U", "edgeherd"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(to.Dir))
	}
	return to, nil
}

// Create makes an empty database and returns its address.
func (c *Cluster) Create() (address, name string, err error) {
	name = "t_" + strings.ToLower(rand.Text()[:12])
	if _, err := c.Tool("createdb", name); err != nil {
		return "", "", err
	}
	return c.Address(name), name, nil
}

// Address is how programs reach a database of the cluster.
func (c *Cluster) Address(name string) string {
	return "postgres:///" + name + "?host=" + c.socket() + "&user=edgeherd"
}

// Absent ends a test that has no cluster; only where there is no PostgreSQL it
// may be left out.
func Absent(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrAbsent) {
		assets.Absent(t, err)
	}
	t.Fatal(err)
}
