// Package secrets keeps secrets of boxes, such as passwords of cameras, and seals
// them to the boxes that are to have them.
//
// Vocabulary: a secret is a name, whom it is for (one box, a site, a label) and a
// value. At rest the value is encrypted under a key in DIR/keys/secrets.key, which
// is neither in the database nor in a backup; so it can be given to a box that
// enrols later, or whose key has changed. To settle a box is to make its signed
// desired state hold what it is to have, sealed to the key that its certificate
// names: of several secrets of one name that of the box comes before those of
// labels, the one set last first, and these before that of the site.
//
// Nothing here, and no answer of the API, gives a value out but sealed to a box.
//
// The one rule a caller can break: what changes who a box is, or where it stands,
// is followed by Settle.
package secrets

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Options of a Keeper. All but Told are required.
type Options struct {
	Dir string // state directory of the controller
	// Keys keeps the key sealed on the disk; nil: in plain text.
	Keys  *keyfile.Lock
	Store *store.Store
	// Sign signs a desired state.
	Sign func(payload []byte) ([]byte, error)
	// Told is called with each desired state that was changed.
	Told func(id identity.ID, envelope []byte)
}

// Keeper keeps secrets. Run it once.
type Keeper struct {
	opts Options
	log  *slog.Logger
	key  key
	due  chan struct{}

	settling sync.Mutex // one box at a time: what was read must not be older than what is written

	mu   sync.Mutex // guards todo
	todo []store.SecretAt
}

// Open reads or makes the key. It starts nothing.
func Open(opts Options, log *slog.Logger) (*Keeper, error) {
	if opts.Told == nil {
		opts.Told = func(identity.ID, []byte) {}
	}
	k := &Keeper{opts: opts, log: log, due: make(chan struct{}, 1)}
	var err error
	k.key, err = openKey(opts.Dir, opts.Keys)
	return k, err
}

// ErrBad says what is wrong with what is to be set.
var ErrBad = errors.New("cannot be set")

// Set stores a secret and has it sealed to the boxes that are to have it.
func (k *Keeper) Set(ctx context.Context, at store.SecretAt, value []byte, by string) error {
	if err := check(at, value); err != nil {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	var version [8]byte
	rand.Read(version[:])
	s := store.Secret{SecretAt: at, Version: hex.EncodeToString(version[:]), By: by}
	k.key.seal(&s, value)
	// No digest: that of a short password is the password to whoever guesses.
	audit.Of(ctx).Object = "secret " + at.String()
	if err := k.opts.Store.PutSecret(ctx, s); err != nil {
		return err
	}
	k.log.Info("secret set", "secret", at.Name, "scope", at.Scope, "target", at.Target, "by", by)
	k.later(at)
	return nil
}

func check(at store.SecretAt, value []byte) error {
	if err := wire.CheckSecretName(at.Name); err != nil {
		return err
	}
	switch {
	case at.Target == "":
		return errors.New("say for which box, site or label it is")
	case at.Scope == store.SecretOfLabel && !strings.Contains(at.Target, "="):
		return fmt.Errorf("label %q is not k=v", at.Target)
	case len(value) == 0 || len(value) > wire.MaxSecretBytes:
		return fmt.Errorf("the value has %d bytes; 1 to %d are possible", len(value), wire.MaxSecretBytes)
	}
	return nil
}

// Remove forgets a secret and takes it from the boxes that have it.
func (k *Keeper) Remove(ctx context.Context, at store.SecretAt, by string) error {
	audit.Of(ctx).Object = "secret " + at.String()
	if err := k.opts.Store.RemoveSecret(ctx, at); err != nil {
		return err
	}
	k.log.Info("secret removed", "secret", at.Name, "scope", at.Scope, "target", at.Target, "by", by)
	k.later(at)
	return nil
}

// Lost reports whether a secret cannot be given to any other box: the key is gone.
func (k *Keeper) Lost(s store.Secret) bool { return s.Key != k.key.id }

func (k *Keeper) later(at store.SecretAt) {
	k.mu.Lock()
	k.todo = append(k.todo, at)
	k.mu.Unlock()
	select {
	case k.due <- struct{}{}:
	default:
	}
}

// sweepEvery is how often all boxes are looked at, for what another controller
// set while this one talked to the box, or what a crash left undone.
const sweepEvery = time.Hour

// Run settles the boxes that a change concerns until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	k.pass(ctx, store.SecretAt{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.pass(ctx, store.SecretAt{})
		case <-k.due:
			k.mu.Lock()
			todo := k.todo
			k.todo = nil
			k.mu.Unlock()
			for _, at := range todo {
				k.pass(ctx, at)
			}
		}
	}
}

// pass settles the boxes of one target, or all.
func (k *Keeper) pass(ctx context.Context, at store.SecretAt) {
	boxes, err := k.opts.Store.SecretBoxes(ctx, at.Scope, at.Target)
	if err != nil {
		if ctx.Err() == nil {
			k.log.Error("secrets are not sealed yet; it is tried again within the hour", "err", err)
		}
		return
	}
	all, err := k.opts.Store.Secrets(ctx)
	if err != nil {
		if ctx.Err() == nil {
			k.log.Error("secrets are not sealed yet; it is tried again within the hour", "err", err)
		}
		return
	}
	for _, b := range boxes {
		if !b.Holds && len(Of(all, b)) == 0 {
			continue
		}
		err := k.Settle(ctx, b.ID)
		if errors.Is(err, store.ErrAwaits) || errors.Is(err, store.ErrAhead) {
			continue // until it was heard, or a person has chosen
		}
		if err != nil && ctx.Err() == nil {
			k.log.Error("secrets of a box are not sealed yet; it is tried again within the hour", "device", b.ID, "err", err)
		}
	}
}

// Of picks the secrets that a box is to have, by name.
func Of(all []store.Secret, b store.SecretBox) []store.Secret {
	if b.State == store.StateRevoked || b.State == store.StateRetired {
		return nil
	}
	rank := map[store.SecretScope]int{store.SecretOfBox: 0, store.SecretOfLabel: 1, store.SecretOfSite: 2}
	best := map[string]store.Secret{}
	for _, s := range all {
		label, value, _ := strings.Cut(s.Target, "=")
		have, labelled := b.Labels[label]
		switch {
		case s.Scope == store.SecretOfBox && s.Target == string(b.ID):
		case s.Scope == store.SecretOfSite && s.Target == b.Site:
		case s.Scope == store.SecretOfLabel && labelled && have == value:
		default:
			continue
		}
		was, ok := best[s.Name]
		if !ok || cmp.Or(rank[s.Scope]-rank[was.Scope], was.Changed.Compare(s.Changed), strings.Compare(s.Target, was.Target)) < 0 {
			best[s.Name] = s
		}
	}
	out := make([]store.Secret, 0, len(best))
	for _, s := range best {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b store.Secret) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Settle makes the desired state of a box hold its secrets, each sealed to the
// box's present key. What is sealed to it already stays as it is.
func (k *Keeper) Settle(ctx context.Context, id identity.ID) error {
	k.settling.Lock()
	defer k.settling.Unlock()
	boxes, err := k.opts.Store.SecretBoxes(ctx, store.SecretOfBox, string(id))
	if err != nil || len(boxes) == 0 {
		return err
	}
	all, err := k.opts.Store.Secrets(ctx)
	if err != nil {
		return err
	}
	b := boxes[0]
	want := Of(all, b)
	if len(want) == 0 && !b.Holds {
		return nil
	}
	var to *ecdh.PublicKey
	if len(want) > 0 {
		if to, err = sealingKey(b); err != nil {
			return err
		}
	}
	if len(want) > wire.MaxSecrets {
		err = fmt.Errorf("box %s is to have %d secrets, and gets the first %d: remove some", id, len(want), wire.MaxSecrets)
		want = want[:wire.MaxSecrets]
	}
	var failed error
	envelope, setErr := k.opts.Store.SetDesired(ctx, id, func(d *wire.Desired) error {
		d.Secrets, failed = k.sealAll(d.Secrets, want, to, id)
		return nil
	}, k.opts.Sign)
	if envelope != nil {
		k.log.Info("secrets of a box sealed", "device", id, "secrets", len(want))
		k.opts.Told(id, envelope)
	}
	return errors.Join(err, failed, setErr)
}

// sealAll returns what is to be in the desired state; had is what is there. A
// secret that cannot be decrypted any more stays as the box has it.
func (k *Keeper) sealAll(had []wire.DesiredSecret, want []store.Secret, to *ecdh.PublicKey, id identity.ID) (out []wire.DesiredSecret, err error) {
	var errs []error
	for _, s := range want {
		at := slices.IndexFunc(had, func(h wire.DesiredSecret) bool { return h.Name == s.Name })
		if at >= 0 && had[at].Version == s.Version && had[at].Key == identity.SealID(to) {
			out = append(out, had[at])
			continue
		}
		value, err := k.key.open(s)
		if err != nil {
			errs = append(errs, err)
			if at >= 0 {
				out = append(out, had[at])
			}
			continue
		}
		sealed, err := identity.Seal(to, id, s.Name, value)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, wire.DesiredSecret{Name: s.Name, Version: s.Version, Key: identity.SealID(to), Sealed: sealed})
	}
	return out, errors.Join(errs...)
}

// sealingKey is the key that the certificate of a box names.
func sealingKey(b store.SecretBox) (*ecdh.PublicKey, error) {
	block, _ := pem.Decode([]byte(b.PEM))
	if block == nil {
		return nil, fmt.Errorf("no certificate of box %s is known: it gets its secrets after its next renewal", b.ID)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate of box %s: %w", b.ID, err)
	}
	key, err := identity.SealingOf(leaf)
	if err == nil && key == nil {
		err = fmt.Errorf("the certificate of box %s names no key for secrets: it gets them after its next renewal", b.ID)
	}
	return key, err
}
