package delivery

import (
	"context"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// weight is the number and the sum of values.
type weight struct {
	n   int
	sum float64
}

// counted is what the database has of the first metric, at all times that a
// wrong clock may have made: what every chart is made of.
func (c *center) counted(id identity.ID) (w weight) {
	from, to := time.UnixMilli(-1<<50), time.UnixMilli(1<<50)
	err := c.store.Rollups(context.Background(), store.Question{Box: id, From: from, To: to, Metrics: []string{schema.Metrics[0].Name}}, func(_ int64, hour []store.Rollup) {
		w.n += hour[0].N
		w.sum += hour[0].Sum
	})
	if err != nil {
		c.w.t.Fatal(err)
	}
	return w
}

// compact merges closed hours.
func (c *center) compact() {
	for more := true; more; {
		done, err := c.store.Compact(context.Background(), 1000)
		if err != nil && c.disk.full {
			return // another time
		}
		if err != nil {
			c.w.t.Fatal(err)
		}
		more = done.More
	}
}
