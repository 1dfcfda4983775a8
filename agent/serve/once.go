package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Once starts a worker for a model file that nobody signed, runs one JSON
// request of the protocol on it, and returns the response.
func Once(ctx context.Context, opts worker.Options, request []byte, log *slog.Logger) (answer []byte, err error) {
	d := decoder{reserve: func(int64) error { return nil }}
	if err := d.decode(request, nil); err != nil {
		return nil, err
	}
	w, err := worker.Start(ctx, opts, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	outs, err := w.Infer(ctx, d.call.inputs, d.call.outputNames())
	if err != nil {
		return nil, err
	}
	for i := range d.call.outputs {
		d.call.outputs[i].binary = false
	}
	d.call.binary = false
	answer, _, err = appendAnswer(nil, models.Ref{Name: "try", Version: "0"}, &d.call, outs)
	return answer, err
}

// Answers starts a worker for a model file that nobody signed and returns the
// samples with what it answers, each under the tolerance that the sample has.
func Answers(ctx context.Context, opts worker.Options, g models.Golden, log *slog.Logger) (answers models.Golden, err error) {
	w, err := worker.Start(ctx, opts, log)
	if err != nil {
		return models.Golden{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := g.Fits(w.Signature()); err != nil {
		return models.Golden{}, err
	}
	answers = models.Golden{V: g.V}
	for _, c := range g.Cases {
		outs, err := w.Infer(ctx, goldenInputs(c), goldenOutputs(c))
		if err != nil {
			return models.Golden{}, fmt.Errorf("golden case %q: %w", c.Name, err)
		}
		got := models.GoldenCase{Name: c.Name, Inputs: c.Inputs}
		for i, o := range outs {
			got.Outputs = append(got.Outputs, models.GoldenWant{
				TensorSpec: models.TensorSpec{Name: o.Name, DType: o.DType, Shape: o.Shape},
				Data:       bytes.Clone(o.Data), Abs: c.Outputs[i].Abs, Rel: c.Outputs[i].Rel,
			})
		}
		answers.Cases = append(answers.Cases, got)
	}
	return answers, nil
}
