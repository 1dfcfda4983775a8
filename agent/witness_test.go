package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
)

// The key of a controller that was replaced after a break-in stands in box.json
// for ever; the metadata names the one that counts.
func TestHeadsOfTheAuditLogAreOfTheControllerThatTheMetadataNames(t *testing.T) {
	w := newWorld(t)
	repo := trusttest.New(t, time.Now)
	repo.Publish()
	box := identity.Box{ID: w.id, Name: "box", Server: "ctl", MQTT: "ctl:1", HTTPS: "ctl:2", Keyring: trust.ControllerKeyring(w.key.Public()), TrustRoot: repo.Pin}
	if err := box.Write(filepath.Join(w.state, "identity")); err != nil {
		t.Fatal(err)
	}
	c, err := tufclient.Open(tufclient.Options{Path: filepath.Join(w.state, TrustFile), Root: repo.Pin, Fetch: repo.Fetch, NoSync: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Refresh(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
	a := w.open()
	t.Cleanup(func() { a.guard.Close() })
	head := fmt.Appendf(nil, `{"v":1,"seq":1,"hash":"%s","time":"2026-03-01T12:00:00Z"}`, strings.Repeat("0a", 32))
	for name, c := range map[string]struct {
		key  trust.PrivateKey
		want error
	}{"the present controller": {repo.Keys["online"][0], nil}, "the one of before": {w.key, trust.ErrUntrusted}} {
		envelope, err := trust.Sign(trust.TypeAudit, head, c.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.remember(envelope); !errors.Is(err, c.want) {
			t.Errorf("a head of %s: %v, want %v", name, err, c.want)
		}
	}
}
