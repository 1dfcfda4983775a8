// Package doctor looks at a box and says what is wrong with it and what to do.
//
// It works beside a running agent and without one, and changes nothing, but for
// an exchange of identities that a power cut left half done. Each
// check gives one finding: ok, warn (works, but look at it some day) or fail
// (someone must act), with cause and way out in words for the person in front of
// the box.
//
//	identity    who the box is, and until when its certificate is good
//	clock       whether it is set, and how far from the controller's
//	disk        whether the state directory takes writes, and what is free
//	membership  that the controller keeps the box out, and why
//	way …       each way to the controller: name, TCP, proxy, TLS, MQTT
//	metadata    until when new versions can be installed
//	sensors     what is found, and what does not answer
//	runner      whether it answers, and its models
//
// The one rule a caller can break: run it as the user of the agent, or files
// that it cannot read look like faults.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// Level is how bad a finding is.
type Level string

// The levels, from best to worst.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	Way   string `json:"way_out,omitempty"` // what to do; empty when all is well
}

// Report is what Examine found.
type Report struct {
	Level    Level     `json:"level"` // the worst
	Findings []Finding `json:"findings"`
}

// Options say where a box's things are, as in agent.Options. State is required.
type Options struct {
	State, Root, RunnerSocket string
	Sensors                   map[string]string
	Outside                   sense.Outside
	Server, Proxy, ProxyAuth  string
	MinFreeBytes              int64 // default 1 GiB
	// Net opens a TCP connection; nil means the system's network.
	Net func(ctx context.Context, network, address string) (net.Conn, error)
	// WallClock is the clock that is judged; nil means the kernel's.
	WallClock func() time.Time
	// Each, if set, is told of each finding as it comes: the ways take long.
	Each func(Finding)
}

// wayLimit bounds one way to the controller.
const wayLimit = 15 * time.Second

// Examine looks at everything.
func Examine(ctx context.Context, opts Options) Report {
	r := Report{Level: OK}
	note := func(found ...Finding) {
		for _, f := range found {
			r.Findings = append(r.Findings, f)
			if f.Level == Fail || f.Level == Warn && r.Level == OK {
				r.Level = f.Level
			}
			if opts.Each != nil {
				opts.Each(f)
			}
		}
	}
	e := examination{opts: opts, now: time.Now}
	if opts.WallClock != nil {
		e.now = opts.WallClock
	}
	if e.opts.MinFreeBytes == 0 {
		e.opts.MinFreeBytes = 1 << 30
	}
	id, f := e.identity()
	note(f, e.clock(), e.disk())
	if id != nil {
		note(e.ways(ctx, id)...)
	}
	note(e.trust()...)
	note(e.sensors(ctx), e.runner(ctx))
	return r
}

type examination struct {
	opts Options
	now  func() time.Time
}

func (e examination) identity() (*identity.Identity, Finding) {
	f := Finding{Check: "identity", Level: Fail}
	id, err := enrol.Load(agent.IdentityDir(e.opts.State))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Found, f.Way = "this box is not enrolled", "ask ops for a token, then: edgeherd-agent enroll TOKEN"
		return nil, f
	case err != nil:
		f.Found, f.Way = err.Error(), "run this as the user of the agent; if the files are damaged, enrol the box anew with a replace token"
		return nil, f
	}
	leaf := id.Certificate.Leaf
	f.Level = OK
	f.Found = fmt.Sprintf("%s %q at site %s, certificate good until %s", id.ID, id.Name, id.Site, leaf.NotAfter.Format(time.DateOnly))
	half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 3 / 4)
	switch now := e.now(); {
	case now.After(leaf.NotAfter):
		f.Level, f.Way = Warn, "nothing by hand: the controller renews it when the box gets through, see the ways below"
	case now.After(half):
		f.Level, f.Way = Warn, "it should have been renewed at half of its life: see the ways below"
	}
	return id, f
}

// builtAfter is when this program was written: an earlier clock is wrong.
var builtAfter = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func (e examination) clock() Finding {
	now := e.now()
	f := Finding{Check: "clock", Level: OK, Found: now.UTC().Format(time.RFC3339)}
	const way = "let the site's network pass NTP (UDP 123), or change the battery of the board; telemetry is placed by the controller's clock meanwhile"
	if now.Before(builtAfter) {
		f.Level, f.Way = Warn, way
		f.Found += ": not set"
		return f
	}
	var tx unix.Timex
	if state, err := unix.Adjtimex(&tx); e.opts.WallClock == nil && (err != nil || state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0) {
		f.Level, f.Way = Warn, way
		f.Found += ": nothing keeps it right"
	}
	return f
}

func (e examination) disk() Finding {
	f := Finding{Check: "disk", Level: Fail}
	if err := probeWrite(e.opts.State); err != nil {
		f.Found = "no writes: " + err.Error()
		switch {
		case errors.Is(err, unix.ENOSPC):
			f.Way = "make room on the disk of " + e.opts.State
		case errors.Is(err, unix.EROFS):
			f.Way = "the file system is read-only: after a fault of the disk the kernel makes it so; look at dmesg, change the SSD"
		case errors.Is(err, fs.ErrPermission):
			f.Way = "run this as the user of the agent, or mend the owner of " + e.opts.State
		default:
			f.Way = "look at dmesg; change the SSD if it names the disk"
		}
		return f
	}
	var s unix.Statfs_t
	if err := unix.Statfs(e.opts.State, &s); err != nil {
		f.Found, f.Way = err.Error(), "mount the disk of "+e.opts.State
		return f
	}
	free, total := int64(s.Bavail)*s.Bsize, int64(s.Blocks)*s.Bsize
	f.Level, f.Found = OK, fmt.Sprintf("%.1f of %.1f GB free", float64(free)/1e9, float64(total)/1e9)
	// Models may have a disk of their own.
	models := filepath.Join(e.opts.State, "blobs")
	if err := unix.Statfs(models, &s); err == nil && int64(s.Blocks)*s.Bsize != total {
		free, total = int64(s.Bavail)*s.Bsize, int64(s.Blocks)*s.Bsize
		f.Found += fmt.Sprintf(", of models in %s: %.1f of %.1f GB", models, float64(free)/1e9, float64(total)/1e9)
	}
	if free < e.opts.MinFreeBytes {
		f.Level, f.Way = Warn, fmt.Sprintf("make room: downloads leave %.1f GB free, so new versions wait", float64(e.opts.MinFreeBytes)/1e9)
	}
	return f
}

// probeWrite writes a few bytes through to the disk and takes them away again.
func probeWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return err
	}
	return f.Sync()
}

func (e examination) sensors(ctx context.Context) Finding {
	outside := e.opts.Outside
	outside.Dust, outside.Pressure = nil, sense.Outside{}.Pressure // the agent has those lines for itself
	s := sense.New(sense.Options{Root: e.opts.Root, Roles: e.opts.Sensors, Outside: outside, StateDir: e.opts.State}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	readings, err := s.Read(ctx)
	f := Finding{Check: "sensors", Level: OK, Found: fmt.Sprintf("%d values", len(readings))}
	die := false
	for _, r := range readings {
		die = die || r.Metric == string(sense.TempDie)
	}
	switch {
	case !die:
		f.Level, f.Found = Warn, f.Found+", none of them the temperature of the die"
		f.Way = "load the kernel module of the board's sensors (coretemp, k10temp), or name one: edgeherd-agent sensors lists their keys for the key sensors of agent.yaml"
	case err != nil:
		f.Level, f.Found = Warn, f.Found+"; "+strings.ReplaceAll(err.Error(), "\n", "; ")
		f.Way = "edgeherd-agent sensors shows which; one that is broken can have the role none in agent.yaml"
	}
	return f
}

func (e examination) runner(ctx context.Context) Finding {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	client := runnerapi.Dial(e.opts.RunnerSocket)
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil {
		return Finding{"runner", Fail, err.Error(), "systemctl status edgeherd-runner; journalctl -u edgeherd-runner"}
	}
	f := Finding{Check: "runner", Level: OK, Found: s.Version + ", no model yet"}
	var ready, failed []string
	damaged := false
	for _, m := range s.Models {
		name := m.Name + " " + m.Version
		if m.State == runnerapi.ModelFailed {
			failed = append(failed, name+": "+m.Err)
			damaged = damaged || m.Damaged
			continue
		}
		ready = append(ready, name)
	}
	if len(ready) > 0 {
		f.Found = s.Version + " serves " + strings.Join(ready, ", ")
	}
	if len(failed) > 0 {
		f.Level, f.Found = Fail, f.Found+"; failed: "+strings.Join(failed, "; ")
		f.Way = "tell ops: the model does not run on this box"
	}
	if damaged {
		f.Way = "wait: the agent fetches what is damaged again, which needs the line or a stick; if it comes up again, replace the disk"
	}
	return f
}

// linked is how the agent on this state directory stands, and whether it runs
// and is connected.
func (e examination) linked() (agent.Status, bool) {
	s, err := agent.ReadStatus(e.opts.State)
	if err != nil {
		return s, false
	}
	_, err = os.Stat(filepath.Join("/proc", strconv.Itoa(s.Process)))
	return s, err == nil && s.Connected
}
