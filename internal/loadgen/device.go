package loadgen

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Waits of a device, as those of agent/link. Times are nanoseconds since the
// engine began; never means that nothing is due.
const (
	keepAlive   = 60 * time.Second
	pingAfter   = 50 * time.Second // of silence of ours
	answerWait  = 30 * time.Second // for SUBACK, WELCOME and PINGRESP
	helloPause  = 5 * time.Second  // at least, between two HELLOs
	firstPause  = 2 * time.Second  // limit of the first wait before a reconnect; doubles
	maxAgain    = 10 * time.Minute
	never       = int64(math.MaxInt64)
	maxHeld     = 256 // blocks; a device that holds more makes none
	dueForBlock = 0   // makeAt of a device that does not make by the clock
)

// state is how far a connection is.
type state uint8

const (
	offline  state = iota
	dialing        // the handshaker has it
	greeting       // waits for SUBACK, then for WELCOME
	ready
)

// device is one process life of one box, and those that follow it.
type device struct {
	link     *link
	held     []held
	id       identity.ID
	sid      wire.SID
	boot     wire.BootID
	run      wire.RunID
	nonce    wire.Nonce
	question uint64 // the last of the controller, which a HELLO answers
	rng      stream
	due      int64 // what it stands in the queue with
	makeAt   int64
	dialAt   int64 // when offline
	pingAt   int64
	answerAt int64 // by when an answer must have come
	helloAt  int64 // of the last HELLO
	offsetMs int64 // how wrong its clock is
	box      int32 // number of its identity
	place    int32 // in the queue
	twinOf   int32 // place of the other one in the shard, when dormant
	seq      uint32
	conn     uint32
	packetID uint16
	state    state
	fails    uint8 // connections in a row that came to nothing
	known    bool  // the controller has our schema
	dormant  bool  // a twin that is not born
	snapshot bool  // it will be born of a memory snapshot, with the sid of its twin
}

func (d *device) newLife() {
	binary.LittleEndian.PutUint64(d.sid[:], d.rng.next())
	d.seq, d.conn = 0, 0
}

// nextDue is when the device must be looked at again.
func (d *device) nextDue() int64 {
	if d.dormant {
		return d.makeAt
	}
	due := never
	if d.makeAt != dueForBlock {
		due = d.makeAt
	}
	switch d.state {
	case offline:
		return min(due, d.dialAt)
	case dialing:
		return due
	case ready:
		due = min(due, d.pingAt)
		for i := range d.held {
			due = min(due, d.held[i].againAt)
		}
	}
	return min(due, d.answerAt)
}

// opening is what a connection begins with: CONNECT and SUBSCRIBE.
func (d *device) opening() []byte {
	will, err := wire.Encode(wire.Will{SID: d.sid, Conn: uint64(d.conn)})
	if err != nil {
		panic("loadgen: a will always has an encoding: " + err.Error())
	}
	out := appendConnect(nil, connect{
		clientID: wire.ClientID(d.id, d.sid), keepAlive: uint16(keepAlive / time.Second),
		willTopic: wire.TopicWill.For(d.id), will: will,
	})
	return appendSubscribe(out, 1, wire.TopicDown.For(d.id))
}

func (d *device) nextID() uint16 {
	d.packetID++
	if d.packetID < 2 { // 0 is not allowed, 1 was SUBSCRIBE
		d.packetID = 2
	}
	return d.packetID
}

// hello encodes a HELLO.
func (d *device) hello(now int64, wall time.Time) ([]byte, error) {
	binary.LittleEndian.PutUint64(d.nonce[:], d.rng.next())
	h := wire.Hello{
		V: wire.Version, Nonce: d.nonce, SID: d.sid, Conn: uint64(d.conn), Answers: d.question,
		Clock: wire.Clock{Boot: d.boot, MonoMs: uptimeMs(now), WallMs: wall.UnixMilli() + d.offsetMs, Quality: d.quality()},
		Inventory: wire.Inventory{
			Name: fmt.Sprintf("load-%05d", d.box), Class: "unknown", Vendor: "edgeherd", Product: "load generator", Arch: "amd64",
			CPUs: 4, MemoryBytes: 8 << 30, Agent: "load", Runtime: "none", Simulated: true,
		},
		Buffer: wire.Buffer{Blocks: int64(len(d.held))},
	}
	for i := range d.held {
		b := &d.held[i]
		last := len(h.Streams) - 1
		if last >= 0 && h.Streams[last].SID == b.sid {
			s := &h.Streams[last]
			s.Lo, s.Hi, s.Count = min(s.Lo, uint64(b.seq)), max(s.Hi, uint64(b.seq)), s.Count+1
		} else if len(h.Streams) < wire.MaxStreams {
			h.Streams = append(h.Streams, wire.SIDRange{SID: b.sid, Lane: wire.LaneTelemetry, Lo: uint64(b.seq), Hi: uint64(b.seq), Count: 1})
		}
	}
	for i := range h.Streams {
		s := &h.Streams[i]
		s.Count = min(s.Count, s.Hi-s.Lo+1)
	}
	return wire.Encode(h)
}

// uptimeMs is the monotonic clock of all devices: they booted an hour before.
func uptimeMs(now int64) int64 { return 3600_000 + now/1e6 }

// quality is what the device thinks of its clock: one that jumped is believed
// by some.
func (d *device) quality() wire.TimeQuality {
	if d.offsetMs == 0 || d.offsetMs%2 == 0 {
		return wire.TimeSynced
	}
	return wire.TimeFloor
}

// jump sets the clock: to the years after 1970, an hour back, ten years ahead,
// a minute ahead, or right.
func (d *device) jump(wall time.Time) {
	const hour = int64(3600_000)
	to := []int64{-wall.UnixMilli() + 1, -hour, 10*365*24*hour + 1, 60_000, 0}
	d.offsetMs = to[d.rng.below(int64(len(to)))]
}

// find returns the place of a key among the held blocks, or -1.
func (d *device) find(k wire.Key) int {
	for i := range d.held {
		if b := &d.held[i]; b.h64 == k.H64 && uint64(b.seq) == k.Seq && b.sid == k.SID && k.Lane == wire.LaneTelemetry {
			return i
		}
	}
	return -1
}

// pause is how long the device waits before it connects again.
func (d *device) pause(limit time.Duration) int64 {
	most := min(firstPause<<min(d.fails, 10), limit)
	if most <= time.Second {
		return d.rng.below(int64(most))
	}
	return int64(time.Second) + d.rng.below(int64(most-time.Second))
}
