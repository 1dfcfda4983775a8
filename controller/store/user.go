package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Account is a person.
type Account struct {
	Name  string
	Role  string
	Sites []string
	// Password is an argon2id text; empty: the person has none.
	Password string
	// Issuer and Subject say who the person is for an OIDC provider.
	Issuer, Subject string
	Disabled        bool
	Created         time.Time
	Login           time.Time // the last one; zero: never
}

// usable says that the person can sign in.
func (a Account) usable() bool { return !a.Disabled && (a.Password != "" || a.Subject != "") }

const accountColumns = `name, role, sites, password, issuer, subject, disabled, created_ms, login_ms FROM account`

func scanAccount(row interface{ Scan(...any) error }) (a Account, err error) {
	var sites string
	var created, login int64
	if err := row.Scan(&a.Name, &a.Role, &sites, &a.Password, &a.Issuer, &a.Subject, &a.Disabled, &created, &login); err != nil {
		return Account{}, err
	}
	a.Created = time.UnixMilli(created)
	if login > 0 {
		a.Login = time.UnixMilli(login)
	}
	if err := json.Unmarshal([]byte(sites), &a.Sites); err != nil {
		return Account{}, fmt.Errorf("parse sites of %s: %w", a.Name, err)
	}
	return a, nil
}

// AddAccount stores a new person; a name or subject that is taken is
// ErrConflict.
func (s *Store) AddAccount(ctx context.Context, a Account) error {
	return s.write(ctx, func(t *tx) error {
		var n int
		if err := t.QueryRow(ctx, `SELECT count(*) FROM account WHERE name = ? OR subject <> '' AND issuer = ? AND subject = ?`, a.Name, a.Issuer, a.Subject).Scan(&n); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("user %s exists already: %w", a.Name, ErrConflict))
		}
		_, err := t.Exec(ctx, `INSERT INTO account (name, role, sites, password, issuer, subject, disabled, created_ms, login_ms) VALUES (?,?,?,?,?,?,?,?,0)`,
			a.Name, a.Role, words(a.Sites), a.Password, a.Issuer, a.Subject, a.Disabled, s.now().UnixMilli())
		if err != nil {
			return fmt.Errorf("store user %s: %w", a.Name, err)
		}
		return nil
	})
}

// Accounts lists all people by name.
func (s *Store) Accounts(ctx context.Context) ([]Account, error) {
	var out []Account
	err := s.each(ctx, `SELECT `+accountColumns+` ORDER BY name`, nil, func(rows *sql.Rows) error {
		a, err := scanAccount(rows)
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return out, nil
}

// Account returns a person, or ErrNotFound.
func (s *Store) Account(ctx context.Context, name string) (Account, error) {
	return s.account(ctx, "user "+name, ` WHERE name = ?`, name)
}

// AccountOf returns the person whom an OIDC provider knows by a subject, or
// ErrNotFound.
func (s *Store) AccountOf(ctx context.Context, issuer, subject string) (Account, error) {
	return s.account(ctx, "user", ` WHERE subject <> '' AND issuer = ? AND subject = ?`, issuer, subject)
}

func (s *Store) account(ctx context.Context, what, where string, args ...any) (a Account, err error) {
	err = s.read(ctx, func(t *tx) (err error) {
		a, err = scanAccount(t.QueryRow(ctx, `SELECT `+accountColumns+where, args...))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return Account{}, fmt.Errorf("%s: %w", what, err)
	}
	return a, nil
}

// ErrLastAdmin says that nobody could manage users any more.
var ErrLastAdmin = errors.New("nobody else can sign in as admin")

// ChangeAccount changes a person by f, in one transaction; an unknown one is
// ErrNotFound. The last admin who can sign in stays one, else ErrLastAdmin. With
// out, the sessions and one-use tokens of the person end. f may run more than
// once.
func (s *Store) ChangeAccount(ctx context.Context, name string, out bool, f func(*Account) error) error {
	return s.write(ctx, func(t *tx) error {
		a, err := scanAccount(t.QueryRow(ctx, `SELECT `+accountColumns+` WHERE name = ? FOR UPDATE`, name))
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("user %s: %w", name, err)
		}
		wasAdmin := a.Role == "admin" && a.usable()
		if err := f(&a); err != nil {
			return err
		}
		if wasAdmin && (a.Role != "admin" || !a.usable()) {
			// Of two admins who end each other, one waits here and sees it.
			var other string
			err := t.QueryRow(ctx, `SELECT name FROM account WHERE role = 'admin' AND name <> ? AND disabled = ? AND (password <> '' OR subject <> '') ORDER BY name LIMIT 1 FOR UPDATE`, name, false).Scan(&other)
			if errors.Is(err, sql.ErrNoRows) {
				return ErrLastAdmin
			}
			if err != nil {
				return fmt.Errorf("look for other admins: %w", err)
			}
		}
		login := int64(0)
		if !a.Login.IsZero() {
			login = a.Login.UnixMilli()
		}
		_, err = t.Exec(ctx, `UPDATE account SET role = ?, sites = ?, password = ?, disabled = ?, login_ms = ? WHERE name = ?`, a.Role, words(a.Sites), a.Password, a.Disabled, login, name)
		if err == nil && out {
			_, err = t.Exec(ctx, `DELETE FROM token WHERE account = ? AND kind <> 'api'`, name)
		}
		if err != nil {
			return fmt.Errorf("change user %s: %w", name, err)
		}
		return nil
	})
}

// maxFailures bounds the names whose failures are remembered.
const maxFailures = 10_000

// FailLogin notes a failed login under a name, whether somebody has it or not.
// After most of them within a time the name is locked for that time; it returns
// until when, zero for not.
func (s *Store) FailLogin(ctx context.Context, name string, most int, span time.Duration) (until time.Time, err error) {
	err = s.write(ctx, func(t *tx) error {
		now := s.now()
		_, err := t.Exec(ctx, `DELETE FROM login_failure WHERE last_ms < ? AND until_ms <= ?`, now.Add(-span).UnixMilli(), now.UnixMilli())
		if err != nil {
			return fmt.Errorf("forget old failures: %w", err)
		}
		if err := roomForFailure(ctx, t, name); err != nil {
			return err
		}
		var n int
		err = t.QueryRow(ctx, `INSERT INTO login_failure (name, failures, last_ms, until_ms) VALUES (?,1,?,0)
			ON CONFLICT (name) DO UPDATE SET failures = login_failure.failures + 1, last_ms = excluded.last_ms RETURNING failures`, name, now.UnixMilli()).Scan(&n)
		if err != nil {
			return fmt.Errorf("note a failed login: %w", err)
		}
		if n < most {
			return nil
		}
		until = now.Add(span)
		if _, err := t.Exec(ctx, `UPDATE login_failure SET failures = 0, until_ms = ? WHERE name = ?`, until.UnixMilli(), name); err != nil {
			return fmt.Errorf("lock a name: %w", err)
		}
		return nil
	})
	return until, err
}

// roomForFailure forgets the oldest failure of another name that nobody has,
// when somebody tries thousands: names of people are counted in any case.
func roomForFailure(ctx context.Context, t *tx, name string) error {
	var have int
	if err := t.QueryRow(ctx, `SELECT count(*) FROM login_failure`).Scan(&have); err != nil {
		return fmt.Errorf("count failures: %w", err)
	}
	if have < maxFailures {
		return nil
	}
	if _, err := t.Exec(ctx, `DELETE FROM login_failure WHERE name = (SELECT f.name FROM login_failure f WHERE f.name <> ? AND NOT EXISTS (SELECT 1 FROM account a WHERE a.name = f.name) ORDER BY f.last_ms LIMIT 1)`, name); err != nil {
		return fmt.Errorf("forget the oldest failure: %w", err)
	}
	return nil
}

// LoginLocked returns until when a name is locked, zero for not.
func (s *Store) LoginLocked(ctx context.Context, name string) (time.Time, error) {
	var until int64
	err := s.one(ctx, `SELECT until_ms FROM login_failure WHERE name = ? AND until_ms > ?`, []any{name, s.now().UnixMilli()}, &until)
	if errors.Is(err, ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("ask whether a name is locked: %w", err)
	}
	return time.UnixMilli(until), nil
}

// ForgetFailures unlocks a name.
func (s *Store) ForgetFailures(ctx context.Context, name string) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `DELETE FROM login_failure WHERE name = ?`, name); err != nil {
			return fmt.Errorf("forget failed logins: %w", err)
		}
		return nil
	})
}
