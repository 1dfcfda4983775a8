// Package delivery holds protocol v1 (docs/protocol.md) to its promise with the
// real parts: spool and link of agents on one side, broker, ingest and a SQLite
// store on the other, TLS between them, in one testing/synctest bubble on fake
// time. It holds tests only.
//
// Vocabulary: a station is a spool and a link on one file, two stations of one
// box are clones; the center is the controller; moods are what happens to
// messages between broker and ingest, as with an outside broker; the ledger has
// every block that Append has promised. Processes are killed by going on from a
// copy of their files, with what was in memory gone. Disks are tmpfs where the
// test may mount them, so that they can be full.
//
// The faults are those of internal/protosim. Each promised block must end stored
// once, told of by a gap, on no disk any more, or restored away after it was
// acknowledged and evicted from a full window; and what the database counts must
// be the samples of the stored blocks, coarse or fine, compacted or not.
//
// The one rule to keep: judge by the ledger alone, never by what the code under
// test says of itself.
package delivery
