package registry

import (
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestABoxShowsWhyNothingServes: by what it said last, as long as that holds.
func TestABoxShowsWhyNothingServes(t *testing.T) {
	one, two := blob.Sum([]byte("1")), blob.Sum([]byte("2"))
	down := store.ServingRow{Serving: wire.Serving{Name: "m", Version: "1", Digest: one.String(), Err: "no library"}}
	for _, c := range []struct {
		name  string
		model fleetapi.BoxModel
		row   store.ServingRow
		want  string
	}{
		{"the wanted version is down", fleetapi.BoxModel{DesiredDigest: one, Phase: "active"}, down, "no library"},
		{"it serves", fleetapi.BoxModel{DesiredDigest: one, RunningDigest: one, RunningVersion: "1", Phase: "active"}, store.ServingRow{Serving: wire.Serving{Name: "m", Digest: one.String()}}, ""},
		{"it is fetched again", fleetapi.BoxModel{DesiredDigest: one, Phase: "fetching", Err: "damaged"}, down, "damaged"},
		{"another version serves in its place", fleetapi.BoxModel{DesiredDigest: one, RunningDigest: two, RunningVersion: "2", Phase: "fetching", Err: "damaged"}, down, "damaged"},
		{"the wanted one failed, and the one before it is down", fleetapi.BoxModel{DesiredDigest: two, Phase: "failed", Err: "wrong"}, down, "wrong; 1 does not serve: no library"},
		{"the next one comes, and the one before it is down", fleetapi.BoxModel{DesiredDigest: two, Phase: "fetching"}, down, "1 does not serve: no library"},
	} {
		c.model.Name = "m"
		v := fleetapi.Box{Models: []fleetapi.BoxModel{c.model}}
		Serve(&v, store.Box{}, map[string]store.ServingRow{"m": c.row})
		if got := v.Models[0].Err; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
