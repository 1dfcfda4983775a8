package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of what a manifest may declare.
const (
	maxPipelines   = 8
	maxStages      = 32
	maxListItems   = 4096 // of a parameter
	maxParamLength = 256  // bytes of one text
)

// Pipeline says, as data, how frames or clips become boxes, classes, text or
// segments: what is done before and after the model runs. The first pipeline
// of a manifest is how other pipelines call the model.
type Pipeline struct {
	Name string `json:"name" yaml:"name"`
	// Takes is image or audio.
	Takes  Kind    `json:"takes" yaml:"takes"`
	Stages []Stage `json:"stages" yaml:"stages"`
}

// Kind is what flows from one stage to the next.
type Kind string

// The kinds of values. Those that a pipeline may end with are last.
const (
	KindImage    Kind = "image"
	KindAudio    Kind = "audio"
	KindWindows  Kind = "windows" // of audio, and the other inputs of the model
	KindInputs   Kind = "inputs"  // tensors for the model
	KindOutputs  Kind = "outputs" // tensors of the model
	KindSeries   Kind = "series"  // outputs of every window
	KindBoxes    Kind = "boxes"
	KindClasses  Kind = "classes"
	KindText     Kind = "text"
	KindSegments Kind = "segments"
)

var endings = []Kind{KindBoxes, KindClasses, KindText, KindSegments}

// Stage is one step. In JSON and YAML it is an object with one key, the name,
// whose value holds the parameters: {"resize": {"width": 320, "height": 320}}.
type Stage struct {
	Name string
	// With holds parameters as given: float64, string, bool, []float64, []string.
	With map[string]any
}

// MarshalJSON writes the stage's one key.
func (s Stage) MarshalJSON() ([]byte, error) {
	with := s.With
	if with == nil {
		with = map[string]any{}
	}
	return json.Marshal(map[string]map[string]any{s.Name: with})
}

// UnmarshalJSON refuses stages and parameters that nobody knows.
func (s *Stage) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var raw map[string]map[string]any
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("a stage is an object with its name as the only key: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("bytes after a stage")
	}
	return s.take(raw)
}

// UnmarshalYAML does the same, and names the line.
func (s *Stage) UnmarshalYAML(node *yaml.Node) error {
	var raw map[string]map[string]any
	if node.Kind == yaml.ScalarNode { // "- run" for "- run: {}"
		raw = map[string]map[string]any{node.Value: nil}
	} else if err := node.Decode(&raw); err != nil {
		return fmt.Errorf("line %d: a stage is its name and its parameters, such as resize: {width: 320, height: 320}: %w", node.Line, err)
	}
	if err := s.take(raw); err != nil {
		return fmt.Errorf("line %d: %w", node.Line, err)
	}
	return nil
}

func (s *Stage) take(raw map[string]map[string]any) error {
	if len(raw) != 1 {
		return fmt.Errorf("a stage has %d names (%s), want one", len(raw), strings.Join(slices.Sorted(maps.Keys(raw)), ", "))
	}
	for name, with := range raw {
		got := Stage{Name: name, With: map[string]any{}}
		for key, v := range with {
			plain, err := plainValue(v)
			if err != nil {
				return fmt.Errorf("stage %s: parameter %q %w", name, key, err)
			}
			got.With[key] = plain
		}
		if err := got.checkParams(); err != nil {
			return err
		}
		*s = got
	}
	return nil
}

// plainValue brings what JSON and YAML decoders make to the five types of With.
func plainValue(v any) (any, error) {
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, errors.New("is no finite number")
		}
		return v, nil
	case int:
		return float64(v), nil
	case []any:
		return plainList(v)
	}
	return nil, fmt.Errorf("is %v, want a number, a text, true or false, or a list", v)
}

func plainList(list []any) (any, error) {
	if len(list) == 0 || len(list) > maxListItems {
		return nil, fmt.Errorf("has %d items, want 1 to %d", len(list), maxListItems)
	}
	var nums []float64
	var texts []string
	for _, item := range list {
		item, err := plainValue(item)
		if err != nil {
			return nil, err
		}
		switch item := item.(type) {
		case float64:
			nums = append(nums, item)
		case string:
			texts = append(texts, item)
		}
	}
	switch len(list) {
	case len(nums):
		return nums, nil
	case len(texts):
		return texts, nil
	}
	return nil, errors.New("mixes kinds, want all numbers or all texts")
}

// checkParams holds the stage against its entry in the table of stages.
func (s Stage) checkParams() error {
	spec, ok := stageSpecs[s.Name]
	if !ok {
		return fmt.Errorf("unknown stage %q; known are %s", s.Name, strings.Join(StageNames(), ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(s.With)) {
		i := slices.IndexFunc(spec.Params, func(p ParamSpec) bool { return p.Name == key })
		if i < 0 {
			return fmt.Errorf("stage %s: unknown parameter %q; known are %s", s.Name, key, spec.paramNames())
		}
		if err := spec.Params[i].check(s.With[key]); err != nil {
			return fmt.Errorf("stage %s: parameter %q %w", s.Name, key, err)
		}
	}
	for _, p := range spec.Params {
		if _, given := s.With[p.Name]; p.Required && !given {
			return fmt.Errorf("stage %s: parameter %q is required: %s", s.Name, p.Name, p.Doc)
		}
	}
	return nil
}

// Has reports whether the parameter was given.
func (s Stage) Has(key string) bool { _, ok := s.With[key]; return ok }

func (s Stage) value(key string) any {
	if v, ok := s.With[key]; ok {
		return v
	}
	for _, p := range stageSpecs[s.Name].Params {
		if p.Name == key {
			return p.Default
		}
	}
	panic("models: stage " + s.Name + " has no parameter " + key)
}

// Number is the parameter or its default, 0 where it has none.
func (s Stage) Number(key string) float64 { v, _ := s.value(key).(float64); return v }

// Whole is Number for parameters that are whole numbers.
func (s Stage) Whole(key string) int { return int(s.Number(key)) }

// Text is the parameter or its default, "" where it has none.
func (s Stage) Text(key string) string { v, _ := s.value(key).(string); return v }

// Flag is the parameter or its default.
func (s Stage) Flag(key string) bool { v, _ := s.value(key).(bool); return v }

// Numbers is the parameter or its default; a single number is a list of one.
func (s Stage) Numbers(key string) []float64 {
	switch v := s.value(key).(type) {
	case []float64:
		return v
	case float64:
		return []float64{v}
	}
	return nil
}

// Texts is the parameter or its default; a single text is a list of one.
func (s Stage) Texts(key string) []string {
	switch v := s.value(key).(type) {
	case []string:
		return v
	case string:
		return []string{v}
	}
	return nil
}

// Pipeline returns the pipeline of that name, or false.
func (m Manifest) Pipeline(name string) (Pipeline, bool) {
	for _, p := range m.Pipelines {
		if p.Name == name {
			return p, true
		}
	}
	return Pipeline{}, false
}

// checkPipelines names the first fault of the pipelines, with its place.
func (m Manifest) checkPipelines() error {
	if len(m.Pipelines) > maxPipelines {
		return fmt.Errorf("model has %d pipelines, at most %d", len(m.Pipelines), maxPipelines)
	}
	seen := map[string]bool{}
	for i, p := range m.Pipelines {
		if !nameForm.MatchString(p.Name) {
			return fmt.Errorf("pipeline %d: name %q: use lower case letters, digits and -, at most 63", i+1, p.Name)
		}
		if seen[p.Name] {
			return fmt.Errorf("two pipelines are called %q", p.Name)
		}
		seen[p.Name] = true
		if _, err := p.Check(m); err != nil {
			return err
		}
	}
	return nil
}

// Accepts reports whether next may replace m: callers of the model go on by
// Signature.Accepts, and each pipeline is there, takes and gives the same kind.
// The error names the first difference.
func (m Manifest) Accepts(next Manifest) error {
	if err := m.Signature.Accepts(next.Signature); err != nil {
		return err
	}
	for _, was := range m.Pipelines {
		is, ok := next.Pipeline(was.Name)
		if !ok {
			return fmt.Errorf("pipeline %q is gone", was.Name)
		}
		if is.Takes != was.Takes {
			return fmt.Errorf("pipeline %q took %s and takes %s now", was.Name, was.Takes, is.Takes)
		}
		gave, err := was.Check(m)
		if err != nil {
			return err
		}
		gives, err := is.Check(next)
		if err != nil {
			return err
		}
		if gives != gave {
			return fmt.Errorf("pipeline %q gave %s and gives %s now", was.Name, gave, gives)
		}
	}
	return nil
}
