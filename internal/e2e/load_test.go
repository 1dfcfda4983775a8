package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The inputs of the voice detector: one window of silence.
const (
	windowSamples = 576
	stateValues   = 2 * 128
	sampleRate    = 16000
)

type tensor struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int          `json:"shape"`
	Data       any            `json:"data,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

// jsonRequest is an inference request with its data in JSON.
func jsonRequest() []byte {
	body, err := json.Marshal(map[string]any{"inputs": []tensor{
		{Name: "input", Datatype: "FP32", Shape: []int{1, windowSamples}, Data: make([]float32, windowSamples)},
		{Name: "state", Datatype: "FP32", Shape: []int{2, 1, 128}, Data: make([]float32, stateValues)},
		{Name: "sr", Datatype: "INT64", Shape: []int{}, Data: []int64{sampleRate}},
	}})
	if err != nil {
		panic(err)
	}
	return body
}

// binaryRequest is the same request in the binary tensor extension: a JSON
// header of the returned length, then the raw tensors.
func binaryRequest() (body []byte, header int) {
	size := func(n int) map[string]any { return map[string]any{"binary_data_size": n} }
	body, err := json.Marshal(map[string]any{
		"parameters": map[string]any{"binary_data_output": true},
		"inputs": []tensor{
			{Name: "input", Datatype: "FP32", Shape: []int{1, windowSamples}, Parameters: size(4 * windowSamples)},
			{Name: "state", Datatype: "FP32", Shape: []int{2, 1, 128}, Parameters: size(4 * stateValues)},
			{Name: "sr", Datatype: "INT64", Shape: []int{}, Parameters: size(8)},
		}})
	if err != nil {
		panic(err)
	}
	header = len(body)
	body = append(body, make([]byte, 4*windowSamples+4*stateValues)...)
	return binary.LittleEndian.AppendUint64(body, sampleRate), header
}

// infer posts a request and returns version and speech probability.
func infer(ctx context.Context, base string, body []byte, header int) (version string, speech float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v2/models/silero-vad/infer", bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if header > 0 {
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Inference-Header-Content-Length", strconv.Itoa(header))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return "", 0, err
	}
	if res.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("%s: %s", res.Status, data)
	}
	var raw []byte
	if n, err := strconv.Atoi(res.Header.Get("Inference-Header-Content-Length")); err == nil {
		data, raw = data[:n], data[n:]
	}
	var answer struct {
		Version string `json:"model_version"`
		Outputs []struct {
			Name string
			Data []float64
		}
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", 0, err
	}
	for _, o := range answer.Outputs {
		switch {
		case o.Name != "output":
		case len(o.Data) == 1:
			return answer.Version, o.Data[0], nil
		case len(raw) >= 4: // the first output comes first
			return answer.Version, float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))), nil
		}
	}
	return "", 0, fmt.Errorf("no probability in the answer %s", data)
}

// load is a loop of requests to one box.
type load struct {
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex // guards the fields below
	answered map[string]int
	failures []string
}

// startLoad asks every 20 ms until stopped. A person's client is as fast.
func startLoad(base string) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop, done: make(chan struct{}), answered: map[string]int{}}
	body := jsonRequest()
	go func() {
		defer close(l.done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			version, _, err := infer(context.WithoutCancel(ctx), base, body, 0)
			l.mu.Lock()
			if err != nil {
				l.failures = append(l.failures, time.Now().Format("15:04:05.000 ")+err.Error())
			} else {
				l.answered[version]++
			}
			l.mu.Unlock()
		}
	}()
	return l
}

// end stops the load and requires that nothing failed and that each of the
// versions has answered.
func (l *load) end(t *testing.T, versions ...string) {
	t.Helper()
	l.stop()
	<-l.done
	t.Logf("answered: %v", l.answered)
	if len(l.failures) > 0 {
		t.Errorf("%d requests failed, the first: %s", len(l.failures), strings.Join(l.failures[:min(3, len(l.failures))], "; "))
	}
	for _, v := range versions {
		if l.answered[v] == 0 {
			t.Errorf("version %s has answered nothing", v)
		}
	}
}
