package plant

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// stream is a source of noise with random access: value i does not depend on
// which values were asked for before.
type stream uint64

// streamOf names a stream; equal seeds and names give equal noise.
func streamOf(seed uint64, name string) stream {
	h := fnv.New64a()
	h.Write([]byte(name))
	return stream(mix(seed ^ mix(h.Sum64())))
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (s stream) bits(i int) uint64 {
	return mix(uint64(s) + (uint64(i)+1)*0x9e3779b97f4a7c15)
}

// uniform is in [0, 1).
func (s stream) uniform(i int) float64 {
	return float64(s.bits(i)>>11) / (1 << 53)
}

// normal is the sum of four uniforms (Irwin and Hall), scaled to unit
// variance: its tails end at 3.5, since outliers are modelled on their own.
func (s stream) normal(i int) float64 {
	b := s.bits(i)
	sum := b&0xffff + b>>16&0xffff + b>>32&0xffff + b>>48
	return (float64(sum)/65536 - 2) * 1.7320508
}

// smooth is normal noise with knots every period steps, joined by cosines.
func (s stream) smooth(i, period int) float64 {
	k, r := i/period, float64(i%period)/float64(period)
	w := (1 - math.Cos(math.Pi*r)) / 2
	return s.normal(k)*(1-w) + s.normal(k+1)*w
}

// rng draws the constants of a site, SKU or box.
func (s stream) rng() *rand.Rand {
	return rand.New(rand.NewPCG(uint64(s), mix(uint64(s))))
}

// span is a range that a parameter is drawn from, evenly.
type span struct{ Lo, Hi float64 }

func (s span) draw(r *rand.Rand) float64 { return s.Lo + (s.Hi-s.Lo)*r.Float64() }

// choice is one of several structures with its weight.
type choice struct {
	Name   string
	Weight float64
}

func pick(r *rand.Rand, from []choice) string {
	total := 0.0
	for _, c := range from {
		total += c.Weight
	}
	x := r.Float64() * total
	for _, c := range from {
		if x -= c.Weight; x < 0 {
			return c.Name
		}
	}
	return from[len(from)-1].Name
}

func clamp(x, lo, hi float64) float64 { return min(max(x, lo), hi) }

// poisson is the number of events of a mean that is small.
func poisson(r *rand.Rand, mean float64) int {
	n, p, limit := 0, r.Float64(), math.Exp(-mean)
	for p > limit && n < 50 {
		n++
		p *= r.Float64()
	}
	return n
}
