package api

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
	keeper "github.com/edgeherd/edgeherd/controller/trust"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/bundle"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Who carries a bundle to a site hears before the way, not after it, which boxes will
// not take what they are assigned.
func TestABundleForASiteNamesTheBoxesThatWillNotTakeIt(t *testing.T) {
	w := newWorld(t)
	eye := w.push("eye", "1.0.0", "x", "y")
	one := w.box("box-1", "mitte", "amd64")
	w.desire(one, eye)
	w.box("box-2", "mitte", "amd64")
	three := w.box("box-3", "mitte", "amd64")
	_, err := w.store.SetDesired(t.Context(), three, func(d *wire.Desired) error {
		d.Agent = &wire.DesiredAgent{Version: "1.4.0", Digest: blob.Sum([]byte("agent 1.4.0"))}
		return nil
	}, func(p []byte) ([]byte, error) { return trust.Sign(trust.TypeDesired, p, w.key) })
	must(t, err)
	w.box("box-4", "elsewhere", "amd64")
	export := func() string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "b.tar")
		f, err := os.Create(path)
		must(t, err)
		defer f.Close()
		must(t, w.client("ops").ExportBundle(t.Context(), url.Values{"site": {"mitte"}}, f))
		b, err := bundle.Open(path)
		must(t, err)
		defer b.Close()
		return strings.Join(b.Notes, "\n")
	}
	got := export()
	for _, want := range []string{"they take nothing of the bundle: box-2", "shall be agent 1.4.0, which is not in the bundle (--release 1.4.0): box-3"} {
		if !strings.Contains(got, want) {
			t.Errorf("the notes lack %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "refused") || strings.Contains(got, "box-4") {
		t.Errorf("notes of a fleet in development:\n%s", got)
	}

	repo := trusttest.New(t, w.clock.Now)
	w.api.opts.Trust = keeper.New(keeper.Options{Store: w.store, Key: repo.Keys["online"][0], WallClock: w.clock.Now}, slog.New(slog.DiscardHandler))
	must(t, w.store.ChangeTrust(t.Context(), func([]store.TrustDocument) (out []store.TrustDocument, err error) {
		for name, body := range repo.Files {
			role, _, err := tufrepo.ParseFileName(name)
			must(t, err)
			head, err := tufrepo.ParseHead(body)
			must(t, err)
			out = append(out, store.TrustDocument{Role: role, Version: head.Version, Body: body})
		}
		return out, nil
	}))
	if got := export(); !strings.Contains(got, "eye:1.0.0 would be refused: ") || !strings.Contains(got, "takes none of the bundle: box-1") {
		t.Errorf("a version of before production:\n%s", got)
	}
	must(t, w.blobs.Delete(eye.Digest))
	err = w.client("ops").ExportBundle(t.Context(), url.Values{"model": {"eye:1.0.0"}}, nil)
	wantProblem(t, "a file that the controller has lost", err, 422, "edgeherd model verify NAME:VERSION")
}

func TestANoteNamesAFewBoxesAndCountsTheRest(t *testing.T) {
	var n notes
	for _, box := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		n.add("late", box)
		n.unless(blob.Sum(nil), "lacks its agent", box)
	}
	if got := strings.Join(n.lines(map[blob.Digest]bool{blob.Sum(nil): true}), "\n"); got != "late: a, b, c, d, e and 2 more" {
		t.Errorf("notes: %s", got)
	}
}
