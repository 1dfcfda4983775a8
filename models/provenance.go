package models

import (
	"fmt"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// Provenance says how the files of a version came to be, where that is not how
// training left them.
type Provenance struct {
	Quantised *Quantised `json:"quantised,omitempty"`
}

// Quantised says that weights are those of another version and whole steps
// (docs/wdelta.md), and what that did to the answers.
type Quantised struct {
	// Base is the version whose weights were built on.
	Base  Ref             `json:"base"`
	Files []QuantisedFile `json:"files"`
	// Levels are the steps that the typical move of a weight has.
	Levels float64 `json:"levels"`
	// Metric of Cases samples, Before of the weights as trained and After as
	// published, which was to be worse by no more than Tolerance, as a part of
	// Before: MetricAccuracy, MetricError, or MetricMoved, whose Before is 0.
	Metric    string  `json:"metric"`
	Cases     int     `json:"cases"`
	Before    float64 `json:"before"`
	After     float64 `json:"after"`
	Tolerance float64 `json:"tolerance"`
}

// The metrics of quantised weights.
const (
	MetricAccuracy = "accuracy" // part of the decisions that are right
	MetricError    = "error"    // root mean square of answers less right ones
	// MetricMoved is the root mean square of how far answers went from those of
	// the weights as trained, as a part of the root mean square of the latter.
	MetricMoved = "moved"
)

// AsGood reports whether After is good enough.
func (q Quantised) AsGood() bool {
	switch q.Metric {
	case MetricAccuracy:
		return q.After >= q.Before*(1-q.Tolerance)
	case MetricError:
		return q.After <= q.Before*(1+q.Tolerance)
	}
	return q.After <= q.Tolerance
}

// QuantisedFile is one file of weights.
type QuantisedFile struct {
	Path string `json:"path"`
	// Base is the file of the base, Trained the one that training left.
	Base    blob.Digest `json:"base"`
	Trained blob.Digest `json:"trained"`
	Tensors int         `json:"tensors"` // that moved by steps
	// Bits that the steps of a weight need, in the mean over all that moved.
	Bits float64 `json:"bits"`
	// RelativeError is the largest of a tensor: see wdelta.Quantum.
	RelativeError float64 `json:"relative_error"`
}

func (m Manifest) checkProvenance() error {
	if m.Provenance == nil || m.Provenance.Quantised == nil {
		return nil
	}
	q := m.Provenance.Quantised
	if q.Base.Name != m.Name || q.Base.Digest.IsZero() {
		return fmt.Errorf("provenance: quantised against %q, want a version of %s with its digest", q.Base, m.Name)
	}
	if len(q.Files) == 0 || !slices.Contains([]string{MetricAccuracy, MetricError, MetricMoved}, q.Metric) || q.Cases < 1 {
		return fmt.Errorf("provenance: quantised with %d files, metric %q and %d cases", len(q.Files), q.Metric, q.Cases)
	}
	for _, n := range []float64{q.Levels, q.Before, q.After, q.Tolerance} {
		if math.IsNaN(n) || math.IsInf(n, 0) || n < 0 {
			return fmt.Errorf("provenance: %v is no measure of quantised weights", n)
		}
	}
	if !q.AsGood() {
		return fmt.Errorf("provenance: %s went from %v to %v, further than %v", q.Metric, q.Before, q.After, q.Tolerance)
	}
	for _, f := range q.Files {
		if _, ok := m.File(f.Path); !ok || f.Base.IsZero() || f.Trained.IsZero() {
			return fmt.Errorf("provenance: quantised file %q is not among the files, or has no digests", f.Path)
		}
	}
	return nil
}
