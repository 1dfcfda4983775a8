package weights

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
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
	return deliverTo(t, f, dir, "")
}

// deliverTo is deliver to the boxes that a filter finds.
func deliverTo(t *testing.T, f *fleettest.Fleet, dir, filter string) (models.Ref, fleetapi.Rollout) {
	t.Helper()
	ref, err := f.PushDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.API.Plan(t.Context(), fleetapi.PlanRequest{Model: ref.String(), Filter: filter, Waves: []string{"rest"}})
	if err == nil {
		r, err = f.API.Act(t.Context(), r.ID, "start")
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Until(ref.String()+" everywhere", 2*time.Hour, func() bool { return f.Rollout(r.ID).State == fleetapi.RolloutDone })
	return ref, r
}

// TestAFineTuneCostsALineLessThanHalf delivers a demo model and a fine-tune of
// it to one box, and on sticks to another one.
func TestAFineTuneCostsALineLessThanHalf(t *testing.T) {
	first, second := files(t, "1", nil), files(t, "2", tune(t))
	info, err := os.Stat(filepath.Join(second, models.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.NewAt(t, 2, 1)
		defer f.Close()
		var wan line
		wan.count(t, f.Boxes[0])
		only := fmt.Sprintf("name = %q", f.Boxes[0].Name)
		base, _ := deliverTo(t, f, first, only)
		cold := wan.read.Swap(0)
		_, r := deliverTo(t, f, second, only)
		tuned, whole := wan.read.Load(), info.Size()
		t.Logf("%d bytes: cold %.3f, fine-tune %.3f", whole, float64(cold)/float64(whole), float64(tuned)/float64(whole))
		if float64(cold) > 0.88*float64(whole) || float64(tuned) > 0.45*float64(whole) {
			t.Errorf("the line carried %d bytes at first and %d for the fine-tune of a file of %d", cold, tuned, whole)
		}
		plan, err := f.API.Plan(t.Context(), fleetapi.PlanRequest{Model: r.Target.String(), Filter: only, Waves: []string{"rest"}})
		if err != nil {
			t.Fatal(err)
		}
		if n := plan.Sheet.Sites[0].Bytes; n != 0 {
			t.Errorf("a plan says that a box which has the version would load %d bytes", n)
		}
		deltaOnAStick(t, f, base, r.Target, filepath.Join(second, models.ModelFile))
	})
}

// deltaOnAStick: a bundle with --base has the delta alone. A box without the base is
// told what it lacks; with the base, from a stick as well, the delta makes the file.
func deltaOnAStick(t *testing.T, f *fleettest.Fleet, base, next models.Ref, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b := f.Boxes[1]
	carry := func(q url.Values) (res agent.ImportResult, size int64) {
		t.Helper()
		var buf bytes.Buffer
		stick := filepath.Join(t.TempDir(), "stick.tar")
		err := f.API.ExportBundle(t.Context(), q, &buf)
		err = errors.Join(err, os.WriteFile(stick, buf.Bytes(), 0o600), agent.ImportOrders(b.State()).Save(agent.ImportOrder{ID: stick, Path: stick}))
		if err != nil {
			t.Fatal(err)
		}
		f.Until("the stick is read", time.Hour, func() bool {
			res = agent.ImportResult{}
			_, err := agent.ImportResults(b.State()).Load(&res)
			return err == nil && res.ID == stick && res.Ended
		})
		return res, int64(buf.Len())
	}
	delta := url.Values{"model": {next.String()}, "base": {base.String()}}
	res, size := carry(delta)
	if size > int64(len(data))*45/100 {
		t.Errorf("the bundle has %d bytes for a fine-tune of a file of %d: that is no delta", size, len(data))
	}
	if !strings.Contains(res.Err, "neither the file nor a way to it from what this box has") || !strings.Contains(res.Err, "without --base") {
		t.Errorf("a box without the base: %+v", res)
	}
	for _, q := range []url.Values{{"model": {base.String()}}, delta} {
		if res, _ := carry(q); res.Err != "" {
			t.Fatalf("%v: %s", q, res.Err)
		}
	}
	blobs, err := blob.Open(filepath.Join(b.State(), "blobs"))
	if err != nil || !blobs.Has(blob.Sum(data)) {
		t.Errorf("the delta on a stick did not make the signed file (%v)", err)
	}
}
