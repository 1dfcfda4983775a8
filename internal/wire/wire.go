// Package wire is what box and controller say to each other: topics, messages
// and the block, the unit of telemetry. Types and codecs only, no I/O.
//
// Vocabulary: a block is a sealed run of records of one lane, named by a Key
// that never contains time. A run is one life of a controller database; its
// log sequence number (LSN) grows with every commit. HELLO and WELCOME open a
// conversation, DATA carries blocks up, ACK says which keys a commit stored.
// Everything is deterministic CBOR (RFC 8949 section 4.2.1) with integer keys.
//
// The one rule a caller can break: a block counts as delivered only when an
// ACK of the current conversation lists its exact key. A PUBACK means nothing.
package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Version is the protocol version in topics and messages. History: 1 first.
const Version = 1

// MaxMessageBytes bounds every MQTT payload of the protocol.
const MaxMessageBytes = 128 << 10

// SID names one start of one agent process; random.
type SID [8]byte

// BootID names one boot of the box's operating system.
type BootID [8]byte

// H64 is the first 8 bytes of the SHA-256 of a block's sealed content.
type H64 [8]byte

// SchemaID is the first 8 bytes of the SHA-256 of an encoded Schema.
type SchemaID [8]byte

// RunID names one life of a controller database: drawn at each start of the
// database owner, so that a restored backup is recognised.
type RunID [8]byte

func (v SID) String() string      { return hex.EncodeToString(v[:]) }
func (v BootID) String() string   { return hex.EncodeToString(v[:]) }
func (v H64) String() string      { return hex.EncodeToString(v[:]) }
func (v SchemaID) String() string { return hex.EncodeToString(v[:]) }
func (v RunID) String() string    { return hex.EncodeToString(v[:]) }

// Lane separates what may not wait for what.
type Lane uint8

// The lanes. Lane 0 is sent first and has its own quota.
const (
	LaneEvents    Lane = 0 // events, alarms, phase reports: committed at once
	LaneTelemetry Lane = 1 // samples and inference results
	LaneBulk      Lane = 2 // logs and other bulk
)

// Lanes is how many there are.
const Lanes = 3

// Key names a block for ever. Seq counts 1, 2, 3… per (SID, Lane).
type Key struct {
	SID  SID    `cbor:"1,keyasint"`
	Lane Lane   `cbor:"2,keyasint"`
	Seq  uint64 `cbor:"3,keyasint"`
	H64  H64    `cbor:"4,keyasint"`
}

func (k Key) String() string { return fmt.Sprintf("%s/%d/%d/%s", k.SID, k.Lane, k.Seq, k.H64) }

// Kind says what the payload of a block is.
type Kind uint8

// The kinds of payload.
const (
	KindSamples Kind = 1 // columnar samples, see EncodeSamples
	KindEvents  Kind = 2 // CBOR array of Event
	KindResults Kind = 3 // CBOR array of Result
	KindGap     Kind = 4 // CBOR Gap: what had to be dropped
)

// TimeQuality says how far the wall clock of a block can be trusted.
type TimeQuality uint8

// The time qualities.
const (
	TimeUnknown TimeQuality = 0
	TimeFloor   TimeQuality = 1 // no clock source; not before a known time
	TimeSynced  TimeQuality = 2 // disciplined by NTP or a controller
)

// Block is a sealed run of records. All fields but CRC are covered by H64; see
// Seal.
type Block struct {
	Key     Key         `cbor:"1,keyasint"`
	Kind    Kind        `cbor:"2,keyasint"`
	Boot    BootID      `cbor:"3,keyasint"`
	MonoMs  int64       `cbor:"4,keyasint"` // milliseconds since boot of the first record
	WallMs  int64       `cbor:"5,keyasint"` // wall clock then, Unix milliseconds
	Quality TimeQuality `cbor:"6,keyasint"`
	Schema  SchemaID    `cbor:"7,keyasint"` // of KindSamples, else zero
	Count   uint32      `cbor:"8,keyasint"` // records
	SpanMs  int64       `cbor:"9,keyasint"` // last record minus first
	Payload []byte      `cbor:"10,keyasint"`
	CRC     uint32      `cbor:"11,keyasint"` // CRC-32C of Payload
}

// Metric is one column of a schema: values travel as integers of Unit·10^-Scale.
type Metric struct {
	Name  string `cbor:"1,keyasint"` // as agent/sense names it
	Scale int8   `cbor:"2,keyasint"` // decimal places kept
}

// Schema says what the columns of a samples block mean. Sent until known.
type Schema struct {
	Metrics []Metric `cbor:"1,keyasint"`
}

// Event is something that happened, an alarm, or the report of a phase.
type Event struct {
	MonoMs int64  `cbor:"1,keyasint"`
	WallMs int64  `cbor:"2,keyasint"`
	Type   string `cbor:"3,keyasint"` // such as "model.phase"; see the Event constants
	Text   string `cbor:"4,keyasint"` // one line for people, English
	Body   []byte `cbor:"5,keyasint"` // JSON of the type's body, or empty
}

// Event types and, in parentheses, their JSON bodies.
const (
	EventStarted    = "box.started" // (StartedBody) the agent process began
	EventModelPhase = "model.phase" // (PhaseBody)
	EventAgentPhase = "agent.phase" // (PhaseBody)
	// EventConfigPhase has one for each document of the fleet's settings.
	EventConfigPhase = "config.phase"    // (PhaseBody)
	EventServing     = "model.serving"   // (Serving) which variant, and how a candidate does
	EventAlarm       = "alarm"           // (AlarmBody)
	EventRunning     = "running.changed" // (Running) what serves now
	EventHours       = "health.hours"    // (HoursBody) closed hours of heat, load and fans; Text is empty
	EventFinding     = "health.finding"  // (health.Finding) opened, raised or closed
	EventReset       = "box.reset"       // (ResetBody) why the box began anew
	EventFan         = "box.fan"         // (FanBody) who drives a fan
	EventShunned     = "peer.shunned"    // (ShunnedBody) a box of the site gave wrong frames
	EventAccept      = "box.accept"      // (AcceptBody) how far an acceptance test is that was asked for
)

// Result is one finished piece of work of a pipeline.
type Result struct {
	WallMs    int64    `cbor:"1,keyasint"`
	Input     string   `cbor:"2,keyasint"`
	Pipeline  string   `cbor:"3,keyasint"`
	Item      string   `cbor:"4,keyasint"`
	Text      string   `cbor:"5,keyasint"`
	Want      string   `cbor:"6,keyasint,omitempty"`
	ScorePPM  uint32   `cbor:"7,keyasint"` // score · 10^6
	LatencyUs uint32   `cbor:"8,keyasint"`
	Models    []string `cbor:"9,keyasint"` // name:version
	// Cursor counts the results of one runner outbox, 1, 2, 3…: a ledger can
	// tell from it that each was stored once.
	Cursor uint64 `cbor:"10,keyasint"`
}

// Gap is a tombstone: blocks that were dropped before they were delivered. A
// zero SID means that nobody can tell what was lost (reason "corrupt").
type Gap struct {
	SID    SID    `cbor:"1,keyasint"`
	Lane   Lane   `cbor:"2,keyasint"`
	From   uint64 `cbor:"3,keyasint"` // first and last Seq dropped
	To     uint64 `cbor:"4,keyasint"`
	Count  uint64 `cbor:"5,keyasint"` // blocks; less than the range when some were delivered
	Reason string `cbor:"6,keyasint"` // one of the Reason constants
	// Also has what was dropped with it of other lanes and process lives: a box
	// that restarted every minute while offline has thousands of those.
	Also []GapRange `cbor:"7,keyasint,omitempty"`
}

// GapRange is a further range of a Gap.
type GapRange struct {
	SID   SID    `cbor:"1,keyasint"`
	Lane  Lane   `cbor:"2,keyasint"`
	From  uint64 `cbor:"3,keyasint"`
	To    uint64 `cbor:"4,keyasint"`
	Count uint64 `cbor:"5,keyasint"`
}

// Dropped is how many blocks a gap tells of.
func (g Gap) Dropped() uint64 {
	n := g.Count
	for _, r := range g.Also {
		n += r.Count
	}
	return n
}

// Why blocks were dropped.
const (
	ReasonSpace   = "space"   // the spool was full
	ReasonCorrupt = "corrupt" // the disk returned other bytes than were written
	ReasonRefused = "refused" // the controller will never store them
)

// Clock is a reading of both clocks at one moment, so that the controller can
// place a boot's monotonic times on its own calendar.
type Clock struct {
	Boot    BootID      `cbor:"1,keyasint"`
	MonoMs  int64       `cbor:"2,keyasint"`
	WallMs  int64       `cbor:"3,keyasint"`
	Quality TimeQuality `cbor:"4,keyasint"`
}

// Inventory is what a box says of its hardware and software in HELLO.
type Inventory struct {
	Name         string `cbor:"1,keyasint" json:"name"`
	Class        string `cbor:"2,keyasint" json:"class"` // wall-mount, itx, jetson, server, unknown
	Vendor       string `cbor:"3,keyasint" json:"vendor"`
	Product      string `cbor:"4,keyasint" json:"product"`
	Serial       string `cbor:"5,keyasint" json:"serial"`
	Arch         string `cbor:"6,keyasint" json:"arch"`
	CPUs         int    `cbor:"7,keyasint" json:"cpus"`
	MemoryBytes  int64  `cbor:"8,keyasint" json:"memory_bytes"`
	Agent        string `cbor:"9,keyasint" json:"agent"`   // version
	Runner       string `cbor:"10,keyasint" json:"runner"` // version, "" when unreachable
	Runtime      string `cbor:"11,keyasint" json:"runtime"`
	Simulated    bool   `cbor:"12,keyasint" json:"simulated"`
	AgentRelease string `cbor:"13,keyasint" json:"agent_release"` // digest of the running release, "" if not installed by one
	Slot         string `cbor:"14,keyasint" json:"slot"`          // a, b or ""
}

// Buffer tells how full the spool is.
type Buffer struct {
	Blocks        int64 `cbor:"1,keyasint" json:"blocks"` // not yet acked
	Bytes         int64 `cbor:"2,keyasint" json:"bytes"`  // not yet acked
	Window        int64 `cbor:"3,keyasint" json:"window"` // acked and kept for replay
	OldestMs      int64 `cbor:"4,keyasint" json:"oldest_unix_ms"`
	DroppedBlocks int64 `cbor:"5,keyasint" json:"dropped_blocks"`
	// Disk is why the spool takes no writes; empty while it does.
	Disk string `cbor:"6,keyasint,omitempty" json:"disk,omitempty"`
}

func (b Buffer) check() error { return text("disk", b.Disk, maxText) }

// RunningModel is a version that serves on the box.
type RunningModel struct {
	Name    string `cbor:"1,keyasint" json:"name"`
	Version string `cbor:"2,keyasint" json:"version"`
	Digest  string `cbor:"3,keyasint" json:"digest"` // of the signed manifest
}

// Running is what serves on the box.
type Running struct {
	Generation uint64         `cbor:"1,keyasint" json:"generation"` // of the desired state last accepted
	Models     []RunningModel `cbor:"2,keyasint" json:"models"`
	// Config are the settings of the fleet that the box follows; nil: none.
	Config *RunningConfig `cbor:"3,keyasint,omitempty" json:"config,omitempty"`
}

// RunningConfig are settings that a box follows, for good or on trial.
type RunningConfig struct {
	Digest    string         `cbor:"1,keyasint" json:"digest"` // of the content
	Documents []RunningModel `cbor:"2,keyasint" json:"documents"`
	// Local names settings that a file on the box has and the fleet may set: they
	// count there. Values are told where they are no texts.
	Local []string `cbor:"3,keyasint,omitempty" json:"local,omitempty"`
}

// SIDRange tells which blocks of one process life the spool still holds.
type SIDRange struct {
	SID   SID    `cbor:"1,keyasint"`
	Lane  Lane   `cbor:"2,keyasint"`
	Lo    uint64 `cbor:"3,keyasint"`
	Hi    uint64 `cbor:"4,keyasint"`
	Count uint64 `cbor:"5,keyasint"`
}

// Nonce ties a Welcome to its Hello.
type Nonce [8]byte

// Hello opens a conversation (up/hello, QoS 1).
type Hello struct {
	V         uint       `cbor:"1,keyasint"`
	Nonce     Nonce      `cbor:"2,keyasint"`
	SID       SID        `cbor:"3,keyasint"`
	Conn      uint64     `cbor:"4,keyasint"` // counts connections of this process
	Clock     Clock      `cbor:"5,keyasint"`
	Inventory Inventory  `cbor:"6,keyasint"`
	Running   Running    `cbor:"7,keyasint"`
	Buffer    Buffer     `cbor:"8,keyasint"`
	Streams   []SIDRange `cbor:"9,keyasint"`
	Runs      []RunID    `cbor:"10,keyasint"` // runs that acked blocks still retained
	// Heads of the controller's audit log that this box has seen, by number.
	Heads []AuditHead `cbor:"11,keyasint,omitempty"`
	// Starts counts starts of the agent on this disk; 0: not kept. A disk that was
	// copied or put back repeats numbers.
	Starts uint64 `cbor:"12,keyasint,omitempty"`
	// Answers is the last question of a Cmd: this process was alive after it.
	Answers uint64 `cbor:"13,keyasint,omitempty"`
}

// AuditHead is a record of the audit log, the number and the SHA-256 of its line,
// with what proves that a controller signed it.
type AuditHead struct {
	Seq   uint64 `cbor:"1,keyasint"`
	Hash  []byte `cbor:"2,keyasint"`
	UnixS int64  `cbor:"3,keyasint"` // when it was signed, by the controller's clock
	Key   []byte `cbor:"4,keyasint"` // id of the key
	Sig   []byte `cbor:"5,keyasint"`
}

// Equal reports whether both say the same.
func (a AuditHead) Equal(b AuditHead) bool {
	return a.Seq == b.Seq && a.UnixS == b.UnixS && bytes.Equal(a.Hash, b.Hash) && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Sig, b.Sig)
}

// Bounds of what boxes witness.
const (
	MaxAuditHeads     = 8
	MaxAuditHeadBytes = 4096    // of a signed head
	MaxAuditSeq       = 1 << 53 // what JSON can say
	MaxAuditUnixS     = 1 << 37 // the year 6325: RFC 3339 can say it
	AuditHashBytes    = 32
	AuditKeyBytes     = 8
	AuditSigBytes     = 64
)

// Welcome answers a Hello (dn/welcome, QoS 1).
type Welcome struct {
	V     uint  `cbor:"1,keyasint"`
	Nonce Nonce `cbor:"2,keyasint"` // of the Hello
	Run   RunID `cbor:"3,keyasint"`
	// Valid gives for each run of the Hello that this database descends from
	// the highest LSN it contains. Blocks acked beyond are no longer stored.
	Valid       []RunLSN   `cbor:"4,keyasint"`
	WindowBytes int64      `cbor:"5,keyasint"` // un-acked bytes allowed in flight
	WindowCount int        `cbor:"6,keyasint"` // un-acked blocks allowed in flight
	DrainMs     int64      `cbor:"7,keyasint"` // wait this long before the backlog
	Desired     []byte     `cbor:"8,keyasint"` // signed envelope, or empty
	Schemas     []SchemaID `cbor:"9,keyasint"` // known for this box
	WallMs      int64      `cbor:"10,keyasint"`
	LiveMs      int64      `cbor:"11,keyasint"` // send live samples for this long
	// BacklogRate is how many bytes a second of what is older than the
	// connection may go up, events not counted; 0 sets no limit.
	BacklogRate int64 `cbor:"12,keyasint"`
	// Quiet lists times in which only lane 0 goes up.
	Quiet []Quiet `cbor:"13,keyasint"`
	// Head is the signed head of the audit log, for the box to remember.
	Head []byte `cbor:"14,keyasint,omitempty"`
}

// Quiet is a time to be quiet in. It counts from when the WELCOME came, since
// the box's clock may be wrong.
type Quiet struct {
	InMs  int64 `cbor:"1,keyasint"` // milliseconds from now to its start
	ForMs int64 `cbor:"2,keyasint"` // its length
}

// RunLSN is a position in the history of a database.
type RunLSN struct {
	Run RunID  `cbor:"1,keyasint"`
	LSN uint64 `cbor:"2,keyasint"`
}

// Data carries blocks (up/data, QoS 1), with the schemas that the
// controller may lack.
type Data struct {
	Blocks  []Block  `cbor:"1,keyasint"`
	Schemas []Schema `cbor:"2,keyasint"`
	// Behind is what will still wait when all that is under way has been
	// acknowledged, this message included; OldestMs may be a little too old.
	Behind Buffer `cbor:"3,keyasint"`
	// Packs carry blocks as well, under their own keys.
	Packs []Pack `cbor:"4,keyasint,omitempty"`
}

// Ack lists the keys that the commit at (Run, LSN) or an earlier one stored
// (dn/ack, QoS 1).
type Ack struct {
	Run  RunID  `cbor:"1,keyasint"`
	LSN  uint64 `cbor:"2,keyasint"`
	Keys []Key  `cbor:"3,keyasint"`
	// Refused lists blocks that can never be stored, such as one whose H64 does
	// not match. The box sets them aside and leaves a Gap.
	Refused []Key `cbor:"4,keyasint,omitempty"`
}

// Want tells of a new desired state (dn/want, QoS 1).
type Want struct {
	Desired []byte `cbor:"1,keyasint"` // signed envelope
}

// Cmd is a small request that may be lost (dn/cmd, QoS 0).
type Cmd struct {
	LiveMs int64 `cbor:"1,keyasint"` // send live samples for this long
	Hello  bool  `cbor:"2,keyasint"` // say Hello again
	// Question is a number that the Hello is to carry; 0: none.
	Question uint64 `cbor:"3,keyasint,omitempty"`
}

// Live is the newest state for a watching page (up/live, QoS 0).
type Live struct {
	WallMs  int64        `cbor:"1,keyasint"`
	Samples []LiveSample `cbor:"2,keyasint"`
	Buffer  Buffer       `cbor:"3,keyasint"`
}

// LiveSample is one value of Live.
type LiveSample struct {
	Name  string  `cbor:"1,keyasint"`
	Value float64 `cbor:"2,keyasint"`
}

// Will is the last will of a connection (will, QoS 1).
type Will struct {
	SID  SID    `cbor:"1,keyasint"`
	Conn uint64 `cbor:"2,keyasint"`
}

// Topic is one of the protocol's topics below eh/1/<tenant>/<box>/.
type Topic string

// The topics. A box publishes up/… and its will, and subscribes to dn/#.
const (
	TopicHello   Topic = "up/hello"
	TopicData    Topic = "up/data"
	TopicLive    Topic = "up/live"
	TopicWelcome Topic = "dn/welcome"
	TopicAck     Topic = "dn/ack"
	TopicWant    Topic = "dn/want"
	TopicCmd     Topic = "dn/cmd"
	TopicCare    Topic = "dn/care"
	TopicWill    Topic = "will"
	TopicDown    Topic = "dn/#"
)

// Tenant is the only tenant of this version.
const Tenant = "default"

// For returns the full topic of one box.
func (t Topic) For(id identity.ID) string {
	return fmt.Sprintf("eh/%d/%s/%s/%s", Version, Tenant, id, t)
}

// ParseTopic splits a full topic into its box and the topic below it.
func ParseTopic(full string) (identity.ID, Topic, error) {
	rest, ok := strings.CutPrefix(full, fmt.Sprintf("eh/%d/%s/", Version, Tenant))
	if !ok {
		return "", "", fmt.Errorf("topic %q is not of protocol %d", full, Version)
	}
	box, below, ok := strings.Cut(rest, "/")
	if !ok {
		return "", "", fmt.Errorf("topic %q ends after the box", full)
	}
	id, err := identity.ParseID(box)
	if err != nil {
		return "", "", err
	}
	return id, Topic(below), nil
}

// ClientID is the MQTT client id of one agent process.
func ClientID(id identity.ID, sid SID) string { return string(id) + ":" + sid.String() }

// ParseClientID reads the process life from a client id that must be of box id.
func ParseClientID(id identity.ID, client string) (SID, error) {
	var sid SID
	box, life, ok := strings.Cut(client, ":")
	if !ok || box != string(id) {
		return SID{}, fmt.Errorf("client id %q is not of box %s", client, id)
	}
	raw, err := hex.DecodeString(life)
	if err != nil || copy(sid[:], raw) != len(sid) || life != sid.String() {
		return SID{}, fmt.Errorf("client id %q does not end in 16 lower-case hexadecimal digits", client)
	}
	return sid, nil
}
