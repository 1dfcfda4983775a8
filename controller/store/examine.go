package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn" // works, but look at it some day
	Fail Level = "fail" // someone must act
)

// Finding is what one check of the doctor found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	Way   string `json:"way_out,omitempty"`
}

// check makes findings: a nil error is ok with that text.
func finding(check, found string, err error, way string) Finding {
	if err != nil {
		return Finding{Check: check, Level: Fail, Found: err.Error(), Way: way}
	}
	return Finding{Check: check, Level: OK, Found: found}
}

// bigWAL is where a write-ahead log says that something keeps it from being
// folded into the database: forWriter has it done at 64 MB.
const bigWAL = 256 << 20

// Examine looks at a database beside the controllers that use it, and changes
// nothing.
func Examine(ctx context.Context, opts Options) []Finding {
	if opts.Database != "" {
		return examinePostgres(ctx, opts)
	}
	const restore = "restore the last backup: edgeherd server restore FILE --state DIR --force"
	if _, err := os.Stat(opts.Path); errors.Is(err, fs.ErrNotExist) {
		return []Finding{{"database", Fail, "there is none at " + opts.Path, "name the state directory with --state, or start the controller once"}}
	}
	db, t, err := beside(opts.Path, "query_only(1)")
	if err != nil {
		return []Finding{finding("database", "", err, restore)}
	}
	defer db.Close()
	err = sound(ctx, t, "integrity_check")
	out := []Finding{finding("database", "SQLite file "+opts.Path+" is sound", err, restore)}
	if err != nil {
		return out
	}
	out = append(out, examineWAL(opts.Path+"-wal"))
	return append(out, examineTables(ctx, t, opts)...)
}

func examineWAL(path string) Finding {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Finding{Check: "write-ahead log", Level: OK, Found: "none: no controller runs"}
	}
	if err != nil {
		return finding("write-ahead log", "", err, "")
	}
	f := Finding{Check: "write-ahead log", Level: OK, Found: megabytes(info.Size())}
	if info.Size() > bigWAL {
		f.Level, f.Way = Warn, "some program reads the database without end; close it, or restart the controller"
	}
	return f
}

func megabytes(n int64) string { return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB" }

// examineTables is what both engines are asked.
func examineTables(ctx context.Context, t *tx, opts Options) []Finding {
	var out []Finding
	known, err := newestVersion(opts.Database != "")
	var have int64
	if err == nil {
		err = t.QueryRow(ctx, `SELECT max(version_id) FROM goose_db_version`).Scan(&have)
	}
	f := finding("tables", fmt.Sprintf("version %d", have), err, "start the controller once: it makes the tables")
	switch {
	case err != nil:
		return append(out, f)
	case have < known:
		f = Finding{f.Check, Warn, fmt.Sprintf("version %d, this program makes %d", have, known), "restart the controller with this program: it migrates"}
	case have > known:
		f = Finding{f.Check, Fail, fmt.Sprintf("version %d, this program knows %d", have, known), "use the newer edgeherd that wrote it"}
	}
	out = append(out, f)
	if have != known {
		return out
	}
	return append(out, examineLineage(ctx, t), examineRestore(ctx, t), examineStrangers(ctx, t), examineTrust(ctx, t, opts.clock()), examineRetention(ctx, t, opts))
}

func newestVersion(postgres bool) (known int64, err error) {
	dir := "migrations/sqlite"
	if postgres {
		dir = "migrations/postgres"
	}
	files, err := fs.ReadDir(migrations, dir)
	if err == nil {
		known, err = strconv.ParseInt(files[len(files)-1].Name()[:5], 10, 64)
	}
	return known, err
}

// examineLineage: one run is open, it is the one that meta names, and runs
// follow one another without overlap.
func examineLineage(ctx context.Context, t *tx) Finding {
	var runs, current, wrong, lsn int64
	err := t.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN end_lsn IS NULL AND id = (SELECT run FROM meta) THEN 1 ELSE 0 END), 0),
		coalesce(sum(CASE WHEN end_lsn < start_lsn OR start_lsn > (SELECT lsn FROM meta) OR end_lsn IS NULL AND id <> (SELECT run FROM meta) THEN 1 ELSE 0 END), 0),
		(SELECT lsn FROM meta) FROM run`).Scan(&runs, &current, &wrong, &lsn)
	if err == nil && (current != 1 || wrong > 0) {
		err = fmt.Errorf("%d of %d runs do not fit to commit %d", max(wrong, 1), runs, lsn)
	}
	return finding("lineage", fmt.Sprintf("%d runs, last commit %d", runs, lsn), err,
		"the tables were edited by hand or mixed from two backups: restore one backup whole; boxes send again what it lacks")
}

// examineStrangers counts rows of boxes that are not in the table of boxes.
func examineStrangers(ctx context.Context, t *tx) Finding {
	total := int64(0)
	for _, table := range []string{"newest", "boot", "phase", "serving", "session"} {
		var n int64
		if err := t.QueryRow(ctx, `SELECT count(*) FROM `+table+` WHERE box NOT IN (SELECT id FROM box)`).Scan(&n); err != nil {
			return finding("foreign rows", "", err, "restore the last backup")
		}
		total += n
	}
	if total > 0 {
		return Finding{"foreign rows", Warn, fmt.Sprintf("%d rows are of boxes that this controller does not know", total),
			"boxes were removed by hand; enrol them again, or leave the rows"}
	}
	return Finding{Check: "foreign rows", Level: OK, Found: "none"}
}

func examinePostgres(ctx context.Context, opts Options) []Finding {
	e, err := connectPostgres(opts)
	if err != nil {
		return []Finding{finding("database", "", err, "correct database in server.yaml")}
	}
	defer e.close()
	t := &tx{on: e.db, texts: e.texts, plain: true}
	var version, sync, fsync string
	var now time.Time
	var secure bool
	var size int64
	err = t.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync'), clock_timestamp(),
		coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) OR inet_server_addr() IS NULL OR inet_client_addr() = inet_server_addr(),
		pg_database_size(current_database())`).Scan(&version, &sync, &fsync, &now, &secure, &size)
	out := []Finding{finding("database", fmt.Sprintf("PostgreSQL %s, %s, %s", version, e.where, megabytes(size)), e.explain(err), "see above")}
	if err != nil {
		return out
	}
	durable := Finding{Check: "durability", Level: OK, Found: "fsync and synchronous_commit are on"}
	if fsync != "on" {
		durable = Finding{"durability", Fail, "fsync is off: a power cut destroys the database", "fsync = on in postgresql.conf"}
	} else if sync == "off" {
		durable = Finding{"durability", Warn, "synchronous_commit is off: a crash loses the last commits; boxes send them again while they have them", "synchronous_commit = on in postgresql.conf"}
	}
	link := Finding{Check: "connection", Level: OK, Found: "encrypted or local"}
	if !secure {
		link = Finding{"connection", Warn, "neither encrypted nor local: the network sees all", "add sslmode=verify-full to the address"}
	}
	clock := Finding{Check: "clock of PostgreSQL", Level: OK, Found: "within 2 s of ours"}
	if off := time.Since(now).Abs(); off > 2*time.Second {
		clock = Finding{"clock of PostgreSQL", Warn, fmt.Sprintf("%s from ours", off.Round(time.Second)), "synchronise the clocks of both machines"}
	}
	return append(append(out, durable, link, clock), examineTables(ctx, t, opts)...)
}

// oldest reads the time of the oldest row as Retain would find it, by indexes
// and not by reading a table of years; 0 when the table is empty. Rows of boxes
// that nobody knows are told by examineStrangers.
func oldest(ctx context.Context, t *tx, a aged) (ms int64, err error) {
	query := `SELECT ` + a.column + ` FROM ` + a.table + ` ORDER BY ` + a.key + ` LIMIT 1`
	switch {
	case a.table == "sample": // what came lately, with other indexes
		query = `SELECT min(t0_ms) FROM sample`
	case a.byBox:
		query = `SELECT min((SELECT ` + a.column + ` FROM ` + a.table + ` WHERE box = b.id ORDER BY ` + a.column + ` LIMIT 1)) FROM box b`
	}
	var least sql.NullInt64
	err = t.QueryRow(ctx, query).Scan(&least)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return least.Int64, err
}
