package spool

// OnStep makes fn run before each step that a crash may come between: "commit",
// and those of a compaction. An error of it is one of the step.
func OnStep(s *Spool, fn func(what string) error) { s.step = fn }

// Compact moves the content to a new file, whether that is worth it or not.
func Compact(s *Spool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compact()
}

// Shrink compacts if that is worth it.
func Shrink(s *Spool) error { return s.shrink() }
