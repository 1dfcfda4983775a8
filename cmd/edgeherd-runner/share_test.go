package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// BenchmarkWorkerShareOfCPU reports what part of the CPU time of runner and
// worker together is the worker's, for an image of 110 KB and an inference of
// about 0.65 ms. The client runs in this process and does not count. The
// worker's share is that of ONNX Runtime plus about 10 µs of transport.
func BenchmarkWorkerShareOfCPU(b *testing.B) {
	const elements = 3 * 48 * 192
	image := strings.TrimSuffix(strings.Repeat("0.123456,", elements), ",")
	text := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3,48,192],"data":[` + image + `]}]}`
	head := fmt.Sprintf(`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"FP32","shape":[1,3,48,192],"parameters":{"binary_data_size":%d}}]}`, elements*4)
	binary := append([]byte(head), make([]byte, elements*4)...)
	s := newSite(b, "ocr-cls-2.0.0")
	s.start()
	s.status()
	socket := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}
	for _, form := range []struct {
		name   string
		body   []byte
		header int
		dial   func(context.Context, string, string) (net.Conn, error)
	}{
		{"tcp-binary", binary, len(head), nil},
		{"socket-binary", binary, len(head), socket},
		{"tcp-json", []byte(text), 0, nil},
	} {
		b.Run(form.name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: form.dial}}
			defer client.CloseIdleConnections()
			header := http.Header{}
			if form.header > 0 {
				header.Set(serve.HeaderLength, strconv.Itoa(form.header))
			}
			before := s.cost(b)
			s.send(b, client, form.body, header)
			after := s.cost(b)
			total := after.total - before.total
			b.ReportMetric((after.worker-before.worker)/total, "worker-share")
			b.ReportMetric(total*1e6/float64(b.N), "cpu-µs/op")
		})
	}
}

// send makes b.N requests over four connections.
func (s *site) send(b *testing.B, client *http.Client, body []byte, header http.Header) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for left.Add(-1) >= 0 {
				req, err := http.NewRequest(http.MethodPost, "http://"+s.http+"/v2/models/"+s.model+"/infer", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				req.Header = header
				resp, err := client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Error(resp.Status)
					return
				}
			}
		})
	}
	clients.Wait()
}

// cpu is a reading of CPU seconds.
type cpu struct{ total, worker float64 }

// cost reads both clocks; the worker's has ticks of 10 ms, so short runs tell
// nothing.
func (s *site) cost(b *testing.B) cpu {
	edge := runnerapi.Dial(s.socket)
	defer edge.Close()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	st, err := edge.Status(ctx)
	if err != nil {
		b.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.Models[0].WorkerPID))
	if err != nil {
		b.Fatal(err)
	}
	// utime and stime are the 14th and 15th field, after a name in parentheses.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks [2]float64
	for i := range ticks {
		if err := json.Unmarshal([]byte(fields[11+i]), &ticks[i]); err != nil {
			b.Fatal(err)
		}
	}
	return cpu{total: st.CPUSeconds, worker: (ticks[0] + ticks[1]) / 100}
}
