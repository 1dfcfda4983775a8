// Package drift condenses what models see and answer into sketches small enough
// for a thin line, and tells how far one stretch of time is from another.
//
// Vocabulary: a sketch counts, for one input and one model version, how often
// scores, entropies, classes and numbers of findings fell into fixed bins, and
// how bright and how sharp the frames were: a soiled lens moves the last two, a
// changed world the first four. Sketches of any stretches merge by addition, in
// any order, with the same outcome. The reference is the merged sketch of a week
// that people found good; a shift is the distance of a sketch from it.
//
// A sketch travels as a result of the pipeline "drift": its item is the hour in
// UTC ("2026-11-22T10"), its text the encoded sketch, its model the version. An
// hour may come in several parts.
//
// The one rule a caller can break: bins are never moved; another division is
// another Version.
package drift

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Pipeline is the name under which sketches travel as results.
const Pipeline = "drift"

// HourLayout is the time layout of the item of such a result.
const HourLayout = "2006-01-02T15"

// Version of the encoding and of the bins. History: 1 first.
const Version = 1

// Sketch counts. The zero value is empty.
type Sketch struct {
	// Items are frames or clips.
	Items uint64
	// Score of each answer, 0 to 1 in twentieths.
	Score [20]uint64
	// Entropy of answers with shares, over the largest possible, in tenths.
	Entropy [10]uint64
	// Class is the best class of an answer by number; the last bin has all from
	// 31 on.
	Class [32]uint64
	// Found is the number of findings of an item: 0, 1, 2, 3–4, 5–8, 9–16, 17–32,
	// more.
	Found [8]uint64
	// Brightness is the mean of a frame, 0 to 255 in sixteenths.
	Brightness [16]uint64
	// Sharpness is the variance of a frame's Laplacian by its power of two: below
	// 1, 1–2, 2–4, … from 16384 on.
	Sharpness [16]uint64
}

// Answer counts one answer of the model. An entropy that is not a number and a
// class below 0 are not counted.
func (s *Sketch) Answer(score, entropy float64, class int) {
	s.Score[bin(score, len(s.Score))]++
	if entropy == entropy {
		s.Entropy[bin(entropy, len(s.Entropy))]++
	}
	if class >= 0 {
		s.Class[min(class, len(s.Class)-1)]++
	}
}

// Item counts one frame or clip with its findings.
func (s *Sketch) Item(found int) {
	s.Items++
	at := 0
	if found > 0 {
		at = min(1+bits.Len(uint(found-1)), len(s.Found)-1)
	}
	s.Found[at]++
}

// Frame counts how a frame looked: brightness from 0 to 255 and the variance of
// its Laplacian.
func (s *Sketch) Frame(brightness, sharpness float64) {
	s.Brightness[bin(brightness/256, len(s.Brightness))]++
	at := 0
	if sharpness >= 1 {
		at = int(min(1+math.Floor(math.Log2(sharpness)), float64(len(s.Sharpness)-1)))
	}
	s.Sharpness[at]++
}

// bin divides 0 to 1 into n; what lies outside goes to the nearest.
func bin(v float64, n int) int {
	if v != v {
		return 0
	}
	return int(min(max(math.Floor(v*float64(n)), 0), float64(n-1)))
}

// fields are all counts in the order of the encoding.
func (s *Sketch) fields() [][]uint64 {
	return [][]uint64{{s.Items}, s.Score[:], s.Entropy[:], s.Class[:], s.Found[:], s.Brightness[:], s.Sharpness[:]}
}

// Merge adds other to s. Counts stop at the largest number.
func (s *Sketch) Merge(other Sketch) {
	add := func(a, b uint64) uint64 {
		sum, carry := bits.Add64(a, b, 0)
		if carry > 0 {
			return math.MaxUint64
		}
		return sum
	}
	mine, its := s.fields(), other.fields()
	for i := range mine {
		for k := range mine[i] {
			mine[i][k] = add(mine[i][k], its[i][k])
		}
	}
	s.Items = mine[0][0]
}

// Encode is the sketch as bytes: the version and each count as a varint; about
// 110 to 250 bytes for an hour.
func (s Sketch) Encode() []byte {
	out := []byte{Version}
	for _, f := range s.fields() {
		for _, n := range f {
			out = binary.AppendUvarint(out, n)
		}
	}
	return out
}

// Decode reads what Encode wrote, and nothing else.
func Decode(data []byte) (Sketch, error) {
	if len(data) == 0 || data[0] != Version {
		return Sketch{}, fmt.Errorf("sketch of version %d, this program reads %d", version(data), Version)
	}
	data = data[1:]
	var s Sketch
	fields := s.fields()
	for _, f := range fields {
		for i := range f {
			v, n := binary.Uvarint(data)
			if n <= 0 || n > 1 && data[n-1] == 0 {
				return Sketch{}, errors.New("sketch is cut off or damaged")
			}
			f[i], data = v, data[n:]
		}
	}
	if len(data) > 0 {
		return Sketch{}, fmt.Errorf("%d bytes after the sketch", len(data))
	}
	s.Items = fields[0][0]
	return s, nil
}

func version(data []byte) int {
	if len(data) == 0 {
		return 0
	}
	return int(data[0])
}

// Text is Encode in base64, as a result's text carries it.
func (s Sketch) Text() string { return base64.RawStdEncoding.EncodeToString(s.Encode()) }

// Parse reads Text.
func Parse(text string) (Sketch, error) {
	data, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil {
		return Sketch{}, fmt.Errorf("parse sketch: %w", err)
	}
	return Decode(data)
}

// Bounds of what one input may show one model in an hour, for Check.
const (
	// MaxItems is 291 items a second.
	MaxItems = 1 << 20
	// maxAnswers is 64 answers to each of so many items.
	maxAnswers = 64 * MaxItems
)

// Check tells whether a sketch can be that of an hour. Whoever sends another
// one would outvote everybody it is merged with.
func (s Sketch) Check() error {
	answers, looks := total(s.Score[:]), total(s.Brightness[:])
	switch {
	case s.Items > MaxItems:
		return fmt.Errorf("sketch of %d items in an hour, the limit is %d", s.Items, MaxItems)
	case total(s.Found[:]) != s.Items:
		return errors.New("sketch counts other items than it has")
	case answers > maxAnswers:
		return fmt.Errorf("sketch of %d answers in an hour, the limit is %d", answers, maxAnswers)
	case total(s.Entropy[:]) > answers || total(s.Class[:]) > answers:
		return errors.New("sketch has more entropies or classes than answers")
	case looks > s.Items || total(s.Sharpness[:]) != looks:
		return errors.New("sketch has more frames than items, or frames without sharpness")
	}
	return nil
}
