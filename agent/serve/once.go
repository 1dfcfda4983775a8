package serve

import (
	"context"
	"errors"
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
