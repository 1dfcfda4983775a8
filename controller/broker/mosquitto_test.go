package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// These tests run the Mosquitto of the distribution with the configuration
// that `edgeherd server broker-config mosquitto` prints, as it is.

// freePort is a port of loopback on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return int(netip.MustParseAddrPort(address).Port())
}

// mosquitto is a running Mosquitto with the certificates of a CA.
type mosquitto struct {
	t    *testing.T
	ca   *identity.CA
	dir  string
	port int
	cmd  *exec.Cmd
	out  *bytes.Buffer
}

// startMosquitto runs the generated configuration after change.
func startMosquitto(t *testing.T, change func(conf string) string) *mosquitto {
	t.Helper()
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return runMosquitto(t, ca, change)
}

func runMosquitto(t *testing.T, ca *identity.CA, change func(conf string) string) *mosquitto {
	t.Helper()
	assets.Program(t, "mosquitto")
	m := &mosquitto{t: t, ca: ca, port: freePort(t)}
	var err error
	if m.dir, err = os.MkdirTemp("", "eh"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(m.dir) })
	conf, acl := broker.Setup{Dir: m.dir, Port: m.port}.Mosquitto()
	if change != nil {
		conf = change(conf)
	}
	cert, key, err := m.ca.IssueServerPEM([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := m.ca.RevocationList(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		broker.FileCRL: list, broker.FileCA: m.ca.PEM(), broker.FileCert: cert, broker.FileKey: key, broker.FileACL: []byte(acl), "mosquitto.conf": []byte(conf),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.own()
	m.start()
	t.Cleanup(m.kill)
	return m
}

// own gives the files to the user that Mosquitto becomes when root starts it.
func (m *mosquitto) own() {
	m.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("mosquitto")
	if err != nil {
		m.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	files, _ := filepath.Glob(filepath.Join(m.dir, "*"))
	for _, f := range append(files, m.dir) {
		if err := os.Chown(f, uid, -1); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.out = &bytes.Buffer{}
	m.cmd = exec.Command(assets.Program(m.t, "mosquitto"), "-c", filepath.Join(m.dir, "mosquitto.conf"))
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	until(m.t, "Mosquitto listens", func() bool {
		conn, err := net.Dial("tcp", m.addr())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
	if m.t.Failed() {
		m.t.Logf("Mosquitto said:\n%s", m.out)
	}
}

func (m *mosquitto) addr() string { return fmt.Sprintf("127.0.0.1:%d", m.port) }

// until asks ten times a second until cond holds.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute) // a loaded machine is slow
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// controllerTLS is how a controller of the CA proves itself.
func controllerTLS(t *testing.T, ca *identity.CA) *tls.Config {
	t.Helper()
	cert, err := ca.IssueClient(broker.ControllerName)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}}
}

func boxTLS(t *testing.T, ca *identity.CA) func(identity.ID) (*tls.Config, error) {
	return func(id identity.ID) (*tls.Config, error) {
		cert, err := ca.IssueProbe(id)
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}}, err
	}
}

func (m *mosquitto) probe() broker.Probe {
	return broker.Probe{
		Remote: broker.Remote{URL: "mqtts://" + m.addr(), TLS: controllerTLS(m.t, m.ca)}, Shared: true,
		BoxTLS: boxTLS(m.t, m.ca), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func TestTheProbePassesTheGeneratedMosquittoAndNamesEachWrongSetting(t *testing.T) {
	for _, tc := range []struct {
		name     string
		old, new string // of the configuration
		want     string
		absent   bool // it is known by what does not come
	}{
		{"as printed", "", "", "", false},
		{"queue of 1000", "max_queued_messages 0", "max_queued_messages 1000", "max_queued_messages 0", true},
		{"small messages", fmt.Sprint("message_size_limit ", wire.MaxMessageBytes), "message_size_limit 65536", "message_size_limit", true},
		{"retained messages", "retain_available false", "retain_available true", "retain_available false", false},
		{"anybody may come", "require_certificate true\nuse_identity_as_username true\nallow_anonymous false", "allow_anonymous true", "require_certificate true", false},
		{"no access list", "acl_file ", "# ", "a box can", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := startMosquitto(t, func(conf string) string {
				if !strings.Contains(conf, tc.old) {
					t.Fatalf("the configuration lacks %q", tc.old)
				}
				if tc.old == "" {
					return conf
				}
				if tc.name == "anybody may come" { // also without the list, which would refuse the probe itself
					conf = strings.Replace(conf, "acl_file ", "# ", 1)
				}
				return strings.Replace(conf, tc.old, tc.new, 1)
			})
			p := m.probe()
			p.Within = time.Minute // of a loaded machine
			if tc.absent {
				p.Within = 8 * time.Second
			}
			err := p.Run(t.Context())
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != "" && (!errors.Is(err, broker.ErrUnfit) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want ErrUnfit with %q", err, tc.want)
			}
		})
	}
}

// Mosquitto as the distribution configures it, apart from the certificates.
func TestMosquittoWithItsDefaultsIsRefusedByTheProbe(t *testing.T) {
	m := startMosquitto(t, func(conf string) string {
		var kept []string
		for line := range strings.Lines(conf) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch word {
			case "listener", "cafile", "certfile", "keyfile", "require_certificate", "use_identity_as_username", "allow_anonymous", "acl_file":
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	})
	p := m.probe()
	p.Within = 8 * time.Second // what does not come is waited for
	err := p.Run(t.Context())
	if !errors.Is(err, broker.ErrUnfit) || !strings.Contains(err.Error(), "max_queued_messages 0") {
		t.Errorf("got %v, want that max_queued_messages is named", err)
	}
}

func TestABrokerThatIsAwayIsNotCalledUnfit(t *testing.T) {
	m := startMosquitto(t, nil)
	p := m.probe()
	m.kill()
	if err := p.Run(t.Context()); err == nil || errors.Is(err, broker.ErrUnfit) {
		t.Errorf("got %v, want an error to try again after", err)
	}
}

// heard is a sink that remembers the payloads of each box.
type heard struct {
	mu  sync.Mutex // guards got
	got map[identity.ID][]string
}

func (h *heard) Deliver(_ context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.got == nil {
		h.got = map[identity.ID][]string{}
	}
	h.got[id] = append(h.got[id], string(topic)+" "+string(payload))
	return nil
}

func (h *heard) of(id identity.ID) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.got[id]...)
}

// external runs an External at m until the test ends.
func (m *mosquitto) external(sink broker.Sink, change func(*broker.ExternalOptions)) *broker.External {
	m.t.Helper()
	opts := broker.ExternalOptions{Remote: m.probe().Remote, Sink: sink, Shared: true}
	if change != nil {
		change(&opts)
	}
	x, err := broker.NewExternal(opts, slog.New(slog.DiscardHandler))
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	m.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			m.t.Error(err)
		}
	})
	return x
}

// box connects with the certificate of id; got takes what comes down.
func (m *mosquitto) box(id identity.ID, client string, got mqtt.MessageHandler) (mqtt.Client, error) {
	cfg, err := boxTLS(m.t, m.ca)(id)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.shows(cfg, client, got)
}

func (m *mosquitto) shows(cfg *tls.Config, client string, got mqtt.MessageHandler) (mqtt.Client, error) {
	o := mqtt.NewClientOptions().AddBroker("ssl://" + m.addr()).SetClientID(client).SetTLSConfig(cfg).
		SetAutoReconnect(false).SetCleanSession(true).SetProtocolVersion(4).SetDefaultPublishHandler(got)
	c := mqtt.NewClient(o)
	token := c.Connect()
	token.WaitTimeout(time.Minute)
	m.t.Cleanup(func() { c.Disconnect(0) })
	return c, token.Error()
}

func (m *mosquitto) mustBox(id identity.ID, got mqtt.MessageHandler) mqtt.Client {
	m.t.Helper()
	c, err := m.box(id, wire.ClientID(id, wire.SID{1}), got)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func ok(t *testing.T, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(time.Minute) || token.Error() != nil {
		t.Fatalf("broker answered %v", token.Error())
	}
}

func TestTwoControllersAtOneBrokerGetEachMessageOnceAndBothReachTheBox(t *testing.T) {
	m := startMosquitto(t, nil)
	sinks := []*heard{{}, {}}
	xs := []*broker.External{m.external(sinks[0], nil), m.external(sinks[1], nil)}
	down := make(chan string, 100)
	box := m.mustBox(boxA, func(_ mqtt.Client, msg mqtt.Message) { down <- string(msg.Payload()) })
	ok(t, box.Subscribe(wire.TopicDown.For(boxA), 1, nil))
	for i, x := range xs {
		until(t, "the controller is connected", func() bool {
			return x.Publish(boxA, wire.TopicAck, fmt.Appendf(nil, "from %d", i), 1) == nil
		})
		if got := <-down; got != fmt.Sprintf("from %d", i) {
			t.Fatalf("the box got %q", got)
		}
	}
	// Both have subscribed when both hear something.
	sent := 0
	until(t, "both controllers hear the box", func() bool {
		ok(t, box.Publish(wire.TopicData.For(boxA), 1, false, fmt.Sprint(sent)))
		sent++
		return len(sinks[0].of(boxA)) > 0 && len(sinks[1].of(boxA)) > 0
	})
	before := len(sinks[0].of(boxA)) + len(sinks[1].of(boxA))
	const more = 200
	for i := range more {
		ok(t, box.Publish(wire.TopicData.For(boxA), 1, false, fmt.Sprint("more ", i)))
	}
	total := func() map[string]int {
		seen := map[string]int{}
		for _, s := range sinks {
			for _, text := range s.of(boxA) {
				seen[text]++
			}
		}
		return seen
	}
	until(t, "all messages arrive", func() bool { return len(total()) >= before-1+more })
	for text, n := range total() {
		if n != 1 {
			t.Errorf("%q arrived %d times", text, n)
		}
	}
}

func TestTheGeneratedListRefusesForgedTopicsIdentitiesAndListeners(t *testing.T) {
	m := startMosquitto(t, nil)
	sink := &heard{}
	m.external(sink, nil)
	var overheard sync.Map
	var thief mqtt.Client
	// Mosquitto ends some connections that ask for too much.
	again := func() mqtt.Client {
		if thief == nil || !thief.IsConnectionOpen() {
			thief = m.mustBox(boxB, func(_ mqtt.Client, msg mqtt.Message) { overheard.Store(msg.Topic(), true) })
		}
		return thief
	}
	honest := m.mustBox(boxA, func(mqtt.Client, mqtt.Message) {})
	until(t, "the controller listens", func() bool {
		ok(t, honest.Publish(wire.TopicHello.For(boxA), 1, false, "here"))
		return len(sink.of(boxA)) > 0
	})
	for _, filter := range []string{"#", "eh/#", wire.TopicDown.For(boxA), wire.TopicData.For(boxA), "$share/ctl/eh/1/default/+/up/#", "eh/1/default/+/dn/#"} {
		again().Subscribe(filter, 1, nil).WaitTimeout(10 * time.Second)
	}
	for _, topic := range []wire.Topic{wire.TopicHello, wire.TopicData, wire.TopicWill, wire.TopicAck} {
		again().Publish(topic.For(boxA), 1, false, "forged").WaitTimeout(10 * time.Second)
	}
	again().Publish(wire.TopicWant.For(boxB), 1, false, "forged").WaitTimeout(10 * time.Second)
	until(t, "what is the thief's own arrives", func() bool {
		// The connection may just be ending for what was asked before.
		again().Publish(wire.TopicData.For(boxB), 1, false, "own").WaitTimeout(10 * time.Second)
		return len(sink.of(boxB)) > 0
	})
	ok(t, honest.Publish(wire.TopicData.For(boxA), 1, false, "end"))
	until(t, "what is allowed arrives", func() bool {
		all := sink.of(boxA)
		return all[len(all)-1] == "up/data end"
	})
	for _, text := range sink.of(boxA) {
		if strings.Contains(text, "forged") {
			t.Errorf("forged message arrived: %q", text)
		}
	}
	overheard.Range(func(topic, _ any) bool {
		t.Errorf("box B heard %v", topic)
		return true
	})
	// A certificate of another CA, and none, open nothing.
	other, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign := *m
	foreign.ca = other
	cfg, _ := boxTLS(t, other)(boxA)
	cfg.RootCAs = m.ca.Pool()
	o := mqtt.NewClientOptions().AddBroker("ssl://" + m.addr()).SetClientID("x").SetTLSConfig(cfg).SetAutoReconnect(false)
	token := mqtt.NewClient(o).Connect()
	if token.WaitTimeout(10*time.Second) && token.Error() == nil {
		t.Error("a certificate of another CA was let in")
	}
}

func TestMosquittoLetsNoRevokedCertificateIn(t *testing.T) {
	dir, ago := t.TempDir(), -26*30*24*time.Hour
	before, err := identity.OpenCA(dir, func() time.Time { return time.Now().Add(ago) })
	if err != nil {
		t.Fatal(err)
	}
	ago = 0
	older := certificate(t, before)
	// Its authority is made anew, as it is every two years: what the one before
	// has certified comes in, unless it is revoked.
	ca, err := identity.OpenCA(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := certificate(t, ca), certificate(t, ca)
	if bytes.Equal(older.Leaf.AuthorityKeyId, good.Leaf.AuthorityKeyId) {
		t.Fatal("the authority was not made anew")
	}
	m := runMosquitto(t, ca, nil)
	enters := func(cert tls.Certificate) bool {
		c, err := m.shows(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert}}, wire.ClientID(boxA, wire.SID{1}), nil)
		c.Disconnect(0)
		return err == nil
	}
	for name, cert := range map[string]tls.Certificate{"older": older, "good": good, "bad": bad} {
		if !enters(cert) {
			t.Fatalf("%s is not let in though nothing is revoked", name)
		}
	}
	var revoked []identity.Revoked
	for _, c := range []tls.Certificate{older, bad} {
		revoked = append(revoked, identity.Revoked{Serial: c.Leaf.SerialNumber.Text(16), Since: time.Now()})
	}
	until(t, "both are refused", func() bool { // of two lists the later second counts
		list, err := ca.RevocationList(revoked)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.dir, broker.FileCRL), list, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := m.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		return !enters(older) && !enters(bad)
	})
	if !enters(good) {
		t.Error("who was not revoked is refused")
	}
}

// certificate is one of box A.
func certificate(t *testing.T, ca *identity.CA) tls.Certificate {
	t.Helper()
	cert, err := ca.IssueProbe(boxA)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestABoxThatNobodyEnrolledIsRefusedAndNamedOnce(t *testing.T) {
	m := startMosquitto(t, nil)
	var text lockedText
	sink := &heard{}
	var asked atomic.Int64 // the first answer, which is none, must not brand anybody
	opts := broker.ExternalOptions{Remote: m.probe().Remote, Sink: sink, Shared: true, Known: func(_ context.Context, id identity.ID) (bool, error) {
		if asked.Add(1) == 1 {
			return false, errors.New("the database is away")
		}
		return id != boxB, nil
	}}
	x, err := broker.NewExternal(opts, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	defer func() { cancel(); <-done }()
	known, strange := m.mustBox(boxA, nil), m.mustBox(boxB, nil)
	until(t, "the controller listens", func() bool {
		for range 3 {
			ok(t, strange.Publish(wire.TopicHello.For(boxB), 1, false, "hello"))
		}
		ok(t, known.Publish(wire.TopicHello.For(boxA), 1, false, "hello"))
		return len(sink.of(boxA)) > 2
	})
	if n := len(sink.of(boxB)); n != 0 {
		t.Errorf("%d messages of an unknown box were taken", n)
	}
	if n := strings.Count(text.String(), "device="+string(boxB)); n != 1 {
		t.Errorf("the unknown box was named %d times:\n%s", n, text.String())
	}
}

type lockedText struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWithoutSharedSubscriptionsOnlyTheLeaderListens(t *testing.T) {
	m := startMosquitto(t, nil)
	var lead [2]sync.Map
	sinks := []*heard{{}, {}}
	for i := range sinks {
		m.external(sinks[i], func(o *broker.ExternalOptions) {
			o.Shared = false
			o.Lead = func() bool { _, yes := lead[i].Load("lead"); return yes }
		})
	}
	box := m.mustBox(boxA, nil)
	for turn := range 2 {
		lead[turn].Store("lead", true)
		lead[1-turn].Delete("lead")
		at := len(sinks[turn].of(boxA))
		until(t, "the new leader hears", func() bool {
			ok(t, box.Publish(wire.TopicData.For(boxA), 1, false, "x"))
			return len(sinks[turn].of(boxA)) > at
		})
		// The old leader unsubscribes by itself; then only one hears.
		until(t, "the old leader hears no more", func() bool {
			mine, other := len(sinks[turn].of(boxA)), len(sinks[1-turn].of(boxA))
			for range 3 {
				ok(t, box.Publish(wire.TopicData.For(boxA), 1, false, "y"))
			}
			until(t, "the leader hears", func() bool { return len(sinks[turn].of(boxA)) >= mine+3 })
			return len(sinks[1-turn].of(boxA)) == other
		})
	}
}
