// Package trust stands between a box and what it is told to run: nothing is
// installed that the fleet's metadata does not list (package tufclient).
//
// Vocabulary: the guard allows or refuses a version by its digest. A box in
// development has no metadata: one key signs everything, and the guard lets pass
// what that key signed, until the controller shows it, signed by the same key,
// the root of a fleet in production. There is no way back from there.
//
// What runs goes on running: the guard is asked before a download, never after.
//
//	STATE/trust.db           the fleet's metadata (package tufclient)
//	STATE/identity/box.json  the keys and the root to begin from
//
// The one rule a caller can break: an error that is ErrUntrusted is final, any
// other one passes; who mixes them up asks for ever or gives up too soon.
package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// ErrUntrusted says that this version will not be installed.
var ErrUntrusted = trust.ErrUntrusted

const (
	// refreshEvery is how often the metadata is fetched without a cause; the
	// controller signs it daily.
	refreshEvery = 6 * time.Hour
	// enough is how long a digest that was not listed is not looked for again.
	enough = 10 * time.Second
	// atConnect is how old one may be when a session begins.
	atConnect = 10 * time.Minute
	// limit bounds one refresh over a line of a few KB/s.
	limit = 5 * time.Minute
	// expirySoon is when the end of the metadata is worth a warning. The
	// controller keeps 29 days ahead of it.
	expirySoon = 7 * 24 * time.Hour
)

// Options of a Guard. Path, HTTP and BaseURL are required.
type Options struct {
	// Path is where trust.db lies.
	Path string
	// Keyring and Root are those of box.json.
	Keyring trust.Keyring
	Root    []byte
	// HTTP and BaseURL reach the controller's files.
	HTTP    *http.Client
	BaseURL string
	// Adopt keeps what a box in development was shown, in box.json.
	Adopt func(trust.Keyring, []byte) error
	// Machine is what this box is called: board class and architecture.
	Machine []string
	// Version is that of the agent.
	Version string
	// NotBefore is a time that is past. WallClock: nil means time.Now.
	NotBefore time.Time
	WallClock func() time.Time
	NoSync    bool
}

// Guard is safe for concurrent use.
type Guard struct {
	opts Options
	log  *slog.Logger
	wake chan struct{} // buffer 1: a session has begun

	adopting sync.Mutex // held while a box asks for a root

	mu     sync.Mutex        // guards what follows
	client *tufclient.Client // nil in development
	ring   trust.Keyring
	good   time.Time                 // of the last good refresh
	missed map[blob.Digest]time.Time // when a refresh did not list it
}

// Open reads what is on disk.
func Open(opts Options, log *slog.Logger) (*Guard, error) {
	g := &Guard{opts: opts, log: log, ring: opts.Keyring, wake: make(chan struct{}, 1), missed: map[blob.Digest]time.Time{}}
	if len(opts.Root) == 0 {
		return g, nil
	}
	return g, g.begin(opts.Root)
}

func (g *Guard) begin(root []byte) error {
	c, err := tufclient.Open(tufclient.Options{
		Path: g.opts.Path, Root: root, Fetch: g.fetch, WallClock: g.opts.WallClock, NotBefore: g.opts.NotBefore, NoSync: g.opts.NoSync,
	}, g.log)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.client = c
	return nil
}

// Close releases the file, after Run has ended.
func (g *Guard) Close() error {
	if c := g.metadata(); c != nil {
		return c.Close()
	}
	return nil
}

func (g *Guard) metadata() *tufclient.Client {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.client
}

// Keyring says who may sign documents now. Those who may assign (desired state)
// are those that the metadata names; box.json counts until it is known.
func (g *Guard) Keyring() trust.Keyring {
	g.mu.Lock()
	ring, c := g.ring, g.client
	g.mu.Unlock()
	if c == nil {
		return ring
	}
	if p, ok := c.Policy(); ok && len(p.Controllers) > 0 {
		return trust.ControllerKeyring(p.Controllers...)
	}
	return ring
}

// Allow returns nil if a version may be installed.
func (g *Guard) Allow(ctx context.Context, kind tufrepo.Kind, name, version string, d blob.Digest) error {
	g.Adopt(ctx) // the fleet may have gone into production since this session began
	c := g.metadata()
	if c == nil {
		if g.Keyring().Development {
			return nil // its signature is all there is
		}
		return errors.New("this box was told neither a root nor a key; enrol it again")
	}
	t, err := c.Listed(kind, name, version, d)
	if errors.Is(err, tufclient.ErrStale) || errors.Is(err, tufclient.ErrNotListed) {
		if err := g.lookAgain(ctx, d); err != nil {
			return fmt.Errorf("%s %s:%s waits for the fleet's metadata: %w", kind, name, version, err)
		}
		t, err = c.Listed(kind, name, version, d)
	}
	if err == nil {
		err = t.Fits(g.opts.Version, g.opts.Machine...)
	} else if errors.Is(err, tufclient.ErrStale) {
		return fmt.Errorf("%s %s:%s: %w", kind, name, version, err)
	}
	if err == nil && kind == tufrepo.KindRelease {
		err = g.least(c, version)
	}
	if err != nil {
		return fmt.Errorf("%w: %s %s:%s: %w", ErrUntrusted, kind, name, version, err)
	}
	return nil
}

// least refuses agents below the least that the fleet allows.
func (g *Guard) least(c *tufclient.Client, version string) error {
	p, _ := c.Policy()
	if err := (tufrepo.Target{MinAgent: p.MinAgent}).Fits(version); err != nil {
		return fmt.Errorf("%w: %w", tufclient.ErrFloor, err)
	}
	return nil
}

// Connected says that a session has begun: a good time to refresh.
func (g *Guard) Connected() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Run keeps the metadata fresh until ctx is done.
func (g *Guard) Run(ctx context.Context) error {
	for {
		wait := refreshEvery - rand.N(refreshEvery/4) // boxes that began together part
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		case <-time.After(wait):
		}
		g.look(ctx)
	}
}

func (g *Guard) look(ctx context.Context) {
	g.Adopt(ctx)
	if g.metadata() == nil {
		return
	}
	err := g.refresh(ctx, atConnect)
	if err == nil || ctx.Err() != nil {
		return
	}
	if s := g.metadata().Status(); s.Ends.IsZero() || s.Ends.Sub(s.Time) < expirySoon {
		g.log.Warn("the fleet's metadata cannot be refreshed; without it nothing new is installed, what runs goes on", "ends", s.Ends, "err", err)
		return
	}
	g.log.Debug("metadata not refreshed", "err", err)
}

// lookAgain refreshes for a digest that is not listed: what was refreshed a moment
// ago, or from a stick, may lack what was listed since.
func (g *Guard) lookAgain(ctx context.Context, d blob.Digest) error {
	g.mu.Lock()
	maps.DeleteFunc(g.missed, func(_ blob.Digest, at time.Time) bool { return time.Since(at) >= enough })
	_, looked := g.missed[d]
	g.mu.Unlock()
	if looked {
		return nil
	}
	if err := g.refresh(ctx, 0); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missed[d] = time.Now()
	return nil
}

// refresh fetches the metadata unless that was done less than age ago.
func (g *Guard) refresh(ctx context.Context, age time.Duration) error {
	g.mu.Lock()
	fresh := !g.good.IsZero() && time.Since(g.good) < age
	g.mu.Unlock()
	if fresh {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := g.metadata().Refresh(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.good = time.Now()
	return nil
}

// fetch gets a document from the controller.
func (g *Guard) fetch(ctx context.Context, name string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.opts.BaseURL+"/device/v1/trust/"+name, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := g.opts.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", name, tufclient.ErrAbsent)
	default:
		return nil, fmt.Errorf("%s: the controller answers %s", name, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", name, most)
	}
	return data, err
}

// Adopt has a box in development ask whether its fleet is in production. It is
// asked before each install too: what people signed would be refused for good.
func (g *Guard) Adopt(ctx context.Context) {
	g.adopting.Lock()
	defer g.adopting.Unlock()
	if g.metadata() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := g.adopt(ctx); err != nil {
		g.log.Debug("this box stays in development", "err", err)
	}
}

// adopt takes a box in development into a fleet in production: the one key that
// it trusts for everything signs the root.
func (g *Guard) adopt(ctx context.Context) error {
	ring := g.Keyring()
	if !ring.Development || g.opts.Adopt == nil {
		return errors.New("it trusts nobody who could change that")
	}
	envelope, err := g.fetch(ctx, "adoption.json", trust.MaxEnvelopeBytes)
	if err != nil {
		return err
	}
	root, err := ring.Open(trust.TypeRoot, envelope)
	if err != nil {
		return err
	}
	next := trust.ControllerKeyring(slices.Clone(ring.Keys[trust.TypeDesired])...)
	if err := g.begin(root); err != nil {
		return err
	}
	g.mu.Lock()
	g.ring = next
	g.mu.Unlock()
	if err := g.opts.Adopt(next, root); err != nil {
		g.log.Warn("the root of the fleet is not kept yet; the next start does it", "err", err)
	}
	g.log.Info("this box is in production now: people's keys say what it may run")
	return nil
}

// Status tells how the metadata stands; false in development.
func (g *Guard) Status() (tufclient.Status, bool) {
	if c := g.metadata(); c != nil {
		return c.Status(), true
	}
	return tufclient.Status{}, false
}
