package store

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// beginSession notes who talks with a box now: this node or a broker, with that process
// and connection of the box. The last HELLO holds.
func (s *Store) beginSession(ctx context.Context, t *tx, id identity.ID, h wire.Hello) error {
	_, err := t.Exec(ctx, `INSERT INTO session (box, node, sid, conn) VALUES (?,?,?,?)
		ON CONFLICT (box) DO UPDATE SET node = excluded.node, sid = excluded.sid, conn = excluded.conn`,
		id, s.holder, h.SID[:], int64(h.Conn))
	if err != nil {
		return fmt.Errorf("store session of %s: %w", id, err)
	}
	return nil
}

// EndSession notes that a session of this node with a process of a box has
// ended, and reports whether the box is gone by that: not when it has said
// HELLO since from another process, connection or node. conn 0 means any.
func (s *Store) EndSession(ctx context.Context, id identity.ID, sid wire.SID, conn uint64) (gone bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, `DELETE FROM session WHERE box = ? AND node = ? AND sid = ? AND (? = 0 OR conn = ?)`,
			id, s.holder, sid[:], int64(conn), int64(conn))
		if err != nil {
			return fmt.Errorf("end session of %s: %w", id, err)
		}
		n, err := res.RowsAffected()
		if gone = n > 0; err != nil || !gone {
			return err
		}
		_, err = t.Exec(ctx, `UPDATE box SET connected = ?, last_seen_ms = ? WHERE id = ?`, false, s.now().UnixMilli(), id)
		return err
	})
	return gone, err
}

// Heard notes that a box is there which counted as gone; it reports whether
// that changed anything.
func (s *Store) Heard(ctx context.Context, id identity.ID) (bool, error) {
	var connected bool
	err := s.one(ctx, `SELECT connected FROM box WHERE id = ?`, []any{id}, &connected)
	if err != nil || connected {
		return false, err
	}
	return true, s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `UPDATE box SET connected = ?, last_seen_ms = ? WHERE id = ?`, true, s.now().UnixMilli(), id)
		return err
	})
}

// EndSilent ends the sessions of boxes that were not heard for so long, and
// returns them. It is for brokers that do not tell of every end.
func (s *Store) EndSilent(ctx context.Context, silence time.Duration) (gone []identity.ID, err error) {
	before := s.now().Add(-silence).UnixMilli()
	const silent = ` WHERE connected = ? AND last_seen_ms < ? AND NOT EXISTS (SELECT 1 FROM newest n WHERE n.box = box.id AND n.seen_ms >= ?)`
	err = s.each(ctx, `SELECT id FROM box`+silent, []any{true, before, before}, scanIDs(&gone))
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	return gone, s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `UPDATE box SET connected = ?`+silent, false, true, before, before)
		return err
	})
}
