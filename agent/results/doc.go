// Package results hands results to programs on the box, as they come and without
// the WAN: to subscribers over HTTP, to webhooks and to an MQTT broker.
//
// Vocabulary: a result is the JSON of inputs.Delivery; a subscriber reads a
// stream of server-sent events from memory, where the last results are kept; a
// target is a webhook or broker with a durable queue of its own, emptied in
// order, at least once, with a back-off while it fails. What a full queue or a
// slow subscriber loses is counted and told, and never holds up a pipeline.
//
// Files: deliver-<target>.db in the state directory, a queue each (see package
// inputs). Secrets are files whose first line counts; they are read at each use
// and told to nobody.
//
// The one rule a caller can break: Publish only while Run runs; what comes after
// its end is dropped.
package results
