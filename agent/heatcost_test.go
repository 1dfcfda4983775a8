package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/simboard"
	"github.com/edgeherd/edgeherd/models"
)

// treadmill is a runner whose variants take processor time while they exercise.
type treadmill struct {
	t     *testing.T
	share map[string]float64 // of a processor, by variant
	told  runnerapi.Heat

	mu    sync.Mutex // guards both below
	busy  float64    // now
	spent time.Duration
}

func (r *treadmill) runs(busy float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = busy
}

func (r *treadmill) after(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent += time.Duration(r.busy * float64(d))
}

func (r *treadmill) cpu() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spent
}

type late func([]byte) (int, error)

func (l late) Read(p []byte) (int, error) { return l(p) }

func (r *treadmill) RoundTrip(req *http.Request) (*http.Response, error) {
	answer := func(body io.Reader) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(body), Request: req}, nil
	}
	decode := func(v any) {
		if err := json.NewDecoder(req.Body).Decode(v); err != nil {
			r.t.Error(err)
		}
	}
	if req.URL.Path[len(req.URL.Path)-5:] == "/heat" {
		decode(&r.told)
		return answer(bytes.NewReader([]byte(`[{"name":"judged"}]`)))
	}
	var e runnerapi.Exercise
	decode(&e)
	r.runs(r.share[e.Variant])
	text, err := json.Marshal(runnerapi.Exercised{Items: uint64(50 * e.Seconds), Seconds: e.Seconds})
	if err != nil {
		return nil, err
	}
	end, body := time.Now().Add(time.Duration(e.Seconds*float64(time.Second))), bytes.NewReader(text)
	return answer(late(func(p []byte) (int, error) {
		time.Sleep(time.Until(end))
		r.runs(0)
		return body.Read(p)
	}))
}

// TestHeatOfVariantsIsReadFromTheBoard: with its energy counter or its rails, and
// a board without any, or one that is hot, says that processor time must do.
func TestHeatOfVariantsIsReadFromTheBoard(t *testing.T) {
	for _, c := range []struct {
		name, profile, from string
		hot                 bool
	}{{"rapl", simboard.WallMount, "rapl", false}, {"ina3221", simboard.Jetson, "ina3221", false}, {"none", "", fromCPU, false}, {"hot", simboard.WallMount, fromCPU, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				root := t.TempDir()
				ctx, stop := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer stop()
				r := &treadmill{t: t, share: map[string]float64{"fp32": 1, "int8": 0.4}}
				if c.profile != "" {
					board := simboard.New(simboard.Options{Root: root, Profile: c.profile, Name: "b", Seed: 7, CPU: r.cpu}, slog.New(slog.DiscardHandler))
					defer board.Close()
					board.Step(time.Now())
					go func() {
						for tick := time.NewTicker(100 * time.Millisecond); ; {
							select {
							case <-ctx.Done():
								tick.Stop()
								return
							case <-tick.C:
							}
							r.after(100 * time.Millisecond)
							board.Step(time.Now())
						}
					}()
				}
				a := &Agent{opts: Options{Runner: runnerapi.NewClient(r), HeatWindow: 12 * time.Second}, sampler: sense.New(sense.Options{Root: root}, slog.New(slog.DiscardHandler))}
				a.eased.Store(c.hot)
				_, _ = a.sampler.Read(t.Context()) // finds the sensors, as the agent's loop has
				p := runnerapi.Probe{Variants: []runnerapi.VariantStatus{{Name: "fp32"}, {Name: "fp16", Skipped: "wrong"}, {Name: "int8"}}}
				began := time.Now()
				if err := a.measureHeat(t.Context(), models.Ref{Name: "m"}, &p); err != nil {
					t.Fatal(err)
				}
				best, cheap, wrong := r.told["fp32"], r.told["int8"], r.told["fp16"]
				if p.Variants[0].Name != "judged" || wrong.HeatFrom != fromCPU || best.HeatFrom != c.from || cheap.HeatFrom != c.from {
					t.Fatalf("told %+v, the probe has %+v; want them from %s", r.told, p.Variants, c.from)
				}
				if took := time.Since(began); took > 50*time.Second {
					t.Errorf("took %s", took)
				}
				if c.from == fromCPU {
					return
				}
				if ratio := cheap.Watts / best.Watts; best.Watts < 1 || ratio < 0.25 || ratio > 0.55 {
					t.Errorf("%.2f W and %.2f W, want about 0.4 of it", best.Watts, cheap.Watts)
				}
				if j := best.JoulesPerItem; j < best.Watts*0.019 || j > best.Watts*0.021 {
					t.Errorf("%.3f J an item at %.2f W and 50 items a second", j, best.Watts)
				}
			})
		})
	}
}
