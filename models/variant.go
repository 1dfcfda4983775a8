package models

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxVariants bounds how long a box may be busy with trying them.
const maxVariants = 8

// Variant is one form of a model: the same inputs and outputs at another cost,
// such as a smaller network or a lower precision. A manifest lists them from
// the best to the cheapest; the first is ModelFile itself. A box that gets hot
// serves a cheaper one, if that proved right and cheaper on the box itself.
type Variant struct {
	Name string `json:"name" yaml:"name"`
	// Path is the variant's file.
	Path string `json:"path" yaml:"file"`
	// Golden is the path of its golden samples, with their tolerances; empty:
	// it must answer as the first one does, within the tolerances of GoldenFile.
	Golden string `json:"golden,omitempty" yaml:"golden"`
}

// GoldenPath is where the samples of v are among the files.
func (v Variant) GoldenPath() string {
	if v.Golden == "" {
		return GoldenFile
	}
	return v.Golden
}

// Ladder lists the variants, the best first. A model without any has one form,
// which has no name.
func (m Manifest) Ladder() []Variant {
	if len(m.Variants) == 0 {
		return []Variant{{Path: ModelFile}}
	}
	return m.Variants
}

func (m Manifest) checkVariants() error {
	if len(m.Variants) == 0 {
		return nil
	}
	if len(m.Variants) == 1 || len(m.Variants) > maxVariants {
		return fmt.Errorf("model has %d variants, want 2 to %d or none", len(m.Variants), maxVariants)
	}
	if m.Variants[0].Path != ModelFile {
		return fmt.Errorf("the first variant is %q, want %s: the best is what a cool box serves", m.Variants[0].Path, ModelFile)
	}
	for i, v := range m.Variants {
		if !nameForm.MatchString(v.Name) {
			return fmt.Errorf("variant %d: name %q: use lower case letters, digits and -, at most 63", i+1, v.Name)
		}
		if slices.ContainsFunc(m.Variants[:i], func(o Variant) bool { return o.Name == v.Name || o.Path == v.Path }) {
			return fmt.Errorf("variant %q: two variants have this name, or the file %q", v.Name, v.Path)
		}
		if _, ok := m.File(v.Path); !ok {
			return fmt.Errorf("variant %q: the model has no file %q", v.Name, v.Path)
		}
		if _, ok := m.File(v.GoldenPath()); !ok {
			return fmt.Errorf("variant %q: the model has no golden samples %q: a box serves no variant that it could not try", v.Name, v.GoldenPath())
		}
	}
	return nil
}

// CheckVariants reads the other variants and all golden samples: each variant
// must have the signature of the manifest, and its samples must fit.
func (m Manifest) CheckVariants(open func(File) (io.ReadCloser, error)) error {
	if len(m.Variants) == 0 {
		return nil
	}
	for _, v := range m.Variants[1:] {
		if err := m.checkVariant(v, open); err != nil {
			return fmt.Errorf("variant %q: %w", v.Name, err)
		}
	}
	return nil
}

func (m Manifest) checkVariant(v Variant, open func(File) (io.ReadCloser, error)) error {
	file, _ := m.File(v.Path)
	r, err := open(file)
	if err != nil {
		return err
	}
	info, err := ReadONNX(r)
	if err := errors.Join(err, r.Close(), m.CheckExternal(v.Path, info.External)); err != nil {
		return fmt.Errorf("%s: %w", v.Path, err)
	}
	// Both ways: what it takes more, or answers less, nobody may learn by heat.
	if err := errors.Join(m.Signature.Accepts(info.Signature), info.Signature.Accepts(m.Signature)); err != nil {
		return fmt.Errorf("%s has another signature than %s: %w", v.Path, ModelFile, err)
	}
	// A box knows tensors by their place once it has looked up their names.
	if !sameOrder(m.Signature.Inputs, info.Signature.Inputs) || !sameOrder(m.Signature.Outputs, info.Signature.Outputs) {
		return fmt.Errorf("%s lists its inputs or outputs in another order than %s: export it again in that order", v.Path, ModelFile)
	}
	if v.Golden == "" {
		return nil
	}
	golden, _ := m.File(v.Golden)
	if r, err = open(golden); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxGoldenBytes+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("%s: %w", v.Golden, err)
	}
	g, err := DecodeGolden(data)
	if err == nil {
		err = g.Fits(m.Signature)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.Golden, err)
	}
	return nil
}

func sameOrder(a, b []TensorSpec) bool {
	return slices.EqualFunc(a, b, func(x, y TensorSpec) bool { return x.Name == y.Name })
}
