package broker_test

import (
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	nats "github.com/nats-io/nats-server/v2/server"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// natsCluster is three NATS servers with the configuration that `edgeherd
// server broker-config nats` prints, but for what it says differs from server
// to server.
type natsCluster struct {
	t       *testing.T
	ca      *identity.CA
	servers []*nats.Server
	ports   []int // of MQTT
}

func startNATS(t *testing.T) *natsCluster {
	t.Helper()
	c := &natsCluster{t: t}
	var err error
	if c.ca, err = identity.OpenCA(filepath.Join(t.TempDir(), "ca"), nil); err != nil {
		t.Fatal(err)
	}
	users := map[string]string{}
	for _, id := range []identity.ID{boxA, boxB} {
		users[string(id)] = pkix.Name{CommonName: string(id), OrganizationalUnit: []string{"site:probe"}}.String()
	}
	var routes []string
	var between []int
	for range 3 {
		between = append(between, freePort(t))
		c.ports = append(c.ports, freePort(t))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", between[len(between)-1]))
	}
	for i := range 3 {
		dir := t.TempDir()
		conf, list := broker.Setup{Dir: dir, Port: c.ports[i], Users: users}.NATS()
		for _, change := range [][2]string{
			{"server_name: edgeherd-1", fmt.Sprint("server_name: edgeherd-", i+1)},
			{"listen: 127.0.0.1:4222", "listen: 127.0.0.1:-1"},
			{"store_dir: /var/lib/nats/edgeherd", "store_dir: " + filepath.Join(dir, "js")},
			{"listen: 0.0.0.0:6222", fmt.Sprint("listen: 127.0.0.1:", between[i])},
			{"nats://nats-1:6222, nats://nats-2:6222, nats://nats-3:6222", strings.Join(routes, ", ")},
			{"listen: 0.0.0.0:", "listen: 127.0.0.1:"},
		} {
			if !strings.Contains(conf, change[0]) {
				t.Fatalf("the configuration lacks %q", change[0])
			}
			conf = strings.Replace(conf, change[0], change[1], 1)
		}
		cert, key, err := c.ca.IssueServerPEM([]string{"127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{
			broker.FileCA: c.ca.PEM(), broker.FileCert: cert, broker.FileKey: key, "nats.conf": []byte(conf), "users.conf": []byte(list),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		opts, err := nats.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
		if err != nil {
			t.Fatal(err)
		}
		opts.NoLog, opts.NoSigs = true, true
		s, err := nats.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		c.servers = append(c.servers, s)
	}
	until(t, "the NATS cluster has a leader and MQTT listens", func() bool {
		leader := false
		for _, s := range c.servers {
			if !s.ReadyForConnections(10*time.Millisecond) || s.NumRoutes() == 0 {
				return false
			}
			leader = leader || s.JetStreamIsLeader()
		}
		return leader
	})
	return c
}

func (c *natsCluster) remote(i int) broker.Remote {
	return broker.Remote{URL: fmt.Sprintf("mqtts://127.0.0.1:%d", c.ports[i]), TLS: controllerTLS(c.t, c.ca)}
}

// box connects at server i; it comes back when MQTT of the cluster is not yet
// ready for sessions.
func (c *natsCluster) box(i int, id identity.ID, got mqtt.MessageHandler) mqtt.Client {
	c.t.Helper()
	m := &mosquitto{t: c.t, ca: c.ca, port: c.ports[i]}
	var box mqtt.Client
	until(c.t, "the box connects", func() bool {
		var err error
		box, err = m.box(id, wire.ClientID(id, wire.SID{1}), got)
		return err == nil
	})
	return box
}

func TestANATSClusterServesOneLeadingControllerAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("three NATS servers")
	}
	c := startNATS(t)
	var down sync.Map
	box := c.box(0, boxA, func(_ mqtt.Client, m mqtt.Message) { down.Store(string(m.Payload()), true) })
	probe := broker.Probe{Remote: c.remote(1), BoxTLS: boxTLS(t, c.ca), Log: slog.New(slog.DiscardHandler), Within: 24 * time.Second}
	if err := probe.Run(t.Context()); err != nil {
		t.Fatalf("the generated configuration is refused: %v", err)
	}
	probe.Shared, probe.Within = true, 12*time.Second
	if err := probe.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "shared: false") {
		t.Errorf("shared subscriptions of NATS: got %v, want that shared: false is named", err)
	}

	ok(t, box.Subscribe(wire.TopicDown.For(boxA), 1, nil))
	var leader atomic.Int32
	sinks := []*heard{{}, {}, {}}
	var xs []*broker.External
	for i, sink := range sinks {
		m := &mosquitto{t: t, ca: c.ca, port: c.ports[i]}
		xs = append(xs, m.external(sink, func(o *broker.ExternalOptions) {
			o.Shared, o.Lead = false, func() bool { return int(leader.Load()) == i }
			if i == 0 { // it is told of two servers, of which the first will be lost
				o.Remote.URL += "," + c.remote(1).URL
			}
		}))
	}
	for turn := range 3 { // the lease passes on
		leader.Store(int32(turn))
		at := len(sinks[turn].of(boxA))
		until(t, "the leader hears the box", func() bool {
			ok(t, box.Publish(wire.TopicData.For(boxA), 1, false, fmt.Sprint("turn ", turn)))
			return len(sinks[turn].of(boxA)) > at
		})
		text := fmt.Sprint("from ", turn)
		until(t, "the box hears the controller", func() bool {
			_ = xs[turn].Publish(boxA, wire.TopicAck, []byte(text), 1)
			_, yes := down.Load(text)
			return yes
		})
	}

	// With one server gone the others serve on.
	c.servers[0].Shutdown()
	box = c.box(1, boxA, func(_ mqtt.Client, m mqtt.Message) { down.Store(string(m.Payload()), true) })
	until(t, "the box is heard by the two servers that are left", func() bool {
		if !box.IsConnectionOpen() {
			box = c.box(1, boxA, func(_ mqtt.Client, m mqtt.Message) { down.Store(string(m.Payload()), true) })
		}
		box.Publish(wire.TopicData.For(boxA), 1, false, "after the loss").WaitTimeout(5 * time.Second)
		all := sinks[2].of(boxA)
		return all[len(all)-1] == "up/data after the loss"
	})
	ok(t, box.Subscribe(wire.TopicDown.For(boxA), 1, nil))
	leader.Store(0) // the controller that was connected to the server that is gone
	until(t, "a controller finds another server", func() bool {
		box.Publish(wire.TopicData.For(boxA), 1, false, "to another server").WaitTimeout(5 * time.Second)
		return slices.Contains(sinks[0].of(boxA), "up/data to another server")
	})
	leader.Store(2)

	// A box can neither speak for another one nor listen to it.
	var overheard sync.Map
	got := func(_ mqtt.Client, m mqtt.Message) { overheard.Store(m.Topic(), true) }
	for _, topic := range []wire.Topic{wire.TopicHello, wire.TopicData, wire.TopicWill} {
		thief := c.box(2, boxB, got) // NATS may close the connection
		for _, filter := range []string{"#", wire.TopicDown.For(boxA), wire.TopicData.For(boxA), "$MQTT/sub/#"} {
			thief.Subscribe(filter, 1, nil).WaitTimeout(5 * time.Second)
		}
		thief.Publish(topic.For(boxA), 1, false, "forged").WaitTimeout(5 * time.Second)
		thief.Disconnect(0)
	}
	until(t, "what is allowed arrives", func() bool { // once the third leads again
		box.Publish(wire.TopicData.For(boxA), 1, false, "end").WaitTimeout(5 * time.Second)
		_ = xs[2].Publish(boxA, wire.TopicAck, []byte("end"), 1)
		_, yes := down.Load("end")
		return yes && slices.Contains(sinks[2].of(boxA), "up/data end")
	})
	for _, text := range sinks[2].of(boxA) {
		if strings.Contains(text, "forged") {
			t.Errorf("forged message arrived: %q", text)
		}
	}
	overheard.Range(func(topic, _ any) bool {
		t.Errorf("box B heard %v", topic)
		return true
	})
}
