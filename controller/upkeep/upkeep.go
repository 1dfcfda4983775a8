// Package upkeep keeps a fleet's heat in order: it judges the hours of boxes,
// learns from all boxes of a SKU, turns findings into tickets, proves work, tells
// boxes what they cannot know, and does what people ask of tickets and visits.
// The rules are those of internal/health and controller/care; this is the work
// around them.
//
// It also compares boxes of a site and of a SKU with their like, and keeps the
// figures of open tickets those of today.
//
// Vocabulary: the desk is where people act on tickets, the keeper what goes on
// by itself. The heat of a box is its judged hours (health.Box). Air is what
// boxes and sensors of a site measured in the room.
//
// Every change of a ticket and the notices that tell of it are one transaction
// of the store, which all such transactions pass one after the other.
//
// The one rule a caller can break: of several controllers on one database only
// the leader runs the keeper; all may use the desk.
package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// Options of a Desk. Store is required.
type Options struct {
	Store *store.Store
	// Leader returns a context for what only the leader writes; false when
	// another controller leads. nil: this controller is alone.
	Leader func(ctx context.Context) (context.Context, bool)
	// Changed is told what changed, for browsers; nil: nobody.
	Changed func(c fleetapi.Change)
	// Tell sends Care to a box; nil: not.
	Tell func(id identity.ID, c wire.Care) error
	// Channels are where notices go; default nowhere.
	Channels []Channel
	// Tick is how often new findings are looked for; default 5 s.
	Tick time.Duration
	// WallClock stamps tickets; nil means time.Now.
	WallClock func() time.Time
}

// Channel is an endpoint of notices and what it wants to hear.
type Channel struct {
	Name string
	// Least is the level from which on it is told; default ticket. The weekly
	// digest goes to channels that want watch.
	Least fleetapi.Health
	// Words says what it is told in its language; nil: in English.
	Words *i18n.Dictionary
	// Sites are those that it is told of, with what is about the SKU of boxes
	// there; default all.
	Sites []string
	// Quiet are times ("22:00-06:00 mon-fri") of the site in which only what is
	// urgent is told.
	Quiet []string
}

// Desk does the upkeep of a fleet. Safe for concurrent use.
type Desk struct {
	opts Options
	log  *slog.Logger
	poke chan struct{} // buffer 1: there may be news

	mu     sync.Mutex // guards what follows
	airs   map[string]siteAir
	stands map[string][]stand // of the boxes of each site
	told   map[identity.ID]time.Time
}

// New returns a Desk that does nothing by itself before Run.
func New(opts Options, log *slog.Logger) *Desk {
	if opts.Leader == nil {
		opts.Leader = func(ctx context.Context) (context.Context, bool) { return ctx, true }
	}
	if opts.Changed == nil {
		opts.Changed = func(fleetapi.Change) {}
	}
	if opts.Tell == nil {
		opts.Tell = func(identity.ID, wire.Care) error { return nil }
	}
	if opts.Tick <= 0 {
		opts.Tick = 5 * time.Second
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	for i := range opts.Channels {
		if opts.Channels[i].Least == "" {
			opts.Channels[i].Least = fleetapi.HealthTicket
		}
	}
	return &Desk{opts: opts, log: log, poke: make(chan struct{}, 1)}
}

// How often the keeper does what. Hours close once an hour.
const (
	judgeEvery  = time.Minute
	verifyEvery = 10 * time.Minute
	likeEvery   = time.Hour
	airEvery    = 10 * time.Minute
	mutesEvery  = time.Hour
	learnEvery  = 24 * time.Hour
	digestEvery = time.Hour
	forgetEvery = 24 * time.Hour
)

// chore is something that the keeper does now and then.
type chore struct {
	what  string
	every time.Duration
	do    func(context.Context) error
	last  time.Time
}

// Run keeps the fleet until ctx is done.
func (d *Desk) Run(ctx context.Context) error {
	chores := []chore{
		{what: "hours judged", every: judgeEvery, do: d.Judge},
		{what: "findings made tickets", do: d.TakeNews},
		{what: "mutes ended", every: mutesEvery, do: d.opts.Store.EndMutes},
		{what: "work proved", every: verifyEvery, do: d.Verify},
		{what: "boxes compared", every: likeEvery, do: d.Compare},
		{what: "SKUs learnt", every: learnEvery, do: d.Learn},
		{what: "air told", every: airEvery, do: d.tellAir},
		{what: "digest written", every: digestEvery, do: d.Digest},
		{what: "old findings forgotten", every: forgetEvery, do: d.forget},
	}
	tick := time.NewTicker(d.opts.Tick)
	defer tick.Stop()
	said := map[string]string{} // the faults that were logged: an outage is told once
	for {
		if lead, ok := d.opts.Leader(ctx); ok {
			for i := range chores {
				c := &chores[i]
				if !c.last.IsZero() && time.Since(c.last) < c.every {
					continue
				}
				c.last = time.Now()
				err := c.do(lead)
				if ctx.Err() != nil {
					return nil
				}
				if err == nil || errors.Is(err, store.ErrFenced) {
					delete(said, c.what)
				} else if said[c.what] != err.Error() {
					said[c.what] = err.Error()
					d.log.Error("upkeep waits", "what", c.what, "err", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.poke:
		}
	}
}

// news says that a box may have found something.
func (d *Desk) news() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

func (d *Desk) now() time.Time { return d.opts.WallClock().UTC() }

// keepFor is how long closed findings and sent notices are kept.
const keepFor = 400 * 24 * time.Hour

func (d *Desk) forget(ctx context.Context) error {
	return d.opts.Store.ForgetCare(ctx, d.now().Add(-keepFor))
}

// changed tells browsers of tickets.
func (d *Desk) changed(tickets []fleetapi.Ticket) {
	for _, t := range tickets {
		d.opts.Changed(fleetapi.Change{Topic: "tickets", ID: t.ID})
		if t.Box != "" {
			d.opts.Changed(fleetapi.Change{Topic: "boxes", ID: string(t.Box)})
		}
	}
}

// put stores a ticket that changed, with the notices that tell of it.
func (d *Desk) put(ctx context.Context, c *store.CareTx, was *fleetapi.Ticket, t *fleetapi.Ticket) error {
	if err := d.groupIn(ctx, c, was, t); err != nil {
		return err
	}
	if err := c.PutTicket(ctx, t); err != nil {
		return err
	}
	if err := d.notify(ctx, c, was, *t); err != nil {
		return err
	}
	if t.Box == "" && t.State.Ended() && (was == nil || !was.State.Ended()) {
		return d.release(ctx, c, *t)
	}
	return nil
}
