package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// The kinds of things that people work with.
const (
	itemTicket = "ticket"
	itemVisit  = "visit"
	itemRMA    = "rma"
	itemUpkeep = "upkeep" // of a box
)

// CareTx is one transaction on tickets, visits and notices.
type CareTx struct {
	tx      *tx
	nowMs   int64
	regions map[string]string // by site, as they were read
}

// Care runs do in one transaction, after all others that change tickets: what
// a person and the controller decide at the same time is not lost. do may run
// more than once.
func (s *Store) Care(ctx context.Context, do func(*CareTx) error) error {
	return s.write(ctx, func(t *tx) error {
		var n int64
		if err := t.QueryRow(ctx, `SELECT n FROM care_number WHERE name = 'care' FOR UPDATE`).Scan(&n); err != nil {
			return fmt.Errorf("begin with tickets: %w", err)
		}
		return do(&CareTx{tx: t, nowMs: s.now().UnixMilli()})
	})
}

// CareView runs do on one state of tickets and visits, for reading.
func (s *Store) CareView(ctx context.Context, do func(*CareTx) error) error {
	return s.snapshot(ctx, func(t *tx) error { return do(&CareTx{tx: t, nowMs: s.now().UnixMilli()}) })
}

// number gives the next number of a kind, such as T-17.
func (c *CareTx) number(ctx context.Context, letter string) (string, error) {
	var n int64
	err := c.tx.QueryRow(ctx, `INSERT INTO care_number (name, n) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET n = care_number.n + 1 RETURNING n`, letter).Scan(&n)
	if err != nil {
		return "", fmt.Errorf("give a number: %w", err)
	}
	return fmt.Sprintf("%s-%d", letter, n), nil
}

// item is a row of care_item.
type item struct {
	kind, id, site, box, sku, cause string
	ended                           *time.Time
}

func (c *CareTx) put(ctx context.Context, at item, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	ended := int64(0)
	if at.ended != nil {
		ended = max(at.ended.UnixMilli(), 1)
	}
	if _, err := c.tx.Exec(ctx, `INSERT INTO care_item (kind, id, site, box, sku, cause, ended_ms, body) VALUES (?,?,?,?,?,?,?,?)
		ON CONFLICT (kind, id) DO UPDATE SET site = excluded.site, box = excluded.box, sku = excluded.sku, cause = excluded.cause, ended_ms = excluded.ended_ms, body = excluded.body`,
		at.kind, at.id, at.site, at.box, at.sku, at.cause, ended, string(body)); err != nil {
		return fmt.Errorf("store %s %s: %w", at.kind, at.id, err)
	}
	return nil
}

// itemsOf reads the bodies that a condition chooses, and parses them on all
// processors.
func itemsOf[T any](ctx context.Context, c *CareTx, where string, args ...any) ([]T, error) {
	var bodies [][]byte
	err := c.tx.each(ctx, `SELECT body FROM care_item WHERE `+where, args, func(rows *sql.Rows) error {
		var body []byte
		err := rows.Scan(&body)
		bodies = append(bodies, body)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list items: %w", err)
	}
	out, errs := make([]T, len(bodies)), make([]error, len(bodies))
	parallel(len(bodies), func(i int) { errs[i] = json.Unmarshal(bodies[i], &out[i]) })
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return nil, fmt.Errorf("parse a stored item: %w", errs[i])
	}
	return out, nil
}

func itemOf[T any](ctx context.Context, c *CareTx, kind, id string) (T, error) {
	all, err := itemsOf[T](ctx, c, `kind = ? AND id = ?`, kind, id)
	var v T
	if err != nil {
		return v, err
	}
	if len(all) == 0 {
		return v, fmt.Errorf("%s %s: %w", kind, id, ErrNotFound)
	}
	return all[0], nil
}

// Ticket returns one ticket, or ErrNotFound.
func (c *CareTx) Ticket(ctx context.Context, id string) (fleetapi.Ticket, error) {
	t, err := itemOf[fleetapi.Ticket](ctx, c, itemTicket, id)
	if err != nil {
		return t, err
	}
	t.Region, err = c.regionOf(ctx, t.Site)
	return t, err
}

// tickets reads tickets with the regions that their sites have now.
func (c *CareTx) tickets(ctx context.Context, where string, args ...any) ([]fleetapi.Ticket, error) {
	all, err := itemsOf[fleetapi.Ticket](ctx, c, where, args...)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Region, err = c.regionOf(ctx, all[i].Site); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (c *CareTx) regionOf(ctx context.Context, site string) (string, error) {
	if region, ok := c.regions[site]; ok {
		return region, nil
	}
	s, err := c.siteSettings(ctx, site)
	if err != nil {
		return "", err
	}
	if c.regions == nil {
		c.regions = map[string]string{}
	}
	region := ""
	if s.Region != nil {
		region = *s.Region
	}
	c.regions[site] = region
	return region, nil
}

// TicketsOf returns the tickets of a box, or of a site as a whole, that are
// open or ended since.
func (c *CareTx) TicketsOf(ctx context.Context, box identity.ID, site string, since time.Time) ([]fleetapi.Ticket, error) {
	if box != "" {
		return c.tickets(ctx, `kind = ? AND box = ? AND (ended_ms = 0 OR ended_ms >= ?)`, itemTicket, string(box), since.UnixMilli())
	}
	return c.tickets(ctx, `kind = ? AND box = '' AND site = ? AND sku = '' AND (ended_ms = 0 OR ended_ms >= ?)`, itemTicket, site, since.UnixMilli())
}

// TicketsOfGroups returns the tickets of whole sites and whole SKUs that are
// open or ended since.
func (c *CareTx) TicketsOfGroups(ctx context.Context, since time.Time) ([]fleetapi.Ticket, error) {
	return c.tickets(ctx, `kind = ? AND box = '' AND (ended_ms = 0 OR ended_ms >= ?)`, itemTicket, since.UnixMilli())
}

// Tickets returns all tickets that are open or ended since.
func (c *CareTx) Tickets(ctx context.Context, since time.Time) ([]fleetapi.Ticket, error) {
	return c.tickets(ctx, `kind = ? AND (ended_ms = 0 OR ended_ms >= ?)`, itemTicket, since.UnixMilli())
}

// PutTicket stores a ticket, and gives it an ID if it has none.
func (c *CareTx) PutTicket(ctx context.Context, t *fleetapi.Ticket) (err error) {
	if t.ID == "" {
		if t.ID, err = c.number(ctx, "T"); err != nil {
			return err
		}
	}
	at := item{kind: itemTicket, id: t.ID, site: t.Site, box: string(t.Box), cause: t.Cause}
	if t.Box == "" && t.Site == "" {
		at.sku = t.SKU
	}
	if t.State.Ended() {
		at.ended = &t.Changed
	}
	return c.put(ctx, at, t)
}

// Visit returns one visit, or ErrNotFound.
func (c *CareTx) Visit(ctx context.Context, id string) (fleetapi.Visit, error) {
	return itemOf[fleetapi.Visit](ctx, c, itemVisit, id)
}

// Visits returns visits that have not ended, or did since.
func (c *CareTx) Visits(ctx context.Context, since time.Time) ([]fleetapi.Visit, error) {
	return itemsOf[fleetapi.Visit](ctx, c, `kind = ? AND (ended_ms = 0 OR ended_ms >= ?)`, itemVisit, since.UnixMilli())
}

// PutVisit stores a visit, and gives it an ID if it has none.
func (c *CareTx) PutVisit(ctx context.Context, v *fleetapi.Visit) (err error) {
	if v.ID == "" {
		if v.ID, err = c.number(ctx, "V"); err != nil {
			return err
		}
	}
	return c.put(ctx, item{kind: itemVisit, id: v.ID, site: v.Site, ended: v.Ended}, v)
}

// RMA returns one RMA, or ErrNotFound.
func (c *CareTx) RMA(ctx context.Context, id string) (fleetapi.RMA, error) {
	return itemOf[fleetapi.RMA](ctx, c, itemRMA, id)
}

// RMAs returns those that have not ended, or did since.
func (c *CareTx) RMAs(ctx context.Context, since time.Time) ([]fleetapi.RMA, error) {
	return itemsOf[fleetapi.RMA](ctx, c, `kind = ? AND (ended_ms = 0 OR ended_ms >= ?)`, itemRMA, since.UnixMilli())
}

// PutRMA stores an RMA, and gives it an ID if it has none.
func (c *CareTx) PutRMA(ctx context.Context, r *fleetapi.RMA) (err error) {
	if r.ID == "" {
		if r.ID, err = c.number(ctx, "R"); err != nil {
			return err
		}
	}
	return c.put(ctx, item{kind: itemRMA, id: r.ID, site: r.Site, box: string(r.Box), ended: r.Closed}, r)
}

// Upkeep is what people say of a box; the zero Upkeep when they said nothing.
func (c *CareTx) Upkeep(ctx context.Context, box identity.ID) (fleetapi.Upkeep, error) {
	u, err := itemOf[fleetapi.Upkeep](ctx, c, itemUpkeep, string(box))
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return u, err
}

// PutUpkeep stores what people say of a box.
func (c *CareTx) PutUpkeep(ctx context.Context, box identity.ID, u fleetapi.Upkeep) error {
	return c.put(ctx, item{kind: itemUpkeep, id: string(box), box: string(box)}, u)
}

// Log logs a change of a box.
func (c *CareTx) Log(ctx context.Context, ch ChangeRow) error { return putChange(ctx, c.tx, ch) }

// Mute keeps a family of findings from making tickets until a time; one in the
// past ends it.
func (c *CareTx) Mute(ctx context.Context, m Mute) error {
	if _, err := c.tx.Exec(ctx, `INSERT INTO mute (box, family, until_ms, why, author) VALUES (?,?,?,?,?)
		ON CONFLICT (box, family) DO UPDATE SET until_ms = excluded.until_ms, why = excluded.why, author = excluded.author`,
		string(m.Box), m.Family, m.UntilMs, m.Why, m.By); err != nil {
		return fmt.Errorf("mute %s of %s: %w", m.Family, m.Box, err)
	}
	return nil
}

// Mutes are those of a box that still hold.
func (c *CareTx) Mutes(ctx context.Context, box identity.ID) (out []Mute, err error) {
	err = c.tx.each(ctx, `SELECT box, family, until_ms, why, author FROM mute WHERE box = ? AND until_ms > ? ORDER BY family`, []any{string(box), c.nowMs}, func(rows *sql.Rows) error {
		var m Mute
		err := rows.Scan((*string)(&m.Box), &m.Family, &m.UntilMs, &m.Why, &m.By)
		out = append(out, m)
		return err
	})
	return out, err
}

// News are findings that no ticket knows of yet, in the order in which the
// boxes said them.
func (c *CareTx) News(ctx context.Context, limit int) (out []FindingRow, err error) {
	err = c.tx.each(ctx, findingColumns+`WHERE f.news = 1 ORDER BY f.t_ms, f.box, f.family LIMIT ?`, []any{c.nowMs, limit}, func(rows *sql.Rows) error { return scanFinding(rows, &out) })
	if err != nil {
		return nil, fmt.Errorf("list new findings: %w", err)
	}
	return out, nil
}

// Seen says that tickets know of these findings, as they were read.
func (c *CareTx) Seen(ctx context.Context, found []FindingRow) error {
	for _, f := range found {
		if _, err := c.tx.Exec(ctx, `UPDATE finding SET news = 0 WHERE box = ? AND family = ? AND opened_ms = ? AND closed_ms = ? AND t_ms = ?`,
			string(f.Box), f.Family, f.OpenedMs, f.ClosedMs, f.TimeMs); err != nil {
			return fmt.Errorf("note a finding as seen: %w", err)
		}
	}
	return nil
}

// Notice is one thing that one endpoint is yet to be told.
type Notice struct {
	Endpoint, Key string
	State         int // one of the Notice constants
	DueMs         int64
	Tries         int
	ChangedMs     int64
	Err           string
	Body          []byte
}

// How far a notice is.
const (
	NoticeWaits = iota
	NoticeSent
	NoticeFailed // given up
)

// Notify has endpoints told. A key that an endpoint has had changes nothing.
func (c *CareTx) Notify(ctx context.Context, n Notice) error {
	return queueNotice(ctx, c.tx, n, c.nowMs)
}
