package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// month is 30 days of one box: a block a minute and a result every ten seconds
// would be 43,200 blocks; results come in one block of 60 each ten minutes.
func month(b *testing.B) *store.Store {
	b.Helper()
	s := fresh(b)
	check(b, s.AddBox(ctx, boxA, "a", "x"))
	check(b, s.AddSchemas(ctx, []wire.Schema{schema}))
	var batch []store.Delivery
	flush := func() {
		ingest(b, s, batch...)
		batch = batch[:0]
	}
	texts := make([]string, 60)
	for i := range 43_200 {
		at := epoch + int64(i)*60_000
		batch = append(batch, samples(boxA, 1, uint64(i+1), at, 40, 41, 42))
		if i%10 == 0 {
			batch = append(batch, results(boxA, 2, uint64(i+1), at, texts...))
		}
		if len(batch) >= 2000 {
			flush()
		}
	}
	flush()
	return s
}

// BenchmarkMonthOfOneBox times what is asked of a box with 43,200 blocks.
func BenchmarkMonthOfOneBox(b *testing.B) {
	s := month(b)
	end := time.UnixMilli(epoch + 43_200*60_000)
	none := func(int64, wire.Samples) error { return nil }
	for _, c := range []struct {
		name string
		ask  func() error
	}{
		{"hello: schemas", func() error { _, err := s.BoxSchemas(ctx, boxA); return err }},
		{"hello: schemas by scanning blocks", func() error {
			var n int
			return s.Ask(ctx, `SELECT count(*) FROM sample WHERE box = ?`, []any{boxA}, &n)
		}},
		{"box with the reads of a day", func() error { _, err := s.Box(ctx, boxA, end.Add(-24*time.Hour).UnixMilli()); return err }},
		{"reads of a day by scanning results", func() error {
			var n int
			return s.Ask(ctx, `SELECT count(*) FROM result WHERE t_ms >= ? GROUP BY box`, []any{end.Add(-24 * time.Hour).UnixMilli()}, &n)
		}},
		{"samples of the last hour", func() error { return s.Samples(ctx, boxA, end.Add(-time.Hour), end, none) }},
		{"samples of the month", func() error { return s.Samples(ctx, boxA, time.UnixMilli(epoch), end, none) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				check(b, c.ask())
			}
		})
	}
}

// BenchmarkFleet times lists of 10,000 boxes with a day of hourly counts each.
func BenchmarkFleet(b *testing.B) {
	s := fresh(b)
	const n = 10_000
	tx, err := s.DB().Begin()
	check(b, err)
	for i := range n {
		id := identity.NewID()
		_, err := tx.Exec(`INSERT INTO box (id, name, site, enrolled_ms, last_seen_ms, inventory, buffer, running, desired) VALUES (?,?,?,?,?,?,?,?,?)`,
			id, fmt.Sprintf("box-%05d", i), "s", 1, 2, `{"name":"box","class":"itx","vendor":"v","product":"p","serial":"1","arch":"amd64","cpus":8,"agent":"1.0"}`,
			`{"blocks":3,"bytes":3000}`, `{"generation":2,"models":[{"name":"m","version":"1","digest":"sha256:00"}],"time_ms":5}`,
			`{"v":1,"box":"`+string(id)+`","generation":2,"models":[]}`)
		check(b, err)
		for h := range int64(24) {
			_, err := tx.Exec(`INSERT INTO reads_hour (hour_ms, box, total, checked, correct) VALUES (?,?,360,360,350)`, epoch-h*3_600_000, id)
			check(b, err)
		}
	}
	check(b, tx.Commit())
	for _, hours := range []int64{1, 24} {
		b.Run(fmt.Sprintf("Boxes with the reads of %d hours before", hours), func(b *testing.B) {
			began := cpuTime()
			for b.Loop() {
				all, err := s.Boxes(ctx, epoch-hours*3_600_000)
				if err != nil || len(all) != n {
					b.Fatal(len(all), err)
				}
			}
			b.ReportMetric(float64((cpuTime()-began).Microseconds())/1e3/float64(b.N), "cpu-ms")
		})
	}
}

// BenchmarkIngest times group commits of 200 blocks of 100 boxes, each with 30
// metrics in 6 rows.
func BenchmarkIngest(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { benchmarkIngest(b, openAt(b, e.place(b))) })
	}
}

func benchmarkIngest(b *testing.B, s *store.Store) {
	wide := wire.Schema{}
	for m := range 30 {
		wide.Metrics = append(wide.Metrics, wire.Metric{Name: fmt.Sprintf("metric_%02d", m)})
	}
	var ids []identity.ID
	for i := range 100 {
		ids = append(ids, identity.NewID())
		check(b, s.AddBox(ctx, ids[i], fmt.Sprint(i), "x"))
	}
	seq := uint64(0)
	for b.Loop() {
		b.StopTimer()
		var batch []store.Delivery
		for i := range 200 {
			seq++
			sm := wire.Samples{Schema: wide, Values: make([][]float64, 30)}
			for row := range 6 {
				sm.TimesMs = append(sm.TimesMs, int64(row)*10_000)
				for m := range sm.Values {
					sm.Values[m] = append(sm.Values[m], float64(m+row))
				}
			}
			d := store.Delivery{Box: ids[i%100], StartMs: epoch + int64(seq/100)*60_000, Samples: &sm, Schema: &wide, Block: wire.Block{Kind: wire.KindSamples, Count: 6, SpanMs: 50_000, Payload: make([]byte, 400)}}
			batch = append(batch, seal(d, 1, 1, seq))
		}
		b.StartTimer()
		ingest(b, s, batch...)
	}
	b.ReportMetric(200*float64(b.N)/b.Elapsed().Seconds(), "blocks/s")
}
