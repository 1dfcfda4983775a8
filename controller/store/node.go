package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// This file is for controllers that share one PostgreSQL. Its clock alone says
// when a node or a lease has run out. A controller on SQLite is alone and calls
// nothing here.

// ErrFenced says that another node holds the lease by now: what was to be
// written may contradict what it has written.
var ErrFenced = errors.New("another controller leads")

// Shared reports whether other controllers may use this database.
func (s *Store) Shared() bool {
	_, ok := s.engine.(*postgres)
	return ok
}

// Beat is what a node says of itself, again and again.
type Beat struct {
	Name     string // for people
	Watching bool   // somebody looks at its pages
	// For is how long it counts as alive after this.
	For time.Duration
}

// Standing is what a node learns by a beat.
type Standing struct {
	Watching bool // somebody looks at the pages of some node
	// Token is that of the lease when this node holds it, else 0. It grows each
	// time that the lease passes on.
	Token int64
	// New: this node was not there, or counted as dead since its last beat.
	New bool
}

const nowMs = `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`

// Beat says that this node lives, and takes or renews the lease if it can.
func (s *Store) Beat(ctx context.Context, b Beat) (now Standing, err error) {
	err = s.write(ctx, func(t *tx) error {
		now = Standing{}
		span := b.For.Milliseconds()
		// Of a row that was inserted, no transaction has locked a version before.
		if err := t.QueryRow(ctx, `INSERT INTO node (id, name, watching, until_ms) VALUES (?,?,?,`+nowMs+` + ?)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, watching = excluded.watching, until_ms = excluded.until_ms
			RETURNING xmax = 0`, s.node, b.Name, b.Watching, span).Scan(&now.New); err != nil {
			return fmt.Errorf("say that this controller lives: %w", err)
		}
		if err := t.QueryRow(ctx, `SELECT coalesce(bool_or(watching), false) FROM node WHERE until_ms > `+nowMs).Scan(&now.Watching); err != nil {
			return fmt.Errorf("ask who watches: %w", err)
		}
		err := t.QueryRow(ctx, `INSERT INTO lease (name, node, token, until_ms) VALUES ('lead', ?, 1, `+nowMs+` + ?)
			ON CONFLICT (name) DO UPDATE SET node = excluded.node, until_ms = excluded.until_ms,
				token = lease.token + CASE WHEN lease.node = excluded.node THEN 0 ELSE 1 END
			WHERE lease.node = excluded.node OR lease.until_ms < `+nowMs+` RETURNING token`, s.node, span).Scan(&now.Token)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("ask for the lease: %w", err)
		}
		return nil
	})
	return now, err
}

// Leave ends this node: its sessions, its lease and its row.
func (s *Store) Leave(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error {
		for _, text := range []string{
			`UPDATE lease SET until_ms = 0 WHERE node = ?`,
			`DELETE FROM node WHERE id = ?`,
			`WITH gone AS (DELETE FROM session WHERE node = ? RETURNING box) UPDATE box SET connected = false WHERE id IN (SELECT box FROM gone)`,
		} {
			if _, err := t.Exec(ctx, text, s.node); err != nil {
				return fmt.Errorf("take leave of the other controllers: %w", err)
			}
		}
		return nil
	})
}

// EndDeadNodes ends the sessions of nodes that were not heard for too long and
// returns the boxes that are gone by it: those that have come back elsewhere
// have their session there.
func (s *Store) EndDeadNodes(ctx context.Context) (gone []identity.ID, err error) {
	err = s.write(ctx, func(t *tx) error {
		gone = nil
		if _, err := t.Exec(ctx, `DELETE FROM node WHERE until_ms < `+nowMs); err != nil {
			return fmt.Errorf("forget dead controllers: %w", err)
		}
		return t.each(ctx, `WITH gone AS (DELETE FROM session WHERE node <> '' AND node NOT IN (SELECT id FROM node) RETURNING box)
			UPDATE box SET connected = false WHERE id IN (SELECT box FROM gone) RETURNING id`, nil, scanIDs(&gone))
	})
	return gone, err
}

// NodeOf returns the node that talks with a box, "" for none.
func (s *Store) NodeOf(ctx context.Context, id identity.ID) (node string, err error) {
	err = s.one(ctx, `SELECT node FROM session WHERE box = ?`, []any{id}, &node)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return node, err
}

// Agreed returns what all controllers of this database have agreed on under a
// key; "" means nothing yet.
func (s *Store) Agreed(ctx context.Context, key string) (value string, err error) {
	err = s.one(ctx, `SELECT value FROM fleet WHERE key = ?`, []any{key}, &value)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return value, err
}

// Agree proposes a value and returns the one that holds: that of the first. It
// takes the place of earlier values that are named after it.
func (s *Store) Agree(ctx context.Context, key, value string, earlier ...string) (string, error) {
	err := s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `INSERT INTO fleet (key, value) VALUES (?,?) ON CONFLICT DO NOTHING`, key, value)
		for _, was := range earlier {
			if err == nil {
				_, err = t.Exec(ctx, `UPDATE fleet SET value = ? WHERE key = ? AND value = ?`, value, key, was)
			}
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("agree on %s: %w", key, err)
	}
	return s.Agreed(ctx, key)
}

// fenceKey is the key of a context's fence.
type fenceKey struct{}

// Fenced returns a context whose writes fail with ErrFenced once the lease has
// passed on from the holder of the token.
func Fenced(ctx context.Context, token int64) context.Context {
	return context.WithValue(ctx, fenceKey{}, token)
}

// fenced adds the check to a write. The lease cannot pass on before the write
// has ended: its row is locked.
func fenced(ctx context.Context, f func(*tx) error) func(*tx) error {
	token, ok := ctx.Value(fenceKey{}).(int64)
	if !ok {
		return f
	}
	return func(t *tx) error {
		var now int64
		if err := t.QueryRow(ctx, `SELECT token FROM lease WHERE name = 'lead' FOR SHARE`).Scan(&now); err != nil {
			return fmt.Errorf("look at the lease: %w", err)
		}
		if now != token {
			return ErrFenced
		}
		return f(t)
	}
}

// MaxNotice is how long a text of Notify may be; PostgreSQL allows 8000 bytes.
const MaxNotice = 7900

// Notify sends a text to the controllers that listen on a channel.
func (s *Store) Notify(ctx context.Context, channel, text string) error {
	if len(text) > MaxNotice {
		return fmt.Errorf("notify controllers: %d bytes, the limit is %d", len(text), MaxNotice)
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `SELECT pg_notify(?, ?)`, channel, text)
		return err
	})
}

// Listen calls each for every text that is sent on a channel, and ready once
// none is missed any more. It returns when the connection is lost.
func (s *Store) Listen(ctx context.Context, channels []string, ready func(), each func(channel, text string)) error {
	e, ok := s.engine.(*postgres)
	if !ok {
		return errors.New("listen to other controllers: SQLite has none")
	}
	cfg := e.cfg.Copy()
	// It waits by design, and notices a dead server by TCP alone.
	cfg.RuntimeParams["application_name"] = "edgeherd listener"
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { each(n.Channel, n.Payload) }
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return e.explain(fmt.Errorf("listen to other controllers: %w", err))
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, channel := range channels {
		if _, err := conn.Exec(ctx, `LISTEN `+pgx.Identifier{channel}.Sanitize()); err != nil {
			return fmt.Errorf("listen to other controllers: %w", err)
		}
	}
	ready()
	for {
		// A connection that died without a word is found by asking.
		wait, cancel := context.WithTimeout(ctx, listenAsk)
		err := conn.PgConn().WaitForNotification(wait)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, context.DeadlineExceeded) {
			ask, cancel := context.WithTimeout(ctx, connectTimeout)
			err = conn.Ping(ask)
			cancel()
		}
		if err != nil {
			return fmt.Errorf("listen to other controllers: %w", err)
		}
	}
}

// listenAsk is how long a quiet connection of Listen is trusted.
const listenAsk = 15 * time.Second
