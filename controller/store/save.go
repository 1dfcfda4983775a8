package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Saved tells what a copy of a database holds.
type Saved struct {
	Run wire.RunID
	LSN uint64 // at least
}

// dropLogins ends sessions and one-use addresses where a database comes back:
// some of them were used up or ended after it was saved. What programs hold
// stays, else nothing that runs by itself would come back.
const dropLogins = `DELETE FROM token WHERE kind <> 'api'`

// markCopy says that whoever opens this database next does not know what
// happened after it was saved.
const markCopy = `UPDATE meta SET restored = 1`

// Save writes a consistent copy of a database to a new file, while controllers
// go on: a SQLite file, or an archive of pg_dump. The caller syncs it.
func Save(ctx context.Context, opts Options, file string) (Saved, error) {
	if opts.Database == "" {
		return saveSQLite(ctx, opts.Path, file)
	}
	e, err := connectPostgres(opts)
	if err != nil {
		return Saved{}, fmt.Errorf("save the database: %w", err)
	}
	defer e.close()
	saved, err := standingOf(ctx, &tx{on: e.db, texts: e.texts})
	if err != nil {
		return Saved{}, fmt.Errorf("save the database: %w", e.explain(err))
	}
	return saved, postgresTool(ctx, opts, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--file="+file)
}

func standingOf(ctx context.Context, t *tx) (s Saved, err error) {
	var raw []byte
	if err := t.QueryRow(ctx, `SELECT run, lsn FROM meta`).Scan(&raw, &s.LSN); err != nil {
		return s, err
	}
	s.Run, err = runOf(raw)
	return s, err
}

// beside opens a SQLite database that a controller may be using, without
// beginning a run of its own.
func beside(path string, pragmas ...string) (*sql.DB, *tx, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, nil, fmt.Errorf("no database: %w", err)
	}
	db, err := sql.Open("sqlite", sqliteDSN(path, pragmas...))
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(1)
	return db, &tx{on: db, texts: &texts{translate: forSQLite}}, nil
}

func saveSQLite(ctx context.Context, path, file string) (s Saved, err error) {
	db, t, err := beside(path)
	if err != nil {
		return s, err
	}
	_, err = t.Exec(ctx, `VACUUM INTO ?`, file)
	if err = errors.Join(err, db.Close()); err != nil {
		return s, fmt.Errorf("copy the database %s: %w", path, err)
	}
	copied, t, err := beside(file)
	if err != nil {
		return s, err
	}
	defer copied.Close()
	if err := sound(ctx, t, "quick_check"); err != nil {
		return s, fmt.Errorf("check the copy of %s: %w", path, err)
	}
	for _, text := range []string{dropLogins, markCopy} {
		if _, err := t.Exec(ctx, text); err != nil {
			return s, fmt.Errorf("make the copy of %s one to restore: %w", path, err)
		}
	}
	return standingOf(ctx, t)
}

// sound asks SQLite whether its file is.
func sound(ctx context.Context, t *tx, pragma string) error {
	var faults []error
	err := t.each(ctx, `PRAGMA `+pragma+`(10)`, nil, func(rows *sql.Rows) error {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		if text != "ok" {
			faults = append(faults, errors.New(text))
		}
		return nil
	})
	return errors.Join(append(faults, err)...)
}

// Fill loads what Save wrote into a PostgreSQL database. What is there already
// is replaced only with force; without, it is ErrConflict. Sessions and one-use
// addresses do not come back.
func Fill(ctx context.Context, opts Options, file string, force bool) error {
	e, err := connectPostgres(opts)
	if err != nil {
		return fmt.Errorf("fill the database: %w", err)
	}
	var there bool
	err = e.db.QueryRowContext(ctx, `SELECT to_regclass('meta') IS NOT NULL`).Scan(&there)
	if err = errors.Join(e.explain(err), e.close()); err != nil {
		return fmt.Errorf("fill the database: %w", err)
	}
	if there && !force {
		return fmt.Errorf("the %s has tables of edgeherd already: %w", e.where, ErrConflict)
	}
	script := file + ".sql"
	if err := postgresTool(ctx, opts, "pg_restore", "--no-owner", "--no-privileges", "--file="+script, file); err != nil {
		return err
	}
	err = postgresTool(ctx, opts, "psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--command="+dropAll, "--file="+script,
		"--command=RESET search_path; "+dropLogins+"; "+markCopy) // the script has set it to nothing
	return errors.Join(err, os.Remove(script))
}

// dropAll removes what this user has in the database, in the transaction that
// fills it anew: pg_restore --clean cannot drop the keys of partitions, and
// knows nothing of tables that came after the backup.
const dropAll = `DO $$ DECLARE t text; BEGIN
	FOR t IN SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
		AND c.relnamespace = current_schema()::regnamespace AND pg_get_userbyid(c.relowner) = current_user
	LOOP EXECUTE 'DROP TABLE ' || t || ' CASCADE'; END LOOP; END $$`

// ofPgx are parameters of an address that only our driver knows, and what must
// not show in a list of processes.
var ofPgx = []string{"password", "default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity"}

// postgresTool runs a program of PostgreSQL on the database. A password goes
// through its environment, where other users cannot see it.
func postgresTool(ctx context.Context, opts Options, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%s is needed and not installed: apt-get install postgresql-client (not older than the server)", name)
	}
	cfg, err := postgresConfig(opts)
	if err != nil {
		return err
	}
	u, err := url.Parse(opts.Database)
	if err != nil || u.Scheme == "" {
		return fmt.Errorf("%s needs an address of the form postgres://user@host/name", name)
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for _, key := range ofPgx {
		q.Del(key)
	}
	u.RawQuery = q.Encode()
	if name != "pg_restore" { // which writes a script and asks no database
		args = append([]string{"--no-password", "--dbname=" + u.String()}, args...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = os.Environ()
	if cfg.Password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+cfg.Password)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return nil
}
