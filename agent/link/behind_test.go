package link

import (
	"testing"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestBehindCountsWhatIsNotUnderWay has three blocks in flight and sends one of
// them again with a fresh one.
func TestBehindCountsWhatIsNotUnderWay(t *testing.T) {
	key := func(seq uint64) wire.Key { return wire.Key{Lane: wire.LaneTelemetry, Seq: seq} }
	p := &pump{flights: map[wire.Key]*flight{key(1): {size: 100}, key(2): {size: 100}, key(3): {size: 100}}}
	sent := []wire.Block{{Key: key(3), Payload: make([]byte, 90)}, {Key: key(4), Payload: make([]byte, 200)}}
	for _, tc := range []struct{ have, want wire.Buffer }{
		{wire.Buffer{Blocks: 10, Bytes: 2000, OldestMs: 5, Window: 7, DroppedBlocks: 1}, wire.Buffer{Blocks: 6, Bytes: 1500, OldestMs: 5, Window: 7, DroppedBlocks: 1}},
		{wire.Buffer{Blocks: 4, Bytes: 900, OldestMs: 5, Window: 7}, wire.Buffer{Window: 7}},
	} {
		if got := p.behind(tc.have, sent); got != tc.want {
			t.Errorf("of %+v remain %+v, want %+v", tc.have, got, tc.want)
		}
	}
}
