package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/container"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// Delta-quantised publishing (docs/wdelta.md): the weights that are pushed are
// those of a version that boxes have, and whole steps. Nothing of the base has to
// be trusted: a hostile one makes a worse model at most, which is refused, since
// each weight lies within half a step of the trained one.

// finestLevels is where lessening the steps ends: a delta is hardly smaller than
// an exact one from there on.
const finestLevels = 64

// quantising is what push was told about it.
type quantising struct {
	on         bool
	base       string
	levels     float64
	tolerance  float64
	metric     string
	evaluation []string
	by         evaluator
}

func (q *quantising) addTo(f *pflag.FlagSet) {
	f.BoolVar(&q.on, "quantise-delta", false, "publish the weights of --base and whole steps, many times smaller to send, if they answer as well as the trained ones")
	f.StringVar(&q.base, "base", "", "NAME:VERSION whose weights --quantise-delta builds on")
	f.Float64Var(&q.levels, "levels", wdelta.DefaultLevels, fmt.Sprintf("steps that the typical move of a weight has; doubled up to %d until the answers are good", finestLevels))
	f.Float64Var(&q.tolerance, "tolerance", 0.01, "how much worse the metric may get, as a part of what it is")
	f.StringArrayVar(&q.evaluation, "evaluation", nil, "file of labelled samples in the form of golden.json; may be given several times (default: the golden samples, and how far answers move)")
	f.StringVar(&q.metric, "metric", models.MetricAccuracy, "of --evaluation: accuracy or error")
	f.StringVar(&q.by.runner, "runner", "", "edgeherd-runner that answers (default: beside this program, or in PATH)")
	f.StringVar(&q.by.library, "library", "", "ONNX Runtime library for it (default: where packages put it)")
}

// check refuses flags that make no sense together.
func (q *quantising) check(name string) error {
	if !q.on && q.base == "" && len(q.evaluation) == 0 {
		return nil
	}
	base, _, err := modelVersion(q.base)
	switch {
	case !q.on || q.base == "":
		return failure{exitUsage, errors.New("--quantise-delta and --base NAME:VERSION go together, and --evaluation with them")}
	case err != nil:
		return failure{exitUsage, err}
	case base != name:
		return failure{exitUsage, fmt.Errorf("--base %s is another model than %s", q.base, name)}
	case q.metric != models.MetricAccuracy && q.metric != models.MetricError:
		return failure{exitUsage, fmt.Errorf("--metric %s: want accuracy or error", q.metric)}
	case !(q.tolerance >= 0 && q.tolerance < 1):
		return failure{exitUsage, fmt.Errorf("--tolerance %v: want a part of the metric, such as 0.01", q.tolerance)}
	case !(q.levels >= 0.5 && q.levels <= finestLevels):
		return failure{exitUsage, fmt.Errorf("--levels %v: want 0.5 to %d", q.levels, finestLevels)}
	}
	return nil
}

// workshop is where one model is quantised: folders of its base, of itself as
// trained, and of each try.
type workshop struct {
	quantising
	c                  *cli
	dir                string
	base, trained, out models.Manifest
	ref                models.Ref // of the base
	paths              map[blob.Digest]string
	weights            []weightFile
	graphs             []string                   // that have them
	before             map[string][]models.Golden // by graph: answers as trained
}

// weightFile is a file with weights that differ from the base's.
type weightFile struct {
	path      string
	base, own []container.Tensor // of external data; nil: the file lists its own
}

// apply returns the model with quantised weights, whose files last until done.
func (q quantising) apply(ctx context.Context, c *cli, client *fleetapi.Client, p fleetapi.Packed) (out fleetapi.Packed, done func(), err error) {
	dir, err := os.MkdirTemp("", "edgeherd-quantise-")
	if err != nil {
		return p, nil, fmt.Errorf("quantise: %w", err)
	}
	done = func() { _ = os.RemoveAll(dir) } // only copies
	w := workshop{quantising: q, c: c, dir: dir, trained: p.Manifest, paths: p.Paths, before: map[string][]models.Golden{}}
	if out, err = w.run(ctx, client); err != nil {
		done()
		return p, nil, fmt.Errorf("quantise against %s: %w", q.base, err)
	}
	return out, done, nil
}

func (w *workshop) run(ctx context.Context, client *fleetapi.Client) (out fleetapi.Packed, err error) {
	if w.trained.Backend != nil {
		return out, errors.New("another program serves this model, so nothing here can tell how well it answers")
	}
	if _, ok := w.trained.File(models.GoldenFile); !ok {
		return out, fmt.Errorf("the model has no %s, so nothing could tell whether it still answers right", models.GoldenFile)
	}
	if err := w.by.find(); err != nil {
		return out, err
	}
	if err := w.fetchBase(ctx, client); err != nil {
		return out, err
	}
	if err := w.lay("trained", w.trained.Files, w.paths); err != nil {
		return out, err
	}
	if err := w.findWeights(); err != nil {
		return out, err
	}
	for levels := w.levels; ; levels *= 2 {
		paths, q, err := w.make(ctx, levels)
		if err != nil {
			return out, err
		}
		verdict := w.prove(ctx, paths, &q)
		if verdict != nil && !errors.Is(verdict, errWorse) {
			return out, verdict // nothing was measured
		}
		w.c.say("%g levels, %.1f bits a weight: %s %.6g, as trained %.6g: %s", levels, q.Files[0].Bits, q.Metric, q.After, q.Before, says(verdict))
		switch {
		case verdict == nil:
			out = fleetapi.Packed{Manifest: w.out, Paths: paths}
			out.Manifest.Provenance = &models.Provenance{Quantised: &q}
			return out, w.tellSize(ctx, paths, q)
		case 2*levels > finestLevels:
			return out, fmt.Errorf("not pushed: %w; push the weights as they are, without --quantise-delta", verdict)
		}
	}
}

func says(verdict error) string {
	if verdict == nil {
		return "as good"
	}
	return verdict.Error()
}

// fetchBase gets the manifest of the base and those of its files that hold
// weights.
func (w *workshop) fetchBase(ctx context.Context, client *fleetapi.Client) error {
	name, version, err := modelVersion(w.quantising.base)
	if err != nil {
		return err
	}
	m, err := client.Model(ctx, name)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(m.Versions, func(v fleetapi.ModelVersion) bool { return v.Version == version })
	if at < 0 {
		return failure{exitNotFound, fmt.Errorf("there is no %s:%s; see `edgeherd model list`", name, version)}
	}
	w.ref = m.Versions[at].Ref
	var envelope bytes.Buffer
	if err := client.Download(ctx, w.ref.Digest, &envelope, nil); err != nil {
		return err
	}
	// The digest vouches for it, and nothing of it has to be trusted.
	payload, err := trust.Keyring{Targets: true}.OpenListed(trust.TypeModel, envelope.Bytes())
	if err != nil {
		return err
	}
	if w.base, err = models.DecodeManifest(payload); err != nil {
		return err
	}
	for _, f := range w.base.Files {
		own, ok := w.trained.File(f.Path)
		if !ok || own.Digest == f.Digest || f.Path == models.GoldenFile {
			continue
		}
		if err := w.download(ctx, client, f); err != nil {
			return err
		}
	}
	return nil
}

func (w *workshop) download(ctx context.Context, client *fleetapi.Client, f models.File) error {
	file, err := w.create("base", f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	return client.Download(ctx, f.Digest, file, func(done int64) { w.c.meter("fetching "+f.Path)(done, f.SizeBytes) })
}

func (w *workshop) at(folder, name string) string {
	return filepath.Join(w.dir, folder, filepath.FromSlash(name))
}

func (w *workshop) create(folder, name string) (*os.File, error) {
	full := w.at(folder, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(full, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// lay puts files into a folder, as a runner wants them.
func (w *workshop) lay(folder string, files []models.File, paths map[blob.Digest]string) error {
	for _, f := range files {
		from := paths[f.Digest]
		if from == w.at(folder, f.Path) {
			continue
		}
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		out, err := w.create(folder, f.Path)
		if err == nil {
			_, err = io.Copy(out, in)
			err = errors.Join(err, out.Close())
		}
		if err = errors.Join(err, in.Close()); err != nil {
			return fmt.Errorf("copy %s: %w", f.Path, err)
		}
	}
	return nil
}

// findWeights lists the files of the graphs that can be built on the base's: a
// graph, and those that it keeps weights in, which may change without it.
func (w *workshop) findWeights() error {
	for _, v := range w.trained.Ladder() {
		if _, ok := w.base.File(v.Path); !ok {
			continue
		}
		own, err := readLayout(w.at("trained", v.Path))
		if err != nil {
			return fmt.Errorf("%s: %w", v.Path, err)
		}
		base, found := own, len(w.weights)
		if w.differs(v.Path) {
			if base, err = readLayout(w.at("base", v.Path)); err != nil {
				return fmt.Errorf("%s of the base: %w", v.Path, err)
			}
			w.weights = append(w.weights, weightFile{path: v.Path})
		}
		seen := map[string]bool{"": true}
		for _, t := range own.Tensors {
			name := path.Join(path.Dir(v.Path), t.File)
			if seen[t.File] || !w.differs(name) {
				continue
			}
			seen[t.File] = true
			if from := base.Spans(t.File); len(from) > 0 { // else the base's graph knows the file for something else
				w.weights = append(w.weights, weightFile{name, from, own.Spans(t.File)})
			}
		}
		if len(w.weights) > found {
			w.graphs = append(w.graphs, v.Path)
		}
	}
	if len(w.weights) == 0 {
		return errors.New("no file with weights differs from one of the same path there")
	}
	return nil
}

func (w *workshop) differs(name string) bool {
	own, ok := w.trained.File(name)
	from, there := w.base.File(name)
	return ok && there && own.Digest != from.Digest
}

func readLayout(file string) (container.Layout, error) {
	s, err := openSource(file)
	if err != nil {
		return container.Layout{}, err
	}
	defer s.close()
	return container.Read(s, s.Size())
}

// make quantises all weights, and returns the files of the model then.
func (w *workshop) make(ctx context.Context, levels float64) (map[blob.Digest]string, models.Quantised, error) {
	folder := fmt.Sprint("levels-", levels)
	q := models.Quantised{Base: w.ref, Levels: levels, Tolerance: w.tolerance}
	w.out = w.trained
	w.out.Files = slices.Clone(w.trained.Files)
	paths := map[blob.Digest]string{}
	for _, f := range w.trained.Files {
		paths[f.Digest] = w.paths[f.Digest]
	}
	moved := 0
	for _, f := range w.weights {
		file, made, err := w.quantise(ctx, f, folder, levels)
		if err != nil {
			return nil, q, fmt.Errorf("%s: %w", f.path, err)
		}
		at := slices.IndexFunc(w.out.Files, func(m models.File) bool { return m.Path == f.path })
		from, _ := w.base.File(f.path)
		made.Base, made.Trained = from.Digest, w.out.Files[at].Digest
		moved += made.Tensors
		q.Files = append(q.Files, made)
		w.out.Files[at] = file
		paths[file.Digest] = w.at(folder, f.path)
	}
	if moved == 0 {
		return nil, q, errors.New("no tensor of floating-point numbers has moved between tensors of the same name and shape: the versions have nothing in common that could be quantised")
	}
	return paths, q, w.lay(folder, w.out.Files, paths)
}

func (w *workshop) quantise(ctx context.Context, f weightFile, folder string, levels float64) (file models.File, made models.QuantisedFile, err error) {
	base, err := openSource(w.at("base", f.path))
	if err != nil {
		return file, made, err
	}
	defer base.close()
	own, err := openSource(w.at("trained", f.path))
	if err != nil {
		return file, made, err
	}
	defer own.close()
	out, err := w.create(folder, f.path)
	if err != nil {
		return file, made, err
	}
	defer out.Close()
	tensors, err := wdelta.Quantise(ctx, base, own, out, wdelta.QuantiseOptions{Levels: levels, BaseTensors: f.base, TargetTensors: f.own})
	if err != nil {
		return file, made, err
	}
	made = models.QuantisedFile{Path: f.path, Tensors: len(tensors)}
	bits, weights := 0.0, int64(0)
	for _, t := range tensors {
		bits, weights = bits+float64(t.Bits)*float64(t.Weights), weights+t.Weights
		made.RelativeError = max(made.RelativeError, t.RelativeError)
	}
	made.Bits = bits / float64(max(1, weights))
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return file, made, err
	}
	file, err = models.FileOf(f.path, out)
	return file, made, err
}

// tellSize says what a box with the base fetches.
func (w *workshop) tellSize(ctx context.Context, paths map[blob.Digest]string, q models.Quantised) error {
	var whole, sent int64
	for _, f := range w.weights {
		base, err := openSource(w.at("base", f.path))
		if err != nil {
			return err
		}
		defer base.close()
		m, _ := w.out.File(f.path)
		own, err := openSource(paths[m.Digest])
		if err != nil {
			return err
		}
		defer own.close()
		s, err := wdelta.Encode(ctx, base, own, io.Discard, wdelta.Options{BaseTensors: f.base, TargetTensors: f.own, Workers: 2})
		if err != nil {
			return err
		}
		whole, sent = whole+s.TargetBytes, sent+s.WireBytes
	}
	w.c.say("A box that has %s fetches %s of %s of weights (%.3f).", q.Base, bytesText(sent), bytesText(whole), float64(sent)/float64(whole))
	return nil
}
