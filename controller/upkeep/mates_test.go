package upkeep_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// TestABoxWhoseFansAreBlindHearsHowItsMatesStand: once a day while it rises.
func TestABoxWhoseFansAreBlindHearsHowItsMatesStand(t *testing.T) {
	h := newHerd(t)
	ctx := t.Context()
	third := identity.ID("d-ccccccccccccc")
	h.check(h.store.AddBox(ctx, third, "till-2", "shop-7"))
	for i, id := range []identity.ID{till, shelf, third} {
		h.stands(id, "Acme A1", 0, 0)
		heat := care.Heat{SKU: "Acme A1", Judged: true, Percent: care.Number(9.0), LastHour: h.now.Unix(), BlindFans: id == till}
		rise := []float64{0.09, 0.01, 0.02}[i]
		if heat.Stand = &rise; id != till {
			heat.Percent = care.Number(100 * rise)
		}
		body, err := json.Marshal(heat)
		h.check(err)
		if kept, err := h.store.KeepHeat(ctx, store.Heat{Box: id, Hours: 1, Judged: 2, Body: body}, 1, []byte("{}")); err != nil || !kept {
			t.Fatal(kept, err)
		}
	}
	for range 3 {
		h.check(h.desk.Compare(ctx))
		h.now = h.now.Add(9 * time.Hour)
	}
	if told := h.told[till]; len(told) != 1 || told[0].Mates != 2 || told[0].MatesRise != 0.015 {
		t.Errorf("within a day it was told %+v", told)
	}
	h.check(h.desk.Compare(ctx))
	if n := len(h.told[till]); n != 2 || len(h.told[shelf]) != 0 {
		t.Errorf("after a day it was told %d times, one with nothing to ask %d times", n, len(h.told[shelf]))
	}
}
