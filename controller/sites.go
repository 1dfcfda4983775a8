package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const (
	// paceEvery is how often it is looked whether boxes know the present pace:
	// settings that another controller stored count from then on.
	paceEvery = 30 * time.Second
	// paceFresh is how old settings and counts may be for the answer to a HELLO.
	paceFresh = 5 * time.Second
	// paceRepeat is how often a box is told again because others came or went.
	paceRepeat = time.Minute
	// paceAsks is how often a box is asked for the same HELLO: the message may
	// be lost, or the box be away. It says one each hour by itself.
	paceAsks = 3
)

// pacer tells boxes how fast their backlog may go up, and when not at all.
//
// What a site allows is shared equally by its connected boxes. WELCOME carries
// the share; when it has become wrong by more than a tenth, or the settings
// have changed, the box is asked to say HELLO again. So the sum may exceed the
// site's rate for about a minute after boxes have come back.
type pacer struct {
	store *store.Store
	now   func() time.Time
	again chan struct{} // buffer 1: settings have changed

	mu        sync.Mutex // guards the fields below; held while the store is read
	read      time.Time  // when sites and connected were; zero: never
	sites     map[string]store.Site
	connected map[string]int // by site
	told      map[identity.ID]told
}

// told is what the last WELCOME said to a box.
type told struct {
	site, effect string
	share        int64
	at           time.Time
	asked        int // times that the box was asked for a HELLO since
}

func newPacer(s *store.Store, now func() time.Time) *pacer {
	return &pacer{store: s, now: now, again: make(chan struct{}, 1), told: map[identity.ID]told{}}
}

// changed says that a person has changed settings.
func (p *pacer) changed() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// refreshLocked reads settings and counts unless they are young enough.
func (p *pacer) refreshLocked(ctx context.Context, age time.Duration) error {
	if !p.read.IsZero() && time.Since(p.read) < age {
		return nil
	}
	sites, err := p.store.Sites(ctx)
	if err != nil {
		return err
	}
	connected, err := p.store.ConnectedBySite(ctx)
	if err != nil {
		return err
	}
	p.sites, p.connected, p.read = sites, connected, time.Now()
	return nil
}

// wantLocked is what boxes of a site shall know.
func (p *pacer) wantLocked(name string) (want told, spans []site.Span, err error) {
	e := site.Effect(p.sites[name].Settings, p.sites[store.SiteDefaults].Settings)
	want = told{site: name, effect: fmt.Sprint(e), share: site.Share(e.BacklogBytesPerSecond, p.connected[name])}
	spans, err = site.Spans(e, p.now(), site.Horizon)
	return want, spans, err
}

// pace is what WELCOME tells a box. Quiet times that cannot be read any more
// must not keep telemetry away: the fault is logged and there are none.
func (c *Controller) pace(ctx context.Context, id identity.ID) (rate int64, quiet []wire.Quiet, err error) {
	name, err := c.store.SiteOf(ctx, id)
	if err != nil {
		return 0, nil, err
	}
	p := c.pacer
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refreshLocked(ctx, paceFresh); err != nil {
		return 0, nil, err
	}
	want, spans, err := p.wantLocked(name)
	if err != nil {
		c.log.Warn("quiet times left out", "site", name, "err", err)
	}
	want.at = time.Now()
	p.told[id] = want
	now := p.now()
	for _, s := range spans {
		quiet = append(quiet, wire.Quiet{InMs: s.Start.Sub(now).Milliseconds(), ForMs: s.End.Sub(s.Start).Milliseconds()})
	}
	return want.share, quiet, nil
}

// paceBoxes asks boxes for a HELLO whose pace has changed, until ctx is done.
func (c *Controller) paceBoxes(ctx context.Context) error {
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	hello, err := wire.Encode(wire.Cmd{Hello: true})
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.pacer.again:
		}
		stale, err := c.pacer.stale(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("pace of sites not looked at", "err", err)
		}
		for _, id := range stale {
			// One that is away hears it at its next HELLO.
			_ = c.tell(id, wire.TopicCmd, hello, 0)
		}
	}
}

// stale are the boxes whose WELCOME is out of date. A box is named a few times
// at most, and again after its next HELLO.
func (p *pacer) stale(ctx context.Context) (out []identity.ID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.refreshLocked(ctx, 0); err != nil {
		return nil, err
	}
	wants := map[string]told{}
	for id, was := range p.told {
		want, seen := wants[was.site]
		if !seen {
			want, _, _ = p.wantLocked(was.site) // HELLO logs the fault
			wants[was.site] = want
		}
		shifted := was.share != 0 && want.share != 0 && 10*abs(was.share-want.share) > was.share && time.Since(was.at) >= paceRepeat
		if was.effect != want.effect || shifted {
			if was.asked++; was.asked >= paceAsks {
				delete(p.told, id)
			} else {
				p.told[id] = was
			}
			out = append(out, id)
		}
	}
	return out, nil
}

func abs(n int64) int64 { return max(n, -n) }
