// Package exporttest has what tests of exports need: a database in memory with
// commits of samples that can be walked, and cursors; and a real
// VictoriaMetrics, which can be killed.
//
// Rows makes samples from a number, so that two processes agree on what is
// stored without talking to each other.
//
// The one rule a caller can break: what was added is not changed any more.
package exporttest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Store is a database in memory.
type Store struct {
	mu      sync.Mutex // guards the fields below
	rows    []export.Tailed
	lsn     uint64
	cursors map[string]uint64
}

// New returns an empty Store.
func New() *Store { return &Store{cursors: map[string]uint64{}} }

// Commit stores rows under the next LSN.
func (s *Store) Commit(rows ...export.Tailed) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lsn++
	for _, r := range rows {
		r.LSN = s.lsn
		s.rows = append(s.rows, r)
	}
	return s.lsn
}

// Tail implements export.Source.
func (s *Store) Tail(ctx context.Context, after uint64, limit int, each func(export.Tailed) error) (uint64, error) {
	s.mu.Lock()
	rows, last := s.rows, s.lsn
	s.mu.Unlock()
	given := 0
	for i, r := range rows {
		if r.LSN <= after {
			continue
		}
		if given >= limit && r.LSN != rows[i-1].LSN {
			return rows[i-1].LSN, nil
		}
		given++
		if err := each(r); err != nil {
			return 0, err
		}
	}
	return last, ctx.Err()
}

// Cursor implements export.Cursors.
func (s *Store) Cursor(_ context.Context, name string) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursors[name], nil
}

// SetCursor implements export.Cursors.
func (s *Store) SetCursor(_ context.Context, name string, value uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursors[name] = max(s.cursors[name], value)
	return nil
}

// All returns everything that is stored.
func (s *Store) All() []export.Tailed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows
}

// Box is the id of the nth box.
func Box(n int) identity.ID { return identity.ID(fmt.Sprintf("d-%013d", n)) }

// Rows makes the nth block of a box, a minute long, from startMs on: heat, one
// fan with a label, one sensor that is chosen by nobody, and a hole here and
// there.
func Rows(box, nth int, startMs int64) export.Tailed {
	r := rand.New(rand.NewPCG(uint64(box), uint64(nth)))
	s := wire.Samples{Schema: wire.Schema{Metrics: []wire.Metric{{Name: "fan_rpm{rear}"}, {Name: "load1", Scale: 2}, {Name: "temp_die_celsius", Scale: 1}}}}
	s.Values = make([][]float64, 3)
	for row := range 6 {
		s.TimesMs = append(s.TimesMs, int64(row)*10_000+r.Int64N(20))
		s.Values[0] = append(s.Values[0], float64(900+r.IntN(400)))
		s.Values[1] = append(s.Values[1], float64(r.IntN(400))/100)
		s.Values[2] = append(s.Values[2], float64(300+r.IntN(500))/10)
	}
	s.Values[0][r.IntN(6)] = math.NaN()
	return export.Tailed{Box: Box(box), StartMs: startMs + int64(nth)*60_000, Samples: s}
}
