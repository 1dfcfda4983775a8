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
	"github.com/edgeherd/edgeherd/internal/wire"
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

// shops has five sites of five boxes each: the first is dusty, and every second
// box is of a poor SKU.
func (h *herd) shops() (boxes []shopBox) {
	h.t.Helper()
	for site := range 5 {
		for i := range 5 {
			b := shopBox{identity.ID("d-" + strings.Repeat("a", 11) + string(rune('b'+site)) + string(rune('b'+i))), []string{"Acme A1", "Acme B2"}[i%2], 1}
			if site == 0 {
				b.rise = 7
			}
			if i%2 == 1 {
				b.rise += 5
			}
			h.check(h.store.AddBox(h.t.Context(), b.id, fmt.Sprintf("b-%d-%d", site, i), fmt.Sprint("shop-", site)))
			vendor, product, _ := strings.Cut(b.sku, " ")
			h.check(h.store.Hello(h.t.Context(), b.id, wire.Hello{V: wire.Version, Inventory: wire.Inventory{Vendor: vendor, Product: product}, Clock: wire.Clock{Boot: wire.BootID{1}}}))
			h.stands(b.id, b.sku, b.rise, 0)
			boxes = append(boxes, b)
		}
	}
	return boxes
}

type shopBox struct {
	id   identity.ID
	sku  string
	rise float64
}

// queued are the titles that wait for a channel, by the time of their making.
func (h *herd) queued(channel string) string {
	h.t.Helper()
	due, err := h.store.DueNotices(h.t.Context(), 100)
	h.check(err)
	var all []care.Notice
	for _, row := range due {
		var n care.Notice
		h.check(json.Unmarshal(row.Body, &n))
		if row.Endpoint == channel {
			all = append(all, n)
		}
	}
	slices.SortStableFunc(all, func(a, b care.Notice) int { return a.Time.Compare(b.Time) })
	var out []string
	for _, n := range all {
		out = append(out, n.Ticket.ID+" "+n.Kind)
	}
	return strings.Join(out, ", ")
}

// TestADustySiteAndAPoorSKUAreOneTicketEach: no box of them is sure by itself;
// what they say together is told once, goes to the route where somebody can go,
// and ends by itself.
func TestADustySiteAndAPoorSKUAreOneTicketEach(t *testing.T) {
	h := newHerd(t, upkeep.Channel{Name: "chat"})
	ctx := t.Context()
	boxes := h.shops()
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

// TestOfWhatIsOnePeopleHaveOneItem: tickets of boxes that a ticket of their site
// or SKU covers are not told beside it, but for what is urgent, and are told
// when that one ends without them. Who hears of some sites hears of the SKUs
// there.
func TestOfWhatIsOnePeopleHaveOneItem(t *testing.T) {
	h := newHerd(t, upkeep.Channel{Name: "all"}, upkeep.Channel{Name: "second", Sites: []string{"shop-2"}}, upkeep.Channel{Name: "elsewhere", Sites: []string{"shop-7"}})
	ctx := t.Context()
	boxes := h.shops()
	h.check(h.desk.Compare(ctx)) // T-1 is of shop-0, T-2 of the SKU
	h.now = h.now.Add(time.Hour)
	h.finds(airflow(health.Ticket), boxes[0].id) // T-3, of the dusty site
	paste := airflow(health.Ticket)
	paste.Cause = health.CausePaste
	h.finds(paste, boxes[13].id) // T-4, of the poor SKU, at shop-2
	paste.Family = "step"
	paste.Cause, paste.Level = health.CauseVent, health.Urgent
	h.finds(paste, boxes[11].id)                  // T-5, at shop-2
	h.finds(airflow(health.Ticket), boxes[20].id) // T-6, of neither
	if all, second, none := h.queued("all"), h.queued("second"), h.queued("elsewhere"); all != "T-1 opened, T-2 opened, T-5 opened, T-6 opened" || second != "T-2 opened, T-5 opened" || none != "" {
		t.Fatalf("told %q; of shop-2 %q; of shop-7 %q", all, second, none)
	}
	for _, k := range h.tickets() {
		if want := map[string]string{"T-3": "T-1", "T-4": "T-2"}[k.ID]; k.Within != want {
			t.Errorf("%s is part of %q, want %q", k.ID, k.Within, want)
		}
	}
	h.now = h.now.Add(time.Hour)
	hot := airflow(health.Urgent)
	hot.Opened = health.Unix(h.now.Add(-time.Hour).Unix())
	h.finds(hot, boxes[0].id) // it stands for itself now
	_, err := h.desk.Act(ctx, "T-2", fleetapi.TicketAction{Action: "close", Resolution: "accepted"}, "ops")
	h.check(err)
	if second := h.queued("second"); second != "T-2 opened, T-5 opened, T-2 closed, T-4 opened" && second != "T-2 opened, T-5 opened, T-4 opened, T-2 closed" {
		t.Errorf("when the ticket of the SKU ended, shop-2 heard %q", second)
	}
	if all := h.queued("all"); !strings.Contains(all, "T-3 opened") {
		t.Errorf("the box that became urgent was not told: %q", all)
	}
	h.finds(airflow(health.Ticket), boxes[2].id) // T-7: with T-3 the second of shop-0, which gives way and names both
	h.check(h.desk.Compare(ctx))
	if all := h.queued("all"); !strings.Contains(all, "T-1 closed") || strings.Contains(all, "T-7") {
		t.Errorf("when the site gave way all heard %q", all)
	}
	for _, k := range h.tickets() {
		if k.Within != "" {
			t.Errorf("%s is still part of %s", k.ID, k.Within)
		}
	}
}
