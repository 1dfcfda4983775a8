package trust

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// ErrRefused says that a document cannot be taken. Its text is for the person
// who submitted it.
var ErrRefused = errors.New("the document is refused")

// ErrOld says that the role has gone on since the document was made.
var ErrOld = errors.New("the role has a newer version already: make the change again from it")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// Submitted is what became of a document.
type Submitted struct {
	Role    string
	Version int64
	// Missing is how many more signatures it needs; 0: it is published.
	Missing int
}

// Submit takes a signed document in: it publishes it, or stages it while
// signatures are missing. A staged one that is submitted again, with other
// signatures, gets those of both.
func (k *Keeper) Submit(ctx context.Context, role string, data []byte) (out Submitted, err error) {
	head, err := tufrepo.ParseHead(data)
	if err != nil {
		return out, refuse("%w", err)
	}
	out = Submitted{Role: role, Version: head.Version}
	if now := k.opts.WallClock(); head.Expires.Before(now) {
		return out, refuse("it ended %s", head.Expires)
	}
	err = k.opts.Store.ChangeTrust(ctx, func(have []store.TrustDocument) ([]store.TrustDocument, error) {
		docs := newest(have)
		doc := data
		for _, d := range have {
			if d.Staged && d.Role == role {
				if both, err := tufrepo.Merge(d.Body, data); err == nil {
					doc = both
				} else if errors.Is(err, tufrepo.ErrDiffer) && d.Version >= head.Version {
					return nil, refuse("another version %d of %s waits for signatures: sign that (edgeherd trust sign %s) or drop it (edgeherd trust drop %s)", d.Version, role, role, role)
				}
			}
		}
		var err error
		if out.Missing, err = k.judge(docs, role, head, doc); err != nil {
			return nil, err
		}
		staged := store.TrustDocument{Role: role, Version: head.Version, Staged: true, Body: doc}
		if out.Missing > 0 {
			return []store.TrustDocument{staged}, nil
		}
		staged.Body = nil
		put := []store.TrustDocument{staged, {Role: role, Version: head.Version, Body: doc}}
		docs[role] = doc
		if docs[tufrepo.RoleTargets] == nil {
			return put, nil // the first root: nothing can be signed online yet
		}
		signed, err := k.online(docs, k.opts.WallClock())
		if err != nil {
			return nil, refuse("%w", err)
		}
		return append(put, signed...), nil
	})
	return out, err
}

// maxStep bounds how far the number of a role grows at once. Who has stolen the key
// of a role could else use up all numbers, and nobody could publish there again.
const maxStep = 1000

// judge says how many signatures a document lacks, or why it cannot be taken.
func (k *Keeper) judge(docs map[string][]byte, role string, head tufrepo.Head, data []byte) (int, error) {
	have := tufrepo.Head{}
	if docs[role] != nil {
		var err error
		if have, err = tufrepo.ParseHead(docs[role]); err != nil {
			return 0, err
		}
	}
	switch {
	case head.Version <= have.Version:
		return 0, fmt.Errorf("%s is at version %d: %w", role, have.Version, ErrOld)
	case head.Version-have.Version > maxStep:
		return 0, refuse("it is version %d after %d; numbers may leave out %d at most, since boxes never go back", head.Version, have.Version, maxStep)
	}
	keys, err := k.signers(docs, role, head, data)
	if err != nil {
		return 0, err
	}
	missing := 0
	for _, one := range keys {
		if len(one.Signed(data)) == 0 {
			return 0, refuse("none of the keys of %s has signed it", role)
		}
		missing = max(missing, one.Missing(data))
	}
	return missing, nil
}

// signers are the sets of keys that must all sign a document.
func (k *Keeper) signers(docs map[string][]byte, role string, head tufrepo.Head, data []byte) ([]tufrepo.Keys, error) {
	if role == tufrepo.RoleRoot {
		return k.rootSigners(docs, head, data)
	}
	root, err := tufrepo.ParseRoot(docs[tufrepo.RoleRoot])
	if err != nil {
		return nil, refuse("there is no root yet: edgeherd trust init")
	}
	if head.Type != tufrepo.RoleTargets || role == tufrepo.RoleSnapshot || role == tufrepo.RoleTimestamp {
		return nil, refuse("%s is not a role that people sign", role)
	}
	t, err := tufrepo.ParseTargets(data)
	if err != nil {
		return nil, refuse("%w", err)
	}
	if role == tufrepo.RoleTargets {
		if t.Policy == nil || !slices.Contains(t.Policy.Controllers, k.opts.Key.Public()) {
			return nil, refuse("its policy does not name this controller's key %s, and boxes would not take desired states from it", k.opts.Key.Public())
		}
		return []tufrepo.Keys{root.Targets}, nil
	}
	top, err := tufrepo.ParseTargets(docs[tufrepo.RoleTargets])
	if err != nil {
		return nil, refuse("there are no targets yet: edgeherd trust init")
	}
	for _, d := range top.Delegations {
		if d.Role == role {
			return []tufrepo.Keys{d.Keys}, within(t, d)
		}
	}
	return nil, refuse("nothing is delegated to a role %s", role)
}

// within refuses targets that a role has no paths for.
func within(t tufrepo.Targets, d tufrepo.Delegation) error {
	for _, one := range t.Targets {
		if !slices.Contains(d.Paths, tufrepo.PathsFor(one.Kind, one.Channel)[0]) {
			return refuse("%s may not list %s", d.Role, one.Path())
		}
	}
	return nil
}

func (k *Keeper) rootSigners(docs map[string][]byte, head tufrepo.Head, data []byte) ([]tufrepo.Keys, error) {
	next, err := tufrepo.ParseRoot(data)
	if err != nil {
		return nil, refuse("%w", err)
	}
	if !slices.Contains(next.Online.Public, k.opts.Key.Public()) {
		return nil, refuse("it does not name this controller's key %s for snapshot and timestamp", k.opts.Key.Public())
	}
	var have tufrepo.Root
	if docs[tufrepo.RoleRoot] != nil {
		if have, err = tufrepo.ParseRoot(docs[tufrepo.RoleRoot]); err != nil {
			return nil, err
		}
	}
	if head.Version != have.Version+1 {
		return nil, refuse("roots follow each other without a gap: want version %d", have.Version+1)
	}
	if have.Version == 0 {
		return []tufrepo.Keys{next.Root}, nil
	}
	return []tufrepo.Keys{have.Root, next.Root}, nil
}

// Drop removes a staged document.
func (k *Keeper) Drop(ctx context.Context, role string) error {
	return k.opts.Store.ChangeTrust(ctx, func(have []store.TrustDocument) ([]store.TrustDocument, error) {
		if !slices.ContainsFunc(have, func(d store.TrustDocument) bool { return d.Staged && d.Role == role }) {
			return nil, fmt.Errorf("no change of %s waits: %w", role, store.ErrNotFound)
		}
		return []store.TrustDocument{{Role: role, Staged: true}}, nil
	})
}

// Documents are the newest of each role and what is staged.
func (k *Keeper) Documents(ctx context.Context) ([]store.TrustDocument, error) {
	return k.opts.Store.TrustDocuments(ctx)
}

// Key is the public half of the controller's key.
func (k *Keeper) Key() trust.PublicKey { return k.opts.Key.Public() }

// Publishers are the keys that may sign the envelopes of models and releases:
// those of the roles that may list them.
func (k *Keeper) Publishers(ctx context.Context) (trust.Keyring, error) {
	ok, err := k.Production(ctx)
	if err != nil || !ok {
		return trust.DevelopmentKeyring(k.opts.Key.Public()), err
	}
	data, err := k.opts.Store.TrustDocument(ctx, tufrepo.RoleTargets, 0)
	if err != nil {
		return trust.Keyring{}, err
	}
	top, err := tufrepo.ParseTargets(data)
	if err != nil {
		return trust.Keyring{}, err
	}
	ring := trust.Keyring{Keys: map[string][]trust.PublicKey{}}
	for _, d := range top.Delegations {
		for _, path := range d.Paths {
			switch kind, _, _ := strings.Cut(path, "/"); tufrepo.Kind(kind) {
			case tufrepo.KindModel:
				ring.Keys[trust.TypeModel] = append(ring.Keys[trust.TypeModel], d.Keys.Public...)
			case tufrepo.KindRelease:
				ring.Keys[trust.TypeRelease] = append(ring.Keys[trust.TypeRelease], d.Keys.Public...)
			}
		}
	}
	return ring, nil
}

// Listed returns what lists a version, or an error while boxes would not install
// it. Before production they would, and nothing lists it.
func (k *Keeper) Listed(ctx context.Context, want tufrepo.Target) (tufrepo.Target, error) {
	ok, err := k.Production(ctx)
	if err != nil || !ok {
		return want, err
	}
	have, err := k.Documents(ctx)
	if err != nil {
		return tufrepo.Target{}, err
	}
	c, err := client(newest(have), k.opts.WallClock())
	if err != nil {
		return tufrepo.Target{}, fmt.Errorf("%w: %w", tufclient.ErrStale, err)
	}
	return c.Listed(want.Kind, want.Name, want.Version, want.Digest)
}
