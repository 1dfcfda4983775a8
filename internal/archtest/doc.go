// Package archtest holds the tests that keep the shape of the tree: who may
// import whom, which package is the door to a third-party module, how long
// files and functions may grow, and which names and calls are refused.
//
// Vocabulary: a row lists what a package may import of ours; a door is the
// short list of packages that may import a module of others. Both tables are
// in tables_test.go and are shown in docs/design.md, which is compared with
// them. The checks read the files of the tree themselves rather than ask the
// go command: so a cached result is never older than the files.
//
// The one rule a caller can break: a new package needs a row, a new module
// needs a door, and an exception needs its reason beside it.
package archtest
