package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// One row a box has all that changes with every message of it: when it was
// heard, what waits there, which schemas it uses, and its newest values.

var (
	readNewest = many{
		head: `WITH want (box) AS (VALUES `, row: `(CAST(? AS TEXT))`, width: 1,
		tail: `) SELECT n.box, n.schemas, n.latest FROM want CROSS JOIN newest n WHERE n.box = want.box`,
	}
	writeNewest = many{
		head: `INSERT INTO newest (box, seen_ms, buffer, schemas, latest) VALUES `, row: `(?,?,?,?,?)`, width: 5,
		tail: ` ON CONFLICT (box) DO UPDATE SET seen_ms = excluded.seen_ms, buffer = coalesce(excluded.buffer, newest.buffer),
			schemas = excluded.schemas, latest = excluded.latest`,
	}
	insertSchemas = many{head: `INSERT INTO schema (id, body) VALUES `, row: `(?,?)`, width: 2, tail: ` ON CONFLICT DO NOTHING`}
)

// newestRow is the row of a box.
type newestRow struct {
	schemas schemaIDs
	latest  []byte
	newest  Newest // latest, if there is something to add
}

// saveBoxes writes the rows of all boxes that were heard.
func (c *commit) saveBoxes(ctx context.Context) error {
	args := make([]any, len(c.order))
	rows := make(map[identity.ID]*newestRow, len(c.order))
	for i, b := range c.order {
		args[i], rows[b.id] = string(b.id), &newestRow{}
	}
	err := c.tx.eachMany(ctx, readNewest, args, func(r *sql.Rows) error {
		var id string
		var row newestRow
		if err := r.Scan(&id, &row.schemas, &row.latest); err != nil {
			return err
		}
		*rows[identity.ID(id)] = row
		return nil
	})
	if err != nil {
		return fmt.Errorf("read newest values: %w", err)
	}
	// The schemas are looked up first: the work below has no transaction.
	added, err := c.schemasOf(ctx, rows)
	if err != nil {
		return err
	}
	if _, err := c.tx.execMany(ctx, insertSchemas, added); err != nil {
		return fmt.Errorf("store schemas: %w", err)
	}
	parallel(len(c.order), func(i int) { c.order[i].apply(rows[c.order[i].id]) })
	args = make([]any, 0, 5*len(c.order))
	for _, b := range c.order {
		var buffer any // NULL keeps what is stored
		if b.behind != nil {
			text, err := json.Marshal(b.behind)
			if err != nil {
				return err
			}
			buffer = string(text)
		}
		r := rows[b.id]
		args = append(args, string(b.id), c.nowMs, buffer, append([]byte{}, r.schemas...), r.latest)
	}
	if _, err := c.tx.execMany(ctx, writeNewest, args); err != nil {
		return fmt.Errorf("store newest values: %w", err)
	}
	return nil
}

// schemasOf notes the schemas that a box uses for the first time, returns them
// as arguments of insertSchemas, and reads the newest values, which needs the
// schemas that they came in.
func (c *commit) schemasOf(ctx context.Context, rows map[identity.ID]*newestRow) (added []any, err error) {
	known := map[wire.SchemaID]*wire.Schema{}
	for _, b := range c.order {
		row := rows[b.id]
		for _, d := range b.fresh {
			id := d.schemaID()
			known[id] = d.Schema
			if row.schemas.has(id) {
				continue
			}
			row.schemas = row.schemas.with(id)
			body, err := wire.Encode(*d.Schema)
			if err != nil {
				return nil, err
			}
			added = append(added, id[:], body)
		}
	}
	find := func(id wire.SchemaID) (*wire.Schema, error) {
		if sc := known[id]; sc != nil {
			return sc, nil
		}
		sc, err := c.s.schemaIn(ctx, c.tx, id)
		known[id] = sc
		return sc, err
	}
	for _, b := range c.order {
		if len(b.fresh) == 0 {
			continue
		}
		if rows[b.id].newest, err = decodeNewest(rows[b.id].latest, find); err != nil {
			return nil, fmt.Errorf("newest values of %s: %w", b.id, err)
		}
	}
	return added, nil
}

// apply brings the row of a box up to date.
func (b *boxCommit) apply(row *newestRow) {
	if len(b.fresh) > 0 {
		for _, d := range b.fresh {
			d.updateNewest(&row.newest)
		}
		row.latest = row.newest.encode()
	}
}

// parallel calls f for 0 to n-1 on all processors.
func parallel(n int, f func(int)) {
	workers := min(runtime.GOMAXPROCS(0), n/8)
	if workers < 2 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
