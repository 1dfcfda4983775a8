package broker

import (
	"fmt"
	"testing"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestTelemetryTakesNoRoomFromHellos: a box whose HELLO is forgotten sends
// nothing for half a minute, and then adds to the crowd.
func TestTelemetryTakesNoRoomFromHellos(t *testing.T) {
	q := newQueue()
	put := func(n int, topic wire.Topic) bool {
		return q.put(arrival{id: identity.ID(fmt.Sprint("d-", n)), topic: topic, payload: make([]byte, 100)})
	}
	for range maxWaitingOfBox {
		put(0, wire.TopicData)
	}
	if put(0, wire.TopicData) || !put(0, wire.TopicHello) || put(0, wire.TopicHello) {
		t.Error("a box has its telemetry and one HELLO waiting, and no more")
	}
	n := 1
	for put(n, wire.TopicData) {
		n++
	}
	hellos := 0
	for put(n+hellos, wire.TopicHello) {
		hellos++
	}
	if q.count != maxWaiting+maxHellos || hellos < maxHellos-1 {
		t.Errorf("%d wait, %d of them came as HELLO when telemetry had no room", q.count, hellos)
	}
	if put(n, wire.TopicWill) {
		t.Error("what waits is not bounded")
	}
}
