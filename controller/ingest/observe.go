package ingest

import (
	"context"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Observer is told what becomes of blocks, for metrics. Its methods are called
// on the way of every message and must return at once.
type Observer interface {
	// Committed tells of one transaction: the blocks that came, how many of them
	// were new, and how long it took. After an error none was stored.
	Committed(blocks, fresh int, took time.Duration, err error)
	// Refused tells of blocks whose seal was wrong.
	Refused(blocks int)
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Committed(int, int, time.Duration, error) {}
func (nobody) Refused(int)                              {}

// Queued is how many messages wait for their commit.
func (in *Ingest) Queued() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.queue)
}

// ingest runs one transaction and tells of it.
func (in *Ingest) ingest(ctx context.Context, ds []store.Delivery) (store.Committed, error) {
	began := time.Now()
	tales := map[wire.Key]told{} // the transaction may run again
	c, err := in.opts.Store.Ingest(ctx, ds, func(d store.Delivery) (store.Effects, error) {
		e, odd := in.effects(d)
		if d.Gap != nil || odd != nil {
			tales[d.Block.Key] = told{d, odd}
		}
		return e, nil
	})
	if err == nil {
		in.well()
		in.tooMany(c)
		in.tell(tales)
	}
	blocks := 0
	for i := range ds {
		if blocks++; ds[i].Pack != nil {
			blocks += len(ds[i].Pack.Members) - 1
		}
	}
	in.opts.Observer.Committed(blocks, c.New, time.Since(began), err)
	return c, err
}
