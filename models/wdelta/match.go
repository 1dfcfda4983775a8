package wdelta

import (
	"bytes"
	"context"
	"math/bits"
)

// Exact matches for what no container describes: bundles, packed assets, the
// graph itself. The base is cut into blocks; a rolling hash finds them in the
// target at any place, as rsync does, and the match is drawn out both ways.

const (
	leastBlock = 4 << 10
	mostBlocks = 1 << 18 // of the base that are remembered: 4 MiB of table
)

// matcher knows the blocks of a base.
type matcher struct {
	base  Source
	block int
	// slots is an open hash table: 1 + number of the block, 0 when free.
	slots []uint32
	sums  []uint32 // of each block
	shift int
}

// The hash is a polynomial modulo 2^32: odd, so that it can be undone.
const rollPrime = 0x9E3779B1

func roll(b []byte) (h uint32) {
	for _, c := range b {
		h = h*rollPrime + uint32(c) + 1
	}
	return h
}

func newMatcher(ctx context.Context, base Source) (*matcher, error) {
	m := &matcher{base: base, block: leastBlock}
	for base.Size()/int64(m.block) > mostBlocks {
		m.block *= 2
	}
	n := int(base.Size() / int64(m.block))
	m.shift = 32 - max(bits.Len(uint(2*n)), 4)
	m.slots = make([]uint32, 1<<(32-m.shift))
	m.sums = make([]uint32, n)
	buf := make([]byte, m.block)
	for i := range n {
		if i%256 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := readFull(base, buf, int64(i)*int64(m.block)); err != nil {
			return nil, err
		}
		h := roll(buf)
		m.sums[i] = h
		for at := m.slot(h); ; at = (at + 1) & uint32(len(m.slots)-1) {
			if m.slots[at] == 0 {
				m.slots[at] = uint32(i) + 1
				break
			}
			if m.sums[m.slots[at]-1] == h {
				break // the same bytes again, such as zeros: the first will do
			}
		}
	}
	return m, nil
}

func (m *matcher) slot(h uint32) uint32 { return (h * 0x85EBCA6B) >> m.shift }

// find returns the block with hash h.
func (m *matcher) find(h uint32) (int64, bool) {
	for at := m.slot(h); m.slots[at] != 0; at = (at + 1) & uint32(len(m.slots)-1) {
		if i := m.slots[at] - 1; m.sums[i] == h {
			return int64(i) * int64(m.block), true
		}
	}
	return 0, false
}

// match is a range of the target that is in the base too.
type match struct{ target, base, n int64 }

// matches finds the matches of the target's range off..off+n, in order.
func (m *matcher) matches(ctx context.Context, target Source, off, n int64) ([]match, error) {
	var out []match
	if n < int64(m.block) || len(m.sums) == 0 {
		return nil, nil
	}
	var power uint32 = 1 // rollPrime^block
	for range m.block {
		power *= rollPrime
	}
	// A window of the target: two blocks before the place and what comes.
	w := &window{src: target, end: off + n, buf: make([]byte, 0, max(1<<18, 4*m.block))}
	done, pos := off, off
	var h uint32
	fresh := true
	for steps := 0; pos+int64(m.block) <= off+n; steps++ {
		if steps&0xffff == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		b, err := w.at(pos, m.block)
		if err != nil {
			return nil, err
		}
		if fresh {
			h, fresh = roll(b), false
		}
		if from, ok := m.find(h); ok {
			got, err := m.extend(target, match{pos, from, 0}, done, off+n)
			if err != nil {
				return nil, err
			}
			if got.n >= int64(m.block) {
				out = append(out, got)
				done = got.target + got.n
				pos, fresh = done, true
				continue
			}
		}
		if pos+int64(m.block) == off+n {
			break
		}
		b, err = w.at(pos, m.block+1)
		if err != nil {
			return nil, err
		}
		h = h*rollPrime + uint32(b[m.block]) + 1 - power*(uint32(b[0])+1)
		pos++
	}
	return out, nil
}

// extend draws a match out: back to least, on to end.
func (m *matcher) extend(target Source, at match, least, end int64) (match, error) {
	var a, b [16 << 10]byte
	for at.target+at.n < end && at.base+at.n < m.base.Size() {
		k := min(int64(len(a)), end-at.target-at.n, m.base.Size()-at.base-at.n)
		if err := readFull(target, a[:k], at.target+at.n); err != nil {
			return at, err
		}
		if err := readFull(m.base, b[:k], at.base+at.n); err != nil {
			return at, err
		}
		same := int64(prefix(a[:k], b[:k]))
		at.n += same
		if same < k {
			break
		}
	}
	for at.n > 0 && at.target > least && at.base > 0 {
		k := min(256, at.target-least, at.base)
		if err := readFull(target, a[:k], at.target-k); err != nil {
			return at, err
		}
		if err := readFull(m.base, b[:k], at.base-k); err != nil {
			return at, err
		}
		same := int64(0)
		for same < k && a[k-1-same] == b[k-1-same] {
			same++
		}
		at.target, at.base, at.n = at.target-same, at.base-same, at.n+same
		if same < k {
			break
		}
	}
	return at, nil
}

// prefix is how many first bytes of a and b are the same.
func prefix(a, b []byte) int {
	const step = 256
	n := 0
	for n+step <= len(a) && bytes.Equal(a[n:n+step], b[n:n+step]) {
		n += step
	}
	for n < len(a) && a[n] == b[n] {
		n++
	}
	return n
}

// window reads a file forward in large steps.
type window struct {
	src  Source
	end  int64
	buf  []byte
	from int64
}

func (w *window) at(off int64, n int) ([]byte, error) {
	if i := off - w.from; i >= 0 && i+int64(n) <= int64(len(w.buf)) {
		return w.buf[i : i+int64(n)], nil
	}
	w.buf = w.buf[:min(int64(cap(w.buf)), w.end-off)]
	w.from = off
	if err := readFull(w.src, w.buf, off); err != nil {
		w.buf = w.buf[:0]
		return nil, err
	}
	return w.buf[:n], nil
}
