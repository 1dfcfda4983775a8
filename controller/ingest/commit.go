package ingest

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Bounds of one commit: it holds up all that come after it.
const (
	maxCommitKeys  = 4096
	maxCommitBytes = 8 << 20
)

const (
	// commitDelay is how long messages are gathered when many come: a commit
	// of a few costs as much of the disk as one of hundreds.
	commitDelay = 10 * time.Millisecond
	// busyBatches in one commit means that many come, for busySpan after it.
	busyBatches = 32
	busySpan    = 100 * time.Millisecond
)

// batch is the blocks of one message, waiting for their commit.
type batch struct {
	box        identity.ID
	deliveries []store.Delivery
	keys       []wire.Key // of deliveries
	bytes      int
	refused    int           // keys that its ACK names beside those that are stored
	done       chan struct{} // closed when the fields below are set
	committed  store.Committed
	// acks are the keys to acknowledge for it: its own, with those of other
	// messages of the box in the same commit, or none when another one does.
	acks []wire.Key
	err  error
}

// commit hands a batch to Run and waits for its transaction.
func (in *Ingest) commit(ctx context.Context, b *batch) error {
	in.mu.Lock()
	if in.stopped {
		in.mu.Unlock()
		return errStopped
	}
	in.queue = append(in.queue, b)
	in.mu.Unlock()
	in.poke()
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *Ingest) poke() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// Run commits what Deliver queues until ctx is done. Batches that were not
// committed by then fail; their senders keep the blocks.
func (in *Ingest) Run(ctx context.Context) error {
	var busyUntil time.Time
	for {
		select {
		case <-in.wake:
			if time.Now().Before(busyUntil) { // more will come in a moment
				select {
				case <-time.After(commitDelay):
				case <-ctx.Done():
				}
			}
			if in.flush(ctx) >= busyBatches {
				busyUntil = time.Now().Add(busySpan)
			}
		case <-ctx.Done():
			in.mu.Lock()
			in.stopped = true
			left := in.queue
			in.queue = nil
			in.mu.Unlock()
			for _, b := range left {
				b.err = errStopped
				close(b.done)
			}
			return nil
		}
	}
}

// next takes as many batches from the queue as a commit may have.
func (in *Ingest) next() []*batch {
	in.mu.Lock()
	defer in.mu.Unlock()
	keys, bytes, n := 0, 0, 0
	for n < len(in.queue) {
		keys, bytes = keys+len(in.queue[n].keys), bytes+in.queue[n].bytes
		if n > 0 && (keys > maxCommitKeys || bytes > maxCommitBytes) {
			break
		}
		n++
	}
	todo := in.queue[:n:n]
	if in.queue = in.queue[n:]; len(in.queue) == 0 {
		in.queue = nil
	}
	return todo
}

// flush commits once and returns how many batches shared it.
func (in *Ingest) flush(ctx context.Context) int {
	todo := in.next()
	if len(todo) == 0 {
		return 0
	}
	in.mu.Lock()
	if len(in.queue) > 0 {
		in.poke()
	}
	in.mu.Unlock()
	var all []store.Delivery
	for _, b := range todo {
		all = append(all, b.deliveries...)
	}
	c, err := in.ingest(ctx, all)
	if err != nil && len(todo) > 1 {
		// One poisoned batch must not hold up the others.
		good := 0
		for _, b := range todo {
			b.committed, b.err = in.ingest(ctx, b.deliveries)
			if b.acks = b.keys; b.err == nil {
				good++
			}
		}
		for _, b := range todo {
			if b.err != nil && good > 0 {
				b.err = fmt.Errorf("%w: %w", errAlone, b.err)
			}
			close(b.done)
		}
		return len(todo)
	}
	share(todo)
	for _, b := range todo {
		b.committed, b.err = c, err
		close(b.done)
	}
	return len(todo)
}

// share leaves the acknowledging of all that a box has in one commit to the
// first of its messages.
func share(todo []*batch) {
	first := map[identity.ID]*batch{}
	for _, b := range todo {
		f := first[b.box]
		if f == nil || len(f.acks)+len(b.keys)+f.refused > wire.MaxKeys {
			first[b.box], b.acks = b, b.keys
			continue
		}
		f.acks = append(f.acks[:len(f.acks):len(f.acks)], b.keys...)
	}
}
