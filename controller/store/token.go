package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// TokenKind says what a token may be used for.
type TokenKind string

// The kinds of token.
const (
	TokenLogin   TokenKind = "login"   // one use, becomes a session
	TokenSession TokenKind = "session" // a browser's cookie
	TokenAPI     TokenKind = "api"     // an operator's command line
)

// Token tells who holds a secret and what it is good for.
type Token struct {
	Name    string
	Role    string // viewer, tech, ops, admin
	Kind    TokenKind
	Expires time.Time
}

// AddToken stores the hash of secret; the secret itself is never stored. The
// secrets are random and long, so a plain SHA-256 is enough. Expired tokens go.
func (s *Store) AddToken(ctx context.Context, secret string, t Token) error {
	hash := sha256.Sum256([]byte(secret))
	return s.write(ctx, func(tx *tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM token WHERE expires_ms <= ?`, s.now().UnixMilli()); err != nil {
			return fmt.Errorf("forget expired tokens: %w", err)
		}
		_, err := tx.Exec(ctx, `INSERT INTO token (hash, name, role, kind, created_ms, expires_ms) VALUES (?,?,?,?,?,?)`,
			hash[:], t.Name, t.Role, string(t.Kind), s.now().UnixMilli(), t.Expires.UnixMilli())
		if err != nil {
			return fmt.Errorf("store token for %s: %w", t.Name, err)
		}
		return nil
	})
}

// Token returns what secret stands for, or ErrNotFound when it is unknown,
// expired or of another kind.
func (s *Store) Token(ctx context.Context, secret string, kinds ...TokenKind) (Token, error) {
	hash := sha256.Sum256([]byte(secret))
	var t Token
	var expires int64
	err := s.one(ctx, `SELECT name, role, kind, expires_ms FROM token WHERE hash = ?`, []any{hash[:]}, &t.Name, &t.Role, &t.Kind, &expires)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Token{}, fmt.Errorf("look up token: %w", err)
	}
	t.Expires = time.UnixMilli(expires)
	if err == nil && s.now().Before(t.Expires) {
		for _, k := range kinds {
			if t.Kind == k {
				return t, nil
			}
		}
	}
	return Token{}, fmt.Errorf("token: %w", ErrNotFound)
}

// UseToken takes a one-use token out of the database and returns it. Of two
// racing calls one gets ErrNotFound.
func (s *Store) UseToken(ctx context.Context, secret string) (Token, error) {
	t, err := s.Token(ctx, secret, TokenLogin)
	if err != nil {
		return Token{}, err
	}
	if err := s.DropToken(ctx, secret); err != nil {
		return Token{}, err
	}
	return t, nil
}

// DropToken forgets a token; an unknown one is ErrNotFound.
func (s *Store) DropToken(ctx context.Context, secret string) error {
	hash := sha256.Sum256([]byte(secret))
	return s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, `DELETE FROM token WHERE hash = ?`, hash[:])
		if err != nil {
			return fmt.Errorf("drop token: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("token: %w", ErrNotFound))
		}
		return nil
	})
}
