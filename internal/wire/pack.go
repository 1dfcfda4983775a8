package wire

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// Grain says how much of the samples of its members a pack has.
type Grain uint8

// The grains. What is coarser than exact is what is left of the oldest samples
// of a box that was offline until it had no more room.
const (
	GrainExact  Grain = 0 // every sample: the blocks can be rebuilt, bit for bit
	GrainMember Grain = 1 // one row a member: min, mean, max and n of each metric
	GrainTen    Grain = 2 // one row for ten members
)

// members is how many of them share one row.
func (g Grain) members() int {
	if g == GrainTen {
		return 10
	}
	return 1
}

// Pack carries blocks of samples of one process life, lane, boot and schema as
// one compressed unit. It has no key of its own, for a block of it may have been
// stored already without the box knowing: what is stored, acknowledged, and
// never stored twice, are its members under their own keys.
type Pack struct {
	SID     SID      `cbor:"1,keyasint"`
	Lane    Lane     `cbor:"2,keyasint"`
	Boot    BootID   `cbor:"3,keyasint"`
	Schema  SchemaID `cbor:"4,keyasint"`
	Grain   Grain    `cbor:"5,keyasint"`
	Members Members  `cbor:"6,keyasint"`
	// Payload is one zstd frame. Exact: a samples payload of all rows, with
	// times from the first member's start. Coarser: see coarse.go.
	Payload []byte `cbor:"7,keyasint"`
	CRC     uint32 `cbor:"8,keyasint"` // CRC-32C of the pack's encoding with CRC zero
}

func (p Pack) check() error {
	if p.Lane >= Lanes {
		return fmt.Errorf("lane %d, there are %d", p.Lane, Lanes)
	}
	if p.Grain > GrainTen {
		return fmt.Errorf("grain %d", p.Grain)
	}
	if len(p.Payload) == 0 {
		return errors.New("pack without payload")
	}
	if err := atMost("bytes of payload", len(p.Payload), MaxPayloadBytes); err != nil {
		return err
	}
	return p.Members.check()
}

// Keys names the members.
func (p Pack) Keys() []Key {
	keys := make([]Key, len(p.Members))
	for i := range p.Members {
		keys[i] = p.Key(i)
	}
	return keys
}

// Key names member i.
func (p Pack) Key(i int) Key {
	return Key{SID: p.SID, Lane: p.Lane, Seq: p.Members[i].Seq, H64: p.Members[i].H64}
}

// Verify says whether the pack is as it was made. Only Blocks can tell whether
// its samples are those that its keys were made of.
func (p Pack) Verify() error {
	crc, err := p.checksum()
	if err != nil {
		return err
	}
	if crc != p.CRC {
		return fmt.Errorf("pack from %s: CRC-32C %08x, made with %08x", p.Key(0), crc, p.CRC)
	}
	return nil
}

func (p Pack) checksum() (uint32, error) {
	p.CRC = 0
	data, err := Encode(p)
	if err != nil {
		return 0, err
	}
	return crc32.Checksum(data, castagnoli), nil
}

// finish compresses the payload and fills in the CRC.
func (p Pack) finish(raw []byte) (_ Pack, err error) {
	if p.Payload, err = compress(raw); err != nil {
		return Pack{}, err
	}
	if p.CRC, err = p.checksum(); err != nil {
		return Pack{}, err
	}
	return p, nil
}

// PackBlocks makes an exact pack of samples blocks of one life, lane, boot and
// schema, whose numbers grow. It refuses what would not come back as it was.
func PackBlocks(schema Schema, blocks []Block) (Pack, error) {
	if len(blocks) == 0 || len(blocks) > MaxMembers {
		return Pack{}, fmt.Errorf("pack of %d blocks, the limit is %d", len(blocks), MaxMembers)
	}
	first := blocks[0]
	p := Pack{SID: first.Key.SID, Lane: first.Key.Lane, Boot: first.Boot, Schema: first.Schema}
	rows := Samples{Schema: schema, Values: make([][]float64, len(schema.Metrics))}
	for _, b := range blocks {
		if b.Kind != KindSamples || b.Key.SID != p.SID || b.Key.Lane != p.Lane || b.Boot != p.Boot || b.Schema != p.Schema {
			return Pack{}, fmt.Errorf("pack: block %s does not belong to block %s", b.Key, first.Key)
		}
		if err := b.Verify(); err != nil {
			return Pack{}, fmt.Errorf("pack: %w", err)
		}
		s, err := DecodeSamples(schema, b.Payload, int(b.Count))
		if err != nil {
			return Pack{}, fmt.Errorf("pack block %s: %w", b.Key, err)
		}
		for _, t := range s.TimesMs {
			rows.TimesMs = append(rows.TimesMs, b.MonoMs-first.MonoMs+t)
		}
		for i, column := range s.Values {
			rows.Values[i] = append(rows.Values[i], column...)
		}
		p.Members = append(p.Members, Member{b.Key.Seq, b.Key.H64, b.MonoMs, b.WallMs, b.Quality, b.Count, b.SpanMs})
	}
	if err := p.Members.check(); err != nil {
		return Pack{}, err
	}
	raw, err := appendSamples(nil, rows)
	if err != nil {
		return Pack{}, fmt.Errorf("pack blocks from %s: %w", first.Key, err)
	}
	return p.finish(raw)
}

// Samples returns all rows of an exact pack, with times from the start of its
// first member. The rows of a member follow those of the one before. It does
// not look whether they are what the keys were made of; Open does.
func (p Pack) Samples(schema Schema) (Samples, error) {
	if p.Grain != GrainExact {
		return Samples{}, fmt.Errorf("pack from %s has grain %d and no single samples", p.Key(0), p.Grain)
	}
	if err := p.Verify(); err != nil {
		return Samples{}, err
	}
	raw, err := expand(p.Payload)
	if err != nil {
		return Samples{}, err
	}
	return parseSamples(schema, raw, p.Members.Rows())
}

// Blocks returns the members of an exact pack as they were before: each is
// verified against its key.
func (p Pack) Blocks(schema Schema) ([]Block, error) {
	_, blocks, err := p.Open(schema)
	return blocks, err
}

// Open returns what Samples and Blocks do.
func (p Pack) Open(schema Schema) (Samples, []Block, error) {
	all, err := p.Samples(schema)
	if err != nil {
		return Samples{}, nil, err
	}
	blocks, err := p.rebuild(all)
	return all, blocks, err
}

func (p Pack) rebuild(all Samples) ([]Block, error) {
	blocks := make([]Block, len(p.Members))
	times := slices.Clone(all.TimesMs) // from here on of each member's own start
	from := 0
	for i, m := range p.Members {
		to := from + int(m.Count)
		one := Samples{Schema: all.Schema, TimesMs: times[from:to], Values: make([][]float64, len(all.Values))}
		for j := range one.TimesMs {
			one.TimesMs[j] -= m.MonoMs - p.Members[0].MonoMs
		}
		for j, column := range all.Values {
			one.Values[j] = column[from:to]
		}
		from = to
		payload, err := EncodeSamples(one)
		if err != nil {
			return nil, fmt.Errorf("unpack block %s: %w", p.Key(i), err)
		}
		b := Block{
			Key: p.Key(i), Kind: KindSamples, Boot: p.Boot, MonoMs: m.MonoMs, WallMs: m.WallMs, Quality: m.Quality,
			Schema: p.Schema, Count: m.Count, SpanMs: m.SpanMs, Payload: payload, CRC: crc32.Checksum(payload, castagnoli),
		}
		if err := b.Verify(); err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		blocks[i] = b
	}
	return blocks, nil
}

// CoarseRow is what is left of the members From to To (the first beyond) of a
// pack.
type CoarseRow struct {
	From, To int
	// N counts samples by metric and member: of a row of which some members are
	// stored already, only the others count.
	N              [][]uint32 // [metric][member - From]
	Min, Mean, Max []float64  // [metric]; NaN without samples
}

// Rows returns the rows of a coarse pack.
func (p Pack) Rows(schema Schema) ([]CoarseRow, error) {
	if p.Grain == GrainExact {
		return nil, fmt.Errorf("pack from %s is exact and has no coarse rows", p.Key(0))
	}
	c, err := p.coarse(schema)
	if err != nil {
		return nil, err
	}
	metrics, per := len(schema.Metrics), p.Grain.members()
	rows := make([]CoarseRow, c.rows(per))
	for i := range rows {
		row := CoarseRow{From: i * per, To: min((i+1)*per, len(p.Members)), N: make([][]uint32, metrics)}
		cells := make([]float64, 3*metrics)
		row.Min, row.Mean, row.Max = cells[:metrics:metrics], cells[metrics:2*metrics:2*metrics], cells[2*metrics:]
		for j, m := range schema.Metrics {
			row.N[j] = c.n[j][row.From:row.To]
			row.Min[j], row.Mean[j], row.Max[j] = math.NaN(), math.NaN(), math.NaN()
			if s := c.sums[j][i]; s.n > 0 {
				row.Min[j], row.Max[j] = fromInteger(s.min, m.Scale), fromInteger(s.max, m.Scale)
				row.Mean[j] = s.mean(m.Scale)
			}
		}
		rows[i] = row
	}
	return rows, nil
}
