package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// settingsReachBoxes runs docs/configuration.md: a camera comes to two boxes by
// their label and goes again; then one with a wrong path halts at the first box,
// which goes back by itself.
func settingsReachBoxes(t *testing.T, f *fleet) {
	guide, file := filepath.Join("docs", "configuration.md"), filepath.Join(f.root, "dock-cameras.yaml")
	example(t, guide, "yaml boxconfig", file)
	edit(t, file, "/srv/{{ .Box.Name }}/frames", filepath.Join(f.data, "boxes", "{{ .Box.Name }}", "frames"))
	readmeCommands(t, f, guide)

	edit(t, file, "/frames", "/nowhere")
	if out, err := runs(t, f.root, "edgeherd apply -f dock-cameras.yaml --wave 1,rest --yes"); err != nil {
		t.Fatal(err, out)
	}
	list, err := f.client.AllRollouts(t.Context())
	must(t, err)
	r := f.rollout(t, list.Items[0].ID, time.Minute)
	if first := r.Waves[0].Targets[0]; r.State != fleetapi.RolloutHalted || first.Phase != "rolled_back" || !strings.Contains(first.Err, "input dock:") {
		t.Errorf("%s: %s\n%+v", r.State, r.Sentence, r.Waves)
	}
	if out, err := runs(t, f.root, "edgeherd apply --remove dock-cameras --yes"); err != nil {
		t.Fatal(err, out)
	}
	eventually(t, time.Minute, "all boxes have their own settings again", func() error {
		boxes, err := f.boxes(t)
		for name, b := range boxes {
			if b.Config != nil && (b.Config.State != fleetapi.ConfigCurrent || b.Update != fleetapi.UpdateCurrent) {
				err = errors.Join(err, fmt.Errorf("%s: %+v", name, b.Config))
			}
		}
		return err
	})
}
