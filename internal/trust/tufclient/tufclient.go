// Package tufclient decides what may be installed: it keeps the fleet's
// metadata (package tufrepo) fresh, checked and on disk.
//
// Vocabulary: the pin is the root that came with the box's identity; everything
// is trusted for a chain of signatures that begins there. A refresh walks the
// client's part of the TUF specification (5.3): newer roots one by one, then
// timestamp, snapshot, targets and its roles, each bounded in size. The view is
// what the last good walk found; Listed looks there.
//
// One file, trust.db (bbolt), is written in one transaction a refresh. It holds
// documents that are checked again whenever they are read. What cannot be read
// is as if it had never been, down to the pin: a broken file costs a download.
//
// An end of validity blocks Listed, and so what is new; it never touches what
// runs. Time is the clock's, but never before the newest time that was signed.
//
// The one rule a caller can break: a box must not act on a model or release
// unless Listed has returned it in this process; asking again is cheap.
package tufclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// Why something may not be installed.
var (
	ErrNotListed = errors.New("the fleet's metadata does not list it")
	ErrRevoked   = errors.New("it is revoked")
	ErrFloor     = errors.New("it is below the least version that the fleet allows")
	// ErrStale says that the metadata has ended or was never complete: a refresh
	// may help.
	ErrStale = errors.New("the fleet's metadata is not up to date here")
)

// ErrAbsent is what Options.Fetch returns for a document that does not exist.
var ErrAbsent = errors.New("no such document")

// Limits bound what is downloaded and walked. Bytes of one document each.
type Limits struct {
	Root, Timestamp, Snapshot, Targets int64 // default 512 kB, 16 kB, 2 MB, 1 MB
	Roots                              int   // in one refresh; default 1024
	Roles                              int   // in one walk; default 32
}

func (l Limits) withDefaults() Limits {
	l.Root, l.Timestamp = cmp.Or(l.Root, 512<<10), cmp.Or(l.Timestamp, 16<<10)
	l.Snapshot, l.Targets = cmp.Or(l.Snapshot, 2<<20), cmp.Or(l.Targets, 1<<20)
	l.Roots, l.Roles = cmp.Or(l.Roots, 1024), cmp.Or(l.Roles, 32)
	return l
}

// Options of a Client. Root is required.
type Options struct {
	// Path is the file of the store; empty keeps everything in memory.
	Path string
	// Root is the pin.
	Root []byte
	// Fetch gets a document of the repository by its name, at most limit bytes:
	// longer ones are an error. Nil: nothing is reachable.
	Fetch func(ctx context.Context, name string, limit int64) ([]byte, error)
	// WallClock is the clock; nil means time.Now.
	WallClock func() time.Time
	// NotBefore is a time that is past, such as when the program was built.
	NotBefore time.Time
	Limits    Limits
	// NoSync leaves out fsync, for tests.
	NoSync bool
}

// Client is safe for concurrent use.
type Client struct {
	opts Options
	log  *slog.Logger
	pin  int64 // version

	refreshing sync.Mutex // held by a refresh; guards store and docs
	store      *store     // nil: none, or it failed
	docs       documents

	mu      sync.Mutex // guards what follows
	view    *view
	floor   time.Time // the newest time that was signed
	floorAt time.Time // when it was learnt, by the monotonic clock
	last    error     // of the last refresh
	lastAt  time.Time
}

// Open reads what is on disk. What is damaged there is left out; only a root
// that is none, or a directory that cannot be written, is an error.
func Open(opts Options, log *slog.Logger) (*Client, error) {
	opts.Limits = opts.Limits.withDefaults()
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	c := &Client{opts: opts, log: log, docs: documents{}, last: errNever}
	head, err := tufrepo.ParseHead(opts.Root)
	if err != nil {
		return nil, fmt.Errorf("the root that this box was enrolled with: %w", err)
	}
	c.pin = head.Version
	if opts.Path != "" {
		if c.store, err = openStore(opts); err != nil {
			return nil, err
		}
		if c.docs, err = c.store.load(blob.Sum(opts.Root)); err != nil {
			log.Warn("stored metadata is damaged and fetched anew", "err", err)
			if c.store, err = c.store.reset(opts); err != nil {
				return nil, err
			}
			c.docs = documents{}
		}
	}
	if at, err := time.Parse(time.RFC3339, string(c.docs[docTime])); err == nil {
		c.floor, c.floorAt = at, time.Now()
	}
	w, err := c.walk(nil)
	if err != nil {
		return nil, err
	}
	if err := w.run(context.Background()); err != nil {
		log.Debug("stored metadata is not complete", "err", err)
	} else {
		c.view = w.view()
	}
	return c, nil
}

var errNever = errors.New("never refreshed since the start")

// Close releases the file.
func (c *Client) Close() error {
	c.refreshing.Lock()
	defer c.refreshing.Unlock()
	if c.store == nil {
		return nil
	}
	err := c.store.close()
	c.store = nil
	return err
}

// now is the clock's time, but never before what is known to be past.
func (c *Client) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.WallClock()
	if now.Before(c.opts.NotBefore) {
		now = c.opts.NotBefore
	}
	if least := c.floor.Add(time.Since(c.floorAt)); !c.floor.IsZero() && now.Before(least) {
		now = least
	}
	return now
}

// Refresh fetches what is new. What was verified before a failure is kept, as
// the specification asks; the view stays that of the last good refresh.
func (c *Client) Refresh(ctx context.Context) error {
	c.refreshing.Lock()
	defer c.refreshing.Unlock()
	w, err := c.walk(c.opts.Fetch)
	if err != nil {
		return err
	}
	err = w.run(ctx)
	var v *view
	if err == nil {
		v = w.view()
		w.raiseFloor(c)
	}
	if saved := c.save(w.docs); saved != nil {
		// A view that a restart forgets could be rolled back then.
		err = errors.Join(err, saved)
	} else {
		c.docs = w.docs
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.view = v
	}
	c.last, c.lastAt = err, time.Now()
	return err
}

// save writes what differs, in one transaction. After a failure of the disk the
// file is opened anew by the next refresh.
func (c *Client) save(docs documents) (err error) {
	if c.opts.Path == "" {
		return nil
	}
	have := c.docs
	if c.store == nil {
		if c.store, err = openStore(c.opts); err != nil {
			return err
		}
		have = nil // nobody knows what it holds: all is written
	}
	if err = c.store.save(blob.Sum(c.opts.Root), have, docs); err != nil {
		c.store.close()
		c.store = nil
	}
	return err
}

// Listed returns the target that lists a digest for a kind, name and version,
// or why it may not be installed.
func (c *Client) Listed(kind tufrepo.Kind, name, version string, d blob.Digest) (tufrepo.Target, error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view
	if v == nil {
		return tufrepo.Target{}, fmt.Errorf("%w: %w", ErrStale, c.last)
	}
	if slices.Contains(v.policy.Revoked, d) {
		return tufrepo.Target{}, ErrRevoked // also where nothing else is known
	}
	if err := v.ended(now); err != nil {
		return tufrepo.Target{}, fmt.Errorf("%w: %w", ErrStale, err)
	}
	err := error(ErrNotListed)
	for _, f := range v.found[d] {
		t := f.target
		switch {
		case t.Kind != kind || t.Name != name || t.Version != version:
		case f.expires.Before(now):
			err = fmt.Errorf("%w: role %s ended %s", ErrStale, f.role, f.expires.Format(time.DateOnly))
		case t.Counter < v.policy.Floors[t.Subject()]:
			err = fmt.Errorf("%w: counter %d of %s, the least is %d", ErrFloor, t.Counter, t.Subject(), v.policy.Floors[t.Subject()])
		default:
			return t, nil
		}
	}
	if errors.Is(err, ErrNotListed) && len(v.failed) > 0 {
		return tufrepo.Target{}, fmt.Errorf("%w: %w", ErrStale, errors.Join(v.failed...)) // it may be listed there
	}
	return tufrepo.Target{}, err
}

// Policy is what the fleet has decided; false while nothing is known.
func (c *Client) Policy() (tufrepo.Policy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view == nil {
		return tufrepo.Policy{}, false
	}
	return c.view.policy, true
}

// Status tells how the metadata stands.
type Status struct {
	Root      int64     `json:"root"` // version, as of the other roles
	Timestamp int64     `json:"timestamp,omitempty"`
	Targets   int64     `json:"targets,omitempty"`
	Listed    int       `json:"listed"` // targets
	Ends      time.Time `json:"ends,omitzero"`
	EndsRole  string    `json:"ends_role,omitempty"` // the role that ends first
	Time      time.Time `json:"time"`                // what is taken for now
	// Error is that of the last refresh; empty after a good one.
	Error string `json:"error,omitempty"`
}

// Status returns the state of the view.
func (c *Client) Status() Status {
	s := Status{Root: c.pin, Time: c.now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil {
		s.Error = c.last.Error()
	}
	if v := c.view; v != nil {
		s.Root, s.Timestamp, s.Targets, s.Listed = v.root.Version, v.timestamp.Version, v.targets.Version, v.listed()
		s.Ends, s.EndsRole = v.first()
	}
	return s
}
