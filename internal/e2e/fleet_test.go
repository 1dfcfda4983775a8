package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// fleet is a running `edgeherd up`.
type fleet struct {
	root   string // layout of a checkout
	data   string
	cmd    *exec.Cmd
	log    string // file with what it said
	ended  chan error
	client *fleetapi.Client
	oip    map[string]string // base URL of the inference API by box name
	ports  []string          // all that it chose
}

// startFleet runs up in root with the folder that documents speak of, and
// waits until its API answers. It returns how long that took.
func startFleet(t *testing.T, root string, args ...string) (*fleet, time.Duration) {
	t.Helper()
	began := time.Now()
	f := &fleet{root: root, data: filepath.Join(root, "edgeherd-data"), log: filepath.Join(root, "up.log"), ended: make(chan error, 1)}
	out, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(t, err)
	defer out.Close()
	f.cmd = exec.Command(filepath.Join("build", "bin", "edgeherd"), append([]string{"up"}, args...)...)
	f.cmd.Dir, f.cmd.Env, f.cmd.Stdout, f.cmd.Stderr = root, environ(root), out, out
	// Neither a Ctrl-C at this test nor its sudden end leaves processes behind.
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	must(t, f.cmd.Start())
	go func() { f.ended <- f.cmd.Wait() }()
	t.Cleanup(func() {
		f.cmd.Process.Signal(syscall.SIGTERM)
		<-f.ended
		f.ended <- nil
		if t.Failed() {
			f.tell(t)
		}
	})
	eventually(t, time.Minute, "the API answers", func() error {
		select {
		case err := <-f.ended:
			f.ended <- err
			text, _ := os.ReadFile(f.log)
			t.Fatalf("up ended: %v\n%s", err, text)
		default:
		}
		if err := f.readContext(began); err != nil {
			return err
		}
		_, err := f.client.Summary(t.Context())
		return err
	})
	return f, time.Since(began)
}

// readContext learns addresses from the files that this start has written.
func (f *fleet) readContext(began time.Time) error {
	var c struct{ URL, Token string }
	file := filepath.Join(f.data, "context.json")
	if fi, err := os.Stat(file); err != nil || fi.ModTime().Before(began.Add(-time.Second)) {
		return errors.Join(err, errors.New("no context.json of this start yet"))
	}
	if err := readJSON(file, &c); err != nil {
		return err
	}
	f.client = fleetapi.New(c.URL, c.Token, nil)
	var plan struct {
		State struct {
			HTTP, Device, MQTT string
			OIP                map[string]string
		}
	}
	if err := readJSON(filepath.Join(f.data, "up.json"), &plan); err != nil {
		return err
	}
	p := plan.State
	f.oip, f.ports = map[string]string{}, []string{p.HTTP, p.Device, p.MQTT}
	for name, addr := range p.OIP {
		f.oip[name] = "http://" + addr
		f.ports = append(f.ports, addr)
	}
	slices.Sort(f.ports)
	return nil
}

func readJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// stop sends what Ctrl-C sends and makes sure that nothing is left.
func (f *fleet) stop(t *testing.T) {
	t.Helper()
	family := append(descendants(f.cmd.Process.Pid), f.cmd.Process.Pid)
	must(t, f.cmd.Process.Signal(syscall.SIGINT))
	select {
	case err := <-f.ended:
		f.ended <- nil
		if err != nil {
			t.Errorf("up ended with %v", err)
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("up did not end within 5 minutes of SIGINT")
	}
	eventually(t, time.Minute, "every process has ended", func() error {
		for _, pid := range family {
			if p, ok := look(pid); ok {
				return fmt.Errorf("process %d lives: %s", pid, p.line)
			}
		}
		return nil
	})
}

// tell adds what the processes said to a failure.
func (f *fleet) tell(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(f.data, "log", "*.log"))
	for _, file := range append(files, f.log) {
		text, _ := os.ReadFile(file)
		lines := strings.Split(string(text), "\n")
		t.Logf("--- %s\n%s", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// boxes are all boxes by name.
func (f *fleet) boxes(t *testing.T) (map[string]fleetapi.Box, error) {
	list, err := f.client.AllBoxes(t.Context(), "", "")
	all := map[string]fleetapi.Box{}
	for _, b := range list.Items {
		all[b.Name] = b
	}
	return all, err
}

// allWell waits until every box was heard after since and has read more.
func (f *fleet) allWell(t *testing.T, within time.Duration, since time.Time) {
	t.Helper()
	var before map[string]fleetapi.Box
	eventually(t, within, "all boxes live and reading", func() error {
		now, err := f.boxes(t)
		if err != nil {
			return err
		}
		if len(now) != len(f.oip) {
			return fmt.Errorf("%d boxes", len(now))
		}
		if before == nil {
			before = now
		}
		for name, b := range now {
			if b.Link != fleetapi.LinkLive || b.LastSeen == nil || b.LastSeen.Before(since) {
				return fmt.Errorf("%s is %s, last seen %v", name, b.Link, b.LastSeen)
			}
			if b.Reads.Total <= before[name].Reads.Total {
				return fmt.Errorf("%s has read nothing new", name)
			}
		}
		return nil
	})
}

// rollout waits until a rollout has ended and returns it.
func (f *fleet) rollout(t *testing.T, id string, within time.Duration) fleetapi.Rollout {
	t.Helper()
	var r fleetapi.Rollout
	eventually(t, within, "rollout "+id+" ends", func() (err error) {
		r, err = f.client.Rollout(t.Context(), id)
		if err == nil && r.State == fleetapi.RolloutRunning {
			err = errors.New(r.Sentence)
		}
		return err
	})
	return r
}

// roll starts a rollout by the command and waits for its end.
func (f *fleet) roll(t *testing.T, args string, within time.Duration) fleetapi.Rollout {
	t.Helper()
	out := command(t, f.root, "edgeherd rollout start --yes -o name "+args+" 2>/dev/null")
	return f.rollout(t, strings.TrimSpace(out), within)
}

// process is one process of this machine.
type process struct {
	pid, parent int
	line        string // its command line
}

// look reads /proc; a zombie has ended.
func look(pid int) (process, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// After the name in parentheses, which may hold spaces: state, parent.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 || string(fields[0]) == "Z" {
		return process{}, false
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return process{pid, parent, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))}, true
}

// tree is every process below pid.
func tree(pid int) []process {
	names, _ := filepath.Glob("/proc/[0-9]*")
	children := map[int][]process{}
	for _, n := range names {
		id, _ := strconv.Atoi(filepath.Base(n))
		if p, ok := look(id); ok {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	var all []process
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		for _, c := range children[todo[0]] {
			all, todo = append(all, c), append(todo, c.pid)
		}
	}
	return all
}

func descendants(pid int) (pids []int) {
	for _, p := range tree(pid) {
		pids = append(pids, p.pid)
	}
	return pids
}

// find returns the one process of the fleet whose command line has all words.
func (f *fleet) find(words ...string) (process, error) {
	for _, p := range tree(f.cmd.Process.Pid) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(p.line, w) }) {
			return p, nil
		}
	}
	return process{}, fmt.Errorf("no process with %q", words)
}
