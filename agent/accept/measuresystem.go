package accept

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// engines are programs that run containers, with what makes them tell their
// version.
var engines = map[string][]string{
	"docker": {"docker", "--version"}, "containerd": {"containerd", "--version"}, "podman": {"podman", "--version"},
	"k3s": {"k3s", "--version"}, "nerdctl": {"nerdctl", "--version"},
}

var versionForm = regexp.MustCompile(`\d+\.\d+(\.\d+)?[-+~.\w]*`)

const programLimit = 5 * time.Second

func (t *test) measureSystem(ctx context.Context) software {
	s := software{os: t.tree.os(), kernel: t.tree.kernel(), containers: map[string]string{}}
	if status, ok := t.status(ctx); ok {
		s.runner, s.runtime = true, status.RuntimeVersion
	}
	if t.tree.root != "/" {
		return s // a simulated board runs no programs
	}
	for name, command := range engines {
		if version := programVersion(ctx, command); version != "" {
			s.containers[name] = version
		}
	}
	return s
}

func programVersion(ctx context.Context, command []string) string {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return ""
	}
	ctx, stop := context.WithTimeout(ctx, programLimit)
	defer stop()
	out, err := exec.CommandContext(ctx, path, command[1:]...).Output()
	if err != nil {
		return ""
	}
	return string(versionForm.Find(out[:min(len(out), 300)]))
}

// os is the name that the distribution gives itself (os-release(5)).
func (t tree) os() string {
	for line := range strings.Lines(t.text("etc/os-release")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return ""
}

func (t tree) kernel() string {
	if v := t.text("proc/sys/kernel/osrelease"); v != "" {
		return v
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	return string(release)
}

// statusLimit bounds a question to the runner.
const statusLimit = 5 * time.Second

func (t *test) status(ctx context.Context) (runnerapi.Status, bool) {
	ctx, stop := context.WithTimeout(ctx, statusLimit)
	defer stop()
	s, err := t.opts.Runner.Status(ctx)
	return s, err == nil
}

// builtAfter is when this program was written: an earlier clock is not set.
var builtAfter = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func (t *test) measureOperations(ctx context.Context) operation {
	board := t.sampler.Board()
	o := operation{vendor: board.Vendor, product: board.Product, serial: board.Serial, agent: t.opts.Version}
	if status, ok := t.status(ctx); ok {
		o.runner = status.Version
		for _, m := range status.Models {
			if m.State == runnerapi.ModelReady {
				o.models = append(o.models, m.Name+":"+m.Version)
			}
		}
	}
	if data, err := os.ReadFile(t.opts.Config); err == nil {
		sum := sha256.Sum256(data)
		o.configSHA256 = hex.EncodeToString(sum[:])
	}
	o.clockSet = t.opts.WallClock().After(builtAfter)
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	o.clockKept = err == nil && state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0
	if t.opts.Delivery.Offline {
		return o
	}
	r := t.reachController(ctx)
	o.reach, o.reachErr, o.offset = r.took, r.err, r.offset
	return o
}
