package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Witness is a head of the audit log that a box says it was shown.
type Witness struct {
	Box  identity.ID
	Name string
	audit.Head
	Told time.Time // when the box's list was another one for the last time
}

// witnessed keeps what a box says it has seen. A box that says nothing, since it
// was set up anew, takes nothing back.
func witnessed(ctx context.Context, t *tx, id identity.ID, heads []wire.AuditHead, nowMs int64) error {
	if len(heads) == 0 {
		return nil
	}
	had := map[audit.Head]bool{}
	err := t.each(ctx, `SELECT seq, hash FROM audit_witness WHERE box = ?`, []any{id}, func(rows *sql.Rows) error {
		var h audit.Head
		err := rows.Scan(&h.Seq, &h.Hash)
		had[h] = true
		return err
	})
	if err != nil {
		return fmt.Errorf("look up what %s has witnessed: %w", id, err)
	}
	same := len(had) == len(heads)
	for _, h := range heads {
		same = same && had[audit.Head{Seq: int64(h.Seq), Hash: hex.EncodeToString(h.Hash)}]
	}
	if same {
		return nil
	}
	if _, err := t.Exec(ctx, `DELETE FROM audit_witness WHERE box = ?`, id); err != nil {
		return fmt.Errorf("store what %s has witnessed: %w", id, err)
	}
	for _, h := range heads {
		if _, err := t.Exec(ctx, `INSERT INTO audit_witness (box, seq, hash, told_ms) VALUES (?,?,?,?)`, id, int64(h.Seq), hex.EncodeToString(h.Hash), nowMs); err != nil {
			return fmt.Errorf("store what %s has witnessed: %w", id, err)
		}
	}
	return nil
}

// Witnesses lists what boxes say they have seen of the audit log, by number.
func (s *Store) Witnesses(ctx context.Context) (out []Witness, err error) {
	err = s.each(ctx, `SELECT w.box, coalesce(b.name, w.box), w.seq, w.hash, w.told_ms FROM audit_witness w LEFT JOIN box b ON b.id = w.box ORDER BY w.seq, w.box`, nil, func(rows *sql.Rows) error {
		var w Witness
		var told int64
		err := rows.Scan(&w.Box, &w.Name, &w.Seq, &w.Hash, &told)
		w.Told = time.UnixMilli(told)
		out = append(out, w)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list what boxes have witnessed: %w", err)
	}
	return out, nil
}

// NewestSeal is the newest signed head, nil when none was signed yet.
func (s *Store) NewestSeal(ctx context.Context) (envelope []byte, err error) {
	err = s.each(ctx, `SELECT envelope FROM audit_seal ORDER BY seq DESC LIMIT 1`, nil, func(rows *sql.Rows) error { return rows.Scan(&envelope) })
	if err != nil {
		return nil, fmt.Errorf("read the newest seal of the audit log: %w", err)
	}
	return envelope, nil
}
