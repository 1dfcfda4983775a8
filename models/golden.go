package models

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// GoldenVersion is the shape of Golden. History: 1 first.
const GoldenVersion = 1

// Bounds of a golden file. A box keeps the whole file in memory while it
// probes, and its agent may use 20 MiB at rest.
const (
	MaxGoldenBytes = 32 << 20
	MaxGoldenCases = 256
)

// Golden is the content of GoldenFile: samples with the answers that the
// publisher measured. A box that answers differently does not serve the model.
type Golden struct {
	V     int          `json:"v"`
	Cases []GoldenCase `json:"cases"`
}

// GoldenCase is one call and its right answer.
type GoldenCase struct {
	Name    string        `json:"name"`
	Inputs  []GoldenInput `json:"inputs"`
	Outputs []GoldenWant  `json:"outputs"`
}

// GoldenInput is a whole tensor; Data is its raw little-endian content.
type GoldenInput struct {
	TensorSpec
	Data []byte `json:"data"`
}

// GoldenWant is an expected tensor. A floating-point element is right when
// |got − want| ≤ Abs + Rel·|want|, when both are NaN, or when both are the
// same infinity; integers and strings must be equal. A case is right when all
// elements are.
type GoldenWant struct {
	TensorSpec
	Data []byte  `json:"data"`
	Abs  float64 `json:"abs"`
	Rel  float64 `json:"rel"`
	// On are tolerances in place of Abs and Rel for classes of hardware: see Hardware.
	On map[string]Tolerance `json:"on,omitempty"`
}

// ReadGolden reads and validates the golden file at path.
func ReadGolden(path string) (Golden, error) {
	f, err := os.Open(path)
	if err != nil {
		return Golden{}, fmt.Errorf("open golden samples: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxGoldenBytes+1))
	if err != nil {
		return Golden{}, fmt.Errorf("read golden samples: %w", err)
	}
	g, err := DecodeGolden(data)
	if err != nil {
		return Golden{}, fmt.Errorf("golden samples %s: %w", path, err)
	}
	return g, nil
}

// DecodeGolden parses and validates golden samples. Unknown fields are refused.
func DecodeGolden(data []byte) (Golden, error) {
	if len(data) > MaxGoldenBytes {
		return Golden{}, fmt.Errorf("longer than %d bytes: keep fewer or smaller samples", MaxGoldenBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var g Golden
	if err := dec.Decode(&g); err != nil {
		return Golden{}, fmt.Errorf("parse: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Golden{}, errors.New("parse: bytes after its end")
	}
	if err := g.Validate(); err != nil {
		return Golden{}, err
	}
	return g, nil
}

// Validate names the first fault: a tensor whose data does not fill its shape,
// a tolerance that is not a number, a name used twice.
func (g Golden) Validate() error {
	if g.V != GoldenVersion {
		return fmt.Errorf("version %d, this program reads %d", g.V, GoldenVersion)
	}
	if len(g.Cases) == 0 || len(g.Cases) > MaxGoldenCases {
		return fmt.Errorf("%d cases, want 1 to %d", len(g.Cases), MaxGoldenCases)
	}
	seen := map[string]bool{}
	for i, c := range g.Cases {
		if c.Name == "" || seen[c.Name] {
			return fmt.Errorf("case %d: name %q is empty or used twice", i, c.Name)
		}
		seen[c.Name] = true
		if err := c.validate(); err != nil {
			return fmt.Errorf("case %q: %w", c.Name, err)
		}
	}
	return nil
}

func (c GoldenCase) validate() error {
	if len(c.Inputs) == 0 || len(c.Outputs) == 0 {
		return errors.New("no inputs or no outputs")
	}
	seen := map[string]bool{}
	for _, in := range c.Inputs {
		if seen[in.Name] {
			return fmt.Errorf("input %q is given twice", in.Name)
		}
		seen[in.Name] = true
		if err := in.CheckData(in.Data); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	clear(seen)
	for _, out := range c.Outputs {
		if seen[out.Name] {
			return fmt.Errorf("output %q is given twice", out.Name)
		}
		seen[out.Name] = true
		if err := out.CheckData(out.Data); err != nil {
			return fmt.Errorf("output %q: %w", out.Name, err)
		}
		if err := out.checkTolerances(); err != nil {
			return fmt.Errorf("output %q: %w", out.Name, err)
		}
	}
	return nil
}

// Fits reports whether every case is a legal call under s: all inputs given,
// nothing that the model does not have, types and shapes as declared.
func (g Golden) Fits(s Signature) error {
	for _, c := range g.Cases {
		if err := c.fits(s); err != nil {
			return fmt.Errorf("golden case %q: %w", c.Name, err)
		}
	}
	return nil
}

func (c GoldenCase) fits(s Signature) error {
	for _, in := range c.Inputs {
		spec, ok := find(s.Inputs, in.Name)
		if !ok {
			return fmt.Errorf("the model has no input %q", in.Name)
		}
		if err := spec.admits(in.TensorSpec); err != nil {
			return fmt.Errorf("input %q %w", in.Name, err)
		}
	}
	if len(c.Inputs) != len(s.Inputs) {
		for _, spec := range s.Inputs {
			if !c.gives(spec.Name) {
				return fmt.Errorf("input %q is missing", spec.Name)
			}
		}
	}
	for _, out := range c.Outputs {
		spec, ok := find(s.Outputs, out.Name)
		if !ok {
			return fmt.Errorf("the model has no output %q", out.Name)
		}
		// Exporters often leave out or misstate the shape of an output: the
		// measured one counts, so only a declared rank is compared.
		if len(spec.Shape) == 0 {
			spec.Shape = out.Shape
		}
		if err := spec.admits(out.TensorSpec); err != nil {
			return fmt.Errorf("output %q %w", out.Name, err)
		}
	}
	return nil
}

func (c GoldenCase) gives(input string) bool {
	for _, in := range c.Inputs {
		if in.Name == input {
			return true
		}
	}
	return false
}

// Check reports whether a tensor is the wanted one. The error names the first
// wrong element, how many are wrong, and the tolerance.
func (w GoldenWant) Check(got TensorSpec, data []byte) error {
	if got.Name != w.Name {
		return fmt.Errorf("output is %q, want %q", got.Name, w.Name)
	}
	if got.DType != w.DType {
		return fmt.Errorf("output %q is %s, want %s", w.Name, got.DType, w.DType)
	}
	if !sameShape(got.Shape, w.Shape) {
		return fmt.Errorf("output %q has shape %v, want %v", w.Name, got.Shape, w.Shape)
	}
	if err := got.CheckData(data); err != nil {
		return fmt.Errorf("output %q: %w", w.Name, err)
	}
	if len(data) != len(w.Data) && w.DType != BYTES {
		return fmt.Errorf("output %q has %d bytes, want %d", w.Name, len(data), len(w.Data))
	}
	switch w.DType {
	case FP16, BF16, FP32, FP64:
		return w.checkFloats(data)
	}
	if i := firstDifference(data, w.Data); i >= 0 {
		if size := w.DType.Size(); size > 0 {
			return fmt.Errorf("output %q: element %d of %d differs (%s must be equal)", w.Name, i/size, len(data)/size, w.DType)
		}
		return fmt.Errorf("output %q: strings differ from byte %d on", w.Name, i)
	}
	return nil
}

func (w GoldenWant) checkFloats(data []byte) error {
	size := w.DType.Size()
	wrong, first := 0, -1
	for i := 0; i < len(data)/size; i++ {
		if !w.near(w.DType.float(data, i), w.DType.float(w.Data, i)) {
			if wrong++; first < 0 {
				first = i
			}
		}
	}
	if wrong == 0 {
		return nil
	}
	return fmt.Errorf("output %q: %d of %d elements differ, first element %d: got %g, want %g ± %g",
		w.Name, wrong, len(data)/size, first, w.DType.float(data, first), w.DType.float(w.Data, first),
		w.Abs+w.Rel*math.Abs(w.DType.float(w.Data, first)))
}

func (w GoldenWant) near(got, want float64) bool {
	if math.IsNaN(got) || math.IsNaN(want) {
		return math.IsNaN(got) && math.IsNaN(want)
	}
	// An infinite want would make the tolerance infinite and pass anything.
	if math.IsInf(got, 0) || math.IsInf(want, 0) {
		return got == want
	}
	return math.Abs(got-want) <= w.Abs+w.Rel*math.Abs(want)
}

// float returns element i of raw little-endian data of a floating-point type.
func (t DType) float(data []byte, i int) float64 {
	switch t {
	case FP16:
		return halfToFloat(binary.LittleEndian.Uint16(data[2*i:]))
	case BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16))
	case FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
	default:
		return math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
	}
}

// halfToFloat widens an IEEE 754 binary16 number.
func halfToFloat(h uint16) float64 {
	sign, exp, frac := 1.0, int(h>>10)&0x1f, float64(h&0x3ff)
	if h&0x8000 != 0 {
		sign = -1
	}
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(frac+1024, exp-25)
}

// Score measures answers against what a case wants: how many of its decisions
// are right, of how many, and the squared error summed over elements, of how many.
// A decision is the greatest element along the last axis of floating-point
// numbers, or one whole number.
type Score struct {
	Right, Decisions int
	Squares          float64
	Elements         int
}

// Accuracy is the part of decisions that are right.
func (s Score) Accuracy() float64 { return float64(s.Right) / float64(max(1, s.Decisions)) }

// Error is the root mean square of the differences.
func (s Score) Error() float64 { return math.Sqrt(s.Squares / float64(max(1, s.Elements))) }

// Add takes a case into the score. got has the outputs of the case, in order.
func (s *Score) Add(c GoldenCase, got []GoldenWant) error {
	if len(got) != len(c.Outputs) {
		return fmt.Errorf("golden case %q: %d outputs, want %d", c.Name, len(got), len(c.Outputs))
	}
	for i, w := range c.Outputs {
		g := got[i]
		if g.DType != w.DType || !sameShape(g.Shape, w.Shape) || len(g.Data) != len(w.Data) && w.DType != BYTES {
			return fmt.Errorf("golden case %q: output %q is %s %v, want %s %v", c.Name, g.Name, g.DType, g.Shape, w.DType, w.Shape)
		}
		if err := g.CheckData(g.Data); err != nil {
			return fmt.Errorf("golden case %q: output %q: %w", c.Name, g.Name, err)
		}
		s.output(w, g.Data)
	}
	return nil
}

func (s *Score) decide(right bool) {
	s.Decisions++
	if right {
		s.Right++
	}
}

func (s *Score) output(w GoldenWant, data []byte) {
	size := w.DType.Size()
	if size == 0 { // strings: all of them are one decision
		s.decide(bytes.Equal(data, w.Data))
		return
	}
	n := len(w.Data) / size
	switch w.DType {
	case FP16, BF16, FP32, FP64:
	default:
		for i := range n {
			s.decide(bytes.Equal(data[i*size:][:size], w.Data[i*size:][:size]))
		}
		return
	}
	row := n
	if d := len(w.Shape); d > 0 && w.Shape[d-1] > 0 {
		row = int(w.Shape[d-1])
	}
	for from := 0; from < n; from += row {
		own, right := from, from
		for i := from; i < from+row; i++ {
			a, b := w.DType.float(data, i), w.DType.float(w.Data, i)
			s.Squares += (a - b) * (a - b)
			if a > w.DType.float(data, own) {
				own = i
			}
			if b > w.DType.float(w.Data, right) {
				right = i
			}
		}
		s.Elements += row
		s.decide(own == right)
	}
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return n
	}
	return -1
}
