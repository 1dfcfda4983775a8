package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var (
	errTopic = errors.New("unknown topic")
	// errAlone says that the database took what came with it.
	errAlone = errors.New("the database takes others")
)

// condition is whether the database takes what boxes send.
type condition struct {
	err    error
	logged time.Time
	loud   bool // that it is well again will be logged
}

// unwellEvery is how often it is logged that the database is not well.
const unwellEvery = time.Hour

// failed counts a message that was not taken. What the database refuses to all
// boxes is no fault of theirs: it is logged once, and counted for each.
func (in *Ingest) failed(id identity.ID, err error) {
	switch book := in.opts.Faults; {
	case errors.Is(err, errTopic):
		book.Note(id, fault.WrongTopic, 1, err)
	case errors.Is(err, ErrMalformed):
		book.Note(id, fault.Malformed, 1, err)
	case errors.Is(err, errAlone), errors.Is(err, store.ErrNotFound):
		book.Note(id, fault.RefusedByStore, 1, err)
	default:
		book.Count(id, fault.RefusedByStore, 1, err)
		in.unwell(err)
	}
}

func (in *Ingest) unwell(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.health.err = err
	if !in.health.logged.IsZero() && time.Since(in.health.logged) < unwellEvery {
		return
	}
	in.health.logged, in.health.loud = time.Now(), true
	in.log.Error("database takes no messages; nothing is acknowledged, boxes keep what they have", "err", err)
}

func (in *Ingest) well() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.health.err = nil
	if in.health.loud {
		in.health.loud = false
		in.log.Info("database takes messages again")
	}
}

// Trouble is why the database took no message lately, nil when it does.
func (in *Ingest) Trouble() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.health.err
}

// judge notes which machine says HELLO as a box. It returns what to ask all of
// them, and reports whether desired state is withheld: two machines that are one
// box would both follow it, and each report about the other's.
func (in *Ingest) judge(ctx context.Context, id identity.ID, h wire.Hello) (ask uint64, withhold bool, err error) {
	in.disk(id, h.Buffer)
	c, err := in.opts.Store.Claim(ctx, id, h, in.opts.Address(id, h.SID))
	if err != nil {
		return 0, false, err
	}
	if c.Began {
		in.opts.Faults.Note(id, fault.DuplicateIdentity, 1, errors.New(c.Why))
		in.log.Error("box quarantined", "device", id, "cause", c.Why)
		in.opts.Forked(id)
	}
	m, err := in.opts.Store.Membership(ctx, id)
	return c.Ask, m.State == store.StateQuarantined, err
}

// disk notes what a box says of its own.
func (in *Ingest) disk(id identity.ID, b wire.Buffer) {
	if b.Disk != "" {
		in.opts.Faults.Note(id, fault.DiskRefuses, 1, errors.New(b.Disk))
	}
}

// lost are the causes behind the reasons of gaps.
var lost = map[string]fault.Cause{
	wire.ReasonSpace: fault.SpoolFull, wire.ReasonCorrupt: fault.SpoolDamaged, wire.ReasonRefused: fault.SetAside,
}

// told is what newly stored blocks tell of trouble.
type told struct {
	d   store.Delivery
	odd error // about the body of an event
}

func (in *Ingest) tell(all map[wire.Key]told) {
	for _, t := range all {
		d := t.d
		if t.odd != nil {
			in.opts.Faults.Note(d.Box, fault.Unreadable, 1, t.odd)
		}
		if d.Gap == nil {
			continue
		}
		if cause, known := lost[d.Gap.Reason]; known {
			n := max(1, int64(min(d.Gap.Dropped(), 1<<40)))
			in.opts.Faults.Note(d.Box, cause, n, fmt.Errorf("the box gave up %d blocks, reason %q", d.Gap.Dropped(), d.Gap.Reason))
		}
	}
}
