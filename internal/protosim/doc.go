// Package protosim checks protocol v1 (docs/protocol.md) as a model: boxes,
// broker, controllers and database as small values in one goroutine, and a seed
// that decides what happens next. It holds tests only.
//
// Vocabulary: a schedule is one seed: 600 steps with faults, then calm until
// every box has heard of the database as it is and nothing waits. A record is
// what a box was promised for; a fault is in the list of type fault; a variant
// is the protocol or a mutant with one rule broken; the judge is the part that
// knows what no box can know. Each record and each gap ends as one of
//
//	stored     in the database, counted once (twice: doubled)
//	told       dropped for room, and a gap that tells of it is stored
//	destroyed  a disk that held it was replaced by an older image
//	beyond     restored away after the box had needed the room of its copy
//	lost       anything else
//
// Harsher than the world: any message may overtake any other and come minutes
// late, TCP or not; the broker acknowledges what it forgets; connections survive
// a resumed snapshot. Not in it: encodings, schemas, refused and damaged blocks,
// bytes (room and windows count blocks), desired state, split databases, a disk
// that lies, hashes that collide, and three clones behind the session limit of
// the embedded broker, where the third starves. A container that keeps its keys
// is a DATA here.
//
// The box follows agent/spool (evict, tell, Validate) and agent/link (session,
// pump), the controller controller/store (Ingest, Valid). The real code meets
// the same faults in internal/fleettest. The one rule to keep: change the model
// when the rules change, and see the mutants fail.
package protosim
