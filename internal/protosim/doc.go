// Package protosim checks protocol v1 (docs/protocol.md) as a model: boxes,
// brokers, controllers and databases as small values in one goroutine, and a
// seed that decides what happens next. It holds tests only.
//
// Vocabulary: a schedule is one seed: 600 steps with faults, then calm until
// every box has heard of the database as it is and nothing waits. A record is
// what a box was promised for, with some samples; a fault is in the list of type
// fault; a variant is the protocol or a mutant with one rule broken; the judge
// knows what no box can know. Each record and each gap ends as one of
//
//	fine, coarse  in the database once, with all its samples (more: doubled)
//	told          dropped for room, and a gap that tells of it is stored
//	destroyed     the last disk that held it was replaced by an older image
//	beyond        acknowledged, evicted from a full window, then restored away
//	lost          anything else; part of its samples is lost as well
//
// Harsher than the world: any message may overtake any other and come minutes
// late, TCP or not; the broker acknowledges what it forgets; connections survive
// a resumed snapshot; transactions of several controllers take turns at each
// step. Not in it: encodings, schemas, refused and damaged blocks, bytes, desired
// state, split databases, a snapshot of a database server with its memory, a disk
// that lies, hashes that collide, and three clones behind the session limit of
// the embedded broker, where the third starves.
//
// The box follows agent/spool and agent/link, the controllers controller/ingest
// and controller/store. The real code meets the same faults in
// internal/fleettest. The one rule to keep: change the model when the rules
// change, and see the mutants fail.
package protosim
