package wdelta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// matrix is a safetensors file with one matrix of whole rows.
func matrix(dtype string, width int, data []byte) []byte {
	n := len(data) / (weights{dtype: dtype}).size() / width
	head := fmt.Sprintf(`{"m":{"dtype":%q,"shape":[%d,%d],"data_offsets":[0,%d]}}`, dtype, n, width, len(data))
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), data...)
}

// What tells whether an 8-bit weight changes is how often its row and its column do, and the
// way it goes is that of its row times that of its column.
func TestChangesOf8BitWeightsCostLittleMoreThanTheirChance(t *testing.T) {
	const rows, width, follows = 400, 300, 0.95
	rng := rand.New(rand.NewPCG(21, 0))
	chance, way := make([]float64, rows+width), make([]int, rows+width)
	for i := range chance {
		chance[i] = math.Exp2(-4 * rng.Float64())
		way[i] = 1 - 2*rng.IntN(2)
	}
	h := func(p float64) float64 { return -p*math.Log2(p) - (1-p)*math.Log2(1-p) }
	base, least := random(22, rows*width), 0.0
	target := bytes.Clone(base)
	for i := range base {
		r, c := i/width, rows+i%width
		p := 0.6 * chance[r] * chance[c]
		least += h(p) + p*h(follows)
		if rng.Float64() < p {
			d := way[r] * way[c]
			if rng.Float64() > follows {
				d = -d
			}
			target[i] += byte(d)
		}
	}
	from, to := matrix("I8", width, base), matrix("I8", width, target)
	delta, stats := mustEncode(t, from, to, Options{})
	mustDecode(t, from, delta, to)
	if got := float64(8*stats.WireBytes) / least; got > 1.2 {
		t.Errorf("%.3f of what the chances of changes say, want at most 1.2: %+v", got, stats.Methods)
	}
}

func TestMovesAreExpectedAsLargeAsThoseOfTheirColumn(t *testing.T) {
	const rows, width = 200, 150
	rng := rand.New(rand.NewPCG(23, 0))
	var sizes [width]float64
	for i := range sizes {
		sizes[i] = math.Exp2(-8 - 6*rng.Float64())
	}
	w, least := weights{dtype: "F32"}, 0.0
	var base, target []byte
	for i := range rows * width {
		x := float32(rng.NormFloat64())
		next := x + float32(rng.NormFloat64()*sizes[i%width])
		base, target = w.append(base, float64(x)), w.append(target, float64(next))
		_, exp := math.Frexp(float64(next))
		// The entropy of a Gaussian, in steps of the number's last bit.
		least += math.Log2(sizes[i%width]*math.Sqrt(2*math.Pi*math.E)) - float64(exp-24)
	}
	from, to := matrix("F32", width, base), matrix("F32", width, target)
	delta, stats := mustEncode(t, from, to, Options{})
	mustDecode(t, from, delta, to)
	if got := float64(8*stats.WireBytes) / least; got > 1.04 {
		t.Errorf("%.3f of the moves' entropy, want at most 1.04: %+v", got, stats.Methods)
	}
}
