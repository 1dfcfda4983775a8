// Package serve answers the Open Inference Protocol (version 2, REST, with the
// binary tensor extension) and keeps the models behind it loaded.
//
// Vocabulary: a version is one model version with its worker process. The
// versions that active.json names serve; a candidate is loaded beside them to
// be tried and measured and serves nobody until active.json names it. A switch
// replaces the whole routing table at once: requests under way finish on the
// version they began with, which is unloaded when the last one has left.
//
// The same handler answers on TCP and on the unix socket; /edge/v1, by which
// the agent steers the runner, is on the socket only. Admission comes before
// the body is read: a request holds a place and the bytes it will need, or is
// told to come back (503). The package keeps no files: it reads active.json and
// the blob store beside it, both written by the agent, and checks signature and
// digests at each load.
//
// The one rule a caller can break: Infer, Reload and Probe work only while Run
// runs, since Run owns every goroutine and worker process.
package serve
