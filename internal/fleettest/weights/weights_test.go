package weights

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/fleettest"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/container"
)

// line counts what comes over a line.
type line struct{ read atomic.Int64 }

type counted struct {
	net.Conn
	line *line
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.line.read.Add(int64(n))
	return n, err
}

// count makes the box's connections to the controller's port of files count. The
// agent starts again for it.
func (l *line) count(t *testing.T, b *fleettest.Box) {
	t.Helper()
	if err := b.StopAgent(); err != nil {
		t.Fatal(err)
	}
	b.Tune = func(o *agent.Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err == nil && strings.HasSuffix(address, ":8444") {
				c = counted{c, l}
			}
			return c, err
		}
	}
	b.StartAgent()
}

// files copies the demo model into a folder as version.
func files(t *testing.T, version string, change func(model []byte)) string {
	t.Helper()
	from, dir := assets.Model(t, "silero-vad-6.0.0"), filepath.Join(t.TempDir(), "vad-"+version)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	yaml := fmt.Sprintf("name: vad\nversion: %s\nlicence: MIT\nupstream: none\nfiles: [model.onnx]\n", version)
	model, err := os.ReadFile(filepath.Join(dir, models.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(model)
	}
	for name, data := range map[string][]byte{"model.yaml": []byte(yaml), models.ModelFile: model} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tune moves three quarters of the weights by about 1e-4 of their size, as a few
// steps of training do; the rest is frozen.
func tune(t *testing.T) func(model []byte) {
	return func(model []byte) {
		l, err := container.Read(strings.NewReader(string(model)), int64(len(model)))
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		moved := 0
		for i, tensor := range l.Spans("") {
			if tensor.DType != models.FP32 || i%4 == 0 {
				continue
			}
			for at := tensor.Off; at+4 <= tensor.Off+tensor.Len; at += 4 {
				w := math.Float32frombits(binary.LittleEndian.Uint32(model[at:]))
				w += float32(float64(w) * 1e-4 * rng.NormFloat64())
				binary.LittleEndian.PutUint32(model[at:], math.Float32bits(w))
				moved++
			}
		}
		if moved < 100_000 {
			t.Fatalf("only %d weights were found to move", moved)
		}
	}
}

// deliver pushes a model and rolls it out to all boxes.
func deliver(t *testing.T, f *fleettest.Fleet, dir string) (models.Ref, fleetapi.Rollout) {
	t.Helper()
	ref, err := f.PushDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := f.Roll(ref, "rest")
	f.Until(ref.String()+" everywhere", 2*time.Hour, func() bool { return f.Rollout(r.ID).State == fleetapi.RolloutDone })
	return ref, r
}

// TestAFineTuneCostsALineLessThanHalf delivers a demo model and a fine-tune of
// it to one box.
func TestAFineTuneCostsALineLessThanHalf(t *testing.T) {
	first, second := files(t, "1", nil), files(t, "2", tune(t))
	info, err := os.Stat(filepath.Join(second, models.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.NewAt(t, 1, 1)
		defer f.Close()
		var wan line
		wan.count(t, f.Boxes[0])
		deliver(t, f, first)
		cold := wan.read.Swap(0)
		_, r := deliver(t, f, second)
		tuned, whole := wan.read.Load(), info.Size()
		t.Logf("%d bytes: cold %.3f, fine-tune %.3f", whole, float64(cold)/float64(whole), float64(tuned)/float64(whole))
		if float64(cold) > 0.88*float64(whole) || float64(tuned) > 0.45*float64(whole) {
			t.Errorf("the line carried %d bytes at first and %d for the fine-tune of a file of %d", cold, tuned, whole)
		}
		plan, err := f.API.Plan(t.Context(), fleetapi.PlanRequest{Model: r.Target.String(), Waves: []string{"rest"}})
		if err != nil {
			t.Fatal(err)
		}
		if n := plan.Sheet.Sites[0].Bytes; n != 0 {
			t.Errorf("a plan says that a box which has the version would load %d bytes", n)
		}
	})
}
