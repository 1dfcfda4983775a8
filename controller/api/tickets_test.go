package api

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// TestScreenPagesAndCSVOfTicketsAgree: all ways to a list count the same
// tickets, each once, in every order.
func TestScreenPagesAndCSVOfTicketsAgree(t *testing.T) {
	w := newWorld(t)
	for i := range 12 { // T-9 before T-10
		w.box(fmt.Sprint("box-", i), []string{"berlin-1", "krakow"}[i%2], "")
		_, err := w.client("tech").OpenTicket(t.Context(), fleetapi.NewTicket{Box: fmt.Sprint("box-", i), Cause: []string{"airflow", "paste", "fan-wear"}[i%3], Note: "=1+1"})
		must(t, err)
		w.clock.add(time.Minute)
	}
	c := w.client("viewer")
	for _, filter := range []string{"", `site = "krakow"`, `cause = "airflow" AND NOT box = "box-0"`, `open = false`, `number > 9`} {
		for _, order := range []string{"", "opened", "cause desc", "number", "low_days", "box"} {
			all, err := c.AllTickets(t.Context(), filter, order)
			must(t, err)
			var ids []string
			for token := ""; ; {
				page, err := c.Tickets(t.Context(), fleetapi.ListQuery{Filter: filter, OrderBy: order, PageSize: 5, PageToken: token})
				must(t, err)
				for _, k := range page.Items {
					ids = append(ids, k.ID)
				}
				if token = page.NextPageToken; token == "" {
					break
				}
			}
			var want []string
			for _, k := range all.Items {
				want = append(want, k.ID)
			}
			if !slices.Equal(ids, want) || len(ids) != all.TotalSize {
				t.Errorf("%s by %q: pages %v, list %v, total %d", filter, order, ids, want, all.TotalSize)
			}
			counts, err := c.CountTickets(t.Context(), filter)
			var text strings.Builder
			must(t, c.TicketsCSV(t.Context(), filter, &text))
			rows, err2 := csv.NewReader(strings.NewReader(text.String())).ReadAll()
			if err != nil || err2 != nil || counts.Total != len(ids) || len(rows) != len(ids)+1 || strings.Contains(text.String(), ",=1") {
				t.Errorf("%s: %d counted, %d rows, %d listed; %v, %v", filter, counts.Total, len(rows), len(ids), err, err2)
			}
		}
	}
	list, err := c.Tickets(t.Context(), fleetapi.ListQuery{})
	if err != nil || list.Items[0].ID != "T-12" || list.Items[11].ID != "T-1" {
		t.Errorf("newest first: %v, %v", list.Items[0].ID, err)
	}
	for query, want := range map[string]string{
		"filter=colour%3D1":    "fields are assignee, box",
		"order_by=colour":      "cannot order by colour",
		"page_token=bm8":       "Begin again without page_token",
		"filter=site%3Dregion": "is a field, not a value",
	} {
		if a := w.ask("viewer", "GET", "/api/v1/tickets?"+query, ""); a.status != http.StatusBadRequest || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestWhoMayActOnTickets(t *testing.T) {
	w := newWorld(t)
	w.box("till-1", "berlin-1", "")
	if _, err := w.client("viewer").OpenTicket(t.Context(), fleetapi.NewTicket{Box: "till-1", Cause: "airflow"}); err == nil {
		t.Error("a viewer opened a ticket")
	}
	tech := w.client("tech")
	k, err := tech.OpenTicket(t.Context(), fleetapi.NewTicket{Site: "berlin-1", Cause: "hvac", Level: "urgent"})
	must(t, err)
	if k.Box != "" || k.Level != fleetapi.HealthUrgent || k.Timeline[0].By != "tech" {
		t.Errorf("ticket %+v", k)
	}
	for range 2 { // the second changes nothing
		k, err = tech.ActOnTicket(t.Context(), k.ID, fleetapi.TicketAction{Action: "acknowledge"})
		must(t, err)
	}
	if k.State != fleetapi.TicketAcknowledged || len(k.Timeline) != 2 {
		t.Errorf("after two acknowledgements: %+v", k)
	}
	v, err := tech.AddVisit(t.Context(), fleetapi.NewVisit{Site: "berlin-1"})
	must(t, err)
	if !slices.Equal(v.Tickets, []string{k.ID}) || v.Day != "2026-03-01" {
		t.Errorf("visit %+v", v)
	}
	if v, err = tech.ActOnVisit(t.Context(), v.ID, fleetapi.VisitAction{Action: "cancel"}); err != nil || v.State != fleetapi.VisitCanceled {
		t.Errorf("visit %+v, %v", v, err)
	}
	if k, err = tech.Ticket(t.Context(), k.ID); err != nil || k.State != fleetapi.TicketAcknowledged || k.Visit != "" {
		t.Errorf("the ticket of a visit that was canceled: %+v, %v", k, err)
	}
	if _, err := tech.ActOnVisit(t.Context(), v.ID, fleetapi.VisitAction{Action: "done"}); err == nil || !strings.Contains(err.Error(), "Plan a new one") {
		t.Errorf("a canceled visit: %v", err)
	}
	if _, err := tech.TestNotify(t.Context(), ""); err == nil {
		t.Error("a technician told the endpoints")
	}
	if a := w.ask("tech", "POST", "/api/v1/tickets/T-1/actions", `{"action":"dance"}`); a.status != http.StatusUnprocessableEntity {
		t.Errorf("dance: %d %s", a.status, a.body)
	}
}

// TestAViewerChangesNothingOfTheUpkeep, whatever the route, and a stranger does
// not read it in any form.
func TestAViewerChangesNothingOfTheUpkeep(t *testing.T) {
	w := newWorld(t)
	id := w.box("till-1", "berlin-1", "")
	_, err := w.client("tech").OpenTicket(t.Context(), fleetapi.NewTicket{Box: "till-1", Cause: "airflow"})
	must(t, err)
	for path, body := range map[string]string{
		"tickets": `{"box":"till-1","cause":"paste"}`, "tickets/T-1/actions": `{"action":"acknowledge"}`, "visits": `{"site":"berlin-1"}`,
		"visits:plan": `{"keep":true}`, "visits/V-1/actions": `{"action":"cancel"}`, "rmas": `{"part":"fan"}`, "rmas/R-1/actions": `{"action":"close"}`,
		"boxes/" + string(id) + "/care": `{}`, "notify:test": `{}`,
	} {
		if a := w.ask("viewer", "POST", "/api/v1/"+path, body); a.status != http.StatusForbidden {
			t.Errorf("POST %s by a viewer: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"tickets", "tickets:counts", "tickets/T-1", "visits", "rmas", "care", "care/sites", "resets", "boxes/" + string(id) + "/care"} {
		for _, form := range []string{"application/json", "text/csv"} {
			if a := w.ask("", "GET", "/api/v1/"+path, "", "Accept", form); a.status != http.StatusUnauthorized {
				t.Errorf("GET %s as %s by a stranger: %d %s", path, form, a.status, a.body)
			}
		}
	}
	far := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	if _, err := w.client("tech").SetUpkeep(t.Context(), id, fleetapi.Upkeep{FilterInstalled: &far}); err == nil || !strings.Contains(err.Error(), "not in the future") {
		t.Errorf("a filter of the year 9999: %v", err)
	}
}
