package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// A request that another server answers is read as any other, and written again
// for the transport of that server: all tensors in binary, aliasing what came.
// Its answer is read likewise, so that every form of request gets every server.

// maxAnswer bounds what another server may answer.
const maxAnswer = 256 << 20

// peer is another server's form of the model.
type peer struct {
	client         *backend.Client
	model, version string
}

// infer lets the other server run the call.
func (r peer) infer(ctx context.Context, c *call) ([]worker.Tensor, error) {
	m := backend.Message{Version: r.version, Max: maxAnswer, Room: c.reserving()}
	if r.client.GRPC() {
		m.Pieces = passedOverGRPC(r.model, r.version, c)
	} else {
		head := appendRequest(nil, c)
		m.Head, m.Pieces = len(head), [][]byte{head}
		for i := range c.inputs {
			m.Pieces = append(m.Pieces, c.inputs[i].Data)
		}
	}
	a, err := r.client.Infer(ctx, m)
	if err != nil {
		return nil, told(err)
	}
	outs, by, err := readAnswer(a, r.client.GRPC(), m.Room)
	if err == nil {
		outs, err = inOrder(outs, c.outputs)
	}
	if err != nil {
		return nil, faultf(http.StatusBadGateway, "answer of the other server: %w", err)
	}
	c.by = by
	return outs, nil
}

// reserving asks for memory of the request; a call of our own has as much as it needs.
func (c *call) reserving() func(int64) error {
	if c.reserve == nil {
		return func(int64) error { return nil }
	}
	return c.reserve
}

// told maps what another server said to what we say. What it says of paths, names
// and credentials is between it and us: the log has it, and no client.
func told(err error) error {
	say := func(status int, text string) error { return &fault{status, &elsewhere{text, err}} }
	var f *backend.Failure
	if !errors.As(err, &f) {
		if errors.Is(err, context.DeadlineExceeded) {
			return say(http.StatusGatewayTimeout, "the other server took too long")
		}
		return err
	}
	switch f.Status {
	case 0, http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return say(http.StatusServiceUnavailable, "the other server does not answer")
	case http.StatusBadRequest:
		return say(f.Status, "the other server does not take this request: look at names, types and shapes of its tensors")
	case http.StatusRequestEntityTooLarge:
		return say(f.Status, "the request is too large for the other server")
	case http.StatusGatewayTimeout:
		return say(f.Status, "the other server took too long")
	}
	return say(http.StatusBadGateway, "the other server refuses")
}

// elsewhere is a fault of another server in our words; its own are the cause.
type elsewhere struct {
	text  string
	cause error
}

func (e *elsewhere) Error() string { return e.text }
func (e *elsewhere) Unwrap() error { return e.cause }

// logElsewhere writes down what another server said, once a minute at most.
func (v *version) logElsewhere(err error, about ...any) error {
	var e *elsewhere
	if errors.As(err, &e) {
		what := "another server failed"
		if statusOf(err) < http.StatusInternalServerError {
			what = "another server refuses a request"
		}
		v.said.Do(func() { v.log.Warn(what, append(about, "err", e.cause)...) })
	}
	return err
}

// appendRequest writes the JSON of a request whose tensors follow it.
func appendRequest(b []byte, c *call) []byte {
	b = append(b, '{')
	if c.id != "" {
		b = append(appendText(append(b, `"id":`...), c.id), ',')
	}
	b = append(b, `"parameters":{"binary_data_output":true`...)
	if c.priority > 0 {
		b = strconv.AppendUint(append(b, `,"priority":`...), c.priority, 10)
	}
	if c.least != "" {
		b = appendText(append(b, `,"`+minVariant+`":`...), c.least)
	}
	b = append(b, `},"inputs":[`...)
	for i := range c.inputs {
		t := &c.inputs[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendSize(appendTensor(b, t), t), '}')
	}
	b = append(b, ']')
	lead := `,"outputs":[`
	for _, o := range c.outputs {
		b, lead = append(b, lead...), ","
		b = append(appendText(append(b, `{"name":`...), o.name), `,"parameters":{"binary_data":true}}`...)
	}
	if len(c.outputs) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

// passedOverGRPC is a ModelInferRequest in pieces.
func passedOverGRPC(model, version string, c *call) [][]byte {
	b := protowire.AppendString(protowire.AppendTag(nil, fieldModelName, protowire.BytesType), model)
	if version != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldVersion, protowire.BytesType), version)
	}
	if c.id != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldID, protowire.BytesType), c.id)
	}
	if c.least != "" {
		b = appendParameter(b, minVariant, c.least)
	}
	for i := range c.inputs {
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldTensors, protowire.BytesType), tensorMeta(&c.inputs[i]))
	}
	for _, o := range c.outputs {
		name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), o.name)
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldOutputs, protowire.BytesType), name)
	}
	var pieces [][]byte
	for i := range c.inputs {
		data := c.inputs[i].Data
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldRawIn, protowire.BytesType), uint64(len(data)))
		pieces, b = append(pieces, b, data), nil
	}
	return append(pieces, b)
}

// appendParameter writes a text as an entry of a map<string, InferParameter>.
func appendParameter(b []byte, key, text string) []byte {
	return appendEntry(b, key, protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), text))
}

// appendEntry adds an InferParameter to the parameters of a request or an answer.
func appendEntry(b []byte, key string, v []byte) []byte {
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), v)
	return protowire.AppendBytes(protowire.AppendTag(b, fieldParams, protowire.BytesType), entry)
}

// answeredBy is the version to name in the answer to a call.
func (c *call) answeredBy(v *version) models.Ref {
	ref := v.ref
	if c.elsewhere {
		ref.Version = c.by
	}
	return ref
}

// tensorMeta is name, type and shape, by the fields that inputs and outputs share.
func tensorMeta(t *worker.Tensor) []byte {
	m := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), t.Name)
	m = protowire.AppendString(protowire.AppendTag(m, 2, protowire.BytesType), string(t.DType))
	var shape []byte
	for _, d := range t.Shape {
		shape = protowire.AppendVarint(shape, uint64(d))
	}
	if len(shape) > 0 {
		m = protowire.AppendBytes(protowire.AppendTag(m, 3, protowire.BytesType), shape)
	}
	return m
}

// readAnswer decodes what another server answers. It is as foreign as a request
// and is read by the same code: an answer's outputs have the form of inputs.
func readAnswer(a backend.Answer, overGRPC bool, reserve func(int64) error) (outs []worker.Tensor, version string, err error) {
	if overGRPC {
		d := grpcDecoder{reserve: reserve, answer: true}
		if err := d.decode(a.Body); err != nil {
			return nil, "", err
		}
		outs, version = d.call.inputs, d.call.version
	} else {
		text, tail, err := splitBody(a.Body, a.Head)
		if err != nil {
			return nil, "", err
		}
		d := decoder{reserve: reserve, answer: true}
		if err := d.decode(text, tail); err != nil {
			return nil, "", err
		}
		outs, version = d.call.inputs, d.call.version
	}
	for _, t := range outs {
		if err := (models.TensorSpec{Name: t.Name, DType: t.DType, Shape: t.Shape}).CheckData(t.Data); err != nil {
			return nil, "", fmt.Errorf("output %q: %w", t.Name, err)
		}
	}
	return outs, version, nil
}

// inOrder puts outputs into the order in which they were asked for.
func inOrder(outs []worker.Tensor, asked []wanted) ([]worker.Tensor, error) {
	if len(asked) == 0 {
		if len(outs) == 0 {
			return nil, errors.New("it has no outputs")
		}
		return outs, nil
	}
	sorted := make([]worker.Tensor, 0, len(asked))
	for _, w := range asked {
		at := slices.IndexFunc(outs, func(t worker.Tensor) bool { return t.Name == w.name })
		if at < 0 {
			return nil, fmt.Errorf("output %q is missing", w.name)
		}
		sorted = append(sorted, outs[at])
	}
	return sorted, nil
}

// forward runs a call by the version's backend and counts it as a run.
func (v *version) forward(ctx context.Context, c *call) ([]worker.Tensor, error) {
	if c.least != "" {
		return nil, faultf(http.StatusBadRequest, "parameter %q: model %s has a backend and no variants", minVariant, v.ref)
	}
	if v.isOpenAI() {
		return nil, faultf(http.StatusBadRequest, "model %s takes no tensors: ask /v1/chat/completions", v.ref)
	}
	r, err := v.ext.serving()
	if err != nil {
		return nil, faultf(http.StatusServiceUnavailable, "model %s: %w", v.ref, err)
	}
	if !v.ext.enter() {
		return nil, overload()
	}
	defer v.ext.leave()
	began := time.Now()
	outs, err := r.infer(ctx, c)
	v.logElsewhere(err)
	if err != nil && statusOf(err) == http.StatusBadRequest {
		// The program may take more than the manifest promises, so it is asked first.
		err = cmp.Or(worker.Misfit(v.ext.manifest.Signature, c.inputs, c.outputNames()), err)
	}
	cost := worker.Cost{Run: time.Since(began)}
	v.stats.executed(1, cost, err)
	if err == nil {
		v.stats.parts(cost.Run, cost)
	}
	c.served = v.ext.place()
	return outs, err
}
