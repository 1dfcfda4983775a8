package wire

import (
	"errors"
	"fmt"
	"math"
)

// Serving is the body of EventServing: how one model serves on a box, and how a
// version does that is tried beside it. An event whose Text is empty only
// brings new numbers.
type Serving struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"` // of the signed manifest
	// Err tells in English why it does not serve now; empty: it serves.
	Err string `json:"err,omitempty"`
	// Variant serves, of Variants, the best first; empty: the model has one form.
	Variant  string           `json:"variant,omitempty"`
	Variants []ServingVariant `json:"variants,omitempty"`
	// Cause is why: cool, hot, power, load, or only, where a cheaper one is asked
	// for and none saves anything. Reason says the same in words, in English.
	Cause  string `json:"cause,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Refused requests insisted on a better variant.
	Refused uint64 `json:"refused,omitempty"`
	// Backend is the program that serves in place of ONNX Runtime.
	Backend  string `json:"backend,omitempty"`
	Provider string `json:"provider,omitempty"`
	// Shadow is how a candidate does beside the version; nil: none is tried.
	Shadow *ServingShadow `json:"shadow,omitempty"`
}

// ServingVariant is what one variant costs, as it was measured on the box.
type ServingVariant struct {
	Name           string  `json:"name"`
	SecondsPerItem float64 `json:"seconds_per_item"`
	PeakRSSBytes   int64   `json:"peak_rss_bytes"`
	// Watts are drawn on top while it computes without pause, and JoulesPerItem is
	// what one item takes of it; 0: no sensor could tell.
	Watts         float64 `json:"watts,omitempty"`
	JoulesPerItem float64 `json:"joules_per_item,omitempty"`
	// HeatFrom is what they were read from: rapl, ina3221 or board; cpu: no sensor
	// could tell, and the processor time stands for the heat.
	HeatFrom string `json:"heat_from,omitempty"`
	// Skipped tells in English why it never serves here; empty: it may.
	Skipped string `json:"skipped,omitempty"`
}

// ServingShadow compares a candidate with the version that serves.
type ServingShadow struct {
	Version  string `json:"version,omitempty"`
	Seen     uint64 `json:"seen"`
	Compared uint64 `json:"compared"`
	Failures uint64 `json:"failures"`
	Hot      uint64 `json:"hot,omitempty"`
	Busy     uint64 `json:"busy,omitempty"`
	Large    uint64 `json:"large,omitempty"`
	// Agreement is 0 to 1, over those compared.
	Agreement float64 `json:"agreement"`
	// LatencyRatio is the candidate's time against that of the version; 0: unknown.
	LatencyRatio float64 `json:"latency_ratio"`
	Err          string  `json:"err,omitempty"`
}

// Bounds of a Serving.
const (
	MaxServingVariants = 16
	MaxServingText     = 256
	MaxServingErr      = 1000
)

// Clean makes every text of s short enough to be sent.
func (s Serving) Clean() Serving {
	for _, t := range []*string{&s.Name, &s.Version, &s.Digest, &s.Variant, &s.Cause, &s.Backend, &s.Provider} {
		*t = clean(*t, maxName)
	}
	s.Reason, s.Err = clean(s.Reason, MaxServingText), clean(s.Err, MaxServingErr)
	s.Variants = append([]ServingVariant(nil), s.Variants[:min(len(s.Variants), MaxServingVariants)]...)
	for i := range s.Variants {
		v := &s.Variants[i]
		v.Name, v.HeatFrom, v.Skipped = clean(v.Name, maxName), clean(v.HeatFrom, maxName), clean(v.Skipped, MaxServingText)
	}
	if s.Shadow != nil {
		shadow := *s.Shadow
		shadow.Version, shadow.Err = clean(shadow.Version, maxName), clean(shadow.Err, MaxServingText)
		s.Shadow = &shadow
	}
	return s
}

// Check refuses what Clean would not have left, and numbers that cannot be.
func (s Serving) Check() error {
	errs := []error{atMost("variants", len(s.Variants), MaxServingVariants), text("reason", s.Reason, MaxServingText), text("error", s.Err, MaxServingErr)}
	for _, t := range []string{s.Name, s.Version, s.Digest, s.Variant, s.Cause, s.Backend, s.Provider} {
		errs = append(errs, text("name", t, maxName))
	}
	if s.Name == "" {
		errs = append(errs, errors.New("serving without a model"))
	}
	for _, v := range s.Variants {
		errs = append(errs, text("variant", v.Name, maxName), text("source of heat", v.HeatFrom, maxName), text("reason", v.Skipped, MaxServingText),
			sane(v.SecondsPerItem), sane(float64(v.PeakRSSBytes)), sane(v.Watts), sane(v.JoulesPerItem))
	}
	if w := s.Shadow; w != nil {
		errs = append(errs, text("version", w.Version, maxName), text("failure", w.Err, MaxServingText), sane(w.Agreement), sane(w.LatencyRatio))
	}
	return errors.Join(errs...)
}

func sane(v float64) error {
	if !(v >= 0) || math.IsInf(v, 1) {
		return fmt.Errorf("measured as %v", v)
	}
	return nil
}
