package delivery

import (
	"database/sql"
	"fmt"
	"math"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

type boxKey struct {
	id  identity.ID
	key wire.Key
}

// record is what the test knows of one promised block.
type record struct {
	samples   int     // rows, of KindSamples
	sum       float64 // of the first metric
	destroyed bool    // the last disk that had it was replaced by an older image
	away      bool    // a database that had it, or a gap that told of it, was replaced by an older one
}

// schema of all samples: wide, so that rooms fill with few blocks in every grain.
var schema = func() (s wire.Schema) {
	for i := range 100 {
		s.Metrics = append(s.Metrics, wire.Metric{Name: fmt.Sprintf("m%02d", i), Scale: 2})
	}
	return s
}()

// draft makes a block with content of its own.
func (w *world) draft(s *station) (spool.Draft, *record) {
	w.uid++
	mono := s.w.since(s).Milliseconds()
	d := spool.Draft{MonoMs: mono, WallMs: s.now().UnixMilli(), Count: 1}
	name := fmt.Sprint("uid ", w.uid)
	var err error
	switch n := w.plan.IntN(10); {
	case n < 1:
		d.Lane, d.Kind = wire.LaneEvents, wire.KindEvents
		d.Payload, err = wire.EncodeEvents([]wire.Event{{MonoMs: mono, WallMs: d.WallMs, Type: "test", Text: name}})
	case n < 2:
		d.Lane, d.Kind = wire.LaneTelemetry, wire.KindResults
		d.Payload, err = wire.EncodeResults([]wire.Result{{WallMs: d.WallMs, Input: "in", Pipeline: "p", Item: name, Text: "x", Models: []string{}}})
	case n < 3:
		d.Lane, d.Kind, d.Payload = wire.LaneBulk, 77, []byte(name) // of a newer agent
	default:
		rows := 1 + w.plan.IntN(w.rows)
		v := wire.Samples{Schema: schema, Values: make([][]float64, len(schema.Metrics))}
		sum := 0.0
		for i := range rows {
			v.TimesMs = append(v.TimesMs, int64(i)*1000)
			for m := range v.Values {
				x := math.Round(w.plan.Float64()*1e5) / 100
				v.Values[m] = append(v.Values[m], x)
				if m == 0 {
					sum += x
				}
			}
		}
		d.Lane, d.Kind, d.Schema, d.Count, d.SpanMs = wire.LaneTelemetry, wire.KindSamples, &schema, uint32(rows), int64(rows-1)*1000
		d.Payload, err = wire.EncodeSamples(v)
		if err != nil {
			w.t.Fatal(err)
		}
		return d, &record{samples: rows, sum: sum}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return d, &record{}
}

// heldBy counts the stations whose disk answers for a block.
func (w *world) heldBy(k boxKey) int {
	n := 0
	for _, s := range w.stations {
		if s.has[k] {
			n++
		}
	}
	return n
}

// verdict counts how promised blocks ended.
type verdict struct {
	promised, stored, told, destroyed, beyond, lost int
	samples, counted                                int // of what is stored
}

func (v *verdict) add(o verdict) {
	v.promised += o.promised
	v.stored += o.stored
	v.told += o.told
	v.destroyed += o.destroyed
	v.beyond += o.beyond
	v.lost += o.lost
	v.samples += o.samples
	v.counted += o.counted
}

func (v verdict) String() string {
	return fmt.Sprintf("%d blocks promised: %d stored, %d told by a gap, %d physically destroyed, %d acknowledged, evicted from a full window and then restored away, %d lost; %d samples stored, %d counted",
		v.promised, v.stored, v.told, v.destroyed, v.beyond, v.lost, v.samples, v.counted)
}

// stream is one lane of one process life.
type stream struct {
	id   identity.ID
	sid  wire.SID
	lane wire.Lane
}

func (k boxKey) stream() stream { return stream{k.id, k.key.SID, k.key.Lane} }

// gapRow is what the database has of a gap.
type gapRow struct {
	lo, hi uint64
	n      int
}

// judge compares the database with the ledger.
func (w *world) judge() verdict {
	w.t.Helper()
	v := verdict{promised: len(w.ledger)}
	stored := w.ctl.keys()
	w.onlyOnce(stored)
	gaps, gapBlocks := w.gaps()
	missing := map[stream]int{}
	for k, r := range w.ledger {
		st := k.stream()
		switch {
		case stored[k]:
			v.stored++
			v.samples += r.samples
		case told(gaps[st], k.key.Seq):
			if v.told++; !r.destroyed && !r.away { // else it may be in a hole of the range
				missing[st]++
			}
		case r.destroyed:
			v.destroyed++
		case r.away && w.tight:
			v.beyond++
		default:
			v.lost++
			w.t.Errorf("block %s of %s is lost: %+v", k.key, k.id, *r)
		}
	}
	for st, n := range missing {
		most := 0
		for _, g := range gaps[st] {
			most += g.n
		}
		if n > most {
			w.t.Errorf("of %s/%s/%d %d blocks are missing, its gaps tell of %d", st.id, st.sid, st.lane, n, most)
		}
	}
	strange := 0
	for k := range stored {
		if w.ledger[k] == nil {
			strange++
		}
	}
	if strange != gapBlocks {
		w.t.Errorf("%d stored blocks were never appended, %d of them are gaps", strange, gapBlocks)
	}
	v.samples, v.counted = w.weigh(stored)
	return v
}

// weigh compares the samples of the stored blocks with what the database counts,
// before and after closed hours were compacted.
func (w *world) weigh(stored map[boxKey]bool) (samples, counted int) {
	for _, id := range w.ids {
		n, sum := 0, 0.0
		for k := range stored {
			if r := w.ledger[k]; r != nil && k.id == id {
				n += r.samples
				sum += r.sum
			}
		}
		samples += n
		for _, when := range []string{"as it came", "compacted"} {
			got := w.ctl.counted(id)
			if got.n != n {
				w.t.Errorf("%s: the stored blocks of %s have %d samples, the database counts %d", when, id, n, got.n)
			}
			// Means are rounded to their scale.
			if math.Abs(got.sum-sum) > 0.01*float64(n)+1 && !w.ctl.mixed[id] {
				w.t.Errorf("%s: the samples of the stored blocks of %s add up to %.2f, those of the database to %.2f", when, id, sum, got.sum)
			}
			if when == "compacted" {
				counted += got.n
			}
			w.ctl.compact()
		}
	}
	return samples, counted
}

// onlyOnce: one number is never stored under two hashes.
func (w *world) onlyOnce(stored map[boxKey]bool) {
	type number struct {
		stream
		seq uint64
	}
	seen := map[number]bool{}
	for k := range stored {
		n := number{k.stream(), k.key.Seq}
		if seen[n] {
			w.t.Errorf("block %s of %s is stored under two hashes", k.key, k.id)
		}
		seen[n] = true
	}
}

func told(gaps []gapRow, seq uint64) bool {
	for _, g := range gaps {
		if seq >= g.lo && seq <= g.hi {
			return true
		}
	}
	return false
}

// gaps reads what no method of the store returns.
func (w *world) gaps() (map[stream][]gapRow, int) {
	db, err := sql.Open("sqlite", w.ctl.path())
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT box, sid, lane, lo, hi, n FROM gap`)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	gaps := map[stream][]gapRow{}
	for rows.Next() {
		var st stream
		var sid []byte
		var g gapRow
		if err := rows.Scan((*string)(&st.id), &sid, &st.lane, &g.lo, &g.hi, &g.n); err != nil {
			w.t.Fatal(err)
		}
		st.sid = wire.SID(sid)
		gaps[st] = append(gaps[st], g)
	}
	n := 0
	if err := db.QueryRow(`SELECT count(*) FROM block WHERE kind = ?`, int(wire.KindGap)).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return gaps, n
}
