package fleettest

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent"
)

// carry has a box import a bundle, and returns what came of it.
func (b *Box) carry(path string) agent.ImportResult {
	t := b.fleet.T
	t.Helper()
	if err := agent.ImportOrders(b.State()).Save(agent.ImportOrder{ID: path, Path: path}); err != nil {
		t.Fatal(err)
	}
	var res agent.ImportResult
	b.fleet.Until("the import has ended", time.Hour, func() bool {
		res = agent.ImportResult{}
		_, err := agent.ImportResults(b.State()).Load(&res)
		return err == nil && res.ID == path && res.Ended
	})
	return res
}

// serves says whether the runner of a box serves a version, without asking the
// controller.
func (b *Box) serves(version string) bool {
	data, err := os.ReadFile(filepath.Join(b.State(), "models", "active.json"))
	return err == nil && strings.Contains(string(data), `"`+version+`"`)
}

// export writes a bundle for a site.
func (f *Fleet) export(site string, more url.Values) (path string, data []byte) {
	f.T.Helper()
	var buf bytes.Buffer
	q := url.Values{"site": {site}}
	for k, v := range more {
		q[k] = v
	}
	if err := f.API.ExportBundle(context.Background(), q, &buf); err != nil {
		f.T.Fatalf("export: %v", err)
	}
	path = filepath.Join(f.T.TempDir(), "site.tar")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		f.T.Fatal(err)
	}
	return path, buf.Bytes()
}

// T3: a stick brings a box that no network reaches what it is assigned, through
// the checks of the network, and nothing else.
func TestT3AStickBringsWhatIsSignedAndNothingElse(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		b := f.Boxes[0] // each box has a site of its own
		settled(f)
		v1 := f.MustPush(Model{Name: "eye", Version: "1.0.0"})
		rolled(f, v1)
		p := found(f)
		before, _ := f.export(f.siteOf(b), nil) // of version 1
		own, _ := f.export(f.siteOf(f.Boxes[1]), nil)
		if res := f.Boxes[1].carry(own); res.Err != "" { // version 1 is listed nowhere, but runs there
			t.Errorf("a bundle with what the box runs: %q", res.Err)
		}
		b.Cut()
		v2 := p.push("2.0.0", true)
		id := f.Roll(v2, "rest").ID
		f.Until("the box is assigned version 2", time.Hour, func() bool { return f.assigned(b) == v2.Version })

		good, data := f.export(f.siteOf(b), nil)
		damaged := append([]byte(nil), data...)
		damaged[bytes.LastIndex(damaged, []byte("works 2.0.0"))]++
		list := filepath.Join(t.TempDir(), "cut.tar")
		hurt := filepath.Join(t.TempDir(), "hurt.tar")
		if os.WriteFile(list, data[:len(data)*2/3], 0o600) != nil || os.WriteFile(hurt, damaged, 0o600) != nil {
			t.Fatal("the bad sticks are not written")
		}
		for _, bad := range []struct{ name, path, why string }{
			{"cut short", list, "cut short"},
			{"a flipped byte", hurt, "does not match its digest: the bundle was hurt on its way, or the stick wears out; copy the bundle again"},
			{"not a bundle", filepath.Join(b.State(), "spool.db"), "damaged"},
		} {
			if res := b.carry(bad.path); !strings.Contains(res.Err, bad.why) {
				t.Errorf("%s: %q, want %q", bad.name, res.Err, bad.why)
			}
		}
		if res := f.Boxes[1].carry(good); !strings.Contains(res.Err, "this box is of site") {
			t.Errorf("a bundle of another site: %q", res.Err)
		}
		if b.serves("2.0.0") {
			t.Fatal("a bad stick brought version 2")
		}
		if res := b.carry(good); res.Err != "" || res.Generation == 0 || len(res.Versions) != 1 {
			t.Fatalf("the good stick: %+v", res)
		}
		f.Until("version 2 serves without a network", time.Hour, func() bool { return b.serves("2.0.0") })
		if res := b.carry(before); !strings.Contains(res.Err, "older than what this box follows") {
			t.Errorf("the bundle of before: %q", res.Err)
		}
		b.Heal()
		f.Until("the controller knows", 3*time.Hour, func() bool { return f.Rollout(id).State == "done" })
	})
}

func (f *Fleet) siteOf(b *Box) (site string) {
	for _, x := range f.boxes() {
		if x.ID == b.ID {
			site = x.Site
		}
	}
	return site
}

// assigned is the version that the controller assigns to a box.
func (f *Fleet) assigned(b *Box) (version string) {
	for _, x := range f.boxes() {
		if x.ID != b.ID {
			continue
		}
		for _, m := range x.Models {
			version = m.DesiredVersion
		}
	}
	return version
}
