package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// MaxMembers bounds a pack.
const MaxMembers = 128

// Member is what a pack keeps of a block beside its payload. The fields are
// those of Block.
type Member struct {
	Seq     uint64
	H64     H64
	MonoMs  int64
	WallMs  int64
	Quality TimeQuality
	Count   uint32
	SpanMs  int64
}

// Members are in the order of their Seq, which grows. They travel as a byte
// string, since names of fields would be a third of a pack:
//
//	1 byte         n, how many: 1 to 128
//	8n bytes       H64 of each
//	3 varints      Seq, MonoMs and WallMs of the first
//	2 bytes        modes of six columns, two bits each, lowest bits first
//	six columns    steps of Seq; steps of MonoMs; steps of WallMs - MonoMs (n-1
//	               values each); Quality; Count; SpanMs (n values each)
//
// A varint is as in a samples payload, and so is a column of integers: its mode
// is 1 missing when it has no values, 3 constant for more than one equal
// values, else 0 full. Sums wrap round.
type Members []Member

func (ms Members) check() error {
	if len(ms) < 1 || len(ms) > MaxMembers {
		return fmt.Errorf("pack of %d blocks, the limit is %d", len(ms), MaxMembers)
	}
	rows := 0
	for i, m := range ms {
		switch {
		case m.Seq == 0 || i > 0 && (m.Seq <= ms[i-1].Seq || m.Seq-ms[i-1].Seq > 1<<62):
			return fmt.Errorf("pack: sequence number %d out of order", m.Seq)
		case m.Quality > TimeSynced:
			return fmt.Errorf("time quality %d", m.Quality)
		case m.Count == 0 || m.Count > MaxRows:
			return fmt.Errorf("block of %d records", m.Count)
		case m.SpanMs < 0:
			return fmt.Errorf("span of %d ms", m.SpanMs)
		}
		rows += int(m.Count)
	}
	return atMost("records of pack", rows, MaxRows)
}

// Rows is the sum of the members' records.
func (ms Members) Rows() int {
	n := 0
	for _, m := range ms {
		n += int(m.Count)
	}
	return n
}

// MarshalCBOR implements cbor.Marshaler.
func (ms Members) MarshalCBOR() ([]byte, error) {
	if err := ms.check(); err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, 16*len(ms)+32), byte(len(ms)))
	for _, m := range ms {
		out = append(out, m.H64[:]...)
	}
	out = binary.AppendVarint(out, int64(ms[0].Seq))
	out = binary.AppendVarint(out, ms[0].MonoMs)
	out = binary.AppendVarint(out, ms[0].WallMs)
	columns := ms.columns()
	modes := len(out)
	out = append(out, 0, 0)
	for i, c := range columns {
		var mode byte
		out, mode = appendIntegers(out, c)
		out[modes+i/4] |= mode << (i % 4 * 2)
	}
	return encoding.Marshal(out)
}

func (ms Members) columns() [6][]int64 {
	var c [6][]int64
	for i, m := range ms {
		if i > 0 {
			last := ms[i-1]
			c[0] = append(c[0], int64(m.Seq-last.Seq))
			c[1] = append(c[1], m.MonoMs-last.MonoMs)
			c[2] = append(c[2], (m.WallMs-m.MonoMs)-(last.WallMs-last.MonoMs))
		}
		c[3] = append(c[3], int64(m.Quality))
		c[4] = append(c[4], int64(m.Count))
		c[5] = append(c[5], m.SpanMs)
	}
	return c
}

// UnmarshalCBOR implements cbor.Unmarshaler.
func (ms *Members) UnmarshalCBOR(data []byte) error {
	var raw []byte
	if err := decoding.Unmarshal(data, &raw); err != nil {
		return err
	}
	list, err := parseMembers(raw)
	if err != nil {
		return fmt.Errorf("members of pack: %w", err)
	}
	*ms = list
	return nil
}

func parseMembers(raw []byte) (Members, error) {
	if len(raw) == 0 || raw[0] == 0 || raw[0] > MaxMembers {
		return nil, errors.New("no members, or too many")
	}
	n := int(raw[0])
	r := &reader{rest: raw[1:]}
	hashes := r.take(8 * n)
	first := Member{Seq: uint64(r.varint()), MonoMs: r.varint(), WallMs: r.varint()}
	modes := r.take(2)
	if r.bad == "" && modes[1]>>4 != 0 {
		r.fail("mode of no column")
	}
	var columns [6][]int64
	for i := 0; i < len(columns) && r.bad == ""; i++ {
		size := n
		if i < 3 {
			size = n - 1
		}
		columns[i] = r.integers(size, modes[i/4]>>(i%4*2)&3)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	list := make(Members, n)
	for i := range list {
		m := first
		if i > 0 {
			last, step := list[i-1], columns[1][i-1]
			m = Member{Seq: last.Seq + uint64(columns[0][i-1]), MonoMs: last.MonoMs + step, WallMs: last.WallMs + step + columns[2][i-1]}
		}
		quality, count := columns[3][i], columns[4][i]
		if quality < 0 || quality > int64(TimeSynced) || count < 1 || count > MaxRows {
			return nil, errors.New(badRange)
		}
		m.Quality, m.Count, m.SpanMs, m.H64 = TimeQuality(quality), uint32(count), columns[5][i], H64(hashes[8*i:])
		list[i] = m
	}
	return list, list.check()
}

// appendIntegers writes a column and returns its mode.
func appendIntegers(out []byte, values []int64) ([]byte, byte) {
	switch {
	case len(values) == 0:
		return out, modeMissing
	case len(values) > 1 && !slices.ContainsFunc(values, func(v int64) bool { return v != values[0] }):
		return binary.AppendVarint(out, values[0]), modeConstant
	}
	return appendDifferences(out, values), modeFull
}

// integers reads a column of n values.
func (r *reader) integers(n int, mode byte) []int64 {
	if (mode == modeMissing) != (n == 0) || mode == modeHoles || mode == modeConstant && n < 2 {
		r.fail(badMode)
		return nil
	}
	values := make([]int64, n)
	var v, moved int64
	for i := range values {
		if i == 0 || mode == modeFull {
			d := r.varint()
			v += d
			if i > 0 {
				moved |= d
			}
		}
		values[i] = v
	}
	if mode == modeFull && n > 1 && moved == 0 {
		r.fail(badMode)
	}
	return values
}
