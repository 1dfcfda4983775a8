package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// SecretScope says what a secret is for.
type SecretScope string

// The scopes of secrets.
const (
	SecretOfBox   SecretScope = "box"
	SecretOfSite  SecretScope = "site"
	SecretOfLabel SecretScope = "label"
)

// SecretAt is where a secret lies: a name for the boxes of a target, which is a
// box id, a site or a label as k=v.
type SecretAt struct {
	Name   string
	Scope  SecretScope
	Target string
}

func (a SecretAt) String() string { return fmt.Sprintf("%s of %s %s", a.Name, a.Scope, a.Target) }

// Secret is an encrypted secret.
type Secret struct {
	SecretAt
	Version string // drawn anew with each value
	Key     string // names the key it is encrypted under
	Sealed  []byte
	Changed time.Time
	By      string
}

// Secrets lists all secrets by name, scope and target.
func (s *Store) Secrets(ctx context.Context) (out []Secret, err error) {
	err = s.each(ctx, `SELECT name, scope, target, version, key, sealed, changed_ms, author FROM secret ORDER BY name, scope, target`, nil, func(rows *sql.Rows) error {
		var v Secret
		var changed int64
		err := rows.Scan(&v.Name, &v.Scope, &v.Target, &v.Version, &v.Key, &v.Sealed, &changed, &v.By)
		v.Changed = time.UnixMilli(changed)
		out = append(out, v)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	return out, nil
}

// PutSecret stores a secret in the place of the one that was there.
func (s *Store) PutSecret(ctx context.Context, v Secret) error {
	err := s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `INSERT INTO secret (name, scope, target, version, key, sealed, changed_ms, author) VALUES (?,?,?,?,?,?,?,?)
			ON CONFLICT (name, scope, target) DO UPDATE SET version = excluded.version, key = excluded.key, sealed = excluded.sealed,
			changed_ms = excluded.changed_ms, author = excluded.author`,
			v.Name, string(v.Scope), v.Target, v.Version, v.Key, v.Sealed, s.now().UnixMilli(), v.By)
		return err
	})
	if err != nil {
		return fmt.Errorf("store secret %s: %w", v.SecretAt, err)
	}
	return nil
}

// RemoveSecret removes a secret; one that is not there is ErrNotFound.
func (s *Store) RemoveSecret(ctx context.Context, at SecretAt) error {
	err := s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, `DELETE FROM secret WHERE name = ? AND scope = ? AND target = ?`, at.Name, string(at.Scope), at.Target)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return ErrNotFound
	})
	if err != nil {
		return fmt.Errorf("remove secret %s: %w", at, err)
	}
	return nil
}

// SecretBox is what decides which secrets a box gets.
type SecretBox struct {
	ID     identity.ID
	Site   string
	Labels map[string]string
	State  State
	PEM    string // of the certificate that names its sealing key; empty: none is known
	Holds  bool   // its desired state has secrets
}

const secretBoxes = `SELECT b.id, b.site, coalesce(s.labels, '{}'), coalesce(s.state, 'active'),
	coalesce((SELECT c.pem FROM device_cert c WHERE c.box = b.id AND c.state IN ('current', 'pending') ORDER BY c.state, c.changed_ms DESC LIMIT 1), ''),
	b.desired LIKE '%"secrets":[%' FROM box b LEFT JOIN standing s ON s.box = b.id`

func scanSecretBox(rows *sql.Rows, b *SecretBox) error {
	var labels string
	if err := rows.Scan(&b.ID, &b.Site, &labels, &b.State, &b.PEM, &b.Holds); err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(labels), &b.Labels); err != nil {
		return fmt.Errorf("labels of %s: %w", b.ID, err)
	}
	return nil
}

// SecretBoxes lists all boxes, or those of one site or of one id.
func (s *Store) SecretBoxes(ctx context.Context, scope SecretScope, target string) (out []SecretBox, err error) {
	where, args := "", []any{target}
	switch scope {
	case SecretOfBox:
		where = ` WHERE b.id = ?`
	case SecretOfSite:
		where = ` WHERE b.site = ?`
	default:
		args = nil
	}
	err = s.each(ctx, secretBoxes+where, args, func(rows *sql.Rows) error {
		var b SecretBox
		err := scanSecretBox(rows, &b)
		out = append(out, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list boxes for secrets: %w", err)
	}
	return out, nil
}
