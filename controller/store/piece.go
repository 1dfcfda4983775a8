package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// What rows hold is made of pieces. The first byte is the form:
//
//	1  a block as it came
//	2  a pack as it came, and which of its members count here
//	3  all rows of blocks of one life, lane, boot and schema, columns apart
//	4  several pieces of the forms 2 and 3: an hour
//	5  a whole pack, its samples as they came
//
// Every form keeps what is needed to rebuild the blocks that it holds exactly.
const (
	formBlock = 1
	formPack  = 2
	formRows  = 3
	formHour  = 4

	formSealed = 5
)

// member is one block in a piece: the fields of wire.Member, and when its
// first sample was made on the controller's calendar.
type member struct {
	wire.Member
	StartMs int64
}

// part is exact samples of one life, lane, boot and schema.
type part struct {
	sid     wire.SID
	lane    wire.Lane
	boot    wire.BootID
	id      wire.SchemaID
	schema  *wire.Schema
	members []member
	timesMs []int64     // of each row, on the calendar; rows in the order of members
	values  [][]float64 // by metric of the schema, or of those asked for; nil: not in the schema
}

// coarse is one row of which only least, middle and greatest values are left.
type coarse struct {
	id             wire.SchemaID
	schema         *wire.Schema
	fromMs, toMs   int64
	n              []uint32 // by metric as in part
	min, mean, max []float64
}

// content is what a row holds.
type content struct {
	parts  []part
	coarse []coarse
	packs  [][]byte // the pieces that coarse was read from, as they are
}

// reading is one look at many rows.
type reading struct {
	schema  func(wire.SchemaID) (*wire.Schema, error)
	want    []string // metrics; nil: all of the schema
	columns map[wire.SchemaID][]int
}

// wanted returns the numbers of the metrics that are asked for, -1 for what
// the schema lacks.
func (r *reading) wanted(id wire.SchemaID, sc *wire.Schema) []int {
	if cols, ok := r.columns[id]; ok {
		return cols
	}
	var cols []int
	if r.want == nil {
		cols = everyColumn(sc)
	}
	for _, name := range r.want {
		cols = append(cols, slices.IndexFunc(sc.Metrics, func(m wire.Metric) bool { return m.Name == name }))
	}
	if r.columns == nil {
		r.columns = map[wire.SchemaID][]int{}
	}
	r.columns[id] = cols
	return cols
}

func everyColumn(sc *wire.Schema) []int {
	cols := make([]int, len(sc.Metrics))
	for i := range cols {
		cols[i] = i
	}
	return cols
}

// pick returns the wanted of all columns.
func pick[T any](all []T, cols []int) []T {
	out := make([]T, len(cols))
	for i, c := range cols {
		if c >= 0 {
			out[i] = all[c]
		}
	}
	return out
}

// read adds what a piece holds to c.
func (r *reading) read(c *content, piece []byte) error {
	in := input{rest: piece}
	switch in.octet() {
	case formBlock:
		return r.readBlock(c, in)
	case formPack:
		return r.readPack(c, in, piece)
	case formRows:
		return r.readRows(c, in)
	case formSealed:
		return r.readSealed(c, in)
	case formHour:
		for len(in.rest) > 0 {
			if err := r.read(c, in.section()); err != nil {
				return err
			}
		}
		return in.end()
	}
	return errDamaged
}

// encodeBlock returns the piece of a block.
func encodeBlock(b *wire.Block, startMs int64) []byte {
	out := append(make([]byte, 0, 96+len(b.Payload)), formBlock, byte(b.Kind))
	out = append(append(append(out, b.Key.SID[:]...), byte(b.Key.Lane)), b.Key.H64[:]...)
	out = append(append(out, b.Boot[:]...), byte(b.Quality))
	out = append(out, b.Schema[:]...)
	out = binary.AppendUvarint(out, b.Key.Seq)
	out = binary.AppendVarint(out, b.MonoMs)
	out = binary.AppendVarint(out, b.WallMs)
	out = binary.AppendUvarint(out, uint64(b.Count))
	out = binary.AppendVarint(out, b.SpanMs)
	out = binary.AppendVarint(out, startMs)
	return append(out, b.Payload...)
}

// decodeBlock reads the rest of a piece of formBlock.
func decodeBlock(in input) (b wire.Block, startMs int64, err error) {
	b.Kind = wire.Kind(in.octet())
	b.Key = wire.Key{SID: in.eight(), Lane: wire.Lane(in.octet()), H64: in.eight()}
	b.Boot, b.Quality, b.Schema = in.eight(), wire.TimeQuality(in.octet()), in.eight()
	b.Key.Seq = in.uvarint()
	b.MonoMs, b.WallMs = in.varint(), in.varint()
	b.Count, b.SpanMs = uint32(in.uvarint()), in.varint()
	startMs = in.varint()
	if in.short {
		return wire.Block{}, 0, errDamaged
	}
	b.Payload = in.rest
	b.CRC = crc32.Checksum(b.Payload, crc32.MakeTable(crc32.Castagnoli))
	return b, startMs, nil
}

func (r *reading) readBlock(c *content, in input) error {
	b, start, err := decodeBlock(in)
	if err != nil {
		return err
	}
	sc, err := r.schema(b.Schema)
	if err != nil {
		return err
	}
	s, err := wire.DecodeSamples(*sc, b.Payload, int(b.Count))
	if err != nil {
		return fmt.Errorf("block %s: %w", b.Key, err)
	}
	for i := range s.TimesMs {
		s.TimesMs[i] += start
	}
	c.parts = append(c.parts, part{
		sid: b.Key.SID, lane: b.Key.Lane, boot: b.Boot, id: b.Schema, schema: sc, timesMs: s.TimesMs, values: pick(s.Values, r.wanted(b.Schema, sc)),
		members: []member{{wire.Member{Seq: b.Key.Seq, H64: b.Key.H64, MonoMs: b.MonoMs, WallMs: b.WallMs, Quality: b.Quality, Count: b.Count, SpanMs: b.SpanMs}, start}},
	})
	return nil
}

// encodePack returns the piece of a pack: starts has the place in time of each
// member, and use says which of them count.
func encodePack(p *wire.Pack, starts []int64, use []bool) ([]byte, error) {
	raw, err := wire.Encode(*p)
	if err != nil {
		return nil, err
	}
	out := binary.AppendUvarint(append(make([]byte, 0, 64+2*len(starts)+len(raw)), formPack), uint64(len(starts)))
	bits := make([]byte, (len(use)+7)/8)
	for i, u := range use {
		if u {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	out = append(out, bits...)
	for i, s := range starts {
		if i == 0 {
			out = binary.AppendVarint(out, s)
		} else {
			out = binary.AppendVarint(out, s-starts[i-1]-(p.Members[i].MonoMs-p.Members[i-1].MonoMs))
		}
	}
	return append(out, raw...), nil
}

func decodePack(in input) (p wire.Pack, starts []int64, use []bool, err error) {
	n := in.count()
	bits := in.take((n + 7) / 8)
	steps := make([]int64, n)
	for i := range steps {
		steps[i] = in.varint()
	}
	if in.short {
		return p, nil, nil, errDamaged
	}
	if p, err = wire.Decode[wire.Pack](in.rest); err != nil {
		return p, nil, nil, err
	}
	if len(p.Members) != n {
		return p, nil, nil, errDamaged
	}
	use = make([]bool, n)
	for i := range use {
		use[i] = bits[i/8]>>(i%8)&1 == 1
		if i > 0 {
			steps[i] += steps[i-1] + p.Members[i].MonoMs - p.Members[i-1].MonoMs
		}
	}
	return p, steps, use, nil
}

func (r *reading) readPack(c *content, in input, piece []byte) error {
	p, starts, use, err := decodePack(in)
	if err != nil {
		return err
	}
	sc, err := r.schema(p.Schema)
	if err != nil {
		return err
	}
	opened := openedPack{&p, sc, starts, use, r.wanted(p.Schema, sc)}
	if p.Grain == wire.GrainExact {
		s, err := p.Samples(*sc)
		if err != nil {
			return err
		}
		c.parts = append(c.parts, opened.exact(s))
		return nil
	}
	rows, err := p.Rows(*sc)
	if err != nil {
		return err
	}
	c.coarse = append(c.coarse, opened.coarse(rows)...)
	c.packs = append(c.packs, slices.Clone(piece))
	return nil
}

// openedPack is a pack with what places and counts its members.
type openedPack struct {
	pack   *wire.Pack
	schema *wire.Schema
	starts []int64
	use    []bool // by member: it counts
	cols   []int  // metrics to read
}

// exact puts the rows of the members that count on the calendar.
func (o *openedPack) exact(s wire.Samples) part {
	p, sc, starts, use, cols := o.pack, o.schema, o.starts, o.use, o.cols
	out := part{sid: p.SID, lane: p.Lane, boot: p.Boot, id: p.Schema, schema: sc, values: pick(s.Values, cols), members: make([]member, 0, len(p.Members))}
	all := !slices.Contains(use, false)
	if all {
		out.timesMs = slices.Clone(s.TimesMs)
	} else {
		out.values = make([][]float64, len(cols))
	}
	row := 0
	for i, m := range p.Members {
		end := row + int(m.Count)
		shift := starts[i] - (m.MonoMs - p.Members[0].MonoMs)
		switch {
		case all:
			for ; row < end; row++ {
				out.timesMs[row] += shift
			}
		case use[i]:
			for _, t := range s.TimesMs[row:end] {
				out.timesMs = append(out.timesMs, t+shift)
			}
			for j, col := range cols {
				if col >= 0 {
					out.values[j] = append(out.values[j], s.Values[col][row:end]...)
				}
			}
		}
		row = end
		if use[i] {
			out.members = append(out.members, member{m, starts[i]})
		}
	}
	return out
}

// coarse counts the members that count; least, middle and greatest values of a
// row stay those of all its members.
func (o *openedPack) coarse(rows []wire.CoarseRow) []coarse {
	p, sc, starts, use, cols := o.pack, o.schema, o.starts, o.use, o.cols
	var out []coarse
	for _, row := range rows {
		c := coarse{id: p.Schema, schema: sc, fromMs: math.MaxInt64, toMs: math.MinInt64, n: make([]uint32, len(cols)),
			min: pick(row.Min, cols), mean: pick(row.Mean, cols), max: pick(row.Max, cols)}
		for i := row.From; i < row.To; i++ {
			if !use[i] {
				continue
			}
			c.fromMs, c.toMs = min(c.fromMs, starts[i]), max(c.toMs, starts[i]+p.Members[i].SpanMs)
			for j, col := range cols {
				if col >= 0 {
					c.n[j] += row.N[col][i-row.From]
				}
			}
		}
		if c.fromMs <= c.toMs {
			out = append(out, c)
		}
	}
	return out
}

// The codecs are stateless: only EncodeAll and DecodeAll are called. They are
// made with the program since their channels must belong to no test's bubble.
var (
	// The fastest level: what shrinks columns of differences is the entropy coder.
	squeezer = begun(must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))))
	expander = must(zstd.NewReader(nil, zstd.WithDecoderLowmem(true)))
)

// begun makes an encoder do what it puts off until its first use: it makes its
// channel then.
func begun(e *zstd.Encoder) *zstd.Encoder {
	e.EncodeAll(nil, nil)
	return e
}

func must[T any](v T, err error) T {
	if err != nil {
		panic("store: zstd options: " + err.Error())
	}
	return v
}
