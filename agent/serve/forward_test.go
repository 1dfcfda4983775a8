package serve

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// foreignAnswer reads bytes as another server's answer: what is taken can be
// written as an answer of our own, in either form, and an error has no value.
func foreignAnswer(t *testing.T, a backend.Answer, overGRPC bool) {
	t.Helper()
	outs, _, err := readAnswer(a, overGRPC, free)
	if err != nil {
		if outs != nil {
			t.Fatalf("an error with %d outputs", len(outs))
		}
		return
	}
	c := call{}
	for _, o := range outs {
		c.outputs = append(c.outputs, wanted{name: o.Name})
	}
	_, _, _ = appendAnswer(nil, models.Ref{}, &c, outs) // NaN has no JSON form
	replyPieces(models.Ref{}, &c, outs)
}

// TestAnswerOfAnotherServerIsCheckedAndSorted: outputs come in the order in
// which they were asked for, and lengths that lie are refused.
func TestAnswerOfAnotherServerIsCheckedAndSorted(t *testing.T) {
	outs := []worker.Tensor{{Name: "a", DType: models.FP32, Shape: []int64{1}, Data: floats(1)}, {Name: "b", DType: models.BYTES, Shape: []int64{1}, Data: elements([]byte("x"))}}
	for _, form := range []string{"REST", "gRPC"} {
		t.Run(form, func(t *testing.T) {
			write := func(outs []worker.Tensor) backend.Answer {
				if form == "gRPC" {
					return backend.Answer{Body: replyPieces(models.Ref{Name: "m", Version: "9"}, &call{}, outs).Materialize()}
				}
				text, tail, err := appendAnswer(nil, models.Ref{Name: "m", Version: "9"}, &call{binary: true}, outs)
				if err != nil {
					t.Fatal(err)
				}
				head := len(text)
				for _, o := range tail {
					text = append(text, o.Data...)
				}
				return backend.Answer{Body: text, Head: strconv.Itoa(head)}
			}
			got, by, err := readAnswer(write(outs), form == "gRPC", free)
			if err != nil || by != "9" || len(got) != 2 {
				t.Fatalf("%v by %q, %v", got, by, err)
			}
			sorted, err := inOrder(got, []wanted{{name: "b"}, {name: "a"}})
			if err != nil || sorted[0].Name != "b" || sorted[1].Name != "a" || string(sorted[0].Data) != string(outs[1].Data) {
				t.Errorf("%v, %v", sorted, err)
			}
			if _, err := inOrder(got, []wanted{{name: "c"}}); err == nil {
				t.Error("an output that is missing is not missed")
			}
			for _, lie := range []worker.Tensor{{Name: "a", DType: models.FP32, Shape: []int64{2}, Data: floats(1)}, {Name: "b", DType: models.BYTES, Shape: []int64{1}, Data: []byte{255, 255, 255, 255, 1}}} {
				if _, _, err := readAnswer(write(append(slices.Clone(outs), lie)), form == "gRPC", free); err == nil {
					t.Errorf("%+v is taken", lie)
				}
			}
		})
	}
}

// TestWhatAnotherServerSaysStaysInTheLog: paths, names and credentials in its
// errors are for who looks after it, not for clients.
func TestWhatAnotherServerSaysStaysInTheLog(t *testing.T) {
	const secret = "/srv/models/key=hunter2"
	for status, want := range map[int]int{0: 503, 400: 400, 401: 502, 403: 502, 404: 502, 413: 413, 429: 503, 500: 502, 503: 503, 504: 504} {
		failure := &backend.Failure{Status: status, Text: secret}
		if status == 0 {
			failure.Err = errors.New(secret)
		}
		err := told(fmt.Errorf("ask: %w", failure))
		if statusOf(err) != want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d: %d %v", status, statusOf(err), err)
		}
		var log bytes.Buffer
		v := version{log: slog.New(slog.NewTextHandler(&log, nil)), said: rate.Sometimes{Interval: time.Hour}}
		for range 3 {
			v.logElsewhere(err)
		}
		if strings.Count(log.String(), "hunter2") != 1 {
			t.Errorf("%d: the log has %q", status, log.String())
		}
	}
}
