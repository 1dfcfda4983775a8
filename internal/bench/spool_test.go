package bench

import (
	"log/slog"
	"testing"

	"github.com/edgeherd/edgeherd/agent/spool"
)

// spoolIsEmpty makes sure that an agent had nothing left to send: what it was
// doing would else be part of its memory. One block may have been under way.
func spoolIsEmpty(t *testing.T, path string) {
	t.Helper()
	s, err := spool.Open(spool.Options{Path: path}, slog.New(slog.DiscardHandler))
	check(t, err)
	defer s.Close()
	b := s.Buffer()
	t.Logf("spool: %d blocks un-acked, %d kept for replay", b.Blocks, b.Window)
	if b.Blocks > 1 || b.Window == 0 {
		t.Errorf("the agent was not idle: %d blocks un-acked, %d acked", b.Blocks, b.Window)
	}
}
