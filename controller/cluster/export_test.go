package cluster

import "time"

// BeatMargin is how long before its lease is over a leader stops to lead.
const BeatMargin = beatMargin

// LiveFor has a node count as alive for so long after each beat, and need not
// wait before it ends others: so a test says when a node is dead, and no
// machine is too slow for it. Call it before the first beat.
func (n *Node) LiveFor(span time.Duration) { n.life, n.steady = span, time.Time{} }

// Good is until when the lease is the node's for certain.
func (n *Node) Good() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.good
}
