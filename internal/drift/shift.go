package drift

import "math"

// Shift is how far one aspect of a sketch is from the reference.
type Shift struct {
	// Aspect is score, entropy, class, found, brightness or sharpness.
	Aspect string
	// PSI is the population stability index: below 0.1 nothing happened, above
	// 0.25 something did (the thumb rule of credit scoring, where it comes from).
	PSI float64
	// JensenShannon is the divergence in bits, 0 to 1.
	JensenShannon float64
	// Reference and Current are how many counts either rests on.
	Reference, Current uint64
}

// MinCounts is how many counts either side needs before a shift says anything:
// with fewer, chance alone moves PSI beyond 0.25.
const MinCounts = 200

// Telling reports whether the shift rests on enough.
func (s Shift) Telling() bool { return s.Reference >= MinCounts && s.Current >= MinCounts }

// Compare returns the shifts of all aspects that both sketches have counts of.
func Compare(reference, current Sketch) []Shift {
	var out []Shift
	names := []string{"score", "entropy", "class", "found", "brightness", "sharpness"}
	ref, cur := reference.fields()[1:], current.fields()[1:]
	for i, name := range names {
		s := Shift{Aspect: name, Reference: total(ref[i]), Current: total(cur[i])}
		if s.Reference == 0 || s.Current == 0 {
			continue
		}
		s.PSI, s.JensenShannon = psi(ref[i], cur[i]), jensenShannon(ref[i], cur[i])
		out = append(out, s)
	}
	return out
}

// total stops at the largest number.
func total(counts []uint64) uint64 {
	var n uint64
	for _, c := range counts {
		if n += c; n < c {
			return math.MaxUint64
		}
	}
	return n
}

// share is the part of a bin, each bin with half a count more than it has, so
// that an empty one is rare and not impossible.
func share(counts []uint64, i int) float64 {
	var sum float64
	for _, c := range counts {
		sum += float64(c) + 0.5
	}
	return (float64(counts[i]) + 0.5) / sum
}

// psi is the population stability index of two histograms of the same bins:
// Σ (q − p) · ln(q / p). It is symmetric, 0 for the same shape.
func psi(reference, current []uint64) float64 {
	var sum float64
	for i := range reference {
		p, q := share(reference, i), share(current, i)
		sum += (q - p) * math.Log(q/p)
	}
	return max(sum, 0)
}

// jensenShannon is the divergence of two histograms in bits, 0 to 1.
func jensenShannon(reference, current []uint64) float64 {
	var sum float64
	for i := range reference {
		p, q := share(reference, i), share(current, i)
		m := (p + q) / 2
		sum += p*math.Log2(p/m)/2 + q*math.Log2(q/m)/2
	}
	return min(max(sum, 0), 1)
}
