// Package ingest takes the messages of boxes, decodes and checks them, stores
// them and answers.
//
// Deliver is called by the broker for each message before its PUBACK leaves.
// DATA waits for a group commit: all blocks that arrived while the previous
// transaction ran share the next one. The ACK with the exact keys follows the
// commit. A block whose seal is wrong is never stored: the ACK refuses it, and
// the box sets it aside. One with a right seal and content that does not decode
// is kept as it is and acknowledged, since sending it again would not make it
// better. Of a pack the members are acknowledged, or all of them refused: an
// exact one when a member is not what its key was made of, a coarser one, which
// has no seal, when it is not well formed. No record is placed later than it
// came: a clock that is years ahead would hide all that follows.
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

	"github.com/edgeherd/edgeherd/controller/fault"
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
	// Faults counts what is wrong with messages; nil means that it is only logged.
	Faults *fault.Book
	// Ask puts a question to a box, wherever its sessions are: each answers it by a
	// HELLO. nil means by Publish.
	Ask func(id identity.ID, question uint64)
	// Address tells from where a process of a box is connected; nil, or "": nobody
	// knows.
	Address func(id identity.ID, sid wire.SID) string
	// Forked is called when a box was put in quarantine, since two machines are it;
	// nil: nobody.
	Forked func(id identity.ID)
	// Welcomed is called after a WELCOME has gone to a box; nil: nobody.
	Welcomed func(ctx context.Context, id identity.ID)
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
	health  condition
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
	if opts.Faults == nil {
		opts.Faults = fault.New(fault.Options{WallClock: opts.WallClock}, log)
	}
	in := &Ingest{opts: opts, log: log, wake: make(chan struct{}, 1)}
	if in.opts.Ask == nil {
		in.opts.Ask = func(id identity.ID, q uint64) { _ = in.publish(id, wire.TopicCmd, wire.Cmd{Question: q}) }
	}
	if in.opts.Address == nil {
		in.opts.Address = func(identity.ID, wire.SID) string { return "" }
	}
	if in.opts.Forked == nil {
		in.opts.Forked = func(identity.ID) {}
	}
	return in
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
		err = fmt.Errorf("%w %q: %w", errTopic, topic, ErrMalformed)
	}
	if err != nil && !errors.Is(err, errStopped) && ctx.Err() == nil {
		in.failed(id, err)
	}
	return err
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
	older, err := in.opts.Store.Reconnects(ctx, id, h)
	if err != nil {
		return err
	}
	if older != nil { // it is answered, and changes nothing
		in.opts.Faults.Note(id, fault.Replayed, 1, older)
	} else if err := in.opts.Store.Hello(ctx, id, h); err != nil {
		return err
	}
	in.well()
	ask, withheld, err := in.judge(ctx, id, h)
	if err != nil {
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
	if withheld {
		desired = nil
	}
	head, err := in.opts.Store.NewestSeal(ctx)
	if err != nil {
		return err
	}
	w := wire.Welcome{
		V: wire.Version, Nonce: h.Nonce, Run: lineage.Run, Valid: lineage.Valid,
		WindowBytes: windowBytes, WindowCount: windowCount, Desired: desired, Schemas: schemas, Head: head,
		WallMs: in.opts.WallClock().UnixMilli(), LiveMs: in.liveFor().Milliseconds(),
	}
	if in.opts.Pace != nil {
		if w.BacklogRate, w.Quiet, err = in.opts.Pace(ctx, id); err != nil {
			return err
		}
	}
	in.changed(id)
	if err := in.publish(id, wire.TopicWelcome, w); err != nil {
		return err
	}
	if ask != 0 {
		in.opts.Ask(id, ask)
	}
	if in.opts.Welcomed != nil {
		in.opts.Welcomed(ctx, id)
	}
	return nil
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
