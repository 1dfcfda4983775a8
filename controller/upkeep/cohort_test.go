package upkeep_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// stands has a box judged to stand above its clean self by some percent.
func (h *herd) stands(box identity.ID, sku string, percent float64, was int64) {
	h.t.Helper()
	body, err := json.Marshal(care.Heat{SKU: sku, Judged: true, Percent: &percent, LastHour: h.now.Unix()})
	h.check(err)
	if was == 0 {
		hour := health.Hour{Start: h.now.Unix(), V: health.Blank(), Samples: 1, Period: 10}
		raw, err := hour.AppendBinary(nil)
		h.check(err)
		h.say(box, store.CareEffects{Hours: []store.HourRow{{HourMs: hour.Start * 1000, Samples: 1, Body: raw}}})
	}
	kept, err := h.store.KeepHeat(h.t.Context(), store.Heat{Box: box, Hours: 1, Judged: was + 1, Body: body}, was, []byte("{}"))
	if err != nil || !kept {
		h.t.Fatalf("heat of %s: kept %v, %v", box, kept, err)
	}
}

func TestATicketOfAHotRoomSaysHowHotItIsNow(t *testing.T) {
	h := newHerd(t)
	ctx := t.Context()
	warm := func(k float64) health.Finding {
		return health.Finding{Family: "ambient", Cause: health.CauseAmbient, Level: health.Watch, Opened: health.Unix(start.Unix()),
			Evidence: []health.Evidence{{Name: "above_usual_k", Value: health.Value(k), Text: "warmer"}}}
	}
	for _, id := range []identity.ID{till, shelf} {
		h.finds(warm(5), id)
		h.stands(id, "", 0, 0)
		f := warm(9)
		f.Box = string(id)
		state, err := json.Marshal(map[string]any{"box": &health.Box{Name: string(id), Open: []health.Finding{f}}})
		h.check(err)
		_, err = h.store.KeepHeat(ctx, store.Heat{Box: id, Hours: 1, Judged: 2, Body: []byte("{}")}, 1, state)
		h.check(err)
	}
	h.now = h.now.Add(time.Hour)
	h.check(h.desk.Compare(ctx))
	all := h.tickets()
	if len(all) != 1 || *all[0].Evidence[0].Value != 9 || *all[0].Opening.Evidence[0].Value != 5 || !all[0].Measured.Equal(h.now) || len(all[0].Timeline) != 1 {
		t.Errorf("tickets %+v", all)
	}
}

// TestADustySiteAndAPoorSKUAreOneTicketEach: no box of them is sure by itself;
// what they say together is told once, goes to the route where somebody can go,
// and ends by itself.
func TestADustySiteAndAPoorSKUAreOneTicketEach(t *testing.T) {
	h := newHerd(t, upkeep.Channel{Name: "chat"})
	ctx := t.Context()
	type box struct {
		id   identity.ID
		name string
		sku  string
		rise float64
	}
	var boxes []box
	for site := range 5 {
		for i := range 5 {
			b := box{identity.ID("d-" + strings.Repeat("a", 11) + string(rune('b'+site)) + string(rune('b'+i))), fmt.Sprintf("b-%d-%d", site, i), []string{"Acme A1", "Acme B2"}[i%2], 1}
			if site == 0 {
				b.rise = 7
			}
			if i%2 == 1 {
				b.rise += 5
			}
			h.check(h.store.AddBox(ctx, b.id, b.name, fmt.Sprint("shop-", site)))
			h.stands(b.id, b.sku, b.rise, 0)
			boxes = append(boxes, b)
		}
	}
	for range 2 { // the second time nothing is new
		h.check(h.desk.Compare(ctx))
	}
	all := h.tickets()
	slices.SortFunc(all, func(a, b fleetapi.Ticket) int { return strings.Compare(a.Cause, b.Cause) })
	if len(all) != 2 || all[0].Cause != "dusty-site" || all[0].Site != "shop-0" || all[1].Cause != "sku-heat" || all[1].SKU != "Acme B2" || all[1].Site != "" {
		t.Fatalf("tickets %+v", all)
	}
	due, err := h.store.DueNotices(ctx, 10)
	if err != nil || len(due) != 2 {
		t.Errorf("%d notices, %v", len(due), err)
	}
	plan, err := h.desk.Plan(ctx, fleetapi.PlanVisits{}, "ops")
	h.check(err)
	if len(plan.Stops) != 1 || plan.Stops[0].Site != "shop-0" || len(plan.Parts) != 1 || plan.Parts[0].Count != 5 {
		t.Errorf("plan %+v", plan)
	}
	h.now = h.now.Add(24 * time.Hour)
	for _, b := range boxes {
		h.stands(b.id, b.sku, 1, 1)
	}
	h.check(h.desk.Compare(ctx))
	for _, k := range h.tickets() {
		if k.State != fleetapi.TicketClosed || k.Resolution != "cleared" {
			t.Errorf("%s %s is %s after all", k.ID, k.Cause, k.State)
		}
	}
}
