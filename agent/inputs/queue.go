package inputs

import (
	"encoding/json"
	"log/slog"
	"time"
)

// Queue is a durable bounded queue of deliveries for one receiver on the box,
// built as the outbox is: the oldest go when it is full.
type Queue struct{ box *outbox }

// Queued is one delivery in a Queue, as JSON.
type Queued struct {
	Cursor uint64
	Body   json.RawMessage
}

// OpenQueue opens the queue in the bbolt file at path, which is bounded to
// about maxBytes. A damaged file is set aside.
func OpenQueue(path string, maxBytes int64, now func() time.Time, log *slog.Logger) (*Queue, error) {
	box, err := openOutbox(path, maxBytes, now, log)
	if err != nil {
		return nil, err
	}
	return &Queue{box}, nil
}

// Add queues the JSON of a Delivery for the next commit; with many waiting it
// commits at once.
func (q *Queue) Add(body json.RawMessage) error { return q.box.put(body) }

// Commit makes what was added durable.
func (q *Queue) Commit() error { return q.box.commit() }

// Oldest returns at most n committed deliveries and the queue's random id.
func (q *Queue) Oldest(n int) (id string, out []Queued, err error) {
	q.box.mu.Lock()
	defer q.box.mu.Unlock()
	err = eachLocked(q.box, 0, n, func(at uint64, body json.RawMessage) { out = append(out, Queued{at, body}) })
	return q.box.id, out, err
}

// Done frees all deliveries up to a cursor of the queue with that id.
func (q *Queue) Done(id string, cursor uint64) error { return q.box.ack(id, cursor) }

// Counts returns how many wait and how many were ever dropped.
func (q *Queue) Counts() (waiting, dropped int64) { return q.box.counts() }

// Close commits and closes the file.
func (q *Queue) Close() error { return q.box.close() }
