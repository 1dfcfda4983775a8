package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

func packsAreWantedOnce(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	target, base := blob.Sum([]byte("new")), blob.Sum([]byte("old"))
	if _, err := s.NextPack(ctx); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an empty queue has a next pack: %v", err)
	}
	for range 2 {
		check(t, s.WantPacks(ctx, []store.Pack{{Target: target, Base: base}, {Target: target}}))
	}
	next, err := s.NextPack(ctx)
	check(t, err)
	if next.Target != target || !next.Base.IsZero() {
		t.Errorf("next is %+v, want the cold pack: deltas are measured against it", next)
	}
	next.State, next.Digest, next.SizeBytes, next.Index, next.IndexBytes = store.PackReady, blob.Sum([]byte("pack")), 1<<40, blob.Sum([]byte("index")), 80
	check(t, s.PutPack(ctx, next))
	// Whoever asks again must not have it made again.
	check(t, s.WantPacks(ctx, []store.Pack{{Target: target}}))
	delta, err := s.NextPack(ctx)
	check(t, err)
	if delta.Base != base {
		t.Errorf("next is %+v, want the delta", delta)
	}
	delta.State, delta.Why = store.PackUnfit, "it saves too little"
	check(t, s.PutPack(ctx, delta))
	all, err := s.Packs(ctx, target)
	check(t, err)
	if len(all) != 2 || all[0] != next || all[1] != delta {
		t.Errorf("packs are %+v, want %+v and %+v", all, next, delta)
	}
}

// What nobody was told of for longest goes first, what is wanted never; a version
// that is retired takes its packs along, and leaves what others need.
func packsGoByTheirUse(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	sum := func(text string) blob.Digest { return blob.Sum([]byte(text)) }
	ready := func(target, base string) {
		p := store.Pack{Target: sum(target), State: store.PackReady, Digest: sum("pack " + target + base), SizeBytes: 100, Index: sum("index " + target + base), IndexBytes: 10}
		if base != "" {
			p.Base = sum(base)
		}
		check(t, s.PutPack(ctx, p))
	}
	for _, name := range []string{"a", "b", "c"} {
		ready(name, "")
	}
	n, err := s.PacksBytes(ctx)
	check(t, err)
	if n != 330 {
		t.Errorf("packs have %d bytes, want 330", n)
	}
	keep := map[blob.Digest]bool{sum("a"): true}
	for range 2 {
		gone, err := s.EvictPack(ctx, keep)
		check(t, err)
		if len(gone) != 2 {
			t.Errorf("evicted %v, want a pack and its index", gone)
		}
	}
	if _, err := s.EvictPack(ctx, keep); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a pack that is wanted was evicted: %v", err)
	}
	check(t, s.UsePacks(ctx, sum("a")))
	version := func(v, file string) models.Manifest {
		return models.Manifest{V: models.ManifestVersion, Name: "eye", Version: v, Files: []models.File{
			{Path: models.ModelFile, Digest: sum(file), SizeBytes: 9}, {Path: "labels.txt", Digest: sum("labels"), SizeBytes: 9}}}
	}
	check(t, s.AddModel(ctx, sum("one"), version("1.0.0", "a")))
	check(t, s.AddModel(ctx, sum("two"), version("2.0.0", "z")))
	ready("z", "a")
	one, two := models.Ref{Name: "eye", Version: "1.0.0", Digest: sum("one")}, models.Ref{Name: "eye", Version: "2.0.0", Digest: sum("two")}
	check(t, s.PinModel(ctx, two, true, 1))
	check(t, s.PinModel(ctx, two, true, 1))
	if err := s.PinModel(ctx, one, true, 1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("more are pinned than may: %v", err)
	}
	if got, err := s.Pinned(ctx, "eye"); err != nil || len(got) != 1 || got[0] != two {
		t.Errorf("pinned: %v, %v", got, err)
	}
	if _, err := s.RetireModel(ctx, sum("two")); !errors.Is(err, store.ErrConflict) {
		t.Errorf("what is pinned is retired: %v", err)
	}
	pinOrRetire(t, s)
	check(t, s.PinModel(ctx, two, false, 1))
	if got, err := s.Pinned(ctx, "eye"); err != nil || len(got) != 0 {
		t.Errorf("pinned after that: %v, %v", got, err)
	}
	rest, err := s.RetireModel(ctx, sum("one"))
	check(t, err)
	want := map[blob.Digest]bool{sum("one"): true, sum("a"): true, sum("pack a"): true, sum("index a"): true, sum("pack za"): true, sum("index za"): true}
	for _, d := range rest {
		if !want[d] {
			t.Errorf("%s is to go though it is needed", d.Short())
		}
		delete(want, d)
	}
	if len(want) > 0 {
		t.Errorf("%d blobs stay that nothing needs", len(want))
	}
	if _, err := s.RetireModel(ctx, sum("one")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("retired twice: %v", err)
	}
	// The number of a version names one content for ever, whoever signed it.
	if err := s.AddModel(ctx, sum("other"), version("1.0.0", "b")); !errors.Is(err, store.ErrConflict) {
		t.Errorf("other content under the number of a version that was retired: %v", err)
	}
	check(t, s.AddModel(ctx, sum("one, signed anew"), version("1.0.0", "a")))
	_, err = s.RetireModel(ctx, sum("one, signed anew"))
	check(t, err)
	check(t, s.AddModel(ctx, sum("one"), version("1.0.0", "a")))
}

// TestANumberThatWasRetiredNamesOneContent: in a database from before anybody noted
// what was retired as well, and however a program before wrote that content down.
func TestANumberThatWasRetiredNamesOneContent(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			opts := e.place(t)
			s := openAt(t, opts)
			check(t, s.Put(ctx, `DROP TABLE model_retired`))
			check(t, s.Put(ctx, `DELETE FROM goose_db_version WHERE version_id > 1`))
			check(t, s.Close())
			s = openAt(t, opts)
			eye, d := models.Manifest{V: models.ManifestVersion, Name: "eye", Version: "1.0.0"}, blob.Sum([]byte("eye"))
			check(t, s.AddModel(ctx, d, eye))
			var body string
			check(t, s.Ask(ctx, `SELECT manifest FROM model`, nil, &body))
			var fields map[string]any
			check(t, json.Unmarshal([]byte(body), &fields))
			sorted, err := json.Marshal(fields)
			check(t, err)
			if string(sorted) == body {
				t.Fatal("there is one way only to write it down")
			}
			check(t, s.Put(ctx, `UPDATE model SET manifest = '`+string(sorted)+`'`))
			_, err = s.RetireModel(ctx, d)
			check(t, err)
			other := eye
			other.Files = []models.File{{Path: models.ModelFile, Digest: d, SizeBytes: 9}}
			if err := s.AddModel(ctx, blob.Sum([]byte("other")), other); !errors.Is(err, store.ErrConflict) {
				t.Errorf("other content: %v", err)
			}
			check(t, s.AddModel(ctx, d, eye))
		})
	}
}

// pinOrRetire: what two controllers decide at the same time is one of both.
func pinOrRetire(t *testing.T, s *store.Store) {
	t.Helper()
	three := models.Ref{Name: "ear", Version: "3.0.0", Digest: blob.Sum([]byte("three"))}
	check(t, s.AddModel(ctx, three.Digest, models.Manifest{V: models.ManifestVersion, Name: three.Name, Version: three.Version}))
	pinned := make(chan error, 1)
	go func() { pinned <- s.PinModel(context.WithoutCancel(ctx), three, true, 1) }()
	_, retired := s.RetireModel(ctx, three.Digest)
	switch err := <-pinned; {
	case err == nil && errors.Is(retired, store.ErrConflict):
	case errors.Is(err, store.ErrNotFound) && retired == nil:
	default:
		t.Errorf("pinned: %v, retired: %v; want one of both", err, retired)
	}
}

func oneBoxOfASiteFetches(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	d := blob.Sum([]byte("weights"))
	ask := func(box identity.ID, change func(*store.SeedAsk)) (identity.ID, []store.Holder) {
		t.Helper()
		a := store.SeedAsk{Box: box, Site: "berlin", Digest: d, Size: 100, Address: string(box) + ":7443"}
		if change != nil {
			change(&a)
		}
		lease, holders, err := s.AskSeed(ctx, a)
		check(t, err)
		return lease.Box, holders
	}
	if who, holders := ask("d-a", nil); who != "d-a" || len(holders) != 0 {
		t.Errorf("the first is told of %q and %v", who, holders)
	}
	if who, holders := ask("d-b", func(a *store.SeedAsk) { a.Done = 10 }); who != "d-a" || len(holders) != 1 || holders[0].Address != "d-a:7443" {
		t.Errorf("the second is told of %q and %v, want the first alone", who, holders)
	}
	if who, _ := ask("d-b", func(a *store.SeedAsk) { a.Site = "bonn" }); who != "d-b" {
		t.Errorf("%q fetches for another site", who)
	}
	bad := func(a *store.SeedAsk) {
		a.Shun, a.Done = []identity.ID{"d-a", a.Box}, map[identity.ID]int64{"d-b": 10}[a.Box]
	}
	if who, holders := ask("d-b", bad); who != "d-a" || len(holders) != 0 {
		t.Errorf("one that speaks of wrong bytes takes the line for %q, and is told of %v", who, holders)
	}
	if who, holders := ask("d-c", nil); who != "d-a" || len(holders) != 2 {
		t.Errorf("others leave a box that only one calls bad: %q, %v", who, holders)
	}
	if who, holders := ask("d-c", bad); who != "d-c" || len(holders) != 1 || holders[0].Box != "d-b" {
		t.Errorf("after wrong bytes of the first %q fetches and others are %v", who, holders)
	}
	enrolTwo(t, s)
	ask(boxA, func(a *store.SeedAsk) { a.Done = 50 })
	if _, holders := ask("d-c", nil); len(holders) != 2 || holders[0].Box != boxA {
		t.Errorf("with one more there are %v to ask", holders)
	}
	_, err := s.ChangeStanding(ctx, store.Change{Box: boxA, To: store.StateQuarantined, Why: "two of it"})
	check(t, err)
	if _, holders := ask("d-c", nil); len(holders) != 1 || holders[0].Box != "d-b" {
		t.Errorf("others are sent to a box in quarantine: %v", holders)
	}
	if who, _ := ask("d-c", func(a *store.SeedAsk) { a.Yield, a.Done = true, 100 }); who != "" {
		t.Errorf("%q fetches after all has come", who)
	}
	if who, _ := ask("d-a", nil); who != "" {
		t.Errorf("%q may fetch though it gave out wrong bytes", who)
	}
}

// TestABanEnds though those who gave it repeat it with each question, of other files too.
func TestABanEnds(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	s, err := store.Open(ctx, store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: func() time.Time { return time.UnixMilli(now.Load()) }})
	check(t, err)
	defer s.Close()
	start := time.UnixMilli(now.Load()).UTC()
	for hour := range 30 {
		now.Store(start.Add(time.Duration(hour) * time.Hour).UnixMilli())
		for _, witness := range []identity.ID{"d-b", "d-c"} {
			var bad []identity.ID
			if hour < 24 { // as a box does: it forgets after a day
				bad = []identity.ID{"d-a"}
			}
			_, _, err := s.AskSeed(ctx, store.SeedAsk{Box: witness, Site: "berlin", Digest: blob.Sum([]byte{byte(hour)}), Size: 100, Shun: bad})
			check(t, err)
		}
		got, err := s.Shunned(ctx, "berlin")
		check(t, err)
		if hour >= 24 {
			if len(got) != 0 {
				t.Fatalf("after %d hours: %+v", hour, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Box != "d-a" || !got[0].ByAll || len(got[0].By) != 2 || !got[0].Until.Equal(start.Add(24*time.Hour)) {
			t.Fatalf("after %d hours: %+v", hour, got)
		}
	}
	if got, err := s.Shunned(ctx, "bonn"); err != nil || len(got) != 0 {
		t.Errorf("at another site: %+v, %v", got, err)
	}
}
