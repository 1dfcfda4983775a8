package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Witness is a head of the audit log that a box says it was shown.
type Witness struct {
	Box  identity.ID
	Name string
	audit.Head
	Signed time.Time // as the proof says
	Proof  trust.Proof
	Told   time.Time // when the box said so for the first time
}

// witnessed keeps what a box says it has seen. A box that says nothing, since it
// was set up anew, takes nothing back.
func witnessed(ctx context.Context, t *tx, id identity.ID, heads []wire.AuditHead, nowMs int64) error {
	if len(heads) == 0 {
		return nil
	}
	had := map[int64]wire.AuditHead{}
	err := t.each(ctx, `SELECT seq, hash, signed_s, signer, sig FROM audit_witness WHERE box = ?`, []any{id}, func(rows *sql.Rows) error {
		var seq int64
		var hash, signer string
		var h wire.AuditHead
		if err := rows.Scan(&seq, &hash, &h.UnixS, &signer, &h.Sig); err != nil {
			return err
		}
		var err, err2 error
		h.Seq = uint64(seq)
		h.Hash, err = hex.DecodeString(hash)
		h.Key, err2 = hex.DecodeString(signer)
		had[seq] = h
		return errors.Join(err, err2)
	})
	if err != nil {
		return fmt.Errorf("look up what %s has witnessed: %w", id, err)
	}
	for _, h := range heads {
		was, there := had[int64(h.Seq)]
		delete(had, int64(h.Seq))
		if there && was.Equal(h) {
			continue
		}
		if _, err := t.Exec(ctx, `INSERT INTO audit_witness (box, seq, hash, signed_s, signer, sig, told_ms) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (box, seq) DO UPDATE SET hash = excluded.hash, signed_s = excluded.signed_s, signer = excluded.signer, sig = excluded.sig, told_ms = excluded.told_ms`,
			id, int64(h.Seq), hex.EncodeToString(h.Hash), h.UnixS, hex.EncodeToString(h.Key), h.Sig, nowMs); err != nil {
			return fmt.Errorf("store what %s has witnessed: %w", id, err)
		}
	}
	for seq := range had {
		if _, err := t.Exec(ctx, `DELETE FROM audit_witness WHERE box = ? AND seq = ?`, id, seq); err != nil {
			return fmt.Errorf("store what %s has witnessed: %w", id, err)
		}
	}
	return nil
}

// Witnesses lists what boxes say they have seen of the audit log, by number.
func (s *Store) Witnesses(ctx context.Context) (out []Witness, err error) {
	err = s.each(ctx, `SELECT w.box, coalesce(b.name, w.box), w.seq, w.hash, w.signed_s, w.signer, w.sig, w.told_ms
		FROM audit_witness w LEFT JOIN box b ON b.id = w.box ORDER BY w.seq, w.box`, nil, func(rows *sql.Rows) error {
		var w Witness
		var signed, told int64
		err := rows.Scan(&w.Box, &w.Name, &w.Seq, &w.Hash, &signed, &w.Proof.Key, &w.Proof.Sig, &told)
		w.Signed, w.Told = time.Unix(signed, 0), time.UnixMilli(told)
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
