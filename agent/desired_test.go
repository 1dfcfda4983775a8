package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// signed is a desired state of generation gen that wants one release.
func (w *world) signed(gen uint64, release string, change func(*wire.Desired, *trust.PrivateKey)) []byte {
	w.t.Helper()
	d := wire.Desired{V: wire.DesiredVersion, Box: w.id, Generation: gen, Agent: &wire.DesiredAgent{Version: release, Digest: blob.Sum([]byte(release)), Rollout: "r-" + release}}
	key := w.key
	if change != nil {
		change(&d, &key)
	}
	payload, err := d.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	envelope, err := trust.Sign(trust.TypeDesired, payload, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return envelope
}

// follows tells the generation and rollout that a follows.
func follows(a *Agent) string {
	return fmt.Sprint(a.nowRunning().Generation, " ", a.running.agentRollout())
}

func TestWhichDesiredStateIsFollowed(t *testing.T) {
	for _, c := range []struct {
		name   string
		gen    uint64
		change func(*wire.Desired, *trust.PrivateKey)
		want   string
	}{
		{"newer", 6, nil, "6 r-2.0.0"},
		{"much newer", 1 << 40, nil, "1099511627776 r-2.0.0"},
		{"older", 4, nil, "5 r-1.0.0"},
		{"same generation, other content", 5, nil, "5 r-2.0.0"},
		{"of another box", 6, func(d *wire.Desired, _ *trust.PrivateKey) { d.Box = identity.NewID() }, "5 r-1.0.0"},
		{"of another key", 6, func(_ *wire.Desired, k *trust.PrivateKey) { *k, _ = trust.NewKey() }, "5 r-1.0.0"},
		{"of another version", 6, func(d *wire.Desired, _ *trust.PrivateKey) { d.V = 2 }, "5 r-1.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.open()
			first := w.signed(5, "1.0.0", nil)
			a.accept(first)
			a.accept(w.signed(c.gen, "2.0.0", c.change))
			a.accept(first) // a replay
			want := c.want
			if c.gen == 5 {
				want = "5 r-1.0.0" // of one generation the last word counts
			}
			if got := follows(a); got != want {
				t.Errorf("follows %s, want %s", got, want)
			}
			if err := a.spool.Close(); err != nil {
				t.Fatal(err)
			}
			if got := follows(w.open()); got != want {
				t.Errorf("after a restart without network it follows %s, want %s", got, want)
			}
		})
	}
}

func TestARefusedDesiredStateRaisesOneAlarm(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	for range 20 { // every connection brings it again
		a.accept([]byte("nonsense"))
	}
	a.accept(w.signed(1, "1.0.0", nil))
	for range 20 { // a broker that plays games
		a.accept([]byte("nonsense"))
		a.accept(w.signed(1, "1.0.0", nil))
	}
	got := eventsOf(t, a)
	if len(got) != 2 || !strings.Contains(got[0].Text, "refused") || !strings.Contains(got[1].Text, "accepted again") {
		t.Errorf("events %+v, want one alarm and its end", got)
	}
	a.running.refused = time.Now().Add(-2 * refusalEvery)
	a.accept([]byte("nonsense"))
	if got := eventsOf(t, a); len(got) != 3 {
		t.Errorf("%d events an hour later, want another alarm", len(got))
	}
}

func TestADamagedDesiredStateDoesNotKeepTheAgentFromStarting(t *testing.T) {
	for _, content := range []string{"", "\x00\x00", `{"version":2,"state":{}}`, `{"version":1,"state":{"envelope":"AAAA"}}`} {
		w := newWorld(t)
		if err := os.WriteFile(filepath.Join(w.state, "desired.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		a := w.open()
		a.accept(w.signed(1, "1.0.0", nil))
		if got := follows(a); got != "1 r-1.0.0" {
			t.Errorf("%q: follows %s", content, got)
		}
	}
}

func TestWithdrawnReleaseIsWithdrawn(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	a.accept(w.signed(1, "1.0.0", nil))
	a.accept(w.signed(2, "", func(d *wire.Desired, _ *trust.PrivateKey) { d.Agent = nil }))
	if got := a.nowRunning().Generation; got != 2 {
		t.Errorf("generation %d", got)
	}
}
