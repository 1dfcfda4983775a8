package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// errWorse says that quantised weights answer worse than they may; finer steps
// may help.
var errWorse = errors.New("not as good")

// evaluator runs models in the runner that boxes have.
type evaluator struct{ runner, library string }

// find looks for the runner beside this program, then in PATH.
func (e *evaluator) find() error {
	if e.runner != "" {
		return nil
	}
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), "edgeherd-runner")
		if _, err := os.Stat(beside); err == nil {
			e.runner = beside
			return nil
		}
	}
	if e.runner, err = exec.LookPath("edgeherd-runner"); err != nil {
		return fmt.Errorf("the weights are tried in edgeherd-runner, which is not here (%w): name it with --runner", err)
	}
	return nil
}

// answers of a graph to the samples in a file.
func (e evaluator) answers(ctx context.Context, graph, samples string) (models.Golden, error) {
	args := []string{"golden", "--model", graph, "--samples", samples}
	if e.library != "" {
		args = append(args, "--library", e.library)
	}
	cmd := exec.CommandContext(ctx, e.runner, args...)
	var says bytes.Buffer
	cmd.Stderr = &says
	out, err := cmd.Output()
	if err != nil {
		said := string(bytes.TrimSpace(says.Bytes()))
		if e.library == "" && strings.Contains(said, "load ONNX Runtime") {
			said += "; name the library with --library FILE"
		}
		return models.Golden{}, fmt.Errorf("%s: %w: %s", e.runner, err, said)
	}
	g, err := models.DecodeGolden(out)
	if err != nil {
		return models.Golden{}, fmt.Errorf("what %s answered: %w", e.runner, err)
	}
	return g, nil
}

// prove runs every graph whose weights were made, and fills in the metric. It
// returns errWorse with the reason when they are not as good as the trained ones.
func (w *workshop) prove(ctx context.Context, paths map[blob.Digest]string, q *models.Quantised) error {
	folder := fmt.Sprint("levels-", q.Levels)
	var metric measure
	for _, v := range w.trained.Ladder() {
		if !slices.Contains(w.graphs, v.Path) {
			continue
		}
		files := []string{w.at("trained", v.GoldenPath())}
		if v.Path == w.trained.Ladder()[0].Path {
			files = append(files, w.evaluation...)
		}
		for i, file := range files {
			want, err := models.ReadGolden(file)
			if err != nil {
				return err
			}
			before, err := w.asTrained(ctx, v, i, file)
			if err != nil {
				return err
			}
			after, err := w.by.answers(ctx, w.at(folder, v.Path), file)
			if err != nil {
				return err
			}
			if i == 0 {
				if err := right(want, before); err != nil {
					return fmt.Errorf("the weights as trained fail %s: %w", v.GoldenPath(), err)
				}
				if err := right(want, after); err != nil {
					metric.fail = errors.Join(metric.fail, err)
				}
			}
			if err := metric.add(i > 0, len(w.evaluation) > 0, want, before, after); err != nil {
				return err
			}
		}
	}
	metric.fill(q, w.metric, len(w.evaluation) > 0)
	switch {
	case metric.fail != nil:
		return fmt.Errorf("%w: %w", errWorse, metric.fail)
	case !q.AsGood():
		return fmt.Errorf("%w: may differ by %g of it", errWorse, q.Tolerance)
	}
	return nil
}

// asTrained answers from memory after the first try.
func (w *workshop) asTrained(ctx context.Context, v models.Variant, i int, file string) (models.Golden, error) {
	if have := w.before[v.Path]; i < len(have) {
		return have[i], nil
	}
	g, err := w.by.answers(ctx, w.at("trained", v.Path), file)
	if err == nil {
		w.before[v.Path] = append(w.before[v.Path], g)
	}
	return g, err
}

// right checks answers as a box does.
func right(want, got models.Golden) error {
	for i, c := range want.Cases {
		if i >= len(got.Cases) || len(got.Cases[i].Outputs) != len(c.Outputs) {
			return fmt.Errorf("golden case %q was not answered", c.Name)
		}
		for j, o := range c.Outputs {
			g := got.Cases[i].Outputs[j]
			if err := o.Check(g.TensorSpec, g.Data); err != nil {
				return fmt.Errorf("golden case %q: %w", c.Name, err)
			}
		}
	}
	return nil
}

// measure is the metric in the making.
type measure struct {
	before, after models.Score // against labels
	moved, size   models.Score // of answers, against those as trained and against none
	cases         int
	fail          error
}

// add takes the answers to one file of samples in.
func (m *measure) add(labelled, haveLabels bool, want, before, after models.Golden) error {
	if labelled != haveLabels {
		return nil // golden samples beside labelled ones: passed, and no metric
	}
	m.cases += len(want.Cases)
	for i, c := range want.Cases {
		if i >= len(before.Cases) || i >= len(after.Cases) {
			return fmt.Errorf("golden case %q was not answered", c.Name)
		}
		b, a := before.Cases[i], after.Cases[i]
		if err := errors.Join(m.before.Add(c, b.Outputs), m.after.Add(c, a.Outputs), m.moved.Add(b, a.Outputs), m.size.Add(b, zeros(b))); err != nil {
			return err
		}
	}
	return nil
}

func zeros(c models.GoldenCase) []models.GoldenWant {
	var out []models.GoldenWant
	for _, o := range c.Outputs {
		if o.DType != models.BYTES {
			o.Data = make([]byte, len(o.Data))
		}
		out = append(out, o)
	}
	return out
}

func (m *measure) fill(q *models.Quantised, metric string, labelled bool) {
	q.Cases = m.cases
	switch {
	case !labelled:
		q.Metric, q.Before = models.MetricMoved, 0
		if q.After = m.moved.Error(); m.size.Error() > 0 {
			q.After /= m.size.Error()
		}
	case metric == models.MetricAccuracy:
		q.Metric, q.Before, q.After = metric, m.before.Accuracy(), m.after.Accuracy()
	default:
		q.Metric, q.Before, q.After = metric, m.before.Error(), m.after.Error()
	}
}
