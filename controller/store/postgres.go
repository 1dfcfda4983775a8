package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Limits of a session with PostgreSQL.
const (
	connectTimeout = 10 * time.Second
	// A statement, and a wait for a lock, that take longer are broken off.
	statementTimeout = 60 * time.Second
	lockTimeout      = 30 * time.Second
	// transactionTimeout is for a whole write, however many statements.
	transactionTimeout = 2 * time.Minute
	maxConns           = 10
	// oldestPostgres has pg_current_xact_id.
	oldestPostgres = 13_00_00
	// attempts of one transaction that PostgreSQL breaks off for another.
	attempts = 8
	// migrationLock is the advisory lock of who changes the tables: "edgeherd".
	migrationLock = 0x65646765_68657264
)

// postgres is a database that other controllers may use at the same time.
type postgres struct {
	db    *sql.DB
	cfg   *pgx.ConnConfig
	where string // for messages, without a password
	texts *texts
	now   func() time.Time
}

// connectPostgres makes ready to connect, and does not yet.
func connectPostgres(opts Options) (*postgres, error) {
	cfg, err := postgresConfig(opts)
	if err != nil {
		return nil, err
	}
	e := &postgres{
		db: stdlib.OpenDB(*cfg, stdlib.OptionShouldPing(rested)), cfg: cfg, where: where(cfg),
		texts: &texts{translate: forPostgres}, now: opts.WallClock,
	}
	e.db.SetMaxOpenConns(maxConns)
	e.db.SetMaxIdleConns(maxConns)
	e.db.SetConnMaxIdleTime(5 * time.Minute)
	return e, nil
}

func openPostgres(ctx context.Context, opts Options) (*postgres, error) {
	e, err := connectPostgres(opts)
	if err != nil {
		return nil, err
	}
	if err = e.prepare(ctx); err == nil {
		err = errors.Join(e.settle(ctx), e.tidy(ctx, Retention{}, opts.WallClock()))
	}
	if err != nil {
		return nil, errors.Join(e.explain(err), e.close())
	}
	return e, nil
}

// rested says when a connection is looked at before it is used: PostgreSQL may
// have been restarted.
func rested(_ context.Context, p stdlib.ShouldPingParams) bool {
	return p.IdleDuration > 50*time.Millisecond
}

// postgresConfig reads an address. Its errors never show a password.
func postgresConfig(opts Options) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(opts.Database)
	if err != nil {
		return nil, fmt.Errorf("read the address: %w; it looks like postgres://user@host:5432/edgeherd", err)
	}
	if opts.PasswordFile != "" {
		text, err := os.ReadFile(opts.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read the password: %w", err)
		}
		cfg.Password = strings.TrimRight(string(text), "\r\n")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	for key, value := range map[string]string{
		"application_name": "edgeherd", "timezone": "UTC",
		"statement_timeout": ms(statementTimeout), "lock_timeout": ms(lockTimeout),
		// A controller that lost its power must not keep its locks.
		"idle_in_transaction_session_timeout": ms(lockTimeout / 2),
		"tcp_keepalives_idle":                 "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3",
	} {
		if cfg.RuntimeParams[key] == "" {
			cfg.RuntimeParams[key] = value
		}
	}
	if cfg.ValidateConnect == nil { // of several hosts, the one that takes writes
		cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return cfg, nil
}

func where(cfg *pgx.ConnConfig) string {
	host := cfg.Host
	if !strings.HasPrefix(host, "/") {
		host += ":" + strconv.Itoa(int(cfg.Port))
	}
	return fmt.Sprintf("database %s of user %s on %s", cfg.Database, cfg.User, host)
}

// prepare makes the tables. Of several controllers that start at once, one
// does it while the others wait.
func (e *postgres) prepare(ctx context.Context) error {
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var version int
	if err := conn.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return fmt.Errorf("ask for the version of PostgreSQL: %w", err)
	}
	if version < oldestPostgres {
		return fmt.Errorf("it is PostgreSQL %d, and %d or newer is needed: upgrade it", version/10000, oldestPostgres/10000)
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return fmt.Errorf("wait for another controller to migrate: %w", err)
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(migrationLock))
	return migrate(ctx, e.db, goose.DialectPostgres, "migrations/postgres")
}

func (e *postgres) write(ctx context.Context, f func(*tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	for n := range attempts {
		err := e.try(ctx, f)
		if !again(err) || n == attempts-1 {
			return e.explain(err)
		}
		select {
		case <-time.After(mathrand.N(10 * time.Millisecond << n)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	panic("store: a loop that always returns ended")
}

// again says that PostgreSQL rolled a transaction back since another was in
// its way. After a lost connection nobody knows whether COMMIT was done.
func again(err error) bool {
	var fault *pgconn.PgError
	return errors.As(err, &fault) && (fault.Code == "40001" || fault.Code == "40P01")
}

func (e *postgres) try(ctx context.Context, f func(*tx) error) error {
	return e.within(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}, f)
}

func (e *postgres) within(ctx context.Context, how *sql.TxOptions, f func(*tx) error) error {
	on, err := e.db.BeginTx(ctx, how)
	// All idle connections may be dead, and a BEGIN that failed did nothing.
	for n := 0; err != nil && n <= maxConns && ctx.Err() == nil && !isConnect(err); n++ {
		on, err = e.db.BeginTx(ctx, how)
	}
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer on.Rollback() // nothing after a commit
	if err := f(&tx{on: on, texts: e.texts, plain: true}); err != nil {
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			return ctx.Err() // it ended the transaction under us
		}
		return err
	}
	if err := on.Commit(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (e *postgres) read(ctx context.Context, f func(*tx) error) error {
	return e.explain(f(&tx{on: e.db, texts: e.texts, plain: true}))
}

func (e *postgres) snapshot(ctx context.Context, f func(*tx) error) error {
	return e.explain(e.within(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, f))
}

// shrink: autovacuum makes room for new rows by itself.
func (e *postgres) shrink(context.Context) error { return nil }

func (e *postgres) close() error { return e.db.Close() }

// life names this life of the data: of the cluster, its timeline, its server
// process, this database, and the file of the table meta. A restart, a
// failover, a restored copy of the cluster or of the database change it.
const life = `(SELECT system_identifier FROM pg_control_system()) || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
	|| '/' || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
	|| '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || pg_relation_filenode('meta')`

// standing is the row of meta beside the present life. A row that was copied
// back, as pg_restore does, bears another transaction than it says wrote it.
type standing struct {
	run        []byte
	lsn        int64
	epoch, now string
	own        bool
}

func (s standing) same() bool { return s.own && s.epoch == s.now }

const readStanding = `SELECT run, lsn, epoch, ` + life + `, xid = xmin::text FROM meta`

func (e *postgres) standing(ctx context.Context, t *tx, query string) (s standing, err error) {
	if err = t.QueryRow(ctx, query).Scan(&s.run, &s.lsn, &s.epoch, &s.now, &s.own); err != nil {
		err = fmt.Errorf("read the present run: %w", err)
	}
	return s, err
}

// settle begins a new run when this is another life of the database.
func (e *postgres) settle(ctx context.Context) error {
	var s standing
	err := e.read(ctx, func(t *tx) (err error) { s, err = e.standing(ctx, t, readStanding); return err })
	if err != nil || s.same() {
		return err
	}
	return e.write(ctx, func(t *tx) error {
		s, err := e.standing(ctx, t, readStanding+` FOR UPDATE`)
		if err == nil && !s.same() {
			_, err = e.beginRun(ctx, t, s)
		}
		return err
	})
}

// checkpoint: the server has a process for it.
func (e *postgres) checkpoint(context.Context) error { return nil }

func (e *postgres) settled(ctx context.Context, t *tx) (bool, error) {
	s, err := e.standing(ctx, t, readStanding)
	return s.same(), err
}

// beginRun ends the last run at what the database has of it.
func (e *postgres) beginRun(ctx context.Context, t *tx, s standing) (run wire.RunID, err error) {
	rand.Read(run[:])
	for _, q := range []struct {
		text string
		args []any
	}{
		{`UPDATE run SET end_lsn = ? WHERE end_lsn IS NULL`, []any{s.lsn}},
		{`INSERT INTO run (id, started_ms, start_lsn) VALUES (?,?,?)`, []any{run[:], e.now().UnixMilli(), s.lsn}},
		{`UPDATE meta SET run = ?, epoch = ?, xid = pg_current_xact_id()::xid::text`, []any{run[:], s.now}},
		{beginRestored, []any{e.now().UnixMilli()}},
	} {
		if _, err := t.Exec(ctx, q.text, q.args...); err != nil {
			return run, fmt.Errorf("begin a run: %w", err)
		}
	}
	return run, nil
}

func (e *postgres) stamp(ctx context.Context, t *tx) (run wire.RunID, lsn uint64, err error) {
	s, err := e.standing(ctx, t, readStanding+` FOR UPDATE`)
	if err != nil {
		return run, 0, err
	}
	if s.same() {
		run, err = runOf(s.run)
	} else {
		run, err = e.beginRun(ctx, t, s)
	}
	if err != nil {
		return run, 0, err
	}
	_, err = t.Exec(ctx, `UPDATE meta SET lsn = ?, xid = pg_current_xact_id()::xid::text`, s.lsn+1)
	if err != nil {
		return run, 0, fmt.Errorf("take the next LSN: %w", err)
	}
	return run, uint64(s.lsn + 1), nil
}
