package fleettest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
)

// behaviour is what a model of a test does on a box. It travels inside the
// model file, as the producer's name, so it takes the whole real way.
type behaviour string

const (
	works        behaviour = "works"
	failsGolden  behaviour = "fails golden"
	failsInTrial behaviour = "fails in trial"
)

// behaviourOf reads the behaviour out of a model file.
func behaviourOf(model []byte) behaviour {
	for _, b := range []behaviour{failsGolden, failsInTrial} {
		if bytes.Contains(model, []byte(b)) {
			return b
		}
	}
	return works
}

// Model describes a model to push. Zero values are a good one.
type Model struct {
	Name, Version string
	FailsGolden   bool   // the box finds out before the model serves
	FailsInTrial  bool   // the box finds out while it serves
	Input         string // name of the only input; default "x"
}

// Push makes the model, signs and uploads it.
func (f *Fleet) Push(m Model) (models.Ref, error) {
	f.T.Helper()
	b := works
	if m.FailsGolden {
		b = failsGolden
	} else if m.FailsInTrial {
		b = failsInTrial
	}
	if m.Input == "" {
		m.Input = "x"
	}
	dir := filepath.Join(f.T.TempDir(), m.Name+"-"+m.Version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		f.T.Fatal(err)
	}
	yaml := fmt.Sprintf("name: %s\nversion: %s\ndescription: test\nlicence: Apache-2.0\nupstream: none\nfiles:\n  - model.onnx\n", m.Name, m.Version)
	for name, data := range map[string][]byte{"model.yaml": []byte(yaml), models.ModelFile: identityModel(m.Input, string(b)+" "+m.Version)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			f.T.Fatal(err)
		}
	}
	return f.PushDir(dir)
}

// PushDir packs, signs and uploads the model in a directory.
func (f *Fleet) PushDir(dir string) (models.Ref, error) {
	return fleetapi.PushModelDir(context.Background(), f.API, dir, f.keyPath, nil)
}

// MustPush is Push for models that must be accepted.
func (f *Fleet) MustPush(m Model) models.Ref {
	f.T.Helper()
	ref, err := f.Push(m)
	if err != nil {
		f.T.Fatalf("push %s: %v", m.Name, err)
	}
	return ref
}

// Roll plans and starts a rollout of ref in the given waves.
func (f *Fleet) Roll(ref models.Ref, waves ...string) fleetapi.Rollout {
	f.T.Helper()
	ctx := context.Background()
	plan, err := f.API.Plan(ctx, fleetapi.PlanRequest{Model: ref.String(), Waves: waves})
	if err != nil {
		f.T.Fatalf("plan rollout of %s: %v", ref, err)
	}
	r, err := f.API.Act(ctx, plan.ID, "start")
	if err != nil {
		f.T.Fatalf("start rollout of %s: %v", ref, err)
	}
	return r
}

// Rollout asks for a rollout as it stands now.
func (f *Fleet) Rollout(id string) fleetapi.Rollout {
	f.T.Helper()
	r, err := f.API.Rollout(context.Background(), id)
	if err != nil {
		f.T.Fatalf("ask for rollout %s: %v", id, err)
	}
	return r
}

// identityModel is an ONNX file (onnx.proto, IR version 8, opset 17) with one
// node Identity from input to "y", both float[-1, 4].
func identityModel(input, producer string) []byte {
	msg := func(fields ...[]byte) []byte { return bytes.Join(fields, nil) }
	str := func(n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, n, protowire.BytesType), s)
	}
	sub := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	shape := msg(sub(1, str(2, "batch")), sub(1, num(1, 4)))
	value := func(name string) []byte {
		return msg(str(1, name), sub(2, sub(1, msg(num(1, 1), sub(2, shape)))))
	}
	node := msg(str(1, input), str(2, "y"), str(4, "Identity"))
	graph := msg(sub(1, node), str(2, "test"), sub(11, value(input)), sub(12, value("y")))
	return msg(num(1, 8), str(2, producer), sub(7, graph), sub(8, num(2, 17)))
}
