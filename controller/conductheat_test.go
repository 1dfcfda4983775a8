package controller

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
)

// What boxes summed up of their hours is what the conductor admits them by, also
// when it came after the plan.
func TestABoxWithoutHeadroomIsNotTold(t *testing.T) {
	w := newCrowd(t, 2)
	var views []fleetapi.Box
	for _, b := range w.boxes() {
		views = append(views, registry.View(b, w.now))
	}
	ref := models.Ref{Name: "vad", Version: "2.0.0", Digest: blob.Sum([]byte("2.0.0"))}
	r, err := rollout.Plan(rollout.Order{ID: "r-1", Kind: fleetapi.KindModel, Target: ref, Boxes: views, Now: w.now.UTC(),
		Request: fleetapi.PlanRequest{Model: ref.String(), Policy: "waves: [rest]\nadmission: {}\n"},
		Draws:   []fleetapi.Draw{{Class: "itx", Watts: 60, Boxes: 3}}})
	must(t, err)
	w.tx(func(exec func(string, ...any)) {
		for i, hot := range []float64{65, 84} {
			body, err := json.Marshal(care.Heat{Cooling: &fleetapi.Cooling{KelvinPerWatt: 0.5, HotCelsius: hot, Watts: 40, LimitCelsius: 95}})
			must(t, err)
			exec(`INSERT INTO box_heat (box, hours, judged, body) VALUES (?,?,?,?)`, w.ids[i], 24, 24, string(body))
		}
	})
	w.put(w.act(r, rollout.ActStart))
	for range 2 {
		w.step()
	}
	for _, target := range w.rollout("r-1").Waves[0].Targets {
		switch target.Box {
		case w.ids[0]:
			if target.State != fleetapi.TargetOffered {
				t.Errorf("the cool box is %s: %s%s", target.State, target.Err, target.Waits)
			}
		default:
			if target.State != fleetapi.TargetCanceled || !strings.Contains(target.Err, "1 K of headroom") {
				t.Errorf("the box without headroom is %s: %s%s", target.State, target.Err, target.Waits)
			}
		}
	}
	if got := w.wanted(); got["2.0.0"] != 1 {
		t.Errorf("boxes are told %v, want one", got)
	}
}
