package ingest

// Waiting counts the messages that wait for a commit.
func (in *Ingest) Waiting() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue)
}
