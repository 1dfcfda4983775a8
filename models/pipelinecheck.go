package models

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// flow is what is known of the value between two stages.
type flow struct {
	m    Manifest
	kind Kind
	w, h int // of an image in pixels; 0 follows the frame
	// scaled: the picture has its size, what follows may only add to it.
	scaled bool
	set    map[string]bool
	ran    bool
}

// Check walks the stages over the manifest's signature and names the first
// fault with its place. It returns what the pipeline ends with. What a pipeline
// asks of other models is checked where those are known: see CheckCalls.
func (p Pipeline) Check(m Manifest) (Kind, error) {
	at := func(i int, err error) error {
		return fmt.Errorf("pipeline %q, stage %d (%s): %w", p.Name, i+1, p.Stages[i].Name, err)
	}
	if p.Takes != KindImage && p.Takes != KindAudio {
		return "", fmt.Errorf("pipeline %q: takes %q, want image or audio", p.Name, p.Takes)
	}
	if len(p.Stages) == 0 || len(p.Stages) > maxStages {
		return "", fmt.Errorf("pipeline %q has %d stages, want 1 to %d", p.Name, len(p.Stages), maxStages)
	}
	f := flow{m: m, kind: p.Takes, set: map[string]bool{}}
	for i, s := range p.Stages {
		if err := s.checkParams(); err != nil {
			return "", fmt.Errorf("pipeline %q, stage %d: %w", p.Name, i+1, err)
		}
		spec := stageSpecs[s.Name]
		if !slices.Contains(spec.Takes, f.kind) {
			return "", at(i, fmt.Errorf("takes %s, but gets %s; after %s may follow %s", kinds(spec.Takes), f.kind, f.kind, strings.Join(followers(f.kind), ", ")))
		}
		if err := f.files(s, spec); err != nil {
			return "", at(i, err)
		}
		if check := stageChecks[s.Name]; check != nil {
			if err := check(&f, s); err != nil {
				return "", at(i, err)
			}
		}
		if spec.Gives != "" {
			f.kind = spec.Gives
		}
	}
	if !slices.Contains(endings, f.kind) {
		return "", fmt.Errorf("pipeline %q ends with %s after stage %d (%s), want %s: add one of %s", p.Name, f.kind, len(p.Stages),
			p.Stages[len(p.Stages)-1].Name, kinds(endings), strings.Join(followers(f.kind), ", "))
	}
	return f.kind, nil
}

func kinds(k []Kind) string {
	var all []string
	for _, k := range k {
		all = append(all, string(k))
	}
	return strings.Join(all, " or ")
}

// followers are the stages that take a kind.
func followers(k Kind) []string {
	var out []string
	for _, name := range StageNames() {
		if slices.Contains(stageSpecs[name].Takes, k) {
			out = append(out, name)
		}
	}
	return out
}

// stageChecks hold the parameters of a stage against what comes in and against
// the signature.
var stageChecks = map[string]func(*flow, Stage) error{
	"crop":       func(f *flow, _ Stage) error { return f.unscaled() },
	"resize":     (*flow).resize,
	"letterbox":  (*flow).letterbox,
	"pad":        (*flow).pad,
	"tensor":     (*flow).tensor,
	"call":       func(f *flow, s Stage) error { f.kind = Kind(s.Text("gives")); return nil },
	"constant":   (*flow).constant,
	"run":        (*flow).run,
	"softmax":    (*flow).numeric,
	"sigmoid":    (*flow).numeric,
	"top_k":      func(f *flow, s Stage) error { return f.classes(s, -1, 1) },
	"threshold":  func(f *flow, s Stage) error { return f.classes(s, -1, 1) },
	"argmax":     func(f *flow, s Stage) error { return f.classes(s, 1, 0) },
	"ctc":        (*flow).ctc,
	"db_boxes":   (*flow).dbBoxes,
	"yolo_boxes": (*flow).yoloBoxes,
	"ssd_boxes":  (*flow).ssdBoxes,
	"windows":    (*flow).windows,
	"carry":      (*flow).carry,
	"segments":   (*flow).segments,
}

// files holds file parameters against the manifest, and labels against them.
func (f *flow) files(s Stage, spec StageSpec) error {
	for _, p := range spec.Params {
		if p.Kind != ParamFile || !s.Has(p.Name) {
			continue
		}
		if _, ok := f.m.File(s.Text(p.Name)); !ok {
			return fmt.Errorf("%s: the model has no file %q; list it under files", p.Name, s.Text(p.Name))
		}
	}
	if spec.has("labels_file") && s.Has("labels") && s.Has("labels_file") {
		return errors.New("labels and labels_file are both given, want one")
	}
	return nil
}

func (s StageSpec) has(param string) bool {
	return slices.ContainsFunc(s.Params, func(p ParamSpec) bool { return p.Name == param })
}

// unscaled refuses what must come before the picture gets its size: it is taken
// from the frame once, so that nothing is interpolated twice.
func (f *flow) unscaled() error {
	if f.scaled {
		return errors.New("comes after resize, letterbox or pad; a picture is cropped first, scaled once and padded last")
	}
	return nil
}

func (f *flow) letterbox(s Stage) error {
	if err := f.unscaled(); err != nil {
		return err
	}
	f.scaled, f.w, f.h = true, s.Whole("width"), s.Whole("height")
	return f.bounded()
}

// MaxPixels bounds a picture at any stage: a 4K camera, about 20 bytes each.
const MaxPixels = 3840 * 2160

func (f *flow) bounded() error {
	if f.w*f.h > MaxPixels {
		return fmt.Errorf("the picture would have %d × %d pixels, at most %d are handled", f.w, f.h, MaxPixels)
	}
	return nil
}

func (f *flow) resize(s Stage) error {
	if err := f.unscaled(); err != nil {
		return err
	}
	f.scaled = true
	sized := s.Has("width") || s.Has("height")
	switch {
	case s.Has("longest") == sized:
		return errors.New("want width and height, one of them, or longest")
	case s.Has("multiple") && sized:
		return errors.New("multiple goes with longest only")
	case s.Has("max_width") && (s.Has("width") || !s.Has("height")):
		return errors.New("max_width goes with height alone")
	case s.Has("max_height") && (s.Has("height") || !s.Has("width")):
		return errors.New("max_height goes with width alone")
	}
	f.w, f.h = s.Whole("width"), s.Whole("height")
	return f.bounded()
}

func (f *flow) pad(s Stage) error {
	if !s.Has("width") && !s.Has("height") {
		return errors.New("want width, height or both")
	}
	if f.w > 0 {
		f.w = max(f.w, s.Whole("width"))
	}
	if f.h > 0 {
		f.h = max(f.h, s.Whole("height"))
	}
	f.scaled = true
	return f.bounded()
}

// input finds the input that a stage names, or the one that is left.
func (f *flow) input(s Stage) (TensorSpec, error) {
	name := s.Text("input")
	if name == "" {
		var free []TensorSpec
		for _, t := range f.m.Signature.Inputs {
			if !f.set[t.Name] {
				free = append(free, t)
			}
		}
		if len(free) != 1 {
			return TensorSpec{}, fmt.Errorf("input is required, since the model has %s", names(f.m.Signature.Inputs))
		}
		return free[0], f.fill(free[0].Name)
	}
	t, ok := find(f.m.Signature.Inputs, name)
	if !ok {
		return TensorSpec{}, fmt.Errorf("the model has no input %q; it has %s", name, names(f.m.Signature.Inputs))
	}
	return t, f.fill(name)
}

func (f *flow) fill(name string) error {
	if f.set[name] {
		return fmt.Errorf("input %q is set already by a stage before", name)
	}
	f.set[name] = true
	return nil
}

func names(specs []TensorSpec) string {
	var all []string
	for _, t := range specs {
		all = append(all, fmt.Sprintf("%q %s%v", t.Name, t.DType, t.Shape))
	}
	return strings.Join(all, ", ")
}

// fixed reports whether dimension i of t is n, or may be; n 0 may be any.
func fixed(t TensorSpec, i, n int) bool {
	if i < 0 {
		i += len(t.Shape)
	}
	return t.Shape[i] < 0 || n > 0 && t.Shape[i] == int64(n)
}

func (f *flow) tensor(s Stage) error {
	t, err := f.input(s)
	if err != nil {
		return err
	}
	if d := s.Text("dtype"); d != "" && DType(d) != t.DType {
		return fmt.Errorf("dtype is %s, input %q is %s", d, t.Name, t.DType)
	}
	switch t.DType {
	case FP32, FP16, UINT8, INT8:
	default:
		return fmt.Errorf("input %q is %s, pictures become FP32, FP16, UINT8 or INT8", t.Name, t.DType)
	}
	channels := 3
	if s.Text("order") == "grey" {
		channels = 1
	}
	for _, key := range []string{"mean", "std"} {
		if n := len(s.Numbers(key)); n != 1 && n != channels {
			return fmt.Errorf("%s has %d numbers, want 1 or %d", key, n, channels)
		}
	}
	dims := []int{1, channels, f.h, f.w}
	if s.Text("layout") == "nhwc" {
		dims = []int{1, f.h, f.w, channels}
	}
	if len(t.Shape) != 4 {
		return fmt.Errorf("input %q has shape %v, a picture needs four dimensions", t.Name, t.Shape)
	}
	for i, n := range dims {
		if !fixed(t, i, n) {
			return fmt.Errorf("input %q has shape %v, the picture becomes %s (%s)%s", t.Name, t.Shape, shapeText(dims), s.Text("layout"), f.hint(n, t, i))
		}
	}
	return nil
}

func (f *flow) hint(n int, t TensorSpec, i int) string {
	if n == 0 {
		return fmt.Sprintf("; put a resize or letterbox before it, so that dimension %d is %d", i, t.Shape[i])
	}
	return ""
}

func shapeText(dims []int) string {
	var out []string
	for _, n := range dims {
		if n == 0 {
			out = append(out, "?")
			continue
		}
		out = append(out, fmt.Sprint(n))
	}
	return "[" + strings.Join(out, " ") + "]"
}

// AtOnce is the shape of a tensor for one item: free dimensions are 1.
func (t TensorSpec) AtOnce() []int64 {
	out := slices.Clone(t.Shape)
	for i, d := range out {
		if d < 0 {
			out[i] = 1
		}
	}
	return out
}

// made is how many elements an input has that we make ourselves, and not the
// frame or clip: a signature may name any size.
func made(t TensorSpec) (int64, error) {
	n, err := TensorSpec{Shape: t.AtOnce()}.Elements()
	if err != nil {
		return 0, fmt.Errorf("input %q: %w", t.Name, err)
	}
	if t.DType == BYTES {
		return 0, fmt.Errorf("input %q is BYTES, want numbers", t.Name)
	}
	if n > 1<<20 {
		return 0, fmt.Errorf("input %q has %d elements, one that is made here has at most %d", t.Name, n, 1<<20)
	}
	return n, nil
}

func (f *flow) constant(s Stage) error {
	t, err := f.input(s)
	if err != nil {
		return err
	}
	n, err := made(t)
	if err != nil {
		return err
	}
	if got := len(s.Numbers("values")); got != 1 && int64(got) != n {
		return fmt.Errorf("values has %d numbers, input %q needs 1 or %d", got, t.Name, n)
	}
	return nil
}

func (f *flow) run(Stage) error {
	if f.ran {
		return errors.New("the model runs twice; call another pipeline instead")
	}
	for _, t := range f.m.Signature.Inputs {
		if !f.set[t.Name] {
			return fmt.Errorf("input %q %s%v is not set; use tensor, constant, windows or carry before", t.Name, t.DType, t.Shape)
		}
	}
	f.ran = true
	if f.kind == KindWindows {
		f.kind = KindSeries
	} else {
		f.kind = KindOutputs
	}
	return nil
}

// CheckCalls holds what a pipeline asks of other models against their first
// pipelines; of tells a model's manifest. A chain of calls longer than four is
// refused, and so a pipeline that calls itself, and one that branches into more
// than maxCallStages.
func (p Pipeline) CheckCalls(of func(model string) (Manifest, error)) error {
	left := maxCallStages
	return p.checkCalls(of, 4, &left)
}

// maxCallStages bounds the stages that call in all pipelines that one reaches:
// 32 stages that call 32 others would be a million at the fourth.
const maxCallStages = 64

func (p Pipeline) checkCalls(of func(model string) (Manifest, error), depth int, left *int) error {
	for i, s := range p.Stages {
		if s.Name != "call" && s.Name != "turn" && s.Name != "each" {
			continue
		}
		if *left--; *left < 0 {
			return fmt.Errorf("pipeline %q, stage %d (%s): more than %d stages call other pipelines, on all ways from the first", p.Name, i+1, s.Name, maxCallStages)
		}
		err := s.checkCall(of, depth, left)
		if err != nil {
			return fmt.Errorf("pipeline %q, stage %d (%s): %w", p.Name, i+1, s.Name, err)
		}
	}
	return nil
}

func (s Stage) checkCall(of func(model string) (Manifest, error), depth int, left *int) error {
	if depth == 0 {
		return errors.New("calls are nested too deeply, or a pipeline calls itself")
	}
	m, err := of(s.Text("model"))
	if err != nil {
		return err
	}
	if len(m.Pipelines) == 0 {
		return fmt.Errorf("model %s:%s declares no pipeline to call", m.Name, m.Version)
	}
	callee := m.Pipelines[0]
	gives, err := callee.Check(m)
	if err != nil {
		return err
	}
	want := []Kind{KindText, KindClasses}
	switch s.Name {
	case "call":
		want = []Kind{Kind(s.Text("gives"))}
	case "turn":
		want = []Kind{KindClasses}
	}
	if callee.Takes != KindImage || !slices.Contains(want, gives) {
		return fmt.Errorf("pipeline %q of %s:%s takes %s and gives %s, want one that takes image and gives %s",
			callee.Name, m.Name, m.Version, callee.Takes, gives, kinds(want))
	}
	return callee.checkCalls(of, depth-1, left)
}
