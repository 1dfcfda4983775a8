package broker

import (
	"context"
	"sync"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Bounds of what waits between a broker and the sink. A box has at most its
// window of WELCOME under way, so none reaches its own bound honestly; what is
// over a bound is forgotten, and its box sends it again. That takes longest with
// a HELLO, without which a box sends nothing, so there is room for them that
// telemetry cannot take.
const (
	maxWaiting      = 4096
	maxHellos       = 1024 // beyond maxWaiting
	maxWaitingBytes = 32 << 20
	maxWaitingOfBox = 64
	workers         = 64 // at work at once: so many messages share a commit
)

// arrival is one message that waits for the sink.
type arrival struct {
	id      identity.ID
	topic   wire.Topic
	payload []byte
	bad     fault.Cause // of err
	err     error       // why the payload was not kept
	done    func()      // tells the broker that it may send more
}

// queue keeps arrivals in order for each box and lets boxes be served beside
// one another.
type queue struct {
	ready chan identity.ID // boxes with work that nobody does; never full

	mu    sync.Mutex // guards the fields below
	boxes map[identity.ID][]arrival
	count int
	bytes int
}

func newQueue() *queue {
	return &queue{ready: make(chan identity.ID, maxWaiting+maxHellos), boxes: map[identity.ID][]arrival{}}
}

// put takes an arrival, or reports false when there is no room for it.
func (q *queue) put(a arrival) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	mine, busy := q.boxes[a.id]
	room, own := maxWaiting, maxWaitingOfBox
	if a.topic == wire.TopicHello || a.topic == wire.TopicWill {
		room, own = room+maxHellos, own+1
	}
	if q.count >= room || q.bytes+len(a.payload) > maxWaitingBytes || len(mine) >= own {
		return false
	}
	q.count++
	q.bytes += len(a.payload)
	q.boxes[a.id] = append(mine, a)
	if !busy {
		q.ready <- a.id // each box is in it once, and no box without arrivals is
	}
	return true
}

// work hands arrivals to deliver until ctx is done.
func (q *queue) work(ctx context.Context, deliver func(arrival)) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-q.ready:
			q.mu.Lock()
			a := q.boxes[id][0]
			q.mu.Unlock()
			deliver(a)
			q.mu.Lock()
			q.count--
			q.bytes -= len(a.payload)
			if rest := q.boxes[id][1:]; len(rest) > 0 {
				q.boxes[id] = rest
				q.ready <- id
			} else {
				delete(q.boxes, id)
			}
			q.mu.Unlock()
		}
	}
}
