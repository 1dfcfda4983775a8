// Package backend runs and calls programs that serve models and are not ours:
// Triton, OpenVINO Model Server, llama-server, another runner.
//
// Vocabulary: a Config is an entry of `backends:` in runner.yaml and says how a
// program is started, or where one is that somebody else looks after. A Program
// is one start of it: a process, a container, a systemd unit, or nothing where
// it is merely watched. An Endpoint is where the Open Inference Protocol is
// answered, and a Client calls it, over REST or gRPC, handing messages through
// as bytes. A Breaker keeps callers from an endpoint that fails.
//
// What is started is an argument vector from the configuration of the box, never
// a shell's line, with places in braces that a version fills: {port}, {dir},
// {file:PATH}, {model}, {version}, {param:KEY}. A version cannot add arguments.
// A process gets SIGKILL, a container's command SIGTERM, when the runner dies.
//
// The one rule a caller can break: Stop a Program that Start returned, also one
// that has ended by itself, since containers leave something behind.
package backend
