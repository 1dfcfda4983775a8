package fleettest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/klauspost/compress/zstd"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/simboard"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// bad is a client that has the certificate of a box and breaks rules.
type bad struct {
	f    *Fleet
	box  *Box
	id   *identity.Identity
	conn net.Conn
	sid  wire.SID
	seq  uint64
}

func newBad(f *Fleet, b *Box) *bad {
	f.T.Helper()
	id, err := identity.Load(filepath.Join(b.dir, "agent", "identity"))
	if err != nil {
		f.T.Fatal(err)
	}
	return &bad{f: f, box: b, id: id, sid: wire.SID{0xbb}}
}

// dial is one connection; change may spoil its CONNECT.
func (c *bad) dial(change func(*packets.ConnectPacket)) {
	c.f.T.Helper()
	raw, err := c.f.Net.Dial(context.Background(), c.box.Name, "ctl:8883")
	if err != nil {
		c.f.T.Fatal(err)
	}
	c.conn = tls.Client(raw, c.id.ClientTLS(time.Now))
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession, p.Keepalive = "MQTT", 4, true, 60
	p.ClientIdentifier = wire.ClientID(c.box.ID, c.sid)
	if change != nil {
		change(p)
	}
	c.write(p)
	_, _ = packets.ReadPacket(c.conn) // CONNACK, or the end
}

func (c *bad) write(p packets.ControlPacket) {
	var b bytes.Buffer
	_ = p.Write(&b)
	_, _ = c.conn.Write(b.Bytes()) // being thrown out is what it is for
}

// publish says something in a connection of its own, and waits for the answer.
func (c *bad) publish(topic string, payload []byte) {
	c.f.T.Helper()
	c.dial(nil)
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic, payload, 1, 1
	c.write(p)
	_, _ = packets.ReadPacket(c.conn)
	c.close()
}

func (c *bad) close() {
	c.conn.Close()
	pass(3 * time.Second) // a box connects every two seconds at most
}

func (c *bad) say(topic wire.Topic, msg any) {
	c.f.T.Helper()
	payload, err := wire.Encode(msg)
	if err != nil {
		c.f.T.Fatal(err)
	}
	c.publish(topic.For(c.box.ID), payload)
}

func (c *bad) block(change func(*wire.Block)) wire.Block {
	c.f.T.Helper()
	c.seq++
	b := wire.Block{Key: wire.Key{SID: c.sid, Lane: wire.LaneTelemetry, Seq: c.seq}, Kind: 99, Count: 1, Payload: []byte("x"), WallMs: time.Now().UnixMilli()}
	change(&b)
	if err := wire.Seal(&b); err != nil {
		c.f.T.Fatal(err)
	}
	return b
}

// bomb is a pack of a few kilobytes that says it is 64 MB.
func (c *bad) bomb() (wire.Pack, wire.Schema) {
	sc := wire.Schema{Metrics: []wire.Metric{{Name: "m"}}}
	payload, err := wire.EncodeSamples(wire.Samples{Schema: sc, TimesMs: []int64{0}, Values: [][]float64{{1}}})
	if err != nil {
		c.f.T.Fatal(err)
	}
	p, err := wire.PackBlocks(sc, []wire.Block{c.block(func(b *wire.Block) { b.Kind, b.Schema, b.Payload = wire.KindSamples, wire.SchemaIDOf(sc), payload })})
	if err != nil {
		c.f.T.Fatal(err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		c.f.T.Fatal(err)
	}
	defer z.Close()
	p.Payload, p.CRC = z.EncodeAll(make([]byte, 64<<20), nil), 0
	raw, err := wire.Encode(p)
	if err != nil {
		c.f.T.Fatal(err)
	}
	p.CRC = crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli))
	return p, sc
}

// misbehave does everything that a box must not do, times times each.
func (c *bad) misbehave(other *Box) {
	own, foreign := wire.TopicData.For(c.box.ID), wire.TopicData.For(other.ID)
	c.publish(own, []byte("no CBOR"))
	c.publish(own, make([]byte, wire.MaxMessageBytes+1024))
	c.publish(foreign, []byte("not mine"))
	c.dial(func(p *packets.ConnectPacket) { p.ClientIdentifier = wire.ClientID(other.ID, c.sid) })
	c.close()
	c.dial(func(p *packets.ConnectPacket) {
		p.WillFlag, p.WillTopic, p.WillMessage = true, wire.TopicWill.For(other.ID), []byte("x")
	})
	c.close()
	c.dial(nil)
	sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	sub.MessageID, sub.Topics, sub.Qoss = 1, []string{"#"}, []byte{0}
	c.write(sub)
	_, _ = packets.ReadPacket(c.conn)
	c.close()

	forged := c.block(func(*wire.Block) {})
	forged.Payload = []byte("y")
	junk := c.block(func(b *wire.Block) { b.Kind = wire.KindEvents })
	lost := c.block(func(b *wire.Block) { b.Kind, b.Schema = wire.KindSamples, wire.SchemaID{9} })
	future := c.block(func(b *wire.Block) { b.Quality, b.WallMs = wire.TimeSynced, time.Now().AddDate(3, 0, 0).UnixMilli() })
	undated := c.block(func(b *wire.Block) { b.Boot, b.WallMs = wire.BootID{7}, 3 })
	pack, schema := c.bomb()
	c.say(wire.TopicData, wire.Data{Blocks: []wire.Block{forged, junk, lost, future, undated}, Packs: []wire.Pack{pack}, Schemas: []wire.Schema{schema}})
	for _, reason := range []string{wire.ReasonSpace, wire.ReasonCorrupt, wire.ReasonRefused} {
		payload, err := wire.EncodeGap(wire.Gap{Lane: 1, From: 1, To: 5, Count: 5, Reason: reason})
		if err != nil {
			c.f.T.Fatal(err)
		}
		c.say(wire.TopicData, wire.Data{Blocks: []wire.Block{c.block(func(b *wire.Block) { b.Kind, b.Payload = wire.KindGap, payload })}})
	}
	hello := wire.Hello{V: wire.Version, SID: c.sid, Conn: 7, Buffer: wire.Buffer{Disk: "no space left on device"}}
	c.dial(nil)
	for range 2 {
		payload, err := wire.Encode(hello)
		if err != nil {
			c.f.T.Fatal(err)
		}
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = wire.TopicHello.For(c.box.ID), payload, 1, 1
		c.write(p)
		_, _ = packets.ReadPacket(c.conn)
		hello.Conn = 3 // the same again, from before
	}
	c.close()
	for range 60 { // faster than anybody connects
		raw, err := c.f.Net.Dial(context.Background(), c.box.Name, "ctl:8883")
		if err != nil {
			c.f.T.Fatal(err)
		}
		tc := tls.Client(raw, c.id.ClientTLS(time.Now))
		_ = tc.Handshake()
		_ = tc.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.ReadFull(tc, make([]byte, 1)) // what it is told
		tc.Close()
	}
}

// lines remembers what the controller logs.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// listen restarts the controller with a log that can be read.
func listen(f *Fleet) *lines {
	f.T.Helper()
	l := &lines{}
	f.StopController()
	f.log = slog.New(slog.NewTextHandler(io.MultiWriter(l, testWriter{f.T}), &slog.HandlerOptions{Level: slog.LevelInfo}))
	f.StartController()
	return l
}

func (b *Box) faults() map[string]int64 {
	b.fleet.T.Helper()
	list, err := b.fleet.API.BoxFaults(context.Background(), b.ID)
	if err != nil {
		b.fleet.T.Fatal(err)
	}
	out := map[string]int64{}
	for _, x := range list.Items {
		out[x.Cause] = x.Count
		if x.First.After(x.Last) || x.Text == "" {
			b.fleet.T.Errorf("%s: %+v", b.Name, x)
		}
	}
	return out
}

// TestBadInputIsCountedLoggedOnceAndShownAndHarmsNobodyElse: everything a box
// can do wrong, three times, while another box works.
func TestBadInputIsCountedLoggedOnceAndShownAndHarmsNobodyElse(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		settled(f)
		log := listen(f)
		settled(f)
		hostile, honest := f.Boxes[0], f.Boxes[1]
		if err := hostile.StopAgent(); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Minute)
		c := newBad(f, hostile)
		for range 3 {
			c.misbehave(honest)
			pass(3 * time.Minute)
		}
		elsewhere := []fault.Cause{fault.DuplicateIdentity, fault.RefusedByStore}
		got := hostile.faults()
		for _, cause := range fault.Causes() {
			n, lines := got[string(cause)], log.count("cause="+string(cause)+" ")
			if slices.Contains(elsewhere, cause) {
				continue
			}
			if n < 3 || lines != 1 {
				t.Errorf("%s: counted %d times, logged %d times; want at least 3, and 1", cause, n, lines)
			}
		}
		if got[string(fault.SpoolFull)] != 15 || got[string(fault.BadSeal)] != 3 {
			t.Errorf("counted %v", got)
		}
		if bad := honest.faults(); len(bad) != 0 {
			t.Errorf("the other box is in trouble: %v", bad)
		}
		if n := log.count(string(honest.ID)); n > 6 {
			t.Errorf("the log speaks %d times of the other box", n)
		}
		hostile.StartAgent() // the box itself is not locked out
		both := f.Boxes
		f.Boxes = both[1:]
		checkLedger(f)
		f.Boxes = both
		if n := len(f.boxes()); n != 2 {
			t.Errorf("%d boxes", n)
		}
		before := fmt.Sprint(hostile.faults())
		f.StopController()
		f.StartController()
		if after := fmt.Sprint(hostile.faults()); after != before {
			t.Errorf("after a restart %s, before %s", after, before)
		}
	})
}

// clone starts another machine with the disk of b.
func (b *Box) clone(name string) *Box {
	f := b.fleet
	f.T.Helper()
	if err := b.StopAgent(); err != nil {
		f.T.Fatal(err)
	}
	c := &Box{ID: b.ID, Name: name, fleet: f, dir: filepath.Join(f.dir, name)}
	if err := os.CopyFS(filepath.Join(c.dir, "agent"), os.DirFS(filepath.Join(b.dir, "agent"))); err != nil {
		f.T.Fatal(err)
	}
	c.Runner = newRunner(f, c)
	board := simboard.New(simboard.Options{Root: filepath.Join(c.dir, "root"), Profile: simboard.Profiles()[0], Name: name, Seed: 99}, f.log)
	board.Step(time.Now())
	if err := board.Close(); err != nil {
		f.T.Fatal(err)
	}
	b.StartAgent()
	c.StartAgent()
	return c
}

func (b *Box) alarms(kind string) (n int) {
	b.fleet.T.Helper()
	list, err := b.fleet.API.Events(context.Background(), b.ID, 1000)
	if err != nil {
		b.fleet.T.Fatal(err)
	}
	for _, e := range list.Items {
		if e.Type == wire.EventAlarm && strings.Contains(e.Body, kind) {
			n++
		}
	}
	return n
}

// TestTwoMachinesWithOneIdentityAreHeldBackUntilAPersonDecides: both send what
// they measure, and neither is told what to run.
func TestTwoMachinesWithOneIdentityAreHeldBackUntilAPersonDecides(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		settled(f)
		f.done(f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest"))
		box := f.Boxes[0]
		twin := box.clone("twin")
		f.Until("the two are found out", 15*time.Second, func() bool { return box.faults()[string(fault.DuplicateIdentity)] > 0 })
		id, err := f.API.Identity(context.Background(), box.ID)
		if err != nil || id.State != "quarantined" || strings.Count(id.Why, "boot ") != 2 {
			t.Errorf("it is %s, %v: %s", id.State, err, id.Why)
		}
		if n := box.alarms(store.AlarmQuarantine); n != 1 {
			t.Errorf("%d alarms", n)
		}
		r := f.Roll(f.MustPush(Model{Name: "vad", Version: "6.0.0"}), "rest")
		pass(5 * time.Minute)
		if got := fmt.Sprint(box.Runner.Switches(), twin.Runner.Switches(), f.Boxes[1].Runner.Switches()); got != "[vad:5.0.0] [vad:5.0.0] [vad:5.0.0 vad:6.0.0]" {
			t.Errorf("models switched: %s", got)
		}
		items, _ := twin.Runner.Ledger()
		if err := twin.StopAgent(); err != nil {
			t.Fatal(err)
		}
		twin.Runner.close()
		if _, err := f.API.ChangeIdentity(context.Background(), box.ID, fleetapi.IdentityAction{Action: "release", Why: "the spare is off"}); err != nil {
			t.Fatal(err)
		}
		f.done(r) // the one that is left hears of it
		if n := box.alarms(store.AlarmQuarantine); n != 2 {
			t.Errorf("%d alarms, want one of the beginning and one of the end", n)
		}
		settled(f)
		stored := map[string]bool{}
		results, err := f.API.Results(context.Background(), box.ID, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results.Items {
			stored[r.Item] = true
		}
		for _, item := range items {
			if strings.Contains(item, "twin") && !stored[item] && len(results.Items) < 1000 {
				t.Errorf("result %s of the twin is not stored", item)
			}
		}
	})
}

// TestARebootIsNoSecondMachine: the session of before stays open while the box
// is up again.
func TestARebootIsNoSecondMachine(t *testing.T) {
	story(t, 1, func(f *Fleet) {
		settled(f)
		box := f.Boxes[0]
		for i := range 3 {
			f.Net.CutAll(box.Name) // what the power does to it
			if err := box.StopAgent(); err != nil {
				t.Fatal(err)
			}
			boot := filepath.Join(box.dir, "root", "proc/sys/kernel/random/boot_id")
			var raw [16]byte
			binary.BigEndian.PutUint64(raw[:], uint64(i+1))
			id := fmt.Sprintf("%x-%x-%x-%x-%x\n", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
			if err := os.WriteFile(boot, []byte(id), 0o644); err != nil {
				t.Fatal(err)
			}
			f.Net.HealAll(box.Name)
			box.StartAgent()
			pass(20 * time.Second)
		}
		pass(3 * time.Hour)
		if got := box.faults(); len(got) != 0 || box.alarms(store.AlarmQuarantine) != 0 {
			t.Errorf("trouble %v", got)
		}
	})
}
