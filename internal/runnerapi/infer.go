package runnerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/edgeherd/edgeherd/models"
)

// headerLength is where the JSON ends in a body with binary tensors.
const headerLength = "Inference-Header-Content-Length"

// maxInferBytes bounds an answer: the runner's own bound of what outputs hold.
const maxInferBytes = 256 << 20

// Output is one tensor of an answer; Data is its raw little-endian content.
type Output struct {
	models.TensorSpec
	Data []byte
}

// Inferred is the answer to Infer.
type Inferred struct {
	Variant string // that answered; empty: the model has one form
	Outputs []Output
}

type inferTensor struct {
	models.TensorSpec
	Parameters struct {
		Binary *int `json:"binary_data_size,omitempty"`
	} `json:"parameters"`
}

// Infer runs a model that serves, by the Open Inference Protocol as any client
// would, with tensors in binary.
func (c *Client) Infer(ctx context.Context, ref models.Ref, inputs []models.GoldenInput) (Inferred, error) {
	ask := struct {
		Inputs     []inferTensor   `json:"inputs"`
		Parameters map[string]bool `json:"parameters"`
	}{Parameters: map[string]bool{"binary_data_output": true}}
	var raw []byte
	for _, in := range inputs {
		t := inferTensor{TensorSpec: in.TensorSpec}
		size := len(in.Data)
		t.Parameters.Binary = &size
		ask.Inputs = append(ask.Inputs, t)
		raw = append(raw, in.Data...)
	}
	head, err := json.Marshal(ask)
	if err != nil {
		return Inferred{}, fmt.Errorf("encode request to runner: %w", err)
	}
	path := "http://runner/v2/models/" + url.PathEscape(ref.Name) + "/versions/" + url.PathEscape(ref.Version) + "/infer"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(append(head, raw...)))
	if err != nil {
		return Inferred{}, fmt.Errorf("ask runner: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set(headerLength, strconv.Itoa(len(head)))
	resp, err := c.http.Do(req)
	if err != nil {
		return Inferred{}, fmt.Errorf("ask runner: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxInferBytes))
	if err != nil {
		return Inferred{}, fmt.Errorf("read answer of runner: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return Inferred{}, fmt.Errorf("runner answers %s with %d: %.200s", ref, resp.StatusCode, data)
	}
	end := len(data)
	if l := resp.Header.Get(headerLength); l != "" {
		if end, err = strconv.Atoi(l); err != nil || end < 0 || end > len(data) {
			return Inferred{}, fmt.Errorf("answer of runner: %s is %q of %d bytes", headerLength, l, len(data))
		}
	}
	return readInferred(data[:end], data[end:])
}

func readInferred(head, raw []byte) (Inferred, error) {
	var said struct {
		Parameters struct {
			Variant string `json:"variant"`
		} `json:"parameters"`
		Outputs []inferTensor `json:"outputs"`
	}
	if err := json.Unmarshal(head, &said); err != nil {
		return Inferred{}, fmt.Errorf("parse answer of runner: %w", err)
	}
	out := Inferred{Variant: said.Parameters.Variant}
	for _, t := range said.Outputs {
		size := t.Parameters.Binary
		if size == nil || *size < 0 || *size > len(raw) {
			return Inferred{}, fmt.Errorf("answer of runner: output %q is not in binary", t.Name)
		}
		out.Outputs = append(out.Outputs, Output{t.TensorSpec, raw[:*size]})
		raw = raw[*size:]
	}
	return out, nil
}
