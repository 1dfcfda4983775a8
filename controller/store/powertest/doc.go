// Package powertest cuts the power of a controller's database. It holds tests
// only.
//
// strace records what SQLite, or a whole PostgreSQL server, writes and syncs
// while blocks are stored. From that, images are made of the disk as it may be
// at any moment: what was synced is there, of the rest any sector may be missing.
// Each image is opened as after a power cut, and holds all that was acknowledged
// before that moment.
//
// What is taken for granted: a sync that returns is true (cheap SD cards lie),
// and names of files (create, rename, link, remove) reach the disk in their
// order and at once, as the journal of ext4 or XFS has it for names, though not
// for content. kill -9, of which the kernel's own memory survives, is tested
// elsewhere.
//
// The one rule to keep: the same recording without its syncs must lose something,
// or nothing was shown.
package powertest
