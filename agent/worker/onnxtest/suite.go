// Package onnxtest runs the conformance data of the ONNX project against
// anything that can load a model and run it.
//
// A case is a directory with model.onnx and test_data_set_N/{input,output}_M.pb
// (serialised TensorProto, matched to the model's inputs and outputs by
// position). Debian ships 1072 of them as libonnx-testdata. A session is one
// loaded model: a *worker.Worker, or a client of a server that has loaded it.
//
// The file expected_failures.txt names the cases that do not pass and why: one
// "name reason" per line. Suite fails when another case fails, and also when a
// listed one passes, unless its reason starts with "random:", so the list
// stays true.
//
// The one rule a caller can break: Suite needs the data; call Data first, which
// skips or fails the test when it is not installed.
package onnxtest

import (
	"context"
	_ "embed" // expected_failures.txt
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// debianData is where the package libonnx-testdata puts the cases.
const debianData = "/usr/share/libonnx-testdata/data"

//go:embed expected_failures.txt
var expectedFailures string

// Session is a loaded model.
type Session interface {
	Signature() models.Signature
	Infer(ctx context.Context, in []worker.Tensor, outputs []string) ([]worker.Tensor, error)
	Close() error
}

// Opener loads a model file. It is called by several goroutines at once.
type Opener func(ctx context.Context, model string) (Session, error)

// Case is one directory of the data.
type Case struct {
	Name string // for instance "node/test_add"
	Dir  string
}

// Data returns the cases. Without them it skips the test, or fails it when
// EDGEHERD_REQUIRE_ASSETS is set.
func Data(t testing.TB) []Case {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(debianData, "*", "*", "model.onnx"))
	if err != nil || len(paths) == 0 {
		assets.Absent(t, errors.New("no test data of ONNX; run `make deps`"))
	}
	cases := make([]Case, len(paths))
	for i, p := range paths {
		cases[i].Dir = filepath.Dir(p)
		cases[i].Name, _ = filepath.Rel(debianData, cases[i].Dir)
	}
	return cases
}

// Suite runs cases, all or some of Data's, parallel of them at a time, and prints the count.
func Suite(t *testing.T, cases []Case, parallel int, open Opener) {
	t.Helper()
	expected, err := parseList(expectedFailures)
	if err != nil {
		t.Fatal(err)
	}
	// Cases that need the locale en_US.UTF-8 behave alike on every machine.
	t.Setenv("LOCPATH", t.TempDir())
	results := make([]error, len(cases))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range cases {
		group.Go(func() error {
			results[i] = cases[i].Run(t.Context(), open)
			return nil
		})
	}
	_ = group.Wait() // the results say more
	passed := 0
	for i, err := range results {
		name := cases[i].Name
		reason, listed := expected[name]
		delete(expected, name)
		switch {
		case err == nil:
			passed++
			if listed && !strings.HasPrefix(reason, "random:") {
				t.Errorf("%s passes: remove it from expected_failures.txt", name)
			}
		case !listed:
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range expected {
		if _, err := os.Stat(filepath.Join(debianData, name)); err == nil {
			continue // cases may be a part of the data
		}
		t.Errorf("expected_failures.txt names %s, which is not in the data", name)
	}
	t.Logf("ONNX conformance: %d of %d cases pass", passed, len(cases))
}

func parseList(text string) (map[string]string, error) {
	list := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("expected_failures.txt: %q has no reason", line)
		}
		list[name] = strings.TrimSpace(reason)
	}
	return list, nil
}

// Run loads the model and compares every data set of the case.
func (c Case) Run(ctx context.Context, open Opener) (err error) {
	sets, err := filepath.Glob(filepath.Join(c.Dir, "test_data_set_*"))
	if err != nil || len(sets) == 0 {
		return fmt.Errorf("no data sets in %s", c.Dir)
	}
	s, err := open(ctx, filepath.Join(c.Dir, "model.onnx"))
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, set := range sets {
		if err := runSet(ctx, set, s); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(set), err)
		}
	}
	return nil
}

func runSet(ctx context.Context, dir string, s Session) error {
	sig := s.Signature()
	in, err := readTensors(dir, "input")
	if err != nil {
		return err
	}
	want, err := readTensors(dir, "output")
	if err != nil {
		return err
	}
	if len(in) != len(sig.Inputs) || len(want) != len(sig.Outputs) {
		return fmt.Errorf("data has %d inputs and %d outputs, the model %d and %d", len(in), len(want), len(sig.Inputs), len(sig.Outputs))
	}
	for i := range in {
		in[i].Name = sig.Inputs[i].Name
		in[i].DType = storedType(in[i].DType, sig.Inputs[i].DType)
	}
	names := make([]string, len(want))
	for i := range want {
		names[i] = sig.Outputs[i].Name
		want[i].DType = storedType(want[i].DType, sig.Outputs[i].DType)
	}
	// Three times: a worker binds outputs in advance from the second request of
	// a shape on, in each half of its ring.
	for range 3 {
		got, err := s.Infer(ctx, in, names)
		if err != nil {
			return fmt.Errorf("infer: %w", err)
		}
		if err := compareAll(got, want, names); err != nil {
			return err
		}
	}
	return nil
}

func compareAll(got, want []worker.Tensor, names []string) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d outputs, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Name != names[i] {
			return fmt.Errorf("output %d is %q, want %q", i, got[i].Name, names[i])
		}
		if err := Compare(got[i], want[i]); err != nil {
			return fmt.Errorf("output %q: %w", names[i], err)
		}
	}
	return nil
}

// storedType is the true type of stored data: the generator, numpy, has no
// bfloat16 and labels its bits as UINT16.
func storedType(stored, declared models.DType) models.DType {
	if stored == models.UINT16 && declared == models.BF16 {
		return models.BF16
	}
	return stored
}

// readTensors reads kind_0.pb, kind_1.pb and so on.
func readTensors(dir, kind string) ([]worker.Tensor, error) {
	var tensors []worker.Tensor
	for i := 0; ; i++ {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%s_%d.pb", kind, i)))
		if errors.Is(err, os.ErrNotExist) {
			return tensors, nil
		}
		if err != nil {
			return nil, err
		}
		t, err := DecodeTensor(b)
		if err != nil {
			return nil, fmt.Errorf("%s %d: %w", kind, i, err)
		}
		tensors = append(tensors, t)
	}
}
