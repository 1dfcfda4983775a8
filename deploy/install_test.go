package deploy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// machine follows the steps of README.md as a shell would, with every absolute
// path moved below root, and plays systemctl.
type machine struct {
	t    *testing.T
	root string
	work string // where the steps are done
	env  []string
	runs map[string]*exec.Cmd // by unit
	// pages is the port of the pages, and said what the last command printed.
	pages, said string
}

// absolute finds the paths of a system in a command or a configuration.
var absolute = regexp.MustCompile(`(^|[\s=:])/(usr|etc|var|run)/`)

func (m *machine) moved(text string) string {
	return absolute.ReplaceAllString(text, "${1}"+m.root+"/${2}/")
}

// steps are the lines of the fenced blocks, in order.
func steps(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	must(t, err)
	var lines []string
	fenced := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		} else if fenced && line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// step does one line.
func (m *machine) step(line string) {
	m.t.Helper()
	line, _, _ = strings.Cut(line, " # ") // notes for people
	line = strings.ReplaceAll(line, "0.0.0.0:8443", "0.0.0.0:"+m.pages)
	words := strings.Fields(strings.ReplaceAll(m.moved(line), "TOKEN", strings.TrimSpace(m.said)))
	switch words[0] {
	case "useradd", "chown":
		return // the test is its own user
	case "journalctl":
		m.firstAdmin()
		return
	case "export":
		m.env = append(m.env, words[1])
		return
	case "systemctl":
		m.systemctl(words[1:])
		return
	case "edgeherd-agent": // its own default is the file of this machine
		words = append(words, "--tpm", "off", "--config", filepath.Join(m.root, "etc/edgeherd/agent.yaml"))
	}
	var out, notes bytes.Buffer
	cmd := exec.CommandContext(m.t.Context(), "bash", "-c", strings.Join(words, " "))
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = m.work, m.env, &out, &notes
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("%s: %v\n%s%s", line, err, &out, &notes)
	}
	m.said = out.String()
}

// firstAdmin does what a person does with the address in the journal.
func (m *machine) firstAdmin() {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, "edgeherd-server.log"))
	must(m.t, err)
	address := regexp.MustCompile(`https://[^\s]+/set-password#[^\s]+`).FindString(string(text))
	page, err := url.Parse(address)
	if err != nil || page.Fragment == "" {
		m.t.Fatalf("the journal shows no address for the first admin: %s", text)
	}
	pem, err := os.ReadFile(filepath.Join(m.root, "var/lib/edgeherd/server/ca/ca.pem"))
	must(m.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	body, err := json.Marshal(map[string]string{"secret": page.Fragment, "name": "anna", "password": "correct horse battery"})
	must(m.t, err)
	resp, err := client.Post("https://"+page.Host+"/api/v1/passwords", "application/json", bytes.NewReader(body))
	must(m.t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, err := io.ReadAll(resp.Body)
		m.t.Fatalf("the first admin: %s %s %v", resp.Status, answer, err)
	}
}

func (m *machine) systemctl(words []string) {
	m.t.Helper()
	verb := words[0]
	for _, unit := range words[1:] {
		switch {
		case unit == "--now":
		case verb == "restart":
			m.stop(unit)
			m.start(unit)
		default: // enable --now
			m.start(unit)
		}
	}
}

// start does what a unit says of folders and of the command.
func (m *machine) start(unit string) {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, "etc", "systemd", "system", unit+".service"))
	must(m.t, err)
	var command []string
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		below := map[string]string{"StateDirectory": "var/lib", "RuntimeDirectory": "run"}[key]
		for _, dir := range strings.Fields(value) {
			if below != "" {
				must(m.t, os.MkdirAll(filepath.Join(m.root, below, dir), 0o750))
			}
		}
		if key == "ExecStart" {
			command = strings.Fields(m.moved(value))
		}
	}
	log, err := os.OpenFile(filepath.Join(m.root, unit+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(m.t, err)
	defer log.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", m.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(m.t, cmd.Start())
	m.runs[unit] = cmd
	if unit == "edgeherd-server" {
		m.eventually("the controller listens", func() error {
			text, err := os.ReadFile(log.Name())
			if err == nil && !strings.Contains(string(text), "controller is up") {
				err = fmt.Errorf("it says: %s", text)
			}
			return err
		})
	}
}

func (m *machine) stop(unit string) {
	m.t.Helper()
	cmd := m.runs[unit]
	if cmd == nil {
		m.t.Fatalf("%s does not run", unit)
	}
	delete(m.runs, unit)
	must(m.t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(filepath.Join(m.root, unit+".log"))
		m.t.Errorf("%s ended with %v\n%s", unit, err, text)
	}
	must(m.t, os.Remove(filepath.Join(m.root, unit+".log"))) // the next start is looked at anew
}

func (m *machine) eventually(what string, ask func() error) {
	m.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(5 * time.Minute)
	defer deadline.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			m.t.Fatalf("%s: not within five minutes: %v", what, err)
		case <-tick.C:
		}
	}
}

// unpack lays out what a person has at hand: programs, units, configurations.
func (m *machine) unpack() {
	m.t.Helper()
	for _, p := range []string{"edgeherd", "edgeherd-agent", "edgeherd-runner", "edgeherd-launcher"} {
		must(m.t, os.Symlink(filepath.Join(bin(m.t), p), filepath.Join(m.work, p)))
	}
	library, err := filepath.Abs(assets.Library(m.t))
	must(m.t, err)
	must(m.t, os.Symlink(library, filepath.Join(m.work, "libonnxruntime.so.1")))
	for _, dir := range []string{"bin", "config", "systemd", "udev"} {
		must(m.t, os.CopyFS(filepath.Join(m.work, dir), os.DirFS(dir)))
	}
	for _, dir := range []string{"usr/bin", "etc/systemd/system", "var/lib", "run"} {
		must(m.t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	m.pages = strings.TrimPrefix(port(m.t), "127.0.0.1:")
	for _, file := range []string{"config/server.yaml", "config/agent.yaml", "config/runner.yaml", "bin/edgeherd-agent"} {
		file = filepath.Join(m.work, file)
		text, err := os.ReadFile(file)
		must(m.t, err)
		now := m.moved(string(text))
		for _, change := range [][2]string{
			{"127.0.0.1:8443", "127.0.0.1:" + m.pages}, {"0.0.0.0:8444", port(m.t)}, {"0.0.0.0:8883", port(m.t)}, {"127.0.0.1:8000", port(m.t)},
			{"fleet.example.com", "127.0.0.1"}, // "set hosts"
			{"first_delay: 60s", "first_delay: 0s"},
		} {
			now = strings.ReplaceAll(now, change[0], change[1])
		}
		must(m.t, os.WriteFile(file, []byte(now), 0o644))
	}
}

// port is a free address on loopback.
func port(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	must(t, err)
	return address
}

func TestInstallationByTheSteps(t *testing.T) {
	root, err := os.MkdirTemp("", "eh") // short: a socket lies below it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	m := &machine{t: t, root: root, work: filepath.Join(root, "at-hand"), runs: map[string]*exec.Cmd{}}
	m.env = []string{"PATH=" + filepath.Join(root, "usr", "bin") + ":" + os.Getenv("PATH"), "HOME=" + root}
	t.Cleanup(func() {
		for unit, cmd := range m.runs {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				text, _ := os.ReadFile(filepath.Join(root, unit+".log"))
				t.Logf("--- %s\n%s", unit, text)
			}
		}
	})
	must(t, os.Mkdir(m.work, 0o755))
	m.unpack()
	for _, line := range steps(t) {
		m.step(line)
	}
	m.eventually("the box is live, with its runner", m.boxIsLive)
	for _, unit := range []string{"edgeherd-agent", "edgeherd-runner", "edgeherd-server"} {
		m.stop(unit)
	}
}

// boxIsLive asks as alice, over TLS.
func (m *machine) boxIsLive() error {
	cmd := exec.CommandContext(m.t.Context(), "edgeherd", "box", "list", "-o", "json", "--context", filepath.Join(m.work, "alice.json"))
	cmd.Path = filepath.Join(m.root, "usr", "bin", "edgeherd")
	cmd.Err, cmd.Env = nil, m.env
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return err
	}
	var list struct {
		Items []struct {
			Name, Site, Link string
			Simulated        bool
			Inventory        struct{ Agent, Runner, Slot string }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return err
	}
	if len(list.Items) != 1 {
		return fmt.Errorf("boxes: %s", out)
	}
	b := list.Items[0]
	if b.Name != "till-3" || b.Site != "berlin-1" || b.Link != "live" || b.Simulated || b.Inventory.Agent == "" || b.Inventory.Runner == "" || b.Inventory.Slot != "a" {
		return fmt.Errorf("box %+v", b)
	}
	return nil
}
