package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// A database that came back from a backup knows less than the boxes. It must
// not command a box before it heard what that follows, and not wind back one
// that follows what it has never signed: a person chooses.

// Why a box is told nothing.
var (
	ErrAwaits = errors.New("the controller came back from a backup and has not heard of it since; it is told when it connects")
	ErrAhead  = errors.New("it follows what this controller has never signed; choose with edgeherd rollout adopt or reimpose")
)

// maxGeneration is what a box may claim to follow: far beyond what is ever
// signed, and far from where the counter ends.
const maxGeneration = 1 << 53

// ahead says whether a box that follows one generation is ahead of another.
func ahead(follows, signed uint64) bool { return follows > signed && follows <= maxGeneration }

// beginRestored begins the life of a database after it came back.
const beginRestored = `UPDATE meta SET restores = restores + 1, restored = 2, restored_ms = ? WHERE restored = 1`

// Restore says how a database came back from a backup.
type Restore struct {
	Times  int       // ever
	At     time.Time // the last time; zero: never
	Unread bool      // the last one: rollouts that ran are not paused yet
}

// Restored tells whether the database came back from a backup.
func (s *Store) Restored(ctx context.Context) (r Restore, err error) {
	var state, ms int64
	if err := s.one(ctx, `SELECT restores, restored, restored_ms FROM meta`, nil, &r.Times, &state, &ms); err != nil {
		return r, fmt.Errorf("ask whether the database came back from a backup: %w", err)
	}
	if ms > 0 {
		r.At = time.UnixMilli(ms).UTC()
	}
	r.Unread = state == 2
	return r, nil
}

// RestoreRead says that rollouts which ran when the backup was made are paused.
func (s *Store) RestoreRead(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `UPDATE meta SET restored = 3 WHERE restored = 2`)
		return err
	})
}

// MarkRestored says of a database that was put back by other means than Fill,
// and that nobody has open, that it came back from a backup.
func MarkRestored(ctx context.Context, opts Options) (err error) {
	if opts.Database != "" {
		e, err := connectPostgres(opts)
		if err != nil {
			return fmt.Errorf("mark the database: %w", err)
		}
		_, err = (&tx{on: e.db, texts: e.texts, plain: true}).Exec(ctx, markCopy)
		return errors.Join(e.explain(err), e.close())
	}
	db, t, err := beside(opts.Path)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, markCopy)
	return errors.Join(err, db.Close())
}

// examineRestore counts the boxes that are told nothing since the database came
// back from a backup, or is another one than they obey.
func examineRestore(ctx context.Context, t *tx) Finding {
	var state, ms int64
	if err := t.QueryRow(ctx, `SELECT restored, restored_ms FROM meta`).Scan(&state, &ms); err != nil {
		return finding("restore", "", err, "restore the last backup")
	}
	awaits, conflicts := 0, 0
	err := t.each(ctx, `SELECT restores < (SELECT restores FROM meta), running, desired_generation FROM box`, nil, func(rows *sql.Rows) error {
		var late bool
		var text string
		var signed int64
		if err := rows.Scan(&late, &text, &signed); err != nil {
			return err
		}
		var running wire.Running
		switch err := json.Unmarshal([]byte(text), &running); {
		case err != nil:
			return fmt.Errorf("parse running state: %w", err)
		case late:
			awaits++
		case ahead(running.Generation, uint64(signed)):
			conflicts++
		}
		return nil
	})
	found := "never"
	switch {
	case state == 1:
		found = "not opened since it came back from a backup"
	case ms > 0:
		found = "came back from a backup at " + time.UnixMilli(ms).UTC().Format(time.RFC3339)
	}
	f := finding("restore", found, err, "restore the last backup")
	if conflicts > 0 {
		f.Level, f.Way = Warn, "keep what they run, or tell them again: edgeherd rollout conflicts"
		f.Found += fmt.Sprintf("; %d boxes follow what was never signed here and are told nothing", conflicts)
	}
	if awaits > 0 {
		f.Found += fmt.Sprintf("; %d boxes were not heard since and are told nothing", awaits)
	}
	return f
}
