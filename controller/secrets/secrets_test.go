package secrets

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a database with a box that has a certificate.
type world struct {
	t     *testing.T
	dir   string
	store *store.Store
	ca    *identity.CA
	box   identity.ID
	keys  string // directory of the box's keys
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), box: identity.NewID()}
	var err error
	w.store, err = store.Open(t.Context(), store.Options{Path: filepath.Join(w.dir, "store.db")})
	must(t, err)
	t.Cleanup(func() { w.store.Close() })
	w.ca, err = identity.OpenCA(filepath.Join(w.dir, "ca"), nil)
	must(t, err)
	must(t, w.store.AddBox(t.Context(), w.box, "till-3", "berlin"))
	w.certify()
	return w
}

// certify gives the box other keys, and a certificate that names them.
func (w *world) certify() {
	w.t.Helper()
	w.keys = w.t.TempDir()
	must(w.t, identity.Enrol(w.keys, w.ca, identity.Box{ID: w.box, Site: "berlin"}))
	text, err := os.ReadFile(filepath.Join(w.keys, "cert.pem"))
	must(w.t, err)
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(w.t, err)
	serial := leaf.SerialNumber.Text(16)
	must(w.t, w.store.AddCert(w.t.Context(), store.Cert{Serial: serial, Box: w.box, Key: serial, Ends: leaf.NotAfter, PEM: string(text)}))
	_, _, err = w.store.Contact(w.t.Context(), w.box, serial, "192.0.2.1")
	must(w.t, err)
}

func (w *world) open() *Keeper {
	w.t.Helper()
	k, err := Open(Options{Dir: w.dir, Store: w.store, Sign: func(p []byte) ([]byte, error) { return p, nil }}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	must(w.t, err)
	return k
}

// has are the secrets in the box's desired state that its key opens.
func (w *world) has() (map[string]string, wire.Desired) {
	w.t.Helper()
	text, err := w.store.DesiredEnvelope(w.t.Context(), w.box)
	must(w.t, err)
	out := map[string]string{}
	if text == nil {
		return out, wire.Desired{}
	}
	d, err := wire.DecodeDesired(text)
	must(w.t, err)
	keys, err := identity.ReadSealKeys(w.keys)
	must(w.t, err)
	for _, s := range d.Secrets {
		if value, err := identity.Unseal(keys[0], w.box, s.Name, s.Sealed); err == nil {
			out[s.Name] = string(value)
		}
	}
	return out, d
}

func of(scope store.SecretScope, name, target string) store.SecretAt {
	return store.SecretAt{Name: name, Scope: scope, Target: target}
}

func TestABoxGetsWhatIsForItSealedToItsPresentKey(t *testing.T) {
	w := newWorld(t)
	k := w.open()
	ctx := t.Context()
	must(t, k.Set(ctx, of(store.SecretOfSite, "camera", "berlin"), []byte("of the site"), "anna"))
	must(t, k.Set(ctx, of(store.SecretOfSite, "door", "krakow"), []byte("elsewhere"), "anna"))
	must(t, k.Settle(ctx, w.box))
	if got, _ := w.has(); len(got) != 1 || got["camera"] != "of the site" {
		t.Errorf("%v", got)
	}
	must(t, k.Set(ctx, of(store.SecretOfBox, "camera", string(w.box)), []byte("its own"), "anna"))
	must(t, k.Settle(ctx, w.box))
	got, d := w.has()
	if got["camera"] != "its own" {
		t.Errorf("%v", got)
	}
	must(t, k.Settle(ctx, w.box))
	if _, again := w.has(); again.Generation != d.Generation {
		t.Error("nothing changed, and the box is told anew")
	}
	w.certify()
	if got, _ = w.has(); len(got) != 0 {
		t.Error("another key opens what was sealed to the one before")
	}
	must(t, k.Settle(ctx, w.box))
	if got, _ = w.has(); got["camera"] != "its own" {
		t.Errorf("after another key: %v", got)
	}
	must(t, k.Remove(ctx, of(store.SecretOfBox, "camera", string(w.box)), "anna"))
	must(t, k.Settle(ctx, w.box))
	if got, _ = w.has(); got["camera"] != "of the site" {
		t.Errorf("after its own was removed: %v", got)
	}
	_, err := w.store.ChangeStanding(ctx, store.Change{Box: w.box, To: store.StateRevoked, Why: "stolen"})
	must(t, err)
	must(t, k.Settle(ctx, w.box))
	if _, d = w.has(); len(d.Secrets) != 0 {
		t.Errorf("a revoked box is to have %v", d.Secrets)
	}
}

func TestALostKeyIsToldAndTakesNothingFromBoxes(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	k := w.open()
	must(t, k.Set(ctx, of(store.SecretOfBox, "camera", string(w.box)), []byte("one"), "anna"))
	must(t, k.Set(ctx, of(store.SecretOfBox, "late", string(w.box)), []byte("two"), "anna"))
	must(t, k.Settle(ctx, w.box))
	must(t, os.Remove(filepath.Join(w.dir, KeyFile)))
	k = w.open()
	all, err := w.store.Secrets(ctx)
	must(t, err)
	if !k.Lost(all[0]) {
		t.Error("a lost key is not told")
	}
	must(t, k.Set(ctx, of(store.SecretOfBox, "late", string(w.box)), []byte("three"), "anna"))
	if err := k.Settle(ctx, w.box); err != nil {
		t.Errorf("what is sealed already needs no key: %v", err)
	}
	if got, _ := w.has(); got["camera"] != "one" || got["late"] != "three" {
		t.Errorf("%v", got)
	}
	w.certify()
	if err := k.Settle(ctx, w.box); err == nil || !errors.Is(err, errOtherKey) {
		t.Errorf("sealed anew without its key: %v", err)
	}
	if got, d := w.has(); got["late"] != "three" || len(d.Secrets) != 2 {
		t.Errorf("%v, %v", got, d.Secrets)
	}
}

// A row that was moved or swapped in the database does not open.
func TestAnEncryptedSecretIsBoundToItsRow(t *testing.T) {
	k := newWorld(t).open()
	s := store.Secret{SecretAt: of(store.SecretOfSite, "camera", "berlin"), Version: "1"}
	k.key.seal(&s, []byte("value"))
	if got, err := k.key.open(s); err != nil || string(got) != "value" {
		t.Fatalf("%q, %v", got, err)
	}
	for name, change := range map[string]func(*store.Secret){
		"name": func(s *store.Secret) { s.Name = "door" }, "target": func(s *store.Secret) { s.Target = "krakow" },
		"scope": func(s *store.Secret) { s.Scope = store.SecretOfBox }, "version": func(s *store.Secret) { s.Version = "2" },
		"bytes": func(s *store.Secret) { s.Sealed = append([]byte{s.Sealed[0] ^ 1}, s.Sealed[1:]...) },
		"none":  func(s *store.Secret) { s.Sealed = nil },
	} {
		moved := s
		change(&moved)
		if _, err := k.key.open(moved); err == nil {
			t.Errorf("it opens after another %s", name)
		}
	}
}

func TestTheNarrowestAndNewestSecretCounts(t *testing.T) {
	b := store.SecretBox{ID: "d-aaaaaaaaaaaaa", Site: "berlin", Labels: map[string]string{"line": "a", "floor": "2"}, State: store.StateActive}
	at := func(scope store.SecretScope, target string, second int64) store.Secret {
		return store.Secret{SecretAt: of(scope, "camera", target), Changed: time.Unix(second, 0)}
	}
	for _, c := range []struct {
		name string
		all  []store.Secret
		want string
	}{
		{"another box, site and label", []store.Secret{at(store.SecretOfBox, "d-b", 1), at(store.SecretOfSite, "krakow", 1), at(store.SecretOfLabel, "line=b", 1), at(store.SecretOfLabel, "wing=", 1)}, ""},
		{"site", []store.Secret{at(store.SecretOfSite, "berlin", 1)}, "berlin"},
		{"label before site", []store.Secret{at(store.SecretOfSite, "berlin", 9), at(store.SecretOfLabel, "line=a", 1)}, "line=a"},
		{"newest label", []store.Secret{at(store.SecretOfLabel, "floor=2", 1), at(store.SecretOfLabel, "line=a", 2)}, "line=a"},
		{"newest label, other order", []store.Secret{at(store.SecretOfLabel, "line=a", 1), at(store.SecretOfLabel, "floor=2", 2)}, "floor=2"},
		{"box before all", []store.Secret{at(store.SecretOfLabel, "line=a", 9), at(store.SecretOfBox, "d-aaaaaaaaaaaaa", 1), at(store.SecretOfSite, "berlin", 9)}, "d-aaaaaaaaaaaaa"},
	} {
		got := ""
		for _, s := range Of(c.all, b) {
			got += s.Target
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWhatCannotBeASecretIsRefused(t *testing.T) {
	k := newWorld(t).open()
	good := of(store.SecretOfSite, "camera", "berlin")
	for name, c := range map[string]struct {
		at    store.SecretAt
		value string
	}{
		"a path":       {of(store.SecretOfSite, "../x", "berlin"), "v"},
		"no target":    {of(store.SecretOfSite, "camera", ""), "v"},
		"a bare label": {of(store.SecretOfLabel, "camera", "line"), "v"},
		"nothing":      {good, ""},
		"too much":     {good, strings.Repeat("v", wire.MaxSecretBytes+1)},
	} {
		if err := k.Set(context.Background(), c.at, []byte(c.value), "anna"); !errors.Is(err, ErrBad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheFirstKeyWinsForAll: controllers that share the folder start at once.
func TestTheFirstKeyWinsForAll(t *testing.T) {
	dir := t.TempDir()
	ids := make(chan string)
	for range 16 {
		go func() {
			k, err := openKey(dir, nil)
			if err != nil {
				t.Error(err)
			}
			ids <- k.id
		}()
	}
	first := <-ids
	for range 15 {
		if id := <-ids; id != first {
			t.Errorf("keys %s and %s", first, id)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "keys")); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
