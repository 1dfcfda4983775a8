package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Infer runs the active version of a model and says which one it was. Inputs go
// by name, outputs come in the order of the model's signature.
type Infer func(ctx context.Context, model string, in []worker.Tensor) (out []worker.Tensor, by By, err error)

// By is the version that answered, and the server that ran it when that was not
// this box: site:NAME or central:NAME.
type By struct {
	models.Ref
	Elsewhere string
}

// ErrNoModel is wrapped where a model is not active yet.
var ErrNoModel = errors.New("model is not active")

// Catalog tells what serves on the box.
type Catalog interface {
	// Serving lists the versions that serve now.
	Serving() ([]models.Ref, error)
	// Manifest is that of one of them, or of one that served a moment ago.
	Manifest(ref models.Ref) (models.Manifest, error)
	// File is the path on disk of a file of that version.
	File(ref models.Ref, path string) (string, error)
}

// Runner carries out one pipeline, whichever version serves.
type Runner struct {
	name    string
	infer   Infer
	catalog Catalog

	plans map[models.Ref][]plan // of versions used lately
	// What serves, as of the start of the item, and the plan checked with it.
	refs    []models.Ref
	checked *plan
	// last is the version of each model that answered last: of several that
	// serve, it is the one to plan with.
	last map[string]models.Ref
	// calls of other pipelines that the present item has made.
	calls int
}

// maxCalls bounds them: a page has some hundred words, each shown to two models.
// Pipelines that show every box to one with boxes of its own have no bound else.
const maxCalls = 4000

// plan is one pipeline of one version, with what it needs from files.
type plan struct {
	models.Pipeline
	ref      models.Ref
	manifest models.Manifest
	lines    map[string][]string // labels and charsets by path
	anchors  map[string][][4]float32
}

// New returns a runner of the pipeline that a serving model declares as name,
// or as MODEL/NAME where several declare one of that name.
func New(name string, infer Infer, catalog Catalog) *Runner {
	return &Runner{name: name, infer: infer, catalog: catalog, plans: map[models.Ref][]plan{}, last: map[string]models.Ref{}}
}

// maxPlans bounds the versions whose plans are kept.
const maxPlans = 16

// ofVersion returns the plans of a version, made at the first call.
func (r *Runner) ofVersion(ref models.Ref) ([]plan, error) {
	if p, ok := r.plans[ref]; ok {
		return p, nil
	}
	m, err := r.catalog.Manifest(ref)
	if err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w", ref, err)
	}
	all := []plan{}
	for _, p := range m.Pipelines {
		one := plan{Pipeline: p, ref: ref, manifest: m, lines: map[string][]string{}, anchors: map[string][][4]float32{}}
		if err := one.open(r.catalog); err != nil {
			return nil, fmt.Errorf("use manifest of %s: %w", ref, err)
		}
		all = append(all, one)
	}
	if len(r.plans) >= maxPlans {
		clear(r.plans)
	}
	r.plans[ref] = all
	return all, nil
}

// open checks the plan again, as it was before the push, and reads its files.
func (p *plan) open(catalog Catalog) error {
	if _, err := p.Check(p.manifest); err != nil {
		return err
	}
	return p.CheckFiles(p.manifest, func(path string) ([]byte, error) {
		place, err := catalog.File(p.ref, path)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(place)
		if err != nil {
			return nil, err
		}
		// What is no list of anchors has lines, and CheckFiles tells which it must be.
		if p.anchors[path], err = models.ReadAnchors(data); err != nil {
			p.lines[path], _ = models.ReadLines(data)
		}
		return data, nil
	})
}

// serving is the version of a model that serves.
func (r *Runner) serving(model string) (models.Ref, error) {
	if ref, ok := r.last[model]; ok && slices.Contains(r.refs, ref) {
		return ref, nil
	}
	i := slices.IndexFunc(r.refs, func(ref models.Ref) bool { return ref.Name == model })
	if i < 0 {
		return models.Ref{}, fmt.Errorf("%w: %s", ErrNoModel, model)
	}
	return r.refs[i], nil
}

// find returns the plan that the runner was made for.
func (r *Runner) find() (plan, error) {
	model, name, qualified := strings.Cut(r.name, "/")
	if !qualified {
		name = r.name
	}
	var found []plan
	var owners, broken []string
	for _, ref := range r.refs {
		// Of two versions of one model that serve, one declares it.
		if now, err := r.serving(ref.Name); err != nil || now != ref || qualified && ref.Name != model {
			continue
		}
		all, err := r.ofVersion(ref)
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		for _, p := range all {
			if p.Name == name {
				found, owners = append(found, p), append(owners, ref.Name+"/"+name)
			}
		}
	}
	switch {
	case len(found) > 1:
		return plan{}, fmt.Errorf("pipeline %s is declared by several models: choose one of %s", name, strings.Join(owners, ", "))
	case len(found) == 0 && len(broken) > 0:
		return plan{}, fmt.Errorf("no model that can be used declares pipeline %s: %s", r.name, strings.Join(broken, "; "))
	case len(found) == 0:
		return plan{}, fmt.Errorf("%w: none that serves declares pipeline %s", ErrNoModel, r.name)
	}
	return found[0], nil
}

// Pipeline returns the declaration as it serves now, checked with all that it
// calls.
func (r *Runner) Pipeline() (models.Pipeline, error) {
	p, err := r.ready()
	return p.Pipeline, err
}

func (r *Runner) ready() (plan, error) {
	refs, err := r.catalog.Serving()
	if err != nil {
		return plan{}, fmt.Errorf("ask which models serve: %w", err)
	}
	if r.checked != nil && slices.Equal(refs, r.refs) {
		return *r.checked, nil
	}
	r.refs, r.checked = refs, nil
	p, err := r.find()
	if err != nil {
		return plan{}, err
	}
	if err := p.CheckCalls(func(model string) (models.Manifest, error) {
		ref, err := r.serving(model)
		if err != nil {
			return models.Manifest{}, err
		}
		return r.catalog.Manifest(ref)
	}); err != nil {
		return plan{}, err
	}
	r.checked = &p
	return p, nil
}

// Image works through one frame.
func (r *Runner) Image(ctx context.Context, frame Frame) (Reading, error) {
	p, err := r.ready()
	if err != nil {
		return Reading{}, err
	}
	if p.Takes != models.KindImage {
		return Reading{}, fmt.Errorf("pipeline %s takes %s, not pictures", r.name, p.Takes)
	}
	v := value{kind: models.KindImage, pic: picture{frame: &frame, view: frame.whole()}}
	return r.finish(ctx, p, v)
}

// Clip works through samples of 16 kHz, −1 to 1.
func (r *Runner) Clip(ctx context.Context, clip []float32) (Reading, error) {
	p, err := r.ready()
	if err != nil {
		return Reading{}, err
	}
	if p.Takes != models.KindAudio {
		return Reading{}, fmt.Errorf("pipeline %s takes %s, not sound", r.name, p.Takes)
	}
	if len(clip) == 0 {
		return Reading{}, errors.New("clip is empty")
	}
	return r.finish(ctx, p, value{kind: models.KindAudio, clip: clip})
}

func (r *Runner) finish(ctx context.Context, p plan, v value) (Reading, error) {
	var out Reading
	r.calls = 0
	v, err := r.run(ctx, p, v, &out)
	if err != nil {
		return Reading{}, err
	}
	v.tell(&out)
	return out, nil
}

// switchTries is how often an item starts anew because another version began
// to serve in its middle.
const switchTries = 3

// errSwitched: the version that answered is not the one that was planned with.
type errSwitched struct{ by models.Ref }

func (e *errSwitched) Error() string {
	return "model was switched to " + e.by.String() + " amid an item"
}

// run carries the stages of p out, with the version that turns out to serve.
func (r *Runner) run(ctx context.Context, p plan, v value, out *Reading) (value, error) {
	before := *out
	for try := 0; ; try++ {
		j := job{r: r, p: p, v: v, out: out}
		err := j.stages(ctx)
		if err == nil {
			return j.v, nil
		}
		var other *errSwitched
		if !errors.As(err, &other) || try == switchTries {
			return value{}, err
		}
		if p, err = r.planOf(other.by, p.Name); err != nil {
			return value{}, err
		}
		*out = before
	}
}

func (r *Runner) planOf(ref models.Ref, name string) (plan, error) {
	all, err := r.ofVersion(ref)
	if err != nil {
		return plan{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return plan{}, fmt.Errorf("model %s declares no pipeline %s, the version before did", ref, name)
}

// call runs the first pipeline of a model on a view of the frame.
func (r *Runner) call(ctx context.Context, model string, frame *Frame, view box, out *Reading) (value, error) {
	if r.calls++; r.calls > maxCalls {
		return value{}, fmt.Errorf("one item makes more than %d calls of other pipelines; lower max of its boxes", maxCalls)
	}
	if err := ctx.Err(); err != nil {
		return value{}, err
	}
	ref, err := r.serving(model)
	if err != nil {
		return value{}, err
	}
	all, err := r.ofVersion(ref)
	if err != nil {
		return value{}, err
	}
	if len(all) == 0 {
		return value{}, fmt.Errorf("model %s declares no pipeline to call", ref)
	}
	return r.run(ctx, all[0], value{kind: models.KindImage, pic: picture{frame: frame, view: view}}, out)
}

// job is one pipeline at work on one item.
type job struct {
	r   *Runner
	p   plan
	v   value
	out *Reading
}

func (j *job) stages(ctx context.Context) error {
	for i, s := range j.p.Stages {
		if err := stages[s.Name](ctx, j, s); err != nil {
			return fmt.Errorf("pipeline %s of %s, stage %d (%s): %w", j.p.Name, j.p.ref, i+1, s.Name, err)
		}
		if spec, _ := models.StageSpecOf(s.Name); spec.Gives != "" {
			j.v.kind = spec.Gives
		}
	}
	return nil
}

// ran notes which version answered. One with another pipeline starts the item
// anew; one with the same goes on with its own files.
func (j *job) ran(by By) error {
	if by.Ref != j.p.ref {
		p, err := j.r.planOf(by.Ref, j.p.Name)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(p.Pipeline, j.p.Pipeline) || !reflect.DeepEqual(p.manifest.Signature, j.p.manifest.Signature) {
			return &errSwitched{by.Ref}
		}
		j.p = p
	}
	j.r.last[by.Name] = by.Ref
	j.out.used(by)
	return nil
}

// stages is what each stage does. The table of models.StageNames is complete
// here; a test holds them together.
var stages map[string]func(context.Context, *job, models.Stage) error

func init() { // a variable would refer to itself by way of call
	stages = map[string]func(context.Context, *job, models.Stage) error{
		"crop": crop, "resize": resize, "letterbox": letterbox, "pad": pad, "tensor": tensor, "call": callStage,
		"constant": constant, "run": runModel, "softmax": activation, "sigmoid": activation,
		"top_k": topK, "threshold": threshold, "argmax": argmax, "ctc": ctc,
		"db_boxes": dbBoxes, "yolo_boxes": yoloBoxes, "ssd_boxes": ssdBoxes,
		"nms": nms, "filter": filter, "turn": turn, "each": each, "lines": lines,
		"windows": windows, "carry": carry, "segments": segments,
	}
}
