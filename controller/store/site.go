package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// SiteDefaults is the name under which the defaults of all sites are stored;
// no site has it.
const SiteDefaults = ""

// Site is what people set for a site, or for all.
type Site struct {
	Name      string
	Settings  fleetapi.SiteSettings
	ChangedMs int64
	ChangedBy string
}

// SiteCount is the boxes of one site.
type SiteCount struct {
	Boxes, Connected int
	WaitingBytes     int64
}

// Sites returns the settings of all sites that have some, and the defaults.
func (s *Store) Sites(ctx context.Context) (map[string]Site, error) {
	out := map[string]Site{}
	err := s.each(ctx, `SELECT name, settings, changed_ms, changed_by FROM site`, nil, func(rows *sql.Rows) error {
		var site Site
		var text string
		if err := rows.Scan(&site.Name, &text, &site.ChangedMs, &site.ChangedBy); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &site.Settings); err != nil {
			return fmt.Errorf("parse settings of site %q: %w", site.Name, err)
		}
		out[site.Name] = site
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list site settings: %w", err)
	}
	return out, nil
}

// ChangeSite changes the settings of a site, or the defaults, by f, in one
// transaction. A site without a box and without settings is ErrNotFound: most
// likely its name is mistyped. f may run more than once.
func (s *Store) ChangeSite(ctx context.Context, name, by string, f func(*fleetapi.SiteSettings) error) error {
	return s.write(ctx, func(t *tx) error {
		var text string
		err := t.QueryRow(ctx, `SELECT settings FROM site WHERE name = ? FOR UPDATE`, name).Scan(&text)
		if errors.Is(err, sql.ErrNoRows) {
			text, err = "{}", siteHasBoxes(ctx, t, name)
		}
		if err != nil {
			return err
		}
		var settings fleetapi.SiteSettings
		if err := json.Unmarshal([]byte(text), &settings); err != nil {
			return fmt.Errorf("parse settings of site %q: %w", name, err)
		}
		if err := f(&settings); err != nil {
			return err
		}
		after, err := json.Marshal(settings)
		if err != nil {
			return err
		}
		_, err = t.Exec(ctx, `INSERT INTO site (name, settings, changed_ms, changed_by) VALUES (?,?,?,?)
			ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, changed_ms = excluded.changed_ms, changed_by = excluded.changed_by`,
			name, string(after), s.now().UnixMilli(), by)
		if err != nil {
			return fmt.Errorf("store settings of site %q: %w", name, err)
		}
		return nil
	})
}

func siteHasBoxes(ctx context.Context, t *tx, name string) error {
	if name == SiteDefaults {
		return nil
	}
	var n int
	if err := t.QueryRow(ctx, `SELECT count(*) FROM box WHERE site = ?`, name).Scan(&n); err != nil {
		return fmt.Errorf("look up site %q: %w", name, err)
	}
	if n == 0 {
		return fmt.Errorf("site %q: %w", name, ErrNotFound)
	}
	return nil
}

// SiteCounts returns the sites that have boxes, with what their boxes said last
// of what waits.
func (s *Store) SiteCounts(ctx context.Context) (map[string]SiteCount, error) {
	out := map[string]SiteCount{}
	err := s.each(ctx, `SELECT b.site, b.connected, coalesce(n.buffer, b.buffer) FROM box b LEFT JOIN newest n ON n.box = b.id`, nil, func(rows *sql.Rows) error {
		var name, buffer string
		var connected bool
		if err := rows.Scan(&name, &connected, &buffer); err != nil {
			return err
		}
		var waits wire.Buffer
		if err := json.Unmarshal([]byte(buffer), &waits); err != nil {
			return fmt.Errorf("parse buffer of a box at %q: %w", name, err)
		}
		c := out[name]
		c.Boxes++
		c.WaitingBytes += waits.Bytes
		if connected {
			c.Connected++
		}
		out[name] = c
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count boxes of sites: %w", err)
	}
	return out, nil
}

// SiteOf returns the site of a box.
func (s *Store) SiteOf(ctx context.Context, id identity.ID) (string, error) {
	var name string
	if err := s.one(ctx, `SELECT site FROM box WHERE id = ?`, []any{id}, &name); err != nil {
		return "", fmt.Errorf("site of box %s: %w", id, err)
	}
	return name, nil
}

// ConnectedBySite counts the connected boxes of each site that has one.
func (s *Store) ConnectedBySite(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	err := s.each(ctx, `SELECT site, count(*) FROM box WHERE connected = ? GROUP BY site`, []any{true}, func(rows *sql.Rows) error {
		var name string
		var n int
		err := rows.Scan(&name, &n)
		out[name] = n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count connected boxes of sites: %w", err)
	}
	return out, nil
}
