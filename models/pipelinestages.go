package models

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// StageSpec describes one stage: the table below is what is checked, what the
// runner carries out and what docs/pipelines.md prints.
type StageSpec struct {
	Name string
	// Takes lists what may come in; Gives is what goes out, empty for the same.
	Takes  []Kind
	Gives  Kind
	Doc    string
	Params []ParamSpec
}

// ParamKind is the form of a parameter.
type ParamKind string

// The forms of parameters.
const (
	ParamNumber  ParamKind = "number"
	ParamWhole   ParamKind = "whole number"
	ParamNumbers ParamKind = "numbers" // one or a list
	ParamText    ParamKind = "text"
	ParamTexts   ParamKind = "texts" // one or a list
	ParamFlag    ParamKind = "true or false"
	ParamFile    ParamKind = "file of the model"
	ParamInput   ParamKind = "input of the model"
	ParamOutput  ParamKind = "output of the model"
	ParamOutputs ParamKind = "outputs of the model" // one or a list
)

// ParamSpec describes one parameter.
type ParamSpec struct {
	Name     string
	Kind     ParamKind
	Required bool
	Default  any     // as in Stage.With; nil: none
	Min, Max float64 // of numbers; both 0: any
	Choices  []string
	Unit     string
	Doc      string
}

func (p ParamSpec) check(v any) error {
	fault := func() error { return fmt.Errorf("is %v, want %s", v, p.want()) }
	switch v := v.(type) {
	case float64:
		if p.Kind != ParamNumber && p.Kind != ParamWhole && p.Kind != ParamNumbers || !p.inRange(v) {
			return fault()
		}
	case []float64:
		if p.Kind != ParamNumbers || slices.ContainsFunc(v, func(n float64) bool { return !p.inRange(n) }) {
			return fault()
		}
	case string:
		return p.checkTexts([]string{v}, p.Kind == ParamNumber || p.Kind == ParamWhole || p.Kind == ParamNumbers || p.Kind == ParamFlag)
	case []string:
		return p.checkTexts(v, p.Kind != ParamTexts && p.Kind != ParamOutputs)
	case bool:
		if p.Kind != ParamFlag {
			return fault()
		}
	}
	return nil
}

func (p ParamSpec) inRange(v float64) bool {
	if p.Kind == ParamWhole && v != float64(int64(v)) {
		return false
	}
	return p.Min == 0 && p.Max == 0 || v >= p.Min && v <= p.Max
}

func (p ParamSpec) checkTexts(v []string, wrongKind bool) error {
	for _, t := range v {
		if wrongKind || t == "" || len(t) > maxParamLength || p.Choices != nil && !slices.Contains(p.Choices, t) {
			return fmt.Errorf("is %q, want %s", t, p.want())
		}
	}
	return nil
}

// want says in words which values the parameter takes.
func (p ParamSpec) want() string {
	if p.Choices != nil {
		return "one of " + strings.Join(p.Choices, ", ")
	}
	s := "a " + string(p.Kind)
	if p.Kind == ParamNumbers || p.Kind == ParamTexts || p.Kind == ParamOutputs {
		s = "one or a list of " + string(p.Kind)
	}
	if p.Kind == ParamFlag {
		s = string(p.Kind)
	}
	if p.Kind == ParamInput || p.Kind == ParamOutput {
		s = "the name of an " + string(p.Kind)
	}
	if p.Min != 0 || p.Max != 0 {
		s += " from " + trimNumber(p.Min) + " to " + trimNumber(p.Max)
	}
	return s
}

func trimNumber(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func (s StageSpec) paramNames() string {
	if len(s.Params) == 0 {
		return "none"
	}
	var names []string
	for _, p := range s.Params {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// StageNames lists all stages, sorted.
func StageNames() []string { return slices.Sorted(maps.Keys(stageSpecs)) }

// StageSpecOf returns the description of a stage, or false.
func StageSpecOf(name string) (StageSpec, bool) {
	s, ok := stageSpecs[name]
	return s, ok
}

// Parameters that several stages have.
var (
	paramFilter = ParamSpec{Name: "filter", Kind: ParamText, Default: "area", Choices: []string{"nearest", "bilinear", "area"},
		Doc: "How pixels are made: the nearest, a mix of four, or (when shrinking) the mean of all that fall together."}
	paramLabels = ParamSpec{Name: "labels", Kind: ParamTexts,
		Doc: "What the classes are called, from class 0 on."}
	paramLabelsFile = ParamSpec{Name: "labels_file", Kind: ParamFile,
		Doc: "The same as a file of the model, a line a class."}
	paramMinScore = ParamSpec{Name: "min_score", Kind: ParamNumber, Default: 0.25, Min: 0, Max: 1,
		Doc: "What scores less is dropped."}
	paramMaxBoxes = ParamSpec{Name: "max", Kind: ParamWhole, Default: 200.0, Min: 1, Max: 1000, Unit: "boxes",
		Doc: "Of more, the best are kept."}
	paramModel = ParamSpec{Name: "model", Kind: ParamText, Required: true,
		Doc: "The model whose first pipeline is called; it serves on the same box."}
)

func side(name, doc string) ParamSpec {
	return ParamSpec{Name: name, Kind: ParamWhole, Min: 1, Max: 8192, Unit: "pixels", Doc: doc}
}

func output(doc string) ParamSpec { return ParamSpec{Name: "output", Kind: ParamOutput, Doc: doc} }

const soleOutput = "Which output; may be left out when there is one."

// stageSpecs is the table of all stages, by name.
var stageSpecs = func() map[string]StageSpec {
	m := map[string]StageSpec{}
	for _, group := range [][]StageSpec{imageStages, tensorStages, readStages, boxStages, audioStages} {
		for _, s := range group {
			m[s.Name] = s
		}
	}
	return m
}()
