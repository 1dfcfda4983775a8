package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Names of the metrics that tell of the air of a room.
const (
	metricInlet = "temp_inlet_celsius"
	metricRoom  = "temp_room_celsius"
)

// itemPrior is what was learnt of a SKU.
const itemPrior = "prior"

// SKUOf is the product that a box is one of. Boards that were never given a
// name are no product.
func SKUOf(inv wire.Inventory) string {
	sku := strings.TrimSpace(inv.Vendor + " " + inv.Product)
	if l := strings.ToLower(sku); strings.Contains(l, "default string") || strings.Contains(l, "to be filled") {
		return ""
	}
	return sku
}

// Place tells where a box stands; its name is empty when there is no such box.
func (c *CareTx) Place(ctx context.Context, box identity.ID) (care.Place, error) {
	var p care.Place
	var inv string
	err := c.tx.QueryRow(ctx, `SELECT name, site, inventory FROM box WHERE id = ?`, box).Scan(&p.BoxName, &p.Site, &inv)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("look up box %s: %w", box, err)
	}
	var i wire.Inventory
	if err := json.Unmarshal([]byte(inv), &i); err != nil {
		return p, fmt.Errorf("inventory of box %s: %w", box, err)
	}
	p.SKU, p.Simulated = SKUOf(i), i.Simulated
	at, err := c.SitePlace(ctx, p.Site)
	if err != nil {
		return p, err
	}
	p.Region = at.Region
	u, err := c.Upkeep(ctx, box)
	p.Place = u.Place
	return p, err
}

// SitePlace tells of a site as a whole.
func (c *CareTx) SitePlace(ctx context.Context, name string) (care.Place, error) {
	region, err := c.regionOf(ctx, name)
	return care.Place{Site: name, Region: region}, err
}

// siteSettings are those of a site, and where it has none the defaults.
func (c *CareTx) siteSettings(ctx context.Context, name string) (s fleetapi.SiteSettings, err error) {
	// The defaults have no name, so they come first and are written over.
	err = c.tx.each(ctx, `SELECT settings FROM site WHERE name = ? OR name = '' ORDER BY name`, []any{name}, func(rows *sql.Rows) error {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return err
		}
		return json.Unmarshal(text, &s)
	})
	if err != nil {
		return s, fmt.Errorf("settings of site %q: %w", name, err)
	}
	return s, nil
}

// ZoneOf is the time zone of a site.
func (c *CareTx) ZoneOf(ctx context.Context, name string) (string, error) {
	s, err := c.siteSettings(ctx, name)
	if err != nil || s.TimeZone == nil {
		return "UTC", err
	}
	return *s.TimeZone, nil
}

// FindingsAt are the open findings of a family of all boxes of a site.
func (c *CareTx) FindingsAt(ctx context.Context, site, family string) (out []FindingRow, err error) {
	err = c.tx.each(ctx, findingColumns+`JOIN box ON box.id = f.box WHERE box.site = ? AND f.family = ? AND f.closed_ms = 0 ORDER BY f.opened_ms, f.box`,
		[]any{c.nowMs, site, family}, func(rows *sql.Rows) error { return scanFinding(rows, &out) })
	if err != nil {
		return nil, fmt.Errorf("list findings of site %q: %w", site, err)
	}
	return out, nil
}

// HeatState returns the state of a box's judgement; nil: there is none.
func (c *CareTx) HeatState(ctx context.Context, box identity.ID) ([]byte, error) {
	var body []byte
	err := c.tx.QueryRow(ctx, `SELECT body FROM box_state WHERE box = ?`, string(box)).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return body, err
}

// Find returns the box that a name or an id means, or ErrNotFound.
func (c *CareTx) Find(ctx context.Context, word string) (id identity.ID, err error) {
	err = c.tx.QueryRow(ctx, `SELECT id FROM box WHERE id = ? OR name = ?`, word, word).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("box %q: %w", word, ErrNotFound)
	}
	return id, err
}

// SiteExists reports whether a site has boxes.
func (c *CareTx) SiteExists(ctx context.Context, name string) (bool, error) {
	err := siteHasBoxes(ctx, c.tx, name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// CareBoxes are all boxes with what is known of their heat, and nothing else of
// them.
func (s *Store) CareBoxes(ctx context.Context) ([]Box, error) {
	var out []Box
	at := map[identity.ID]int{}
	err := s.each(ctx, `SELECT id, name, site FROM box ORDER BY name`, nil, func(rows *sql.Rows) error {
		var b Box
		err := rows.Scan(&b.ID, &b.Name, &b.Site)
		at[b.ID] = len(out)
		out = append(out, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list boxes: %w", err)
	}
	return out, s.addCare(ctx, "", func(id identity.ID) *Box {
		if i, ok := at[id]; ok {
			return &out[i]
		}
		return nil
	})
}

// Priors are what was learnt of SKUs, as JSON.
func (s *Store) Priors(ctx context.Context) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := s.each(ctx, `SELECT id, body FROM care_item WHERE kind = ?`, []any{itemPrior}, func(rows *sql.Rows) error {
		var sku string
		var body []byte
		err := rows.Scan(&sku, &body)
		out[sku] = body
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what was learnt of SKUs: %w", err)
	}
	return out, nil
}

// KeepPrior stores what was learnt of a SKU, as JSON.
func (s *Store) KeepPrior(ctx context.Context, sku string, body []byte) error {
	return s.write(ctx, func(t *tx) error {
		return (&CareTx{tx: t}).put(ctx, item{kind: itemPrior, id: sku}, json.RawMessage(body))
	})
}

// Air is what a box measured of the air about it; TimeMs 0: nothing.
type Air struct {
	Box         identity.ID
	Connected   bool
	Inlet, Room Latest
}

// AirAt is the air of all boxes of a site.
func (s *Store) AirAt(ctx context.Context, site string) ([]Air, error) {
	all, err := s.airs(ctx, ` WHERE site = ?`, site)
	return all[site], err
}

// Airs is the air of all boxes, by site.
func (s *Store) Airs(ctx context.Context) (map[string][]Air, error) { return s.airs(ctx, ``) }

func (s *Store) airs(ctx context.Context, where string, args ...any) (map[string][]Air, error) {
	out := map[string][]Air{}
	type at struct {
		site  string
		place int
	}
	places := map[identity.ID]at{}
	err := s.read(ctx, func(t *tx) error {
		clear(out)
		err := t.each(ctx, `SELECT id, site, connected FROM box`+where+` ORDER BY id`, args, func(rows *sql.Rows) error {
			var a Air
			var site string
			err := rows.Scan(&a.Box, &site, &a.Connected)
			places[a.Box] = at{site, len(out[site])}
			out[site] = append(out[site], a)
			return err
		})
		if err != nil {
			return err
		}
		var said []heard
		err = t.each(ctx, `SELECT box, latest FROM newest WHERE box IN (SELECT id FROM box`+where+`)`, args, func(r *sql.Rows) error {
			var h heard
			err := r.Scan((*string)(&h.id), &h.latest)
			said = append(said, h)
			return err
		})
		if err != nil {
			return err
		}
		if err := s.decodeHeard(ctx, t, said); err != nil {
			return err
		}
		for _, h := range said {
			p, ok := places[h.id]
			if !ok {
				continue // enrolled since
			}
			a := &out[p.site][p.place]
			a.Inlet, _ = h.newest.Get(metricInlet)
			a.Room, _ = h.newest.Get(metricRoom)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the air of rooms: %w", err)
	}
	return out, nil
}

// LocationOf is where a site lies, as people wrote it; empty: not known.
func (c *CareTx) LocationOf(ctx context.Context, name string) (string, error) {
	s, err := c.siteSettings(ctx, name)
	if err != nil || s.Location == nil {
		return "", err
	}
	return *s.Location, nil
}

// PartUsed is a part that was put into a box.
type PartUsed struct {
	Region, Site string
	Box          identity.ID
	Kind         string // fan, filter, ssd, psu, paste, or the number of the part
	Part, Serial string
	Count        int
	TimeMs       int64
}

// Used records a part that was put into a box.
func (c *CareTx) Used(ctx context.Context, p PartUsed) error {
	if _, err := c.tx.Exec(ctx, `INSERT INTO part_used (box, t_ms, kind, part, serial, n, region, site) VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`,
		string(p.Box), p.TimeMs, p.Kind, p.Part, p.Serial, p.Count, p.Region, p.Site); err != nil {
		return fmt.Errorf("record a part: %w", err)
	}
	return nil
}

// PartsUsed counts the parts that were used since, by region and kind.
func (c *CareTx) PartsUsed(ctx context.Context, since time.Time) (map[[2]string]int, error) {
	out := map[[2]string]int{}
	err := c.tx.each(ctx, `SELECT region, kind, sum(n) FROM part_used WHERE t_ms >= ? GROUP BY region, kind`, []any{since.UnixMilli()}, func(rows *sql.Rows) error {
		var region, kind string
		var n int
		err := rows.Scan(&region, &kind, &n)
		out[[2]string{region, kind}] = n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count parts: %w", err)
	}
	return out, nil
}

// noteSwap logs that other hardware took the place of a box: its heat is judged
// anew. A machine that comes back to its own place, as after a new disk, is the
// same to the air.
func noteSwap(ctx context.Context, t *tx, i EnrolIssue, nowMs int64) error {
	for _, m := range i.Marks {
		var own bool
		if err := t.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM machine_mark WHERE mark = ? AND box = ?)`, m, i.Cert.Box).Scan(&own); err != nil || own {
			return err
		}
	}
	return putChange(ctx, t, ChangeRow{Box: i.Cert.Box, TimeMs: nowMs, Kind: fleetapi.WorkBoxReplaced, Detail: i.Member.Hardware.BoardSerial, By: i.Member.By})
}
