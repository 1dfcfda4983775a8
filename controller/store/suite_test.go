package store_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
)

// An engine makes empty databases.
type engine struct {
	name  string
	place func(t testing.TB) store.Options
}

// engines must keep the same promises (promises_test.go) and properties.
var engines = []engine{
	{"SQLite", func(t testing.TB) store.Options {
		return store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: clock}
	}},
	{"PostgreSQL", func(t testing.TB) store.Options {
		c, err := shared()
		if err != nil {
			storetest.Absent(t, err)
		}
		address, _, err := c.Create()
		check(t, err)
		return store.Options{Database: address, WallClock: clock}
	}},
}

func clock() time.Time { return time.UnixMilli(epoch) }

// optionsAt is the database that a text names: an address or a path.
func optionsAt(place string) store.Options {
	if strings.HasPrefix(place, "postgres:") {
		return store.Options{Database: place, WallClock: clock}
	}
	return store.Options{Path: place, WallClock: clock}
}

func openAt(t testing.TB, opts store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, opts)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// properties hold for whatever rapid draws. A new one is a function of an empty
// database and a line here.
var properties = []struct {
	name  string
	check func(t *rapid.T, empty store.Options)
}{
	{"the store equals the oracle", equalsTheOracle},
	{"what overlaps in blocks and packs of every grain counts once", grainsOverlap},
}

func TestEnginesHaveTheProperties(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			if e.name == "PostgreSQL" && os.Getenv("EDGEHERD_PROVE") == "" { // a database for each case
				was := flag.Lookup("rapid.checks").Value.String()
				check(t, flag.Set("rapid.checks", "5"))
				defer flag.Set("rapid.checks", was)
			}
			for _, p := range properties {
				t.Run(p.name, func(t *testing.T) {
					rapid.Check(t, func(r *rapid.T) { p.check(r, e.place(t)) })
				})
			}
		})
	}
}

func TestEnginesKeepThePromises(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			for _, p := range promises {
				t.Run(p.name, func(t *testing.T) {
					t.Parallel()
					p.check(t, func(t *testing.T) *store.Store { return openAt(t, e.place(t)) })
				})
			}
		})
	}
}
