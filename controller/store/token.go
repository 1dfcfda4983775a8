package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// TokenKind says what a token may be used for.
type TokenKind string

// The kinds of token.
const (
	TokenLogin    TokenKind = "login"    // one use, becomes a session
	TokenPassword TokenKind = "password" // one use, sets a password and becomes a session
	TokenSession  TokenKind = "session"  // a browser's cookie
	TokenAPI      TokenKind = "api"      // a program's
)

// Token tells who holds a secret and what it is good for.
type Token struct {
	ID      string // names it without its secret
	Kind    TokenKind
	Name    string
	Account string // of the person it stands for; empty for a program
	Role    string
	Sites   []string
	Verbs   []string
	MadeBy  string
	Created time.Time
	Expires time.Time
	Used    time.Time
}

const tokenColumns = `t.id, t.kind, t.name, t.account, coalesce(a.role, t.role), coalesce(a.sites, t.sites), t.verbs, t.made_by, t.created_ms, t.expires_ms, t.used_ms
	FROM token t LEFT JOIN account a ON a.name = t.account AND t.account <> ''`

func scanToken(row interface{ Scan(...any) error }) (t Token, err error) {
	var sites, verbs string
	var created, expires, used int64
	if err := row.Scan(&t.ID, &t.Kind, &t.Name, &t.Account, &t.Role, &sites, &verbs, &t.MadeBy, &created, &expires, &used); err != nil {
		return Token{}, err
	}
	t.Created, t.Expires, t.Used = time.UnixMilli(created), time.UnixMilli(expires), time.UnixMilli(used)
	if err := errors.Join(json.Unmarshal([]byte(sites), &t.Sites), json.Unmarshal([]byte(verbs), &t.Verbs)); err != nil {
		return Token{}, fmt.Errorf("parse token %s: %w", t.ID, err)
	}
	return t, nil
}

func words(list []string) string {
	text, err := json.Marshal(append([]string{}, list...))
	if err != nil {
		panic("store: texts always encode: " + err.Error())
	}
	return string(text)
}

// AddToken stores the hash of secret; the secret itself is never stored. The
// secrets are random and long, so a plain SHA-256 is enough. Expired tokens go.
// An empty ID is made of the hash; an ID that is taken is ErrConflict. One that
// sets a person's password ends those before it.
func (s *Store) AddToken(ctx context.Context, secret string, t Token) error {
	hash := sha256.Sum256([]byte(secret))
	if t.ID == "" {
		t.ID = fmt.Sprintf("%x", hash[:8])
	}
	return s.write(ctx, func(tx *tx) error {
		now := s.now().UnixMilli()
		if _, err := tx.Exec(ctx, `DELETE FROM token WHERE expires_ms <= ?`, now); err != nil {
			return fmt.Errorf("forget expired tokens: %w", err)
		}
		if t.Kind == TokenPassword && t.Account != "" {
			if _, err := tx.Exec(ctx, `DELETE FROM token WHERE kind = 'password' AND account = ?`, t.Account); err != nil {
				return fmt.Errorf("end earlier invitations of %s: %w", t.Account, err)
			}
		}
		var n int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM token WHERE id = ?`, t.ID).Scan(&n); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("token %s: %w", t.ID, ErrConflict))
		}
		_, err := tx.Exec(ctx, `INSERT INTO token (hash, id, kind, name, account, role, sites, verbs, made_by, created_ms, expires_ms, used_ms) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`,
			hash[:], t.ID, string(t.Kind), t.Name, t.Account, t.Role, words(t.Sites), words(t.Verbs), t.MadeBy, now, t.Expires.UnixMilli(), now)
		if err != nil {
			return fmt.Errorf("store token for %s: %w", t.Name, err)
		}
		return nil
	})
}

// Token returns what secret stands for, or ErrNotFound when it is unknown,
// expired, of another kind, or of an account that is gone or disabled. Role and
// sites are the account's of this moment.
func (s *Store) Token(ctx context.Context, secret string, kinds ...TokenKind) (Token, error) {
	hash := sha256.Sum256([]byte(secret))
	var t Token
	err := s.read(ctx, func(tx *tx) (err error) {
		t, err = scanToken(tx.QueryRow(ctx, `SELECT `+tokenColumns+` WHERE t.hash = ? AND (t.account = '' OR a.disabled = ?)`, hash[:], false))
		return err
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Token{}, fmt.Errorf("look up token: %w", err)
	}
	if err != nil || !s.now().Before(t.Expires) || !slices.Contains(kinds, t.Kind) {
		return Token{}, fmt.Errorf("token: %w", ErrNotFound)
	}
	return t, nil
}

// UseToken takes a one-use token out of the database and returns it. Of two
// racing calls one gets ErrNotFound. All invitations of a first admin are one:
// each start of a controller makes another.
func (s *Store) UseToken(ctx context.Context, secret string, kind TokenKind) (Token, error) {
	t, err := s.Token(ctx, secret, kind)
	if err != nil {
		return Token{}, err
	}
	hash := sha256.Sum256([]byte(secret))
	err = s.write(ctx, func(tx *tx) error {
		if err := dropTokens(ctx, tx, `DELETE FROM token WHERE hash = ?`, hash[:]); err != nil || kind != TokenPassword || t.Account != "" {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM token WHERE kind = 'password' AND account = ''`); err != nil {
			return fmt.Errorf("drop the other invitations of a first admin: %w", err)
		}
		return nil
	})
	if err != nil {
		return Token{}, err
	}
	return t, nil
}

// Tokens lists the tokens of a kind that have not expired, newest first.
func (s *Store) Tokens(ctx context.Context, kind TokenKind) ([]Token, error) {
	var out []Token
	err := s.each(ctx, `SELECT `+tokenColumns+` WHERE t.kind = ? AND t.expires_ms > ? ORDER BY t.created_ms DESC, t.id`, []any{string(kind), s.now().UnixMilli()}, func(rows *sql.Rows) error {
		t, err := scanToken(rows)
		out = append(out, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return out, nil
}

// TouchToken notes that a token was used now.
func (s *Store) TouchToken(ctx context.Context, id string) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `UPDATE token SET used_ms = ? WHERE id = ?`, s.now().UnixMilli(), id); err != nil {
			return fmt.Errorf("note the use of a token: %w", err)
		}
		return nil
	})
}

// DropToken forgets a token; an unknown one is ErrNotFound.
func (s *Store) DropToken(ctx context.Context, secret string) error {
	hash := sha256.Sum256([]byte(secret))
	return s.write(ctx, func(t *tx) error { return dropTokens(ctx, t, `DELETE FROM token WHERE hash = ?`, hash[:]) })
}

// RevokeToken forgets the token of a kind with an ID, and the logins that were
// made with it; an unknown one is ErrNotFound.
func (s *Store) RevokeToken(ctx context.Context, kind TokenKind, id string) error {
	return s.write(ctx, func(t *tx) error {
		if err := dropTokens(ctx, t, `DELETE FROM token WHERE kind = ? AND id = ?`, string(kind), id); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `DELETE FROM token WHERE kind IN ('login', 'session') AND account = '' AND made_by = ?`, id); err != nil {
			return fmt.Errorf("drop logins made by a token: %w", err)
		}
		return nil
	})
}

func dropTokens(ctx context.Context, t *tx, query string, args ...any) error {
	res, err := t.Exec(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("drop token: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("token: %w", ErrNotFound))
	}
	return nil
}
