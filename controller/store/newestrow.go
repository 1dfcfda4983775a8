package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// One row a box has all that changes with every message of it: when it was
// heard, what waits there, which schemas it uses, its newest values, and the
// keys around those of the message.

var (
	readNewest = many{
		head: `WITH want (n, box) AS (VALUES `, row: `(CAST(? AS BIGINT), CAST(? AS TEXT))`, width: 2,
		tail: `) SELECT want.n, l.schemas, l.latest, l.open_keys FROM want CROSS JOIN newest l WHERE l.box = want.box`,
	}
	writeNewest = many{
		head: `INSERT INTO newest (box, seen_ms, buffer, schemas, latest, open_keys) VALUES `, row: `(?,?,?,?,?,?)`, width: 6,
		tail: ` ON CONFLICT (box) DO UPDATE SET seen_ms = excluded.seen_ms, buffer = coalesce(excluded.buffer, newest.buffer),
			schemas = excluded.schemas, latest = excluded.latest, open_keys = excluded.open_keys`,
	}
	insertSchemas = many{head: `INSERT INTO schema (id, body) VALUES `, row: `(?,?)`, width: 2, tail: ` ON CONFLICT DO NOTHING`}
)

// newestRow is the row of a box.
type newestRow struct {
	schemas  schemaIDs
	latest   []byte
	openKeys []byte
}

// loadBoxes reads the rows of all boxes that were heard.
func (c *commit) loadBoxes(ctx context.Context, ds []Delivery) error {
	for i := range ds {
		c.box(ds[i].Box)
	}
	slices.SortFunc(c.order, func(a, b *boxCommit) int { return strings.Compare(string(a.id), string(b.id)) }) // neighbours share pages
	args := make([]any, 0, 2*len(c.order))
	for i, b := range c.order {
		args = append(args, i, b.name)
	}
	err := c.tx.eachMany(ctx, readNewest, args, func(r *sql.Rows) error {
		var i int
		var row newestRow
		if err := r.Scan(&i, &row.schemas, &row.latest, &row.openKeys); err != nil {
			return err
		}
		if i < 0 || i >= len(c.order) {
			return fmt.Errorf("row %d of %d", i, len(c.order))
		}
		b := c.order[i]
		b.row = row
		return eachOpen(b.id, row.openKeys, func(id chunkID, body []byte) {
			c.keys.rows[id], b.open = &chunk{body: body}, append(b.open, id)
		})
	})
	if err != nil {
		return fmt.Errorf("read newest values: %w", err)
	}
	return nil
}

// saveBoxes writes the rows of all boxes that were heard.
func (c *commit) saveBoxes(ctx context.Context) error {
	known, added, err := c.schemasOf()
	if err != nil {
		return err
	}
	if _, err := c.tx.execMany(ctx, insertSchemas, added); err != nil {
		return fmt.Errorf("store schemas: %w", err)
	}
	errs := make([]error, len(c.order))
	apply := func(i int, find func(wire.SchemaID) (*wire.Schema, error)) {
		errs[i] = c.order[i].apply(find)
	}
	parallel(len(c.order), func(i int) {
		apply(i, func(id wire.SchemaID) (*wire.Schema, error) {
			if sc := known[id]; sc != nil {
				return sc, nil
			}
			return nil, errUnknown
		})
	})
	for i, err := range errs {
		if errors.Is(err, errUnknown) { // the transaction is for one at a time
			apply(i, func(id wire.SchemaID) (sc *wire.Schema, err error) {
				if sc = known[id]; sc == nil {
					sc, err = c.s.schemaIn(ctx, c.tx, id)
					known[id] = sc
				}
				return sc, err
			})
		}
	}
	return c.writeBoxes(ctx, errs)
}

// errUnknown says that a box has newest values of a schema that no delivery
// brought.
var errUnknown = errors.New("another schema")

func (c *commit) writeBoxes(ctx context.Context, errs []error) error {
	args := make([]any, 0, writeNewest.width*len(c.order))
	for i, b := range c.order {
		if errs[i] != nil {
			return fmt.Errorf("newest values of %s: %w", b.id, errs[i])
		}
		var buffer any // NULL keeps what is stored
		if b.behind != nil {
			text, err := json.Marshal(b.behind)
			if err != nil {
				return err
			}
			buffer = string(text)
		}
		args = append(args, b.name, c.nowMs, buffer, append([]byte{}, b.row.schemas...), b.row.latest, append([]byte{}, b.row.openKeys...))
	}
	if _, err := c.tx.execMany(ctx, writeNewest, args); err != nil {
		return fmt.Errorf("store newest values: %w", err)
	}
	return nil
}

// schemasOf notes the schemas that a box uses for the first time and returns
// them as arguments of insertSchemas, and all that the deliveries have.
func (c *commit) schemasOf() (known map[wire.SchemaID]*wire.Schema, added []any, err error) {
	known = map[wire.SchemaID]*wire.Schema{}
	for _, b := range c.order {
		for _, d := range b.fresh {
			id := d.schemaID()
			known[id] = d.Schema
			if b.row.schemas.has(id) {
				continue
			}
			b.row.schemas = b.row.schemas.with(id)
			body, err := wire.Encode(*d.Schema)
			if err != nil {
				return nil, nil, err
			}
			added = append(added, id[:], body)
		}
	}
	return known, added, nil
}

// apply brings the row of a box up to date. It changes nothing when find does
// not know a schema.
func (b *boxCommit) apply(find func(wire.SchemaID) (*wire.Schema, error)) error {
	if len(b.fresh) > 0 {
		newest, err := decodeNewest(b.row.latest, find)
		if err != nil {
			return err
		}
		for _, d := range b.fresh {
			d.updateNewest(&newest)
		}
		b.row.latest = newest.encode()
	}
	return nil
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
