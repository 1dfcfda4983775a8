package fleetapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Tickets returns one page of tickets.
func (c *Client) Tickets(ctx context.Context, q ListQuery) (TicketList, error) {
	return call[TicketList](ctx, c, http.MethodGet, "/tickets?"+q.encode(), nil)
}

// AllTickets returns all tickets that match, page after page.
func (c *Client) AllTickets(ctx context.Context, filter, orderBy string) (TicketList, error) {
	all := TicketList{Items: []Ticket{}}
	q := ListQuery{Filter: filter, OrderBy: orderBy, PageSize: 1000}
	for {
		page, err := c.Tickets(ctx, q)
		if err != nil {
			return TicketList{}, err
		}
		all.Items, all.TotalSize = append(all.Items, page.Items...), page.TotalSize
		if page.NextPageToken == "" {
			return all, nil
		}
		q.PageToken = page.NextPageToken
	}
}

// CountTickets counts the tickets that match.
func (c *Client) CountTickets(ctx context.Context, filter string) (TicketCounts, error) {
	return call[TicketCounts](ctx, c, http.MethodGet, "/tickets:counts?"+url.Values{"filter": {filter}}.Encode(), nil)
}

// Ticket returns one ticket.
func (c *Client) Ticket(ctx context.Context, id string) (Ticket, error) {
	return call[Ticket](ctx, c, http.MethodGet, "/tickets/"+url.PathEscape(id), nil)
}

// OpenTicket opens a ticket by hand.
func (c *Client) OpenTicket(ctx context.Context, t NewTicket) (Ticket, error) {
	return call[Ticket](ctx, c, http.MethodPost, "/tickets", t)
}

// ActOnTicket acknowledges, assigns, ends or reopens a ticket.
func (c *Client) ActOnTicket(ctx context.Context, id string, a TicketAction) (Ticket, error) {
	return call[Ticket](ctx, c, http.MethodPost, "/tickets/"+url.PathEscape(id)+"/actions", a)
}

// TicketsCSV writes the tickets that match as CSV.
func (c *Client) TicketsCSV(ctx context.Context, filter string, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/api/v1/tickets?"+url.Values{"filter": {filter}}.Encode(), nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	data, err := c.doAs(req, "text/csv")
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// Visits lists visits, newest first.
func (c *Client) Visits(ctx context.Context, site string, open bool) (VisitList, error) {
	v := url.Values{}
	set(v, "site", site)
	if open {
		v.Set("open", "true")
	}
	return call[VisitList](ctx, c, http.MethodGet, "/visits?"+v.Encode(), nil)
}

// Visit returns one visit.
func (c *Client) Visit(ctx context.Context, id string) (Visit, error) {
	return call[Visit](ctx, c, http.MethodGet, "/visits/"+url.PathEscape(id), nil)
}

// AddVisit plans a visit, or records one that is over.
func (c *Client) AddVisit(ctx context.Context, n NewVisit) (Visit, error) {
	return call[Visit](ctx, c, http.MethodPost, "/visits", n)
}

// PlanVisits makes the route of a day.
func (c *Client) PlanVisits(ctx context.Context, p PlanVisits) (VisitPlan, error) {
	return call[VisitPlan](ctx, c, http.MethodPost, "/visits:plan", p)
}

// ActOnVisit says that somebody arrived, is done, or will not come.
func (c *Client) ActOnVisit(ctx context.Context, id string, a VisitAction) (Visit, error) {
	return call[Visit](ctx, c, http.MethodPost, "/visits/"+url.PathEscape(id)+"/actions", a)
}

// RMAs lists parts on their way back.
func (c *Client) RMAs(ctx context.Context) (RMAList, error) {
	return call[RMAList](ctx, c, http.MethodGet, "/rmas", nil)
}

// OpenRMA sends a part back.
func (c *Client) OpenRMA(ctx context.Context, n NewRMA) (RMA, error) {
	return call[RMA](ctx, c, http.MethodPost, "/rmas", n)
}

// ActOnRMA moves an RMA on.
func (c *Client) ActOnRMA(ctx context.Context, id string, a RMAAction) (RMA, error) {
	return call[RMA](ctx, c, http.MethodPost, "/rmas/"+url.PathEscape(id)+"/actions", a)
}

// Care is the fleet's upkeep in numbers, of so many days.
func (c *Client) Care(ctx context.Context, days int) (CareReport, error) {
	return call[CareReport](ctx, c, http.MethodGet, fmt.Sprintf("/care?days=%d", days), nil)
}

// CareSites tells how each site stands, the worst first.
func (c *Client) CareSites(ctx context.Context) (SiteCareList, error) {
	return call[SiteCareList](ctx, c, http.MethodGet, "/care/sites", nil)
}

// BoxCare is the heat and upkeep of one box.
func (c *Client) BoxCare(ctx context.Context, id identity.ID) (BoxCare, error) {
	return call[BoxCare](ctx, c, http.MethodGet, "/boxes/"+url.PathEscape(string(id))+"/care", nil)
}

// SetUpkeep says where a box stands and which filter it has.
func (c *Client) SetUpkeep(ctx context.Context, id identity.ID, u Upkeep) (BoxCare, error) {
	return call[BoxCare](ctx, c, http.MethodPost, "/boxes/"+url.PathEscape(string(id))+"/care", u)
}

// Resets lists restarts of boxes; an empty box is all of them.
func (c *Client) Resets(ctx context.Context, box identity.ID, days int) (ResetList, error) {
	v := url.Values{"days": {strconv.Itoa(days)}}
	set(v, "box", string(box))
	return call[ResetList](ctx, c, http.MethodGet, "/resets?"+v.Encode(), nil)
}

// TestNotify tells one endpoint of notices, or all, a test.
func (c *Client) TestNotify(ctx context.Context, endpoint string) (NotifyTestResults, error) {
	return call[NotifyTestResults](ctx, c, http.MethodPost, "/notify:test", NotifyTest{Endpoint: endpoint})
}
