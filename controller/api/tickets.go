package api

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// ticketFields are what filters and sort orders of tickets may name. number
// orders T-9 before T-10.
var ticketFields = registry.Language[fleetapi.Ticket]{By: "id", Example: `site = "berlin-1"`, Fields: map[string]registry.Field[fleetapi.Ticket]{
	"id":       {Text: func(t fleetapi.Ticket) string { return t.ID }},
	"number":   {Number: ticketNumber},
	"state":    {Text: func(t fleetapi.Ticket) string { return string(t.State) }},
	"level":    {Text: func(t fleetapi.Ticket) string { return string(t.Level) }},
	"cause":    {Text: func(t fleetapi.Ticket) string { return t.Cause }},
	"box":      {Text: func(t fleetapi.Ticket) string { return t.BoxName }},
	"box_id":   {Text: func(t fleetapi.Ticket) string { return string(t.Box) }},
	"site":     {Text: func(t fleetapi.Ticket) string { return t.Site }},
	"region":   {Text: func(t fleetapi.Ticket) string { return t.Region }},
	"sku":      {Text: func(t fleetapi.Ticket) string { return t.SKU }},
	"assignee": {Text: func(t fleetapi.Ticket) string { return t.Assignee }},
	"visit":    {Text: func(t fleetapi.Ticket) string { return t.Visit }},
	"part":     {Text: func(t fleetapi.Ticket) string { return t.Part }},
	"open":     {Text: func(t fleetapi.Ticket) string { return strconv.FormatBool(!t.State.Ended()) }},
	"due":      {Text: func(t fleetapi.Ticket) string { return strconv.FormatBool(care.Due(t)) }},
	"manual":   {Text: func(t fleetapi.Ticket) string { return strconv.FormatBool(t.Manual) }},
	"opened":   {Text: func(t fleetapi.Ticket) string { return t.Opened.UTC().Format(time.RFC3339) }},
	"changed":  {Text: func(t fleetapi.Ticket) string { return t.Changed.UTC().Format(time.RFC3339) }},
	"reopens":  {Number: func(t fleetapi.Ticket) (float64, bool) { return float64(t.Reopens), true }},
	"low_days": {Number: func(t fleetapi.Ticket) (float64, bool) {
		if t.Forecast == nil {
			return 0, false
		}
		return t.Forecast.LowDays, true
	}},
}}

func ticketNumber(t fleetapi.Ticket) (float64, bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(t.ID, "T-"))
	return float64(n), err == nil
}

func (a *API) registerTickets() {
	list := get("/tickets", "listTickets", "Tickets that match a filter; all of them as CSV with Accept: text/csv", "care")
	list.Middlewares = huma.Middlewares{asCSV(a, "tickets", ticketColumns, func(ctx context.Context, filter, order string) ([]fleetapi.Ticket, error) {
		return a.matchingTickets(ctx, filter, cmp.Or(order, newestFirst))
	})}
	route(a, list, a.listTickets)
	route(a, get("/tickets:counts", "countTickets", "How many tickets match a filter, by state, level, cause and site", "care"), a.countTickets)
	route(a, get("/tickets/{id}", "getTicket", "One ticket with its timeline", "care"), a.getTicket)
	open := post("/tickets", "openTicket", "Open a ticket by hand", "care")
	open.DefaultStatus = http.StatusCreated
	route(a, a.acting(open), a.openTicket)
	route(a, a.acting(post("/tickets/{id}/actions", "actOnTicket", "Acknowledge, assign, arrive, done, reopen, close or note", "care")), a.actOnTicket)
}

type listTicketsInput struct {
	Filter    string `query:"filter" maxLength:"4096" doc:"AIP-160 expression over tickets" example:"open = true AND cause = \"airflow\""`
	OrderBy   string `query:"order_by" maxLength:"64" doc:"a field, with \" desc\" to reverse; default number desc" example:"opened desc"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100"`
	PageToken string `query:"page_token" maxLength:"8192" doc:"next_page_token of the page before"`
}

// newestFirst is the order of tickets when none is asked for.
const newestFirst = "number desc"

// matchingTickets returns the tickets that a filter matches, in order.
func (a *API) matchingTickets(ctx context.Context, filter, order string) ([]fleetapi.Ticket, error) {
	f, err := ticketFields.Parse(filter)
	if err != nil {
		return nil, badRequest("", "%s", err)
	}
	since := time.UnixMilli(0)
	if f.Requires("open", "true") || f.Requires("due", "true") {
		since = a.opts.WallClock().AddDate(1000, 0, 0) // those that ended are many more
	}
	all, err := a.opts.Desk.Tickets(ctx, since)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(t fleetapi.Ticket) bool { return !sees(ctx, t.Site) || !f.Match(t) })
	if err := ticketFields.Sort(all, order); err != nil {
		return nil, badRequest("", "%s", err)
	}
	return all, nil
}

// ticketPlace is where a page of tickets ended; see place.
type ticketPlace struct {
	Query string         `json:"q"`
	At    registry.Place `json:"a"`
}

func (a *API) listTickets(ctx context.Context, in *listTicketsInput) (fleetapi.TicketList, error) {
	order := in.OrderBy
	if order == "" {
		order = newestFirst
	}
	all, err := a.matchingTickets(ctx, in.Filter, order)
	if err != nil {
		return fleetapi.TicketList{}, err
	}
	list := fleetapi.TicketList{Items: []fleetapi.Ticket{}, TotalSize: len(all)}
	query := queryHash("tickets "+in.Filter, order)
	if in.PageToken != "" {
		var p ticketPlace
		raw, err := base64.RawURLEncoding.DecodeString(in.PageToken)
		if err != nil || json.Unmarshal(raw, &p) != nil || p.Query != query {
			return fleetapi.TicketList{}, badRequest("Begin again without page_token.", "the page token is not one of this list, filter and order")
		}
		if all, err = ticketFields.After(all, order, p.At); err != nil {
			return fleetapi.TicketList{}, badRequest("", "%s", err)
		}
	}
	list.Items = append(list.Items, all[:min(in.PageSize, len(all))]...)
	if len(all) > in.PageSize {
		raw, err := json.Marshal(ticketPlace{query, ticketFields.PlaceOf(list.Items[in.PageSize-1], order)})
		if err != nil {
			return fleetapi.TicketList{}, err
		}
		list.NextPageToken = base64.RawURLEncoding.EncodeToString(raw)
	}
	return list, nil
}

type countTicketsInput struct {
	Filter string `query:"filter" maxLength:"4096" doc:"AIP-160 expression over tickets"`
}

func (a *API) countTickets(ctx context.Context, in *countTicketsInput) (fleetapi.TicketCounts, error) {
	all, err := a.matchingTickets(ctx, in.Filter, "")
	return care.Count(all), err
}

type ticketInput struct {
	ID string `path:"id" pattern:"^T-[0-9]{1,12}$" example:"T-17"`
}

func (a *API) getTicket(ctx context.Context, in *ticketInput) (t fleetapi.Ticket, err error) {
	err = a.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		t, err = c.Ticket(ctx, in.ID)
		return err
	})
	return t, err
}

type openTicketInput struct{ Body fleetapi.NewTicket }

func (a *API) openTicket(ctx context.Context, in *openTicketInput) (fleetapi.Ticket, error) {
	if err := a.mayName(ctx, named{boxes: []string{in.Body.Box}, sites: []string{in.Body.Site}}); err != nil {
		return fleetapi.Ticket{}, err
	}
	t, err := a.opts.Desk.Open(ctx, in.Body, who(ctx).Name)
	a.acted(ctx, err, "ticket opened", "ticket", t.ID)
	return t, refusal(err)
}

type actOnTicketInput struct {
	ID   string `path:"id" pattern:"^T-[0-9]{1,12}$" example:"T-17"`
	Body fleetapi.TicketAction
}

func (a *API) actOnTicket(ctx context.Context, in *actOnTicketInput) (fleetapi.Ticket, error) {
	if err := a.mayName(ctx, named{boxes: boxesOf(in.Body.Work)}); err != nil {
		return fleetapi.Ticket{}, err
	}
	audit.Of(ctx).Note = in.Body.Action
	t, err := a.opts.Desk.Act(ctx, in.ID, in.Body, who(ctx).Name)
	a.acted(ctx, err, "ticket moved on", "ticket", in.ID, "action", in.Body.Action)
	return t, refusal(err)
}

// acted leaves a line in the log that says who did what.
func (a *API) acted(ctx context.Context, err error, what string, about ...any) {
	if err == nil {
		a.log.Info(what, append(about, "by", who(ctx).Name, "role", who(ctx).Role)...)
	}
}

// refusal is what the caller is told when the present state forbids something.
func refusal(err error) error {
	if r, ok := upkeep.IsRefusal(err); ok {
		return conflict(r.Hint, "%s", r.Why)
	}
	return err
}

// ticketColumns are the columns of tickets as CSV: what maintenance systems
// import.
var ticketColumns = []column[fleetapi.Ticket]{
	{"id", func(t fleetapi.Ticket) string { return t.ID }},
	{"state", func(t fleetapi.Ticket) string { return string(t.State) }},
	{"level", func(t fleetapi.Ticket) string { return string(t.Level) }},
	{"cause", func(t fleetapi.Ticket) string { return t.Cause }},
	{"confidence", func(t fleetapi.Ticket) string { return number(t.Confidence, t.Confidence > 0) }},
	{"region", func(t fleetapi.Ticket) string { return t.Region }},
	{"site", func(t fleetapi.Ticket) string { return t.Site }},
	{"place", func(t fleetapi.Ticket) string { return t.Place }},
	{"box", func(t fleetapi.Ticket) string { return t.BoxName }},
	{"box_id", func(t fleetapi.Ticket) string { return string(t.Box) }},
	{"sku", func(t fleetapi.Ticket) string { return t.SKU }},
	{"do", func(t fleetapi.Ticket) string { return t.Do }},
	{"part", func(t fleetapi.Ticket) string { return t.Part }},
	{"why", func(t fleetapi.Ticket) string { return t.Why }},
	{"throttles_low_days", func(t fleetapi.Ticket) string {
		if t.Forecast == nil {
			return ""
		}
		return number(t.Forecast.LowDays, true)
	}},
	{"throttles_high_days", func(t fleetapi.Ticket) string {
		if t.Forecast == nil {
			return ""
		}
		return number(t.Forecast.HighDays, true)
	}},
	{"assignee", func(t fleetapi.Ticket) string { return t.Assignee }},
	{"visit", func(t fleetapi.Ticket) string { return t.Visit }},
	{"opened", func(t fleetapi.Ticket) string { return stamped(&t.Opened) }},
	{"acknowledged", func(t fleetapi.Ticket) string { return stamped(t.Acknowledged) }},
	{"dispatched", func(t fleetapi.Ticket) string { return stamped(t.Dispatched) }},
	{"on_site", func(t fleetapi.Ticket) string { return stamped(t.OnSite) }},
	{"done", func(t fleetapi.Ticket) string { return stamped(t.Done) }},
	{"verified", func(t fleetapi.Ticket) string { return stamped(t.Verified) }},
	{"closed", func(t fleetapi.Ticket) string { return stamped(t.Closed) }},
	{"resolution", func(t fleetapi.Ticket) string { return t.Resolution }},
	{"reopens", func(t fleetapi.Ticket) string { return strconv.Itoa(t.Reopens) }},
	{"no_fault_found", func(t fleetapi.Ticket) string { return strconv.FormatBool(t.NoFault) }},
}

func stamped(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
