// Package e2e runs the programs as users get them: real processes, real ports,
// real models, on this machine. It holds tests only.
//
// Vocabulary: a fleet is one `edgeherd up` with all its processes; a load is a
// loop of inference requests that counts what fails; the ledger is what the
// controller's database says of every block and result.
//
// The programs are built once a run into a temporary folder, or taken from the
// folder EDGEHERD_BIN. Assets are found as package assets says; without them
// the tests are skipped, unless EDGEHERD_REQUIRE_ASSETS is set.
// EDGEHERD_PROVE=1 repeats the kills many times.
//
// The one rule a caller can break: a test ends only processes that its own
// fleet started, found by their parents, never by name.
package e2e
