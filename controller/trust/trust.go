// Package trust publishes the fleet's metadata, which says what boxes may run.
//
// Vocabulary: the metadata and its roles are those of package tufrepo. People
// sign root, targets and the roles below it, away from here, and submit them;
// the keeper signs snapshot and timestamp. A document that lacks signatures is
// staged until others have signed it as well. The fleet is in production from
// the first timestamp on; before that one throw-away key signs everything.
//
// Nothing is published that a box would not take: before each commit a client
// of the boxes' own code refreshes from what would be served.
//
// The one rule a caller can break: the key given here must be for this purpose
// and desired states alone, never one of those that people hold.
package trust

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// signEvery is how old snapshot and timestamp become: a day of 30, so that a
// controller may be away for four weeks.
const signEvery = 24 * time.Hour

// lookEvery is how often the keeper looks whether it is time.
const lookEvery = time.Hour

// Options of a Keeper. Store and Key are required.
type Options struct {
	Store *store.Store
	// Key signs snapshot and timestamp.
	Key trust.PrivateKey
	// WallClock is the clock; nil means time.Now.
	WallClock func() time.Time
}

// Keeper is safe for concurrent use.
type Keeper struct {
	opts Options
	log  *slog.Logger

	mu         sync.Mutex // guards production
	production bool       // once, for ever
}

// New makes a keeper. It starts nothing.
func New(opts Options, log *slog.Logger) *Keeper {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	return &Keeper{opts: opts, log: log}
}

// Run signs snapshot and timestamp anew each day, until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := k.Renew(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("the fleet's metadata is not renewed; boxes install nothing new once it has ended", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Renew signs snapshot and timestamp if they are a day old.
func (k *Keeper) Renew(ctx context.Context) error {
	if ok, err := k.Production(ctx); err != nil || !ok {
		return err
	}
	now := k.opts.WallClock()
	err := k.opts.Store.ChangeTrust(ctx, func(have []store.TrustDocument) ([]store.TrustDocument, error) {
		docs := newest(have)
		head, err := tufrepo.ParseHead(docs[tufrepo.RoleTimestamp])
		if err == nil && head.Expires.Sub(now) > tufrepo.OnlineLife-signEvery && head.Expires.Sub(now) <= tufrepo.OnlineLife+signEvery {
			return nil, nil
		}
		k.warn(have, now)
		return k.online(docs, now)
	})
	if errors.Is(err, store.ErrConflict) {
		return nil // another controller did it
	}
	return err
}

// warn logs which roles people have to sign anew. Snapshot and timestamp are none of
// theirs: they may be old only because the controller was away.
func (k *Keeper) warn(have []store.TrustDocument, now time.Time) {
	roles, err := store.Standings(have, now)
	if err != nil {
		k.log.Error("the ends of the fleet's metadata cannot be told", "err", err)
	}
	for _, r := range roles {
		if r.Stage == tufrepo.Good || r.Online() {
			continue
		}
		says := "a role of the fleet's metadata ends soon"
		if r.Stage == tufrepo.Ended {
			says = "a role of the fleet's metadata has ended: nothing new that depends on it is installed"
		}
		k.log.Warn(says, "topic", r.Role, "ends", r.Expires, "keys", r.Keys.IDs(), "do", r.Do())
	}
}

// Production reports whether people's keys say what boxes may run.
func (k *Keeper) Production(ctx context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.production {
		return true, nil
	}
	_, err := k.opts.Store.TrustDocument(ctx, tufrepo.RoleTimestamp, 0)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	k.production = err == nil
	return k.production, err
}

// Keyring is what boxes are told to trust at enrolment, with the root to begin
// from; nil before production.
func (k *Keeper) Keyring(ctx context.Context) (trust.Keyring, []byte, error) {
	ok, err := k.Production(ctx)
	if err != nil || !ok {
		return trust.DevelopmentKeyring(k.opts.Key.Public()), nil, err
	}
	root, err := k.opts.Store.TrustDocument(ctx, tufrepo.RoleRoot, 0)
	return trust.ControllerKeyring(k.opts.Key.Public()), root, err
}

// File returns a document by the name under which boxes ask for it.
func (k *Keeper) File(ctx context.Context, name string) ([]byte, error) {
	if name == adoption {
		return k.adoption(ctx)
	}
	role, version, err := tufrepo.ParseFileName(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, store.ErrNotFound)
	}
	return k.opts.Store.TrustDocument(ctx, role, version)
}

// adoption is the root as boxes believe it that were enrolled before production:
// in an envelope, signed by the one key that they know.
const adoption = "adoption.json"

func (k *Keeper) adoption(ctx context.Context) ([]byte, error) {
	if ok, err := k.Production(ctx); err != nil || !ok {
		return nil, errors.Join(err, store.ErrNotFound)
	}
	root, err := k.opts.Store.TrustDocument(ctx, tufrepo.RoleRoot, 0)
	if err != nil {
		return nil, err
	}
	return trust.Sign(trust.TypeRoot, root, k.opts.Key)
}

// online signs snapshot and timestamp over docs, and has a box's client try all.
func (k *Keeper) online(docs map[string][]byte, now time.Time) ([]store.TrustDocument, error) {
	roles := map[string][]byte{}
	var last int64
	for role, data := range docs {
		switch role {
		case tufrepo.RoleSnapshot, tufrepo.RoleTimestamp:
			if head, err := tufrepo.ParseHead(data); err == nil {
				last = max(last, head.Version)
			}
		case tufrepo.RoleRoot:
		default:
			roles[role] = data
		}
	}
	// By the clock: a database that came back from a backup must not sign numbers
	// that boxes have seen already.
	version := max(last+1, now.Unix())
	snapshot, timestamp, err := tufrepo.Online(roles, version, now, k.opts.Key)
	if err != nil {
		return nil, err
	}
	docs[tufrepo.RoleSnapshot], docs[tufrepo.RoleTimestamp] = snapshot, timestamp
	if _, err := client(docs, now); err != nil {
		return nil, err
	}
	return []store.TrustDocument{
		{Role: tufrepo.RoleSnapshot, Version: version, Body: snapshot},
		{Role: tufrepo.RoleTimestamp, Version: version, Body: timestamp},
	}, nil
}

// client is one as boxes have it, that knows the root and has refreshed.
func client(docs map[string][]byte, now time.Time) (*tufclient.Client, error) {
	files := map[string][]byte{}
	for role, data := range docs {
		head, err := tufrepo.ParseHead(data)
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", role, err)
		}
		files[tufrepo.FileName(role, head.Version)] = data
	}
	c, err := tufclient.Open(tufclient.Options{
		Root: docs[tufrepo.RoleRoot], WallClock: func() time.Time { return now },
		Fetch: func(_ context.Context, name string, limit int64) ([]byte, error) {
			data, ok := files[name]
			if !ok {
				return nil, tufclient.ErrAbsent
			}
			if int64(len(data)) > limit {
				return nil, fmt.Errorf("%s has %d bytes, boxes take %d", name, len(data), limit)
			}
			return data, nil
		},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if err := c.Refresh(context.Background()); err != nil {
		return nil, fmt.Errorf("boxes would refuse this: %w", err)
	}
	return c, nil
}

func newest(have []store.TrustDocument) map[string][]byte {
	out := map[string][]byte{}
	for _, d := range have {
		if !d.Staged {
			out[d.Role] = d.Body
		}
	}
	return out
}
