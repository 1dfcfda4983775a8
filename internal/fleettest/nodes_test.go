package fleettest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/fleettest"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

func handshake(ctx context.Context, raw net.Conn, id *identity.Identity) (net.Conn, error) {
	conn := tls.Client(raw, id.ClientTLS(time.Now))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// balance puts HAProxy before the MQTT ports of all controllers, as deploy has
// it, but for addresses and patience.
func (r *rig) balance() string {
	r.t.Helper()
	entry := freeAddr(r.t)
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "haproxy.cfg"))
	must(r.t, err)
	_, defaults, _ := strings.Cut(string(text), "\ndefaults\n")
	defaults, _, _ = strings.Cut(defaults, "\nfrontend ")
	_, mqtt, _ := strings.Cut(string(text), "\nfrontend mqtt\n")
	mqtt, servers, _ := strings.Cut(mqtt, "  server one ")
	_, how, _ := strings.Cut(servers, ":8883 ")
	how, _, _ = strings.Cut(how, "\n")
	conf := "global\n  maxconn 2000\ndefaults\n" + defaults + "\nfrontend mqtt\n" + strings.Replace(mqtt, ":8883", entry, 1)
	for i, h := range r.hosts {
		conf += fmt.Sprintf("  server c%d %s %s\n", i, h.mqtt, strings.Replace(how, "inter 2s fall 2", "inter 500ms fall 1 rise 1", 1))
	}
	file := filepath.Join(r.dir, "haproxy.cfg")
	must(r.t, os.WriteFile(file, []byte(conf), 0o600))
	cmd := exec.Command(assets.Program(r.t, "haproxy"), "-db", "-f", file)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(r.t, cmd.Start())
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	await(r.t, time.Minute, "HAProxy listens", func() error {
		conn, err := net.Dial("tcp", entry)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return entry
}

// push makes a model and brings it to the controller h.
func (r *rig) push(h *host, version string) models.Ref {
	r.t.Helper()
	dir := r.t.TempDir()
	yaml := "name: demo\nversion: " + version + "\ndescription: test\nlicence: Apache-2.0\nupstream: none\nfiles:\n  - model.onnx\n"
	for name, data := range map[string][]byte{"model.yaml": []byte(yaml), models.ModelFile: fleettest.IdentityModel("x", version)} {
		must(r.t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	ref, err := fleetapi.PushModelDir(r.t.Context(), h.api(), dir, r.keyPath, nil)
	must(r.t, err)
	return ref
}

// roll starts a rollout at h.
func (r *rig) roll(h *host, ref models.Ref) string {
	r.t.Helper()
	plan, err := h.api().Plan(r.t.Context(), fleetapi.PlanRequest{Model: ref.String(), Waves: []string{"1", "rest"}})
	must(r.t, err)
	_, err = h.api().Act(r.t.Context(), plan.ID, "start")
	must(r.t, err)
	return plan.ID
}

// done waits at h for the good end of a rollout.
func (r *rig) done(h *host, id string) {
	r.t.Helper()
	await(r.t, 2*time.Minute, "the rollout is done", func() error {
		ro, err := h.api().Rollout(r.t.Context(), id)
		if err == nil && ro.State != fleetapi.RolloutDone {
			err = fmt.Errorf("it is %s: %s", ro.State, ro.Sentence)
		}
		return err
	})
}

// leader is the controller that holds the lease, found by asking who says so.
func (r *rig) leader() int {
	r.t.Helper()
	at := -1
	await(r.t, time.Minute, "a controller leads", func() error {
		for i, h := range r.hosts {
			lines := strings.Split(h.said.String(), "\n")
			for j := len(lines) - 1; j >= 0; j-- {
				if strings.Contains(lines[j], "leader changed") {
					if strings.Contains(lines[j], "leads=true") {
						at = i
					}
					break
				}
			}
		}
		if at < 0 {
			return fmt.Errorf("nobody says so")
		}
		return nil
	})
	return at
}

func TestThreeControllersServeOneFleetAndAnyOfThemMayDie(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	t.Parallel()
	assets.Program(t, "haproxy")
	r := newRig(t, 3, 6, "")
	r.startAll()
	r.startBoxes(r.balance())
	r.allConnected(time.Minute)
	if n := r.ask(`SELECT count(DISTINCT node) FROM session`); n != "3" {
		t.Errorf("the boxes are connected to %s controllers, want 3", n)
	}
	stop := r.work()
	// Whichever controller is asked, its word reaches the boxes of the others.
	for i, h := range r.hosts {
		r.done(h, r.roll(h, r.push(h, fmt.Sprintf("1.0.%d", i))))
	}
	for round := range r.hosts {
		victim := r.leader()
		if round > 0 { // each in turn; the first is the leader
			victim = (victim + 1) % len(r.hosts)
		}
		other := r.hosts[(victim+1)%len(r.hosts)]
		id := r.roll(other, r.push(other, fmt.Sprintf("2.0.%d", round)))
		r.hosts[victim].kill()
		r.done(other, id)
		r.allConnected(time.Minute)
		r.hosts[victim].start()
	}
	stop()
	r.settle()
}

func TestAControllerWithOtherKeysOrBlobsIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	t.Parallel()
	r := newRig(t, 2, 1, "")
	for _, tc := range []struct {
		name    string
		prepare func(o *controller.Options)
		want    string
	}{
		{"no keys", func(o *controller.Options) { o.Dir = t.TempDir() }, "copy the folders ca and keys"},
		{"other CA", func(o *controller.Options) {
			o.Dir = t.TempDir()
			must(t, os.CopyFS(filepath.Join(o.Dir, "keys"), os.DirFS(filepath.Join(r.hosts[0].state, "keys"))))
			_, err := identity.OpenCA(filepath.Join(o.Dir, "ca"), nil)
			must(t, err)
		}, "the ca in "},
		{"other blobs", func(o *controller.Options) { o.Blobs = t.TempDir() }, `the key "blobs"`},
		{"all the same", func(*controller.Options) {}, ""},
	} {
		o := controller.Options{
			Dir: r.hosts[1].state, Database: r.address, Blobs: filepath.Join(r.dir, "blobs"),
			HTTP: "127.0.0.1:0", Device: "127.0.0.1:0", MQTT: "127.0.0.1:0",
		}
		tc.prepare(&o)
		c, err := controller.Open(t.Context(), o, r.logging)
		if err == nil {
			must(t, c.Close())
		}
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// mosquittoHost is a Mosquitto with the files that broker-config makes.
type mosquittoHost struct {
	rig  *rig
	dir  string
	addr string
	cmd  *exec.Cmd
}

func (m *mosquittoHost) start() {
	t := m.rig.t
	t.Helper()
	m.cmd = exec.Command(assets.Program(t, "mosquitto"), "-c", filepath.Join(m.dir, "mosquitto.conf"))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, m.cmd.Start())
	await(t, time.Minute, "Mosquitto listens", func() error {
		conn, err := net.Dial("tcp", m.addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func (m *mosquittoHost) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// newBrokerRig is newRig with a Mosquitto that runs.
func newBrokerRig(t *testing.T, n, boxes int) (*rig, *mosquittoHost) {
	t.Helper()
	m := &mosquittoHost{addr: freeAddr(t)}
	r := newRig(t, n, boxes, "mqtts://"+m.addr)
	m.rig, m.dir = r, filepath.Join(r.dir, "broker")
	_, port, err := net.SplitHostPort(m.addr)
	must(t, err)
	out, err := exec.Command(r.program, "server", "broker-config", "mosquitto", "--config", r.hosts[0].conf,
		"--out", m.dir, "--dir", m.dir, "--port", port).CombinedOutput()
	if err != nil {
		t.Fatalf("broker-config: %v\n%s", err, out)
	}
	if u, err := user.Lookup("mosquitto"); err == nil && os.Getuid() == 0 { // as the command says
		uid, _ := strconv.Atoi(u.Uid)
		must(t, os.Chown(filepath.Join(m.dir, controller.BrokerFileKey), uid, -1))
		must(t, os.Chmod(r.dir, 0o755))
	}
	m.start()
	t.Cleanup(m.kill)
	return r, m
}

func TestTwoControllersBehindMosquittoLoseNothingWhenAnyOfTheThreeDies(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	t.Parallel()
	assets.Program(t, "mosquitto")
	r, m := newBrokerRig(t, 2, 4)
	r.startAll()
	r.startBoxes(m.addr)
	r.allConnected(2 * time.Minute)
	stop := r.work()
	r.done(r.hosts[1], r.roll(r.hosts[0], r.push(r.hosts[0], "1.0.0")))
	rounds := 1 // what was in flight to a dead controller waits 30 s each time
	if os.Getenv("EDGEHERD_PROVE") != "" {
		rounds = 6
	}
	for round := range rounds {
		m.kill()
		m.start()
		before := r.ask(`SELECT count(*) FROM result`)
		await(t, 2*time.Minute, "boxes deliver again", func() error { return grows(r, before) })
		r.hosts[round%2].kill()
		r.done(r.hosts[1-round%2], r.roll(r.hosts[1-round%2], r.push(r.hosts[1-round%2], fmt.Sprintf("2.0.%d", round))))
		r.hosts[round%2].start()
	}
	stop()
	r.settle()
	r.allConnected(time.Minute)
	// A box that is lost is gone, whichever controller hears its Will; one that
	// ends takes leave itself, for then the broker is silent.
	r.boxes[0].lose()
	r.boxes[1].stop()
	await(t, time.Minute, "two boxes are gone", func() error {
		if n := r.ask(`SELECT count(*) FROM box WHERE connected`); n != strconv.Itoa(len(r.boxes)-2) {
			return fmt.Errorf("%s boxes are connected", n)
		}
		return nil
	})
}

// grows reports whether more results are stored than before.
func grows(r *rig, before string) error {
	if r.ask(`SELECT count(*) FROM result`) == before {
		return fmt.Errorf("%s results, as before", before)
	}
	return nil
}
