package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// documents are n that are for every box.
func documents(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\nkind: BoxConfig\nname: d%d\nselector: name != \"\"\npriority: %d\nagent: {trial: 5s}\n", i, i)
	}
	return b.String()
}

// TestAComparisonIsBounded: in documents, in boxes that it looks at, and in those
// that it names; one box can be asked for, and one that is not there is told.
func TestAComparisonIsBounded(t *testing.T) {
	w := newWorld(t)
	w.box("box-1", "mitte", "amd64")
	w.box("box-2", "mitte", "amd64")
	viewer := w.client("viewer")
	ask := func(n int, box string) (fleetapi.ConfigChanges, error) {
		return viewer.DiffConfigs(t.Context(), fleetapi.ConfigRequest{Files: []fleetapi.ConfigFile{{Name: "a.yaml", Text: documents(n)}}}, box)
	}
	if _, err := ask(fleetapi.MaxConfigDocuments+1, ""); err == nil || !strings.Contains(err.Error(), "more than 256 documents") {
		t.Errorf("too many documents: %v", err)
	}
	if got, err := ask(1, ""); err != nil || got.Boxes != 2 || len(got.Groups) != 1 || got.Groups[0].Count != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ask(1, "box-2"); err != nil || got.Boxes != 1 || got.Groups[0].Boxes[0].Name != "box-2" || got.Groups[0].Count != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ask(1, "box-9"); err == nil || !strings.Contains(err.Error(), "there is no box box-9") {
		t.Errorf("a box that is not there: %v", err)
	}

	d := desk{desired: map[identity.ID]*wire.DesiredConfig{}, lib: config.Library{}, newest: map[string]config.Version{}, boxes: make([]fleetapi.Box, 3), most: 5}
	for i := range d.boxes {
		d.boxes[i].Name = "b"
	}
	var p proposed
	docs, err := boxconfig.ReadAll("a.yaml", []byte(documents(2)))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range docs {
		v, c, err := d.next(doc)
		if err != nil {
			t.Fatal(err)
		}
		p.versions, p.changes = append(p.versions, v), append(p.changes, c)
	}
	if _, err := d.judge(t.Context(), p); err == nil || !strings.Contains(err.Error(), "too many for one request") {
		t.Errorf("too much work: %v", err)
	}
	many := fleetapi.ConfigChanges{Groups: []fleetapi.ConfigGroup{{Boxes: make([]fleetapi.ConfigBox, 700)}, {Boxes: make([]fleetapi.ConfigBox, 700), Count: 700}}}
	if many.Bound(); len(many.Groups[1].Boxes) != 300 || many.Groups[1].Count != 700 || many.Unnamed != 400 {
		t.Errorf("%d named, %d not", len(many.Groups[1].Boxes), many.Unnamed)
	}
}
