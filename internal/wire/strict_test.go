package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

// lenientSamples reads a payload without a look at its form, and asks the
// encoder whether it would have written it so: what DecodeSamples checks on its
// way is defined by this.
func lenientSamples(schema Schema, payload []byte, n int) (Samples, error) {
	if err := checkSamples(schema, n); err != nil {
		return Samples{}, err
	}
	if len(payload) == 0 || payload[0] != samplesForm {
		return Samples{}, errors.New("unknown form")
	}
	rest := payload[1:]
	short := false
	next := func() int64 {
		v, used := binary.Varint(rest)
		if used <= 0 {
			short = true
			return 0
		}
		rest = rest[used:]
		return v
	}
	take := func(k int) []byte {
		if len(rest) < k {
			short = true
			return make([]byte, k)
		}
		b := rest[:k]
		rest = rest[k:]
		return b
	}
	s := Samples{Schema: schema, TimesMs: make([]int64, n)}
	var last, step int64
	for i := range s.TimesMs {
		d := next()
		if i >= 2 {
			d += step
		}
		last, step = last+d, d
		s.TimesMs[i] = last
	}
	modes := take((len(schema.Metrics) + 3) / 4)
	for i, m := range schema.Metrics {
		column, mode := make([]float64, n), modes[i/4]>>(i%4*2)&3
		var presence []byte
		if mode == modeHoles {
			presence = take((n + 7) / 8)
		}
		var k int64
		for j := range column {
			if mode == modeMissing || mode == modeHoles && presence[j/8]>>(j%8)&1 == 0 {
				column[j] = math.NaN()
				continue
			}
			if mode != modeConstant || j == 0 {
				k += next()
			}
			column[j] = fromInteger(k, m.Scale)
		}
		s.Values = append(s.Values, column)
	}
	if short {
		return Samples{}, errors.New("ends early")
	}
	again, err := EncodeSamples(s)
	if err == nil && !bytes.Equal(again, payload) {
		err = errors.New("not in the deterministic form")
	}
	return s, err
}

// FuzzStrict: DecodeSamples accepts exactly what encoding again would give.
func FuzzStrict(f *testing.F) {
	schema := Schema{Metrics: []Metric{{"a", 2}, {"b", 0}, {"c", -3}, {"d", 9}, {"e", -9}}}
	rng := rand.New(rand.NewPCG(1, 9))
	for range 40 {
		n := 1 + rng.IntN(20)
		s := Samples{Schema: schema}
		for i := range n {
			s.TimesMs = append(s.TimesMs, int64(i*10000+rng.IntN(9)))
		}
		for range schema.Metrics {
			column := make([]float64, n)
			kind := rng.IntN(4)
			for i := range column {
				switch {
				case kind == 0 || kind == 1 && rng.IntN(3) == 0:
					column[i] = math.NaN()
				case kind == 2:
					column[i] = 7
				default:
					column[i] = math.Round(rng.NormFloat64() * 5000)
				}
			}
			s.Values = append(s.Values, column)
		}
		payload, err := EncodeSamples(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(n, payload)
		for range 8 { // and what is wrong with it in one place
			bad := bytes.Clone(payload)
			switch i := rng.IntN(len(bad)); rng.IntN(3) {
			case 0:
				bad[i] ^= 1 << rng.IntN(8)
			case 1:
				bad = append(bad[:i], bad[i+1:]...)
			case 2:
				bad = append(bad[:i:i], append([]byte{bad[i] | 0x80, 0}, payload[i+1:]...)...)
			}
			f.Add(n, bad)
		}
	}
	f.Fuzz(func(t *testing.T, n int, payload []byte) {
		got, err := DecodeSamples(schema, payload, n)
		want, wantErr := lenientSamples(schema, payload, n)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%x for %d rows: strict %v, encoding again %v", payload, n, err, wantErr)
		}
		if err != nil {
			if got.TimesMs != nil || got.Values != nil {
				t.Fatal("a value came with the error")
			}
			return
		}
		for i := range want.Values {
			for j, v := range want.Values[i] {
				if g := got.Values[i][j]; math.Float64bits(g) != math.Float64bits(v) && !(math.IsNaN(g) && math.IsNaN(v)) {
					t.Fatalf("%x: metric %d row %d is %v, want %v", payload, i, j, g, v)
				}
			}
		}
	})
}

// benchSamples is a minute of 30 sensors as a box has them.
func benchSamples(rows int) Samples {
	rng := rand.New(rand.NewPCG(2, 2))
	var s Samples
	for i := range rows {
		s.TimesMs = append(s.TimesMs, int64(i)*10_000+rng.Int64N(7))
	}
	for i := range 30 {
		m := Metric{Name: "metric" + string(rune('a'+i)), Scale: []int8{2, 2, 2, 3, 0, -6}[i%6]}
		column := make([]float64, rows)
		v := 61.0
		for j := range column {
			if i%10 != 9 {
				v += rng.NormFloat64() * 0.25
			}
			column[j], _ = func() (float64, bool) {
				k, ok := toInteger(v*math.Pow10(max(0, -int(m.Scale))), m.Scale)
				return fromInteger(k, m.Scale), ok
			}()
		}
		s.Schema.Metrics, s.Values = append(s.Schema.Metrics, m), append(s.Values, column)
	}
	return s
}

func BenchmarkDecodeSamples(b *testing.B) {
	s := benchSamples(6)
	payload, err := EncodeSamples(s)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSamples(s.Schema, payload, 6); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/180, "ns/sample")
}
