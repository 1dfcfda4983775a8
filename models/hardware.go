package models

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Tolerance is that of GoldenWant.
type Tolerance struct {
	Abs float64 `json:"abs"`
	Rel float64 `json:"rel"`
}

// Hardware is the class of what computes an answer: accelerators sum in another
// order and precision, and so do processors of another architecture.
type Hardware struct {
	// Provider is the execution provider in use, such as CPU or TensorRT; empty:
	// not known, as behind another program.
	Provider string
	// Arch is the processor's, in Go's words: amd64, arm64.
	Arch string
}

// classes of the hardware, the closest first: openvino-amd64, openvino.
func (h Hardware) classes() []string {
	if h.Provider == "" {
		return nil
	}
	provider := strings.ToLower(h.Provider)
	return []string{provider + "-" + h.Arch, provider}
}

var hardwareClass = regexp.MustCompile(`^[a-z0-9]+(-(amd64|arm64))?$`)

// For returns the samples with the tolerances that hold on h: those of the
// closest class that an output names, else its Abs and Rel.
func (g Golden) For(h Hardware) Golden {
	g.Cases = slices.Clone(g.Cases)
	for i := range g.Cases {
		c := &g.Cases[i]
		c.Outputs = slices.Clone(c.Outputs)
		for j := range c.Outputs {
			w := &c.Outputs[j]
			for _, class := range h.classes() {
				if t, ok := w.On[class]; ok {
					w.Abs, w.Rel = t.Abs, t.Rel
					break
				}
			}
			w.On = nil
		}
	}
	return g
}

func (w GoldenWant) checkTolerances() error {
	if err := (Tolerance{w.Abs, w.Rel}).check(); err != nil {
		return err
	}
	for _, class := range slices.Sorted(maps.Keys(w.On)) {
		if !hardwareClass.MatchString(class) {
			return fmt.Errorf("tolerance on %q: want an execution provider in small letters, such as cuda, or one with an architecture, such as cpu-arm64 (amd64, arm64)", class)
		}
		if err := w.On[class].check(); err != nil {
			return fmt.Errorf("tolerance on %s: %w", class, err)
		}
	}
	return nil
}

func (t Tolerance) check() error {
	for _, v := range []float64{t.Abs, t.Rel} {
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
			return fmt.Errorf("tolerance %v is not a finite number of at least 0", v)
		}
	}
	return nil
}
