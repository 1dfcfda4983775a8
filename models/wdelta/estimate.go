package wdelta

import (
	"fmt"
	"math"
	"math/bits"
)

// Estimates decide, from a few samples, how numbers are worth coding. They only
// steer the encoder: a frame is tried both ways where it is not clear.

const (
	sampleRuns = 8   // places of a tensor that are looked at
	sampleRun  = 256 // elements at each
)

// sample reads sampleRuns runs of elements of the n bytes at off, spread evenly.
func sample(f Source, e elem, off, n int64) ([]byte, error) {
	run := int64(sampleRun * e.size())
	if n <= sampleRuns*run {
		b := make([]byte, n)
		return b, readFull(f, b, off)
	}
	b := make([]byte, sampleRuns*run)
	for i := range int64(sampleRuns) {
		at := (n - run) * i / (sampleRuns - 1)
		at -= at % int64(e.size())
		if err := readFull(f, b[i*run:][:run], off+at); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func readFull(f Source, b []byte, off int64) error {
	if n, err := f.ReadAt(b, off); n < len(b) {
		return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
	}
	return nil
}

// entropy is the bits that a symbol needs, by its counts.
func entropy(counts []int) float64 {
	total, sum := 0, 0.0
	for _, c := range counts {
		if c > 0 {
			total += c
			sum += float64(c) * math.Log2(float64(c))
		}
	}
	if total == 0 {
		return 0
	}
	return math.Log2(float64(total)) - sum/float64(total)
}

// movedBits estimates the bits of an element coded against base.
func (e elem) movedBits(target, base []byte) float64 {
	s := shapes[e]
	var classes [65]int
	var v, b [block]uint64
	rest, n := 0, len(target)/e.size()
	for at := 0; at < n; at += block {
		k := e.load(&v, target[at*e.size():])
		e.load(&b, base[at*e.size():])
		for i := range k {
			class := bits.Len64(amount(s.signed(s.ordered(v[i]) - s.ordered(b[i]))))
			classes[class]++
			rest += class // the sign and the bits below the leading one
		}
	}
	return entropy(classes[:]) + float64(rest)/float64(max(n, 1))
}

// plainBits estimates the bits of an element by itself.
func (e elem) plainBits(b []byte) float64 {
	s := shapes[e]
	low := s.bits - 8
	if s.mantissa > 0 {
		low = s.mantissa
	}
	var counts [1 << 11]int
	var v [block]uint64
	n := len(b) / e.size()
	for at := 0; at < n; at += block {
		k := e.load(&v, b[at*e.size():])
		for _, u := range v[:k] {
			counts[u>>low&(1<<11-1)]++
		}
	}
	return entropy(counts[:]) + float64(low)
}

// guess finds what the numbers of b are and how many bytes precede the first
// whole one: the element and phase with the least entropy of the bytes by place.
func guess(b []byte) (best elem, phase int) {
	best, least := elemI8, math.Inf(1)
	for _, e := range []elem{elemI8, elemF16, elemBF16, elemF32, elemF64} {
		for p := range e.size() {
			// Fewer planes win when more are no better: chance alone favours them.
			if per := e.plainBits(b[p:]) / float64(e.size()); per < least-0.05 {
				best, phase, least = e, p, per
			}
		}
	}
	return best, phase
}
