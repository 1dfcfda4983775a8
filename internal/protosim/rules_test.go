package protosim

// keying says what makes two blocks the same block for the database.
type keying int

const (
	keyExact      keying = iota // (device, sid, lane, seq, hash): the protocol
	keyDeviceSeq                // (device, lane, seq)
	keySIDSeq                   // (device, sid, lane, seq)
	keyDeviceTime               // (device, timestamp)
)

// rules is the protocol when zero; each field breaks one rule of it.
type rules struct {
	key       keying
	seqOnDisk bool // sid is drawn once, seq goes on over starts
	deleteAtPuback,
	noWindow, // deleted at ACK, with room to spare
	noLineage, // WELCOME withdraws no ACK
	noLSN, // WELCOME withdraws by run alone
	sameRun, // a start, after a restore as well, goes on with the run it finds
	anyRun, // ACKs of another run than the last WELCOME's count
	everyWelcome, // a second WELCOME to one HELLO counts, though it may be older
	eagerAck, // ACK before the commit
	deriveAlways, // derived rows change though the block was there
	repack, // waiting blocks are packed into one with a key of its own
	silent, // waiting blocks are dropped without a gap
	forgetGap bool // a gap that is dropped hands nothing on
}

// variant is a set of rules with what is known of it.
type variant struct {
	name    string
	rules   rules
	mix     mix  // zero: allFaults
	loses   bool // some schedule must
	doubles bool // some schedule must
}

// protocol is the one that must hold.
const protocol = "protocol v1"

// variants lists the protocol and its mutants. The letters are those of the
// study that led to the protocol.
func variants() []variant {
	return []variant{
		{name: protocol},
		{name: "a) delete at PUBACK", rules: rules{deleteAtPuback: true}, loses: true},
		{name: "b) key (device, seq)", rules: rules{key: keyDeviceSeq, seqOnDisk: true}, loses: true},
		{name: "c) key (sid, seq), sid drawn once", rules: rules{key: keySIDSeq, seqOnDisk: true}, loses: true},
		{name: "d) key (sid, seq), sid per start", rules: rules{key: keySIDSeq}, loses: true},
		{name: "e) exact key, sid drawn once", rules: rules{seqOnDisk: true}},
		{name: "f) no replay window", rules: rules{noWindow: true}, loses: true},
		{name: "g) ACKs trusted for ever", rules: rules{noLineage: true}, loses: true},
		{name: "h) ACK of another run counts", rules: rules{anyRun: true}, mix: lateAnswers(), loses: true},
		{name: "i) key (device, timestamp)", rules: rules{key: keyDeviceTime}, loses: true},
		{name: "j) re-packed under a new key", rules: rules{repack: true}, doubles: true},
		{name: "k) lineage without LSN", rules: rules{noLSN: true}, loses: true},
		{name: "l) no new run after a restore", rules: rules{sameRun: true}, loses: true},
		{name: "m) ACK before the commit", rules: rules{eagerAck: true}, loses: true},
		{name: "n) derived rows not tied to the insert", rules: rules{deriveAlways: true}, doubles: true},
		{name: "o) dropped without a gap", rules: rules{silent: true}, loses: true},
		{name: "p) a dropped gap hands nothing on", rules: rules{forgetGap: true}, loses: true},
	}
}

// fault is one kind of what goes wrong.
type fault int

const (
	kill        fault = iota // the agent dies; what was appended is on disk
	cut                      // a connection ends for the box, or for the broker
	drop                     // a message vanishes
	dup                      // a message comes twice
	delay                    // a message is kept back for long
	brokerLoss               // the broker restarts and has lost everything
	ackCrash                 // a controller dies between commit and ACK
	restart                  // a controller restarts: a new run
	diskImage                // a box gets its disk back from an older image
	memSnapshot              // a box resumes from a snapshot of disk and memory: no start
	clone                    // a second box with the disk, perhaps the memory, of another
	dbRestore                // the database comes back from an older backup
	clockStep                // the clock of a box jumps
	fullDisk                 // a schedule in which boxes run out of room
	faults
)

func (f fault) String() string {
	return [faults]string{"kill", "cut", "drop", "duplicate", "long delay", "broker loss", "controller crash before ACK", "controller restart",
		"disk image", "memory snapshot", "clone", "database restore", "clock step", "full disk"}[f]
}

// mix says how often each fault is to be expected in one schedule; of fullDisk
// it is the share in percent of schedules with little room.
type mix [faults]int

// allFaults are the rates of the study that led to the protocol, and more.
func allFaults() mix {
	return mix{kill: 12, cut: 8, drop: 16, dup: 16, delay: 12, brokerLoss: 6, ackCrash: 4, restart: 3,
		diskImage: 5, memSnapshot: 5, clone: 2, dbRestore: 5, clockStep: 6, fullDisk: 60}
}

// lateAnswers is for what happens when answers of a database that is gone meet
// boxes that need room at once.
func lateAnswers() mix {
	return mix{dup: 40, delay: 60, restart: 5, dbRestore: 10, fullDisk: 100}
}

// only is one class of faults; agents die as well, as they always may.
func only(list ...fault) mix {
	m := mix{kill: 6}
	for _, f := range list {
		m[f] = max(allFaults()[f], 5)
	}
	return m
}
