package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The payload of a KindSamples block, for n rows (Block.Count) and m metrics
// (of the schema), is
//
//	0x01                       the form of the payload
//	n varints                  times: the first, the first difference, then
//	                           differences of differences; milliseconds
//	ceil(m/4) bytes            two bits per metric, lowest bits first: its mode
//	m columns                  as their modes say
//
// A value travels as the integer value·10^scale, rounded to nearest. A varint
// is zigzag base 128, as encoding/binary writes it. Modes:
//
//	0 full      n varints: the first value, then differences
//	1 missing   nothing
//	2 holes     ceil(n/8) bytes of presence, lowest bit first, then as full for
//	            the present rows
//	3 constant  one varint; only for n > 1 equal values
//
// One value has one encoding: a decoder refuses everything that encoding the
// result again would not give. It checks that while it reads, which costs a
// fifth of encoding again.

const (
	samplesForm = 0x01
	maxScale    = 9
	// From 2^51 on, dividing by a power of ten and multiplying again may miss the
	// integer by one: two roundings of 2^-53 each must stay below one half.
	maxInteger   = 1 << 51
	modeFull     = 0
	modeMissing  = 1
	modeHoles    = 2
	modeConstant = 3
)

// Samples is the content of a KindSamples block.
type Samples struct {
	Schema  Schema
	TimesMs []int64     // relative to the block's start
	Values  [][]float64 // [metric][row], NaN means missing
}

// EncodeSamples returns the payload of a samples block. Values that are not
// finite, or whose scaled integer is 2^51 or more, travel as missing. What
// DecodeSamples returns is the input exactly if it was rounded to the scale.
func EncodeSamples(s Samples) ([]byte, error) {
	out, err := appendSamples(nil, s)
	if err != nil {
		return nil, err
	}
	if err := atMost("bytes of payload", len(out), MaxPayloadBytes); err != nil {
		return nil, err
	}
	return out, nil
}

func appendSamples(out []byte, s Samples) ([]byte, error) {
	n := len(s.TimesMs)
	if err := checkSamples(s.Schema, n); err != nil {
		return nil, err
	}
	if len(s.Values) != len(s.Schema.Metrics) {
		return nil, fmt.Errorf("encode samples: %d columns for %d metrics", len(s.Values), len(s.Schema.Metrics))
	}
	if out == nil {
		out = make([]byte, 0, 64+2*n*len(s.Values))
	}
	out = append(out, samplesForm)
	out = appendTimes(out, s.TimesMs)
	modes := len(out)
	out = append(out, make([]byte, (len(s.Values)+3)/4)...)
	e := columnEncoder{scaled: make([]int64, 0, n), presence: make([]byte, (n+7)/8)}
	for i, column := range s.Values {
		if len(column) != n {
			return nil, fmt.Errorf("encode samples: %s has %d rows of %d", s.Schema.Metrics[i].Name, len(column), n)
		}
		var mode byte
		out, mode = e.append(out, column, s.Schema.Metrics[i].Scale)
		out[modes+i/4] |= mode << (i % 4 * 2)
	}
	return out, nil
}

// DecodeSamples reads the payload of a samples block of n rows.
func DecodeSamples(schema Schema, payload []byte, n int) (Samples, error) {
	if err := atMost("bytes of payload", len(payload), MaxPayloadBytes); err != nil {
		return Samples{}, err
	}
	return parseSamples(schema, payload, n)
}

func parseSamples(schema Schema, payload []byte, n int) (Samples, error) {
	if err := checkSamples(schema, n); err != nil {
		return Samples{}, err
	}
	if len(payload) == 0 || payload[0] != samplesForm {
		return Samples{}, errors.New("decode samples: unknown form")
	}
	m := len(schema.Metrics)
	// Each row takes a byte at least: do not allocate for a count that lies.
	if len(payload) < 1+n+(m+3)/4 {
		return Samples{}, errors.New("decode samples: payload ends early")
	}
	r := &reader{rest: payload[1:]}
	s := Samples{Schema: schema, TimesMs: r.times(n), Values: make([][]float64, m)}
	modes := r.take((m + 3) / 4)
	if r.bad == "" && m%4 != 0 && modes[len(modes)-1]>>(m%4*2) != 0 {
		r.fail("mode of no metric")
	}
	cells := make([]float64, n*m)
	for i := 0; i < m && r.bad == ""; i++ {
		s.Values[i] = cells[i*n : (i+1)*n : (i+1)*n]
		r.column(s.Values[i], modes[i/4]>>(i%4*2)&3, schema.Metrics[i].Scale)
	}
	if err := r.end(); err != nil {
		return Samples{}, fmt.Errorf("decode samples: %w", err)
	}
	return s, nil
}

func checkSamples(schema Schema, n int) error {
	if n < 1 || n > MaxRows || n*len(schema.Metrics) > MaxCells {
		return fmt.Errorf("samples of %d rows and %d metrics are beyond the limits", n, len(schema.Metrics))
	}
	return schema.check()
}

func appendTimes(out []byte, times []int64) []byte {
	var last, step int64
	for i, t := range times {
		d := t - last // may wrap round; so does the reader
		if i < 2 {
			out = binary.AppendVarint(out, d)
		} else {
			out = binary.AppendVarint(out, d-step)
		}
		last, step = t, d
	}
	return out
}

// columnEncoder has the room that each column needs for a while.
type columnEncoder struct {
	scaled   []int64
	presence []byte
}

func (e *columnEncoder) append(out []byte, column []float64, scale int8) ([]byte, byte) {
	scaled := e.scaled[:0]
	clear(e.presence)
	constant := true
	for i, v := range column {
		k, ok := toInteger(v, scale)
		if !ok {
			continue
		}
		e.presence[i/8] |= 1 << (i % 8)
		constant = constant && (len(scaled) == 0 || k == scaled[0])
		scaled = append(scaled, k)
	}
	switch {
	case len(scaled) == 0:
		return out, modeMissing
	case len(scaled) < len(column):
		return appendDifferences(append(out, e.presence...), scaled), modeHoles
	case constant && len(scaled) > 1:
		return binary.AppendVarint(out, scaled[0]), modeConstant
	}
	return appendDifferences(out, scaled), modeFull
}

func appendDifferences(out []byte, values []int64) []byte {
	var last int64
	for _, v := range values {
		out = binary.AppendVarint(out, v-last)
		last = v
	}
	return out
}

func toInteger(v float64, scale int8) (int64, bool) {
	var k float64
	if scale >= 0 {
		k = math.RoundToEven(v * pow10(scale))
	} else {
		k = math.RoundToEven(v / pow10(-scale))
	}
	if !(k > -maxInteger && k < maxInteger) { // also NaN
		return 0, false
	}
	return int64(k), true
}

// fromInteger divides by an exact power of ten, which gives the float64
// nearest to the decimal number: the same as parsing it.
func fromInteger(k int64, scale int8) float64 {
	if scale >= 0 {
		return float64(k) / pow10(scale)
	}
	return float64(k) * pow10(-scale)
}

// pow10 is exact: 10^22 is the last power of ten that a float64 holds.
func pow10(n int8) float64 {
	return [maxScale + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}[n]
}
