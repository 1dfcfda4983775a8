package wire

import (
	"errors"
	"fmt"
	"math/bits"
)

// The payload of a pack that is coarser than exact, before compression, is
//
//	0x02            the form of the payload
//	m bytes         the modes of each metric's four columns, two bits each,
//	                lowest bits first
//	4m columns      for each metric: n of each member; then for each row with
//	                samples its min, max - min, and sum - n·min
//
// Columns are columns of integers as in Members. Values are integers as in a
// samples payload, so sums are exact: coarsening twice gives what coarsening
// once gives. A row is of as many members as the grain says, from the first on;
// the last may be of less.
const coarseForm = 0x02

// coarse is that payload.
type coarse struct {
	n    [][]uint32 // [metric][member]
	sums [][]sum    // [metric][row]
}

// sum is one metric in one row. A pack has 4096 records at most, each below
// 2^51, so total does not overflow.
type sum struct {
	n        uint32
	min, max int64
	total    int64
}

func (s *sum) add(o sum) {
	switch {
	case o.n == 0:
	case s.n == 0:
		*s = o
	default:
		*s = sum{s.n + o.n, min(s.min, o.min), max(s.max, o.max), s.total + o.total}
	}
}

func (s sum) mean(scale int8) float64 {
	if scale >= 0 {
		return float64(s.total) / float64(s.n) / pow10(scale)
	}
	return float64(s.total) / float64(s.n) * pow10(-scale)
}

// rows is how many rows a grain of per members each has.
func (c coarse) rows(per int) int {
	if len(c.n) == 0 {
		return 0
	}
	return (len(c.n[0]) + per - 1) / per
}

// Coarsen makes one pack of packs of one life, lane, boot and schema, whose
// numbers grow. The result has all their members. None may be as coarse as
// GrainTen, or coarser than g.
func Coarsen(schema Schema, packs []Pack, g Grain) (Pack, error) {
	if len(packs) == 0 || g < GrainMember || g > GrainTen {
		return Pack{}, fmt.Errorf("coarsen %d packs to grain %d", len(packs), g)
	}
	first := packs[0]
	out := Pack{SID: first.SID, Lane: first.Lane, Boot: first.Boot, Schema: first.Schema, Grain: g}
	all := newCoarse(len(schema.Metrics))
	for _, p := range packs {
		if p.SID != out.SID || p.Lane != out.Lane || p.Boot != out.Boot || p.Schema != out.Schema || p.Grain >= GrainTen || p.Grain > g {
			return Pack{}, fmt.Errorf("coarsen: pack from %s of grain %d does not belong to pack from %s", p.Key(0), p.Grain, first.Key(0))
		}
		c, err := p.byMember(schema)
		if err != nil {
			return Pack{}, err
		}
		for i := range all.n {
			all.n[i] = append(all.n[i], c.n[i]...)
			all.sums[i] = append(all.sums[i], c.sums[i]...)
		}
		out.Members = append(out.Members, p.Members...)
	}
	if err := out.Members.check(); err != nil {
		return Pack{}, err
	}
	per := g.members()
	for i, sums := range all.sums {
		rows := make([]sum, (len(sums)+per-1)/per)
		for j, s := range sums {
			rows[j/per].add(s)
		}
		all.sums[i] = rows
	}
	return out.finish(all.encode())
}

func newCoarse(metrics int) coarse {
	return coarse{n: make([][]uint32, metrics), sums: make([][]sum, metrics)}
}

// byMember returns a row for each member.
func (p Pack) byMember(schema Schema) (coarse, error) {
	if p.Grain != GrainExact {
		return p.coarse(schema)
	}
	s, err := p.Samples(schema)
	if err != nil {
		return coarse{}, err
	}
	c := newCoarse(len(s.Values))
	for i, column := range s.Values {
		c.n[i], c.sums[i] = make([]uint32, len(p.Members)), make([]sum, len(p.Members))
		row := 0
		for j, m := range p.Members {
			for range m.Count {
				if k, ok := toInteger(column[row], schema.Metrics[i].Scale); ok {
					c.sums[i][j].add(sum{1, k, k, k})
				}
				row++
			}
			c.n[i][j] = c.sums[i][j].n
		}
	}
	return c, nil
}

func (c coarse) encode() []byte {
	out := append(make([]byte, 0, 1024), coarseForm)
	out = append(out, make([]byte, len(c.n))...)
	for i, counts := range c.n {
		columns := [4][]int64{}
		for _, n := range counts {
			columns[0] = append(columns[0], int64(n))
		}
		for _, s := range c.sums[i] {
			if s.n > 0 {
				columns[1] = append(columns[1], s.min)
				columns[2] = append(columns[2], s.max-s.min)
				columns[3] = append(columns[3], s.total-int64(s.n)*s.min)
			}
		}
		for j, column := range columns {
			var mode byte
			out, mode = appendIntegers(out, column)
			out[1+i] |= mode << (2 * j)
		}
	}
	return out
}

// coarse reads the payload of a pack that is coarser than exact.
func (p Pack) coarse(schema Schema) (coarse, error) {
	if err := p.Verify(); err != nil {
		return coarse{}, err
	}
	if err := schema.check(); err != nil {
		return coarse{}, err
	}
	raw, err := expand(p.Payload)
	if err != nil {
		return coarse{}, err
	}
	m := len(schema.Metrics)
	if raw[0] != coarseForm || len(raw) < 1+m {
		return coarse{}, errors.New("decode coarse pack: unknown form")
	}
	c, modes := newCoarse(m), raw[1:1+m]
	r := &reader{rest: raw[1+m:]}
	for i := 0; i < m && r.bad == ""; i++ {
		c.n[i], c.sums[i] = r.sums(p, modes[i])
	}
	if err := r.end(); err != nil {
		return coarse{}, fmt.Errorf("decode coarse pack: %w", err)
	}
	return c, nil
}

// sums reads one metric.
func (r *reader) sums(p Pack, modes byte) ([]uint32, []sum) {
	per := p.Grain.members()
	counts := make([]uint32, len(p.Members))
	sums := make([]sum, (len(p.Members)+per-1)/per)
	for i, n := range r.integers(len(p.Members), modes&3) {
		if n < 0 || n > int64(p.Members[i].Count) {
			r.fail(badRange)
			return nil, nil
		}
		counts[i] = uint32(n)
		sums[i/per].n += counts[i]
	}
	present := 0
	for _, s := range sums {
		if s.n > 0 {
			present++
		}
	}
	low := r.integers(present, modes>>2&3)
	wide := r.integers(present, modes>>4&3)
	more := r.integers(present, modes>>6)
	if r.bad != "" {
		return nil, nil
	}
	at := 0
	for i := range sums {
		s := &sums[i]
		if s.n == 0 {
			continue
		}
		s.min, s.max, s.total = low[at], low[at]+wide[at], more[at]+int64(s.n)*low[at]
		if !inRange(s.min) || !inRange(s.max) || !possible(s.n, wide[at], more[at]) {
			r.fail(badRange)
			return nil, nil
		}
		at++
	}
	return counts, sums
}

// possible says whether n values, of which one is the least and one is higher
// by wide, can be higher than the least by more together.
func possible(n uint32, wide, more int64) bool {
	if wide < 0 || wide >= 2*maxInteger {
		return false
	}
	if n == 1 {
		return wide == 0 && more == 0
	}
	over, most := bits.Mul64(uint64(n-1), uint64(wide))
	return over == 0 && uint64(more) >= uint64(wide) && uint64(more) <= most
}
