package worker

import (
	"bytes"
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/models"
)

// TestNoAnswerHoldsAnOlderOne asks each model again and again with other data:
// from the second request in a region on, outputs have their places in
// advance, and a place that the runtime did not write would hold what the
// client before was told.
func TestNoAnswerHoldsAnOlderOne(t *testing.T) {
	shape := []int64{-1}
	x := value{name: "x", dtype: models.FP32, shape: shape}
	y := value{name: "y", dtype: models.FP32, shape: shape}
	for _, c := range []struct {
		name string
		g    graph
	}{
		{"a node", graph{nodes: []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}}, in: []value{x}, out: []value{y}}},
		{"an input is an output", graph{nodes: []node{{op: "Identity", in: []string{"x"}, out: []string{"y"}}}, in: []value{x}, out: []value{x, y}}},
		{"two nodes that the optimiser removes", graph{nodes: []node{
			{op: "Identity", in: []string{"x"}, out: []string{"t"}}, {op: "Identity", in: []string{"t"}, out: []string{"y"}},
		}, in: []value{x}, out: []value{y}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := startGraph(t, c.g, Options{})
			for i := range 8 {
				want := floats(float32(i), float32(-i))
				got, err := w.Infer(t.Context(), []Tensor{{Name: "x", DType: models.FP32, Shape: []int64{2}, Data: want}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range got {
					if !bytes.Equal(o.Data, want) {
						t.Errorf("request %d: output %s is %v, want %v", i, o.Name, o.Data, want)
					}
				}
			}
		})
	}
}

// TestAbandonedRunThatBeginsAllTheSameIsBounded lets a caller leave while
// another run is before it, and then has the worker hang on what it left.
func TestAbandonedRunThatBeginsAllTheSameIsBounded(t *testing.T) {
	w := identity(t, Options{Grace: 20 * time.Millisecond})
	other := make(chan struct{})
	w.order.Lock()
	w.newest = other
	w.order.Unlock()
	if err := syscall.Kill(pidOf(t, w), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.Infer(ctx, vector(1), nil); !errors.Is(err, ErrDeadline) {
		t.Fatalf("got %v, want ErrDeadline", err)
	}
	close(other)
	select {
	case <-w.Done():
	case <-time.After(time.Minute):
		_ = syscall.Kill(pidOf(t, w), syscall.SIGKILL)
		t.Error("nobody ends a worker that hangs on an abandoned run")
	}
}

// TestWaitingOnAClosedWorkerReturns gives the number of its socket to another
// file, which never has anything to read.
func TestWaitingOnAClosedWorkerReturns(t *testing.T) {
	w := identity(t, Options{})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range 16 {
		r, wr, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer wr.Close()
	}
	ended := make(chan struct{})
	go func() { _, _ = w.conn.Read(make([]byte, 1)); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("waits for another's file")
	}
}

func TestEmptyTensorsWithHugeDimensionsAreRefused(t *testing.T) {
	p := &port{Spec: models.TensorSpec{Name: "x", DType: models.FP32, Shape: dims(2)}}
	for _, shape := range [][]int64{{0, 1 << 62}, {1 << 62, 0}, {1 << 31, 1 << 31}} {
		if err := checkTensor(&Tensor{Name: "x", DType: models.FP32, Shape: shape}, p); err == nil {
			t.Errorf("shape %v passes", shape)
		}
	}
	if err := checkTensor(&Tensor{Name: "x", DType: models.FP32, Shape: []int64{0, 512}}, p); err != nil {
		t.Errorf("a small empty tensor: %v", err)
	}
}

// TestAWorkerIsNotTrustedWithShapes: parts of a batch are cut by them.
func TestAWorkerIsNotTrustedWithShapes(t *testing.T) {
	for _, c := range []struct {
		name   string
		length int64
		shape  []int64
		dtype  models.DType
		want   bool
	}{
		{"a scalar", 4, nil, models.FP32, true},
		{"a matrix", 24, []int64{2, 3}, models.FP32, true},
		{"nothing", 0, []int64{2, 0}, models.FP32, true},
		{"too short", 20, []int64{2, 3}, models.FP32, false},
		{"too long", 28, []int64{2, 3}, models.FP32, false},
		{"half an element", 26, []int64{2, 3}, models.FP32, false},
		{"product overflows to the length", 0, []int64{1 << 32, 1 << 32}, models.UINT8, false},
		{"empty beside overflow", 0, []int64{1 << 32, 1 << 32, 0}, models.UINT8, true},
		{"bytes in an empty shape", 8, []int64{0, 1 << 62}, models.UINT8, false},
	} {
		if got := (&span{length: c.length, shape: c.shape}).holds(c.dtype); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
