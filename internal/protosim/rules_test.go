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

	// of the box
	deleteAtPuback,
	noWindow, // deleted at ACK, with room to spare
	noLineage, // WELCOME withdraws no ACK
	noLSN, // WELCOME withdraws by run alone
	anyRun, // ACKs of another run than the last WELCOME's count
	everyWelcome, // a second WELCOME to one HELLO counts, though it may be older
	keepAcks, // ACKs that wait in memory are not withdrawn by WELCOME
	silent, // waiting blocks are dropped without a gap
	forgetGap, // a gap that is dropped hands nothing on
	hasty, // detail goes before the window
	repack, // an exact pack has a key of its own
	coarseKey, // a coarse pack has a key of its own
	packByOne, // a pack counts as acknowledged when one member is
	sentMarks, // what was sent is marked so on disk, and relied on
	// of the controller
	sameRun, // no new run, whatever was restored
	noEpoch, // running controllers do not notice another database server
	helloNoEpoch, // they do when they store, not when they answer HELLO
	runOutside, // the run is read before the transaction
	sequence, // LSNs come from a sequence, not in the order of commits
	lookOutside, // which keys are there is read before the transaction
	eagerAck, // ACK before the commit
	eagerNode, // one of several controllers does that
	deriveAlways, // derived rows change though the block was there
	coarseAgain, // rows of a coarse pack count for members stored fine
	wholeRow, // the row of a ten-block pack counts whole if a member is missing
	wholeOnly bool // a pack is stored only if no member is there
}

// variant is a set of rules with what is known of it.
type variant struct {
	name  string
	rules rules
	mix   mix // zero: allFaults
	// ends that some schedule must come to, and no other bad end
	loses, doubles, hasty bool
	within                uint64 // schedules that must show it
	known                 uint64 // of a rare one: a seed that does, to begin with unless all is proved
}

// protocol is the one that must hold.
const protocol = "protocol v1"

// variants lists the protocol and its mutants. The letters up to i are those of
// the study that led to the protocol.
func variants() []variant {
	return []variant{
		{name: protocol},
		{name: "a) delete at PUBACK", rules: rules{deleteAtPuback: true}, loses: true, within: 20},
		{name: "b) key (device, seq)", rules: rules{key: keyDeviceSeq, seqOnDisk: true}, loses: true, within: 20},
		{name: "c) key (sid, seq), sid drawn once", rules: rules{key: keySIDSeq, seqOnDisk: true}, loses: true, within: 20},
		{name: "d) key (sid, seq), sid per start", rules: rules{key: keySIDSeq}, loses: true, within: 50},
		{name: "e) exact key, sid drawn once", rules: rules{seqOnDisk: true}},
		{name: "f) no replay window", rules: rules{noWindow: true}, loses: true, within: 50},
		{name: "g) ACKs trusted for ever", rules: rules{noLineage: true}, loses: true, within: 50},
		{name: "h) ACK of another run counts", rules: rules{anyRun: true}, mix: oneRestore(20, 100), loses: true, within: 1000},
		{name: "i) key (device, timestamp)", rules: rules{key: keyDeviceTime}, loses: true, within: 20},
		{name: "j) exact pack under a new key", rules: rules{repack: true}, doubles: true, within: 20},
		{name: "k) lineage without LSN", rules: rules{noLSN: true}, loses: true, within: 50},
		{name: "l) no new run after a restore", rules: rules{sameRun: true}, loses: true, within: 50},
		{name: "m) ACK before the commit", rules: rules{eagerAck: true}, loses: true, within: 50},
		{name: "n) derived rows not tied to the insert", rules: rules{deriveAlways: true}, doubles: true, within: 20},
		{name: "o) dropped without a gap", rules: rules{silent: true}, loses: true, within: 20},
		{name: "p) a dropped gap hands nothing on", rules: rules{forgetGap: true}, mix: smallRooms(), loses: true, within: 200},
		{name: "q) coarse rows count for members stored fine", rules: rules{coarseAgain: true}, mix: smallRooms(), doubles: true, within: 50},
		{name: "r) a row of ten blocks counts whole", rules: rules{wholeRow: true}, mix: smallRooms(), doubles: true, within: 50},
		{name: "s) coarse pack under a new key", rules: rules{coarseKey: true}, mix: smallRooms(), doubles: true, within: 50},
		{name: "t) pack with a known member is not stored", rules: rules{wholeOnly: true}, loses: true, within: 50},
		{name: "u) pack acknowledged by one member", rules: rules{packByOne: true}, loses: true, within: 50},
		{name: "v) detail goes before the window", rules: rules{hasty: true}, mix: smallRooms(), hasty: true, within: 50},
		{name: "w) sent counts as acknowledged when room is needed", rules: rules{sentMarks: true}, mix: smallRooms(), loses: true, within: 50},
		{name: "x) new key for what no mark says was sent", rules: rules{sentMarks: true, repack: true}, mix: roomyImages(), doubles: true, within: 100},
		{name: "y) ACKs in memory outlive WELCOME", rules: rules{keepAcks: true}, mix: oneRestore(20, 100), loses: true, within: 200},
		{name: "z) run read outside the transaction", rules: rules{runOutside: true}, mix: oneRestore(0, 0), loses: true, within: 200},
		{name: "A) epoch of the database not checked", rules: rules{noEpoch: true}, mix: oneRestore(0, 0), loses: true, within: 50},
		{name: "B) epoch not checked at HELLO", rules: rules{helloNoEpoch: true}, mix: oneRestore(60, 100), loses: true, within: 5000, known: 1956},
		{name: "C) LSNs not in the order of commits", rules: rules{sequence: true}, mix: oneRestore(0, 0), loses: true, within: 1000},
		{name: "D) known keys read outside the transaction", rules: rules{lookOutside: true}, doubles: true, within: 100},
		{name: "E) ACK before the commit by one controller", rules: rules{eagerNode: true}, mix: restores(), loses: true, within: 100},
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
	restart                  // a controller restarts
	diskImage                // a box gets its disk back from an older image
	memSnapshot              // a box resumes from a snapshot of disk and memory: no start
	clone                    // a second box with the disk, perhaps the memory, of another
	dbRestore                // the database comes back from an older backup, perhaps under running controllers
	dbRestart                // a database server restarts: transactions are undone, nothing is lost
	clockStep                // the clock of a box jumps
	fullDisk                 // a schedule in which boxes run out of room
	manyNodes                // a schedule with several controllers on one database
	faults
)

func (f fault) String() string {
	return [faults]string{"kill", "cut", "drop", "duplicate", "long delay", "broker loss", "controller crash before ACK", "controller restart",
		"disk image", "memory snapshot", "clone", "database restore", "database restart", "clock step", "full disk", "several controllers"}[f]
}

// mix says how often each fault is to be expected in one schedule; of fullDisk
// and manyNodes it is the share in percent of schedules.
type mix [faults]int

// allFaults are the rates of the study that led to the protocol, and more.
func allFaults() mix {
	return mix{kill: 12, cut: 8, drop: 16, dup: 16, delay: 12, brokerLoss: 6, ackCrash: 4, restart: 3,
		diskImage: 5, memSnapshot: 5, clone: 2, dbRestore: 5, dbRestart: 3, clockStep: 6, fullDisk: 60, manyNodes: 60}
}

// lateAnswers is for what happens when answers of a database that is gone meet
// boxes that need room at once.
func lateAnswers() mix {
	return mix{dup: 40, delay: 60, restart: 5, dbRestore: 10, dbRestart: 3, fullDisk: 100, manyNodes: 50}
}

// smallRooms is for coarsening: no room anywhere, and disks stay what they are.
func smallRooms() mix {
	return mix{kill: 12, cut: 12, drop: 20, dup: 16, delay: 20, brokerLoss: 6, ackCrash: 8, restart: 4, dbRestore: 2, fullDisk: 100, manyNodes: 50}
}

// roomyImages is for old disks of boxes that need not drop anything.
func roomyImages() mix {
	return mix{kill: 12, drop: 16, delay: 12, ackCrash: 8, diskImage: 15, memSnapshot: 10, clone: 4}
}

// restores is for several controllers whose database is restored, fails over
// and restarts all the time.
func restores() mix {
	return mix{kill: 6, cut: 8, drop: 8, dup: 8, delay: 16, ackCrash: 8, restart: 8, dbRestore: 20, dbRestart: 8, fullDisk: 50, manyNodes: 100}
}

// oneRestore is for what a restore under several controllers does when no
// later one hides it.
func oneRestore(delays, roomless int) mix {
	return mix{dup: 10, delay: delays, dbRestore: 4, fullDisk: roomless, manyNodes: 100}
}

// only is one class of faults; agents die as well, as they always may.
func only(list ...fault) mix {
	m := mix{kill: 6}
	for _, f := range list {
		m[f] = max(allFaults()[f], 5)
	}
	return m
}
