package trust_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	guard "github.com/edgeherd/edgeherd/agent/trust"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// box is a guard and the controller that it asks.
type box struct {
	*guard.Guard
	*trusttest.Repo
	server *httptest.Server
}

func newBox(t *testing.T, change func(*guard.Options)) *box {
	t.Helper()
	b := &box{Repo: trusttest.New(t, func() time.Time { return began })}
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := b.Files[strings.TrimPrefix(r.URL.Path, "/device/v1/trust/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Write(data)
	}))
	t.Cleanup(b.server.Close)
	opts := guard.Options{
		Path: filepath.Join(t.TempDir(), "trust.db"), Root: b.Pin, Keyring: trust.ControllerKeyring(b.Keys["online"][0].Public()),
		HTTP: b.server.Client(), BaseURL: b.server.URL, Machine: []string{"itx", "amd64"}, Version: "1.4.0", NoSync: true,
		WallClock: func() time.Time { return began },
	}
	if change != nil {
		change(&opts)
	}
	var err error
	if b.Guard, err = guard.Open(opts, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (b *box) ask(t tufrepo.Target) error {
	return b.Allow(context.Background(), t.Kind, t.Name, t.Version, t.Digest)
}

// T3: however a version came to the box, by a stick or by the network, it needs
// what the fleet's people signed. T28, T29: and not too old, and for this box.
func TestT3T28T29WhatTheBoxItselfRefuses(t *testing.T) {
	b := newBox(t, nil)
	good := b.Model("vad", "2.0.0", "two", 2)
	old := b.Model("vad", "1.0.0", "one", 1)
	revoked := b.Model("vad", "3.0.0", "three", 3)
	other := good
	other.Name, other.Digest, other.Hardware = "ocr", blob.Sum([]byte("ocr")), []string{"jetson"}
	b.List(trusttest.Stable, other)
	newer := good
	newer.Name, newer.Digest, newer.MinAgent = "asr", blob.Sum([]byte("asr")), "1.5.0"
	b.List(trusttest.Stable, newer)
	agent := tufrepo.Target{Kind: tufrepo.KindRelease, Name: "agent", Version: "1.3.0", Channel: "stable", Counter: 1, Length: 1, Digest: blob.Sum([]byte("agent"))}
	b.List("agent-stable", agent)
	b.Targets.Policy.Floors, b.Targets.Policy.Revoked, b.Targets.Policy.MinAgent = map[string]uint64{"model/vad": 2}, []blob.Digest{revoked.Digest}, "1.4.0"
	b.Targets.Version++
	b.Publish()
	if err := b.ask(good); err != nil {
		t.Fatal(err)
	}
	stick := good
	stick.Digest = blob.Sum([]byte("from a stick"))
	for name, v := range map[string]tufrepo.Target{
		"nobody signed it": stick, "below the floor": old, "revoked": revoked,
		"for other hardware": other, "for a newer agent": newer, "an agent below the least": agent,
	} {
		if err := b.ask(v); !errors.Is(err, guard.ErrUntrusted) {
			t.Errorf("%s: %v, want a final refusal", name, err)
		}
	}
}

// T39: what may be cured by waiting is no final refusal.
func TestT39WithoutFreshMetadataABoxWaits(t *testing.T) {
	b := newBox(t, nil)
	v := b.Model("vad", "1.0.0", "one", 1)
	b.Files = nil
	if err := b.ask(v); err == nil || errors.Is(err, guard.ErrUntrusted) {
		t.Errorf("the controller is away: %v, want a refusal that passes", err)
	}
	b.Files = map[string][]byte{}
	b.Publish()
	if err := b.ask(v); err != nil {
		t.Errorf("it is back: %v", err)
	}
}

// T11: an assignment is followed only if a controller signed it that the people
// who hold the keys of targets named.
func TestT11OnlyNamedControllersAssign(t *testing.T) {
	b := newBox(t, nil)
	next := trusttest.NewKey(t)
	signed := func(k trust.PrivateKey) []byte {
		env, err := trust.Sign(trust.TypeDesired, []byte("{}"), k)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	first := b.Keys["online"][0]
	if _, err := b.Keyring().Open(trust.TypeDesired, signed(first)); err != nil {
		t.Errorf("before any metadata: %v", err)
	}
	b.Targets.Policy.Controllers = []trust.PublicKey{next.Public()}
	b.Targets.Version++
	v := b.Model("vad", "1.0.0", "one", 1)
	b.Publish()
	if err := b.ask(v); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keyring().Open(trust.TypeDesired, signed(next)); err != nil {
		t.Errorf("the controller that is named now: %v", err)
	}
	if _, err := b.Keyring().Open(trust.TypeDesired, signed(first)); !errors.Is(err, trust.ErrUntrusted) {
		t.Errorf("one that is named no more: %v", err)
	}
	if _, err := b.Keyring().Open(trust.TypeModel, signed(next)); err == nil {
		t.Error("a controller may sign models")
	}
}

func TestABoxThatTrustsNobodyInstallsNothing(t *testing.T) {
	b := newBox(t, func(o *guard.Options) { o.Root, o.Keyring = nil, trust.Keyring{} })
	if err := b.ask(b.Model("vad", "1.0.0", "one", 1)); err == nil {
		t.Error("allowed")
	}
	key := trusttest.NewKey(t)
	d := newBox(t, func(o *guard.Options) { o.Root, o.Keyring = nil, trust.DevelopmentKeyring(key.Public()) })
	if err := d.ask(d.Model("vad", "1.0.0", "one", 1)); err != nil {
		t.Errorf("in development: %v", err)
	}
}
