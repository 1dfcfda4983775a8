// Package ingest takes the messages of boxes, decodes and checks them, stores
// them and answers.
//
// Deliver is called by the broker for each message before its PUBACK leaves.
// DATA waits for a group commit: all blocks that arrived while the previous
// transaction ran share the next one. The ACK with the exact keys follows the
// commit. A block whose seal is wrong is never stored: the ACK refuses it, and
// the box sets it aside. One with a right seal and content that does not decode
// is kept as it is and acknowledged, since sending it again would not make it
// better. No record is placed later than it came: a clock that is years ahead
// would hide all that follows.
//
// The one rule a caller can break: Run must be running, or DATA waits for ever.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Limits that a box is told in WELCOME.
const (
	windowBytes = 64 << 10
	windowCount = 8
)

// Options of an Ingest. Store and Publish are required.
type Options struct {
	Store *store.Store
	// Publish sends a message to one box.
	Publish func(id identity.ID, topic wire.Topic, payload []byte, qos byte) error
	// Changed is called after a commit that changed something of a box.
	Changed func(id identity.ID)
	// Live is called with the newest samples of a watched box.
	Live func(id identity.ID, l wire.Live)
	// LiveFor tells how long boxes shall send live samples; nil means not.
	LiveFor func() time.Duration
	// Pace tells how fast the backlog of a box may go up, and when not at all;
	// nil means as fast as it can, at any time.
	Pace func(ctx context.Context, id identity.ID) (rate int64, quiet []wire.Quiet, err error)
	// Observer is told what becomes of blocks; nil means nobody.
	Observer Observer
	// WallClock stamps what has no trusted time of its own; nil means time.Now.
	WallClock func() time.Time
}

// Ingest is the way in for all messages of boxes.
type Ingest struct {
	opts Options
	log  *slog.Logger
	wake chan struct{} // buffer 1: a commit is wanted

	mu      sync.Mutex // guards the fields below
	queue   []*batch
	stopped bool
	faults  map[fault]time.Time // when each was logged last
}

// fault is one kind of thing that goes wrong with one box.
type fault struct {
	id   identity.ID
	what string
}

// faultEvery is how often one fault is logged.
const faultEvery = time.Hour

// batch is the blocks of one message, waiting for their commit.
type batch struct {
	deliveries []store.Delivery
	done       chan struct{} // closed when the fields below are set
	committed  store.Committed
	err        error
}

// ErrMalformed is wrapped by the error for a message that can never be read:
// sending it again cannot help.
var ErrMalformed = errors.New("malformed message")

// errStopped says that the controller is going down; the box sends again.
var errStopped = errors.New("controller is stopping")

// New returns an Ingest that has done nothing.
func New(opts Options, log *slog.Logger) *Ingest {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if opts.Observer == nil {
		opts.Observer = nobody{}
	}
	return &Ingest{opts: opts, log: log, wake: make(chan struct{}, 1), faults: map[fault]time.Time{}}
}

// Deliver handles one message. An error withholds the PUBACK.
func (in *Ingest) Deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	var err error
	switch topic {
	case wire.TopicHello:
		err = in.hello(ctx, id, payload)
	case wire.TopicData:
		err = in.data(ctx, id, payload)
	case wire.TopicLive:
		err = in.live(id, payload)
	case wire.TopicWill:
		// The broker reports the end of the connection itself.
	default:
		err = fmt.Errorf("topic %q: %w", topic, ErrMalformed)
	}
	if err != nil && !errors.Is(err, errStopped) && ctx.Err() == nil {
		in.fault(id, "message refused", err)
	}
	return err
}

// fault logs what went wrong with a box, each kind once an hour, so that a
// broken box cannot fill the log. There are as many as boxes times kinds.
func (in *Ingest) fault(id identity.ID, what string, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	now, f := time.Now(), fault{id, what}
	if last, seen := in.faults[f]; seen && now.Sub(last) < faultEvery {
		return
	}
	in.faults[f] = now
	in.log.Warn(what, "device", id, "err", err)
}

func decodeMessage[T any](payload []byte) (T, error) {
	msg, err := wire.Decode[T](payload)
	if err != nil {
		return msg, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return msg, nil
}

func (in *Ingest) hello(ctx context.Context, id identity.ID, payload []byte) error {
	h, err := decodeMessage[wire.Hello](payload)
	if err != nil {
		return err
	}
	if err := in.opts.Store.Hello(ctx, id, h); err != nil {
		return err
	}
	lineage, err := in.opts.Store.Lineage(ctx, h.Runs)
	if err != nil {
		return err
	}
	schemas, err := in.opts.Store.BoxSchemas(ctx, id)
	if err != nil {
		return err
	}
	desired, err := in.opts.Store.DesiredEnvelope(ctx, id)
	if err != nil {
		return err
	}
	w := wire.Welcome{
		V: wire.Version, Nonce: h.Nonce, Run: lineage.Run, Valid: lineage.Valid,
		WindowBytes: windowBytes, WindowCount: windowCount, Desired: desired, Schemas: schemas,
		WallMs: in.opts.WallClock().UnixMilli(), LiveMs: in.liveFor().Milliseconds(),
	}
	if in.opts.Pace != nil {
		if w.BacklogRate, w.Quiet, err = in.opts.Pace(ctx, id); err != nil {
			return err
		}
	}
	in.changed(id)
	return in.publish(id, wire.TopicWelcome, w)
}

func (in *Ingest) liveFor() time.Duration {
	if in.opts.LiveFor == nil {
		return 0
	}
	return in.opts.LiveFor()
}

func (in *Ingest) publish(id identity.ID, topic wire.Topic, msg any) error {
	payload, err := wire.Encode(msg)
	if err != nil {
		return err
	}
	// A box that just left hears it at its next HELLO.
	if err := in.opts.Publish(id, topic, payload, 1); err != nil {
		in.log.Debug("publish", "device", id, "topic", string(topic), "err", err)
	}
	return nil
}

func (in *Ingest) live(id identity.ID, payload []byte) error {
	l, err := decodeMessage[wire.Live](payload)
	if err != nil {
		return err
	}
	if in.opts.Live != nil {
		in.opts.Live(id, l)
	}
	return nil
}

func (in *Ingest) changed(id identity.ID) {
	if in.opts.Changed != nil {
		in.opts.Changed(id)
	}
}

func (in *Ingest) data(ctx context.Context, id identity.ID, payload []byte) error {
	msg, err := decodeMessage[wire.Data](payload)
	if err != nil {
		return err
	}
	if err := in.opts.Store.AddSchemas(ctx, msg.Schemas); err != nil {
		return err
	}
	b := &batch{done: make(chan struct{})}
	var ack wire.Ack
	strange := false
	for _, block := range msg.Blocks {
		if err := block.Verify(); err != nil {
			in.fault(id, "block refused", err)
			ack.Refused = append(ack.Refused, block.Key)
			in.opts.Observer.Refused(1)
			continue
		}
		d, err := in.place(ctx, id, block)
		if errors.Is(err, store.ErrNotFound) {
			strange = true
			continue
		}
		if err != nil {
			return err
		}
		d.Behind = &msg.Behind
		b.deliveries = append(b.deliveries, d)
		ack.Keys = append(ack.Keys, block.Key)
	}
	if strange {
		// A schema is not known here: ask for a fresh conversation, in which
		// the box sends all schemas that WELCOME does not list.
		if err := in.publish(id, wire.TopicCmd, wire.Cmd{Hello: true}); err != nil {
			return err
		}
	}
	if len(ack.Keys) > 0 {
		if err := in.commit(ctx, b); err != nil {
			return err
		}
		ack.Run, ack.LSN = b.committed.Run, b.committed.LSN
		in.changed(id)
	}
	switch {
	case len(ack.Keys) > 0:
	case len(ack.Refused) > 0:
		lineage, err := in.opts.Store.Lineage(ctx, nil)
		if err != nil {
			return err
		}
		ack.Run = lineage.Run
	default:
		return nil
	}
	return in.publish(id, wire.TopicAck, ack)
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
	select {
	case in.wake <- struct{}{}:
	default:
	}
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run commits what Deliver queues until ctx is done. Batches that were not
// committed by then fail; their senders keep the blocks.
func (in *Ingest) Run(ctx context.Context) error {
	for {
		select {
		case <-in.wake:
			in.flush(ctx)
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

func (in *Ingest) flush(ctx context.Context) {
	in.mu.Lock()
	todo := in.queue
	in.queue = nil
	in.mu.Unlock()
	if len(todo) == 0 {
		return
	}
	var all []store.Delivery
	for _, b := range todo {
		all = append(all, b.deliveries...)
	}
	c, err := in.ingest(ctx, all)
	if err != nil && len(todo) > 1 {
		// One poisoned batch must not hold up the others.
		for _, b := range todo {
			b.committed, b.err = in.ingest(ctx, b.deliveries)
			close(b.done)
		}
		return
	}
	for _, b := range todo {
		b.committed, b.err = c, err
		close(b.done)
	}
}
