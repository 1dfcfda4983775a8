package bench

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
)

// ofServer is what shares of CPU time are shares of.
const ofServer = "of the CPU of runner and workers"

// loaded is one kind of load on the server.
type loaded struct {
	name string
	goal Goal
	run  func(span time.Duration) (answered, refused int64)
}

// serveShares is ONNX Runtime's part of the CPU time of the whole server, as
// the workers measure it around each run. Batched is what the greedy batcher makes of 64 clients,
// and in-eights is one client request that holds eight items.
func serveShares(t *testing.T) []Figure {
	address := freeAddress(t)
	b := startRunner(t, []string{"ocr-cls-2.0.0", "ocr-det-4.0.0", "silero-vad-5.0.0", "silero-vad-6.0.0"}, "grpc: "+address+"\n")
	api := dialGRPC(t, address)
	overHTTP := func(w workload, connections int) func(time.Duration) (int64, int64) {
		request := w.raw()
		return func(span time.Duration) (int64, int64) { return drive(t, b.http, connections, request, span) }
	}
	overGRPC := func(w workload) func(time.Duration) (int64, int64) {
		return func(span time.Duration) (int64, int64) { return callGRPC(t, api, w, 4, span), 0 }
	}
	loads := []loaded{
		{"http-20ms", Goal{AtLeast: 0.96}, overHTTP(detect(), 4)},
		{"http-0.65ms", Goal{AtLeast: 0.85}, overHTTP(classify(), 4)},
		{"http-80us", Goal{AtLeast: 0.5}, overHTTP(listen(1), 4)},
		{"http-80us-in-eights", Goal{AtLeast: 0.7}, overHTTP(listen(8), 4)},
		{"grpc-20ms", Goal{}, overGRPC(detect())},
		{"grpc-0.65ms", Goal{}, overGRPC(classify())},
		{"grpc-80us", Goal{}, overGRPC(listen(1))},
	}
	figures, _ := b.shares(loads)
	b.prove("silero-vad")
	return append(figures, b.batchedShare(t)...)
}

// batchedShare is the share of the 80 us model when 64 connections are put
// together to batches, and what is left of a request beside ONNX Runtime, against
// a server of net/http that reads the same bytes and answers as many: without it
// one would not know whether it is HTTP or we. Both take turns; the best rounds count.
func (b *box) batchedShare(t *testing.T) []Figure {
	const connections = 64
	request := listen(1).raw()
	yard := startBare(t, b, listen(1))
	var bare []float64
	loads := []loaded{{"http-80us-batched", Goal{AtLeast: 0.7}, func(span time.Duration) (int64, int64) {
		bare = append(bare, yard.perRequest(t, connections, request, span))
		return drive(t, b.http, connections, request, span)
	}}}
	figures, beside := b.shares(loads)
	return append(figures, Figure{Name: "http-80us-batched-beside", Value: beside[0], Unit: "us"}.
		Against("a bare server of net/http with the same bytes", quantile(bare, 0)))
}

// shareRounds are short, so that some of them are spared by other programs.
const shareRounds = 15

// shares runs the loads in turn. The best round of each counts: what else runs
// on the machine takes caches away from the server and from ONNX Runtime, but
// not alike. beside is CPU a request outside ONNX Runtime, in microseconds.
func (b *box) shares(loads []loaded) (figures []Figure, beside []float64) {
	b.t.Helper()
	shares, least := make([][]float64, len(loads)), make([][]float64, len(loads))
	for range shareRounds {
		for i, l := range loads {
			s := b.spend(func() (int64, int64) { return l.run(runnerSpan / 5) })
			shares[i] = append(shares[i], s.onnx/s.total)
			least[i] = append(least[i], (s.total-s.onnx)*1e6/float64(s.answers))
		}
	}
	for i, l := range loads {
		beside = append(beside, quantile(least[i], 0))
		b.t.Logf("%s: %.0f us of CPU beside ONNX Runtime in the best round, %.0f in the median", l.name, quantile(least[i], 0), median(least[i]))
		figures = append(figures, Figure{
			Name: l.name, Value: quantile(shares[i], 1), Unit: "ratio", Goal: l.goal,
			Beside: fmt.Sprintf("%s; median round %.3f", ofServer, median(shares[i])),
		})
	}
	return figures, beside
}

func dialGRPC(t *testing.T, address string) oip.GRPCInferenceServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return oip.NewGRPCInferenceServiceClient(conn)
}

// callGRPC keeps calls under way on one connection for a while.
func callGRPC(t *testing.T, api oip.GRPCInferenceServiceClient, w workload, calls int, span time.Duration) int64 {
	t.Helper()
	request := &oip.ModelInferRequest{ModelName: w.model}
	for _, in := range w.in {
		request.Inputs = append(request.Inputs, &oip.ModelInferRequest_InferInputTensor{Name: in.name, Datatype: in.dtype, Shape: in.shape})
		request.RawInputContents = append(request.RawInputContents, in.data)
	}
	counts := make([]int64, calls)
	until := time.Now().Add(span)
	g, ctx := errgroup.WithContext(t.Context())
	for i := range calls {
		g.Go(func() error {
			for time.Now().Before(until) {
				if _, err := api.ModelInfer(ctx, request); err != nil {
					return err
				}
				counts[i]++
			}
			return nil
		})
	}
	check(t, g.Wait())
	var sum int64
	for _, n := range counts {
		sum += n
	}
	return sum
}

// serveBatch is the throughput of 256 clients, and of one, with the greedy
// batcher against without it, on two runners in turn.
func serveBatch(t *testing.T) []Figure {
	with := startRunner(t, []string{"silero-vad-5.0.0"}, "")
	without := startRunner(t, []string{"silero-vad-5.0.0"}, "")
	with.prove("silero-vad")
	request := listen(1).raw()
	var figures []Figure
	for _, clients := range []int{256, 1} {
		var rates, base, cpus, baseCPU []float64
		for range runnerRounds {
			for _, b := range []*box{with, without} {
				s := b.spend(func() (int64, int64) { return drive(t, b.http, clients, request, runnerSpan) })
				rate, cpu := float64(s.answers)/s.wall, s.total*1e6/float64(s.answers)
				if b == with {
					rates, cpus = append(rates, rate), append(cpus, cpu)
				} else {
					base, baseCPU = append(base, rate), append(baseCPU, cpu)
				}
				t.Logf("%d clients: %.0f/s, %.0f us of CPU each, %.1f items a run, %.0f refused", clients, rate, cpu, s.items/s.runs, s.refused)
			}
		}
		goal := Goal{AtLeast: 1.6}
		if clients == 1 {
			goal = Goal{AtLeast: 0.9} // no loss but noise
		}
		figures = append(figures,
			Figure{Name: fmt.Sprintf("%d-clients", clients), Value: median(rates), Unit: "1/s", Goal: goal}.Against("the same without batches", median(base)),
			Figure{Name: fmt.Sprintf("%d-clients-cpu", clients), Value: median(cpus), Unit: "us"}.Against("the same without batches", median(baseCPU)))
	}
	return figures
}

// serveBurst opens 10,000 connections and sends 110 KB on all of them at once.
func serveBurst(t *testing.T) []Figure {
	const connections = 10000
	b := startRunner(t, []string{"ocr-cls-2.0.0"}, "")
	pid := b.pid()
	request := classify().raw()
	began := time.Now()
	clients := make([]*client, connections)
	g, _ := errgroup.WithContext(t.Context())
	g.SetLimit(64)
	for i := range clients {
		g.Go(func() (err error) {
			clients[i], err = dialClient(b.http)
			return err
		})
	}
	check(t, g.Wait())
	opened := time.Since(began)
	idle := statusKB(t, pid, "VmRSS") / 1024
	began = time.Now()
	results := make([]int, connections) // status, 0: an error
	var all errgroup.Group
	for i, c := range clients {
		all.Go(func() error {
			defer c.Close()
			var err error
			results[i], err = c.ask(request)
			if err != nil {
				results[i] = 0
				t.Logf("connection %d: %v", i, err)
			}
			return nil
		})
	}
	_ = all.Wait() // the results say more
	took := time.Since(began)
	counts := map[int]int{}
	for _, status := range results {
		counts[status]++
	}
	t.Logf("opened in %v; answered in %v: %v", opened, took, counts)
	return []Figure{
		{Name: "errors-but-503", Value: float64(connections - counts[200] - counts[503]), Unit: "count", Goal: Goal{AtMost: 1e-9}},
		{Name: "served", Value: float64(counts[200]), Unit: "count", Goal: Goal{AtLeast: 1}},
		{Name: "peak-rss", Value: statusKB(t, pid, "VmHWM") / 1024, Unit: "MiB", Goal: Goal{AtMost: 400}},
		{Name: "rss-of-idle-connections", Value: idle, Unit: "MiB"},
	}
}

// pid of the runner.
func (b *box) pid() int {
	b.t.Helper()
	st, err := b.edge.Status(b.t.Context())
	check(b.t, err)
	return st.PID
}

// serveSwaps switches between two versions under load.
func serveSwaps(t *testing.T) []Figure {
	const swaps, warm = 200, 20
	b := startRunner(t, []string{"silero-vad-5.0.0", "silero-vad-6.0.0"}, "")
	var active, other = b.active.Models[:1], b.active.Models[1:]
	b.use(active)
	request := listen(1).raw()
	stop, cancel := context.WithCancel(t.Context())
	var load errgroup.Group
	var answered, failed [4]int
	for i := range answered {
		load.Go(func() error {
			c, err := dialClient(b.http)
			if err != nil {
				return err
			}
			defer c.Close()
			for stop.Err() == nil {
				status, err := c.ask(request)
				if err != nil || status != 200 {
					failed[i]++
				}
				if err != nil {
					return err
				}
				answered[i]++
			}
			return nil
		})
	}
	var before float64
	for i := range warm + swaps {
		if i == warm {
			before = statusKB(t, b.pid(), "VmRSS")
		}
		active, other = other, active
		b.use(active)
	}
	after := statusKB(t, b.pid(), "VmRSS")
	cancel()
	if err := load.Wait(); err != nil {
		t.Log(err)
	}
	sum := func(v [4]int) float64 { return float64(v[0] + v[1] + v[2] + v[3]) }
	t.Logf("%.0f requests, RSS %.1f to %.1f MiB", sum(answered), before/1024, after/1024)
	return []Figure{
		{Name: "failed", Value: sum(failed), Unit: "count", Beside: fmt.Sprintf("of %.0f requests in %d swaps", sum(answered), swaps), Goal: Goal{AtMost: 1e-9}},
		{Name: "rss-growth", Value: (after - before) / 1024, Unit: "MiB", Goal: Goal{AtMost: 5}},
	}
}

// serveKill kills the worker of a fresh runner under load, a few times: one
// that dies again and again is started later and later.
func serveKill(t *testing.T) []Figure {
	var late, load []float64
	for range 5 {
		l, took := killOnce(t)
		late, load = append(late, l), append(load, took)
	}
	return []Figure{
		{Name: "next-answer-after-kill", Value: median(late), Unit: "ms"},
		{Name: "beyond-load-time", Value: median(late) - median(load), Unit: "ms", Beside: fmt.Sprintf("median load %.0f ms", median(load)), Goal: Goal{AtMost: 200}},
	}
}

// killOnce returns milliseconds from the kill to the next answer, and those of
// the load in between.
func killOnce(t *testing.T) (late, load float64) {
	b := startRunner(t, []string{"silero-vad-5.0.0"}, "")
	request := listen(1).raw()
	st, err := b.edge.Status(t.Context())
	check(t, err)
	c, err := dialClient(b.http)
	check(t, err)
	defer c.Close()
	for range 100 {
		_, err := c.ask(request)
		check(t, err)
	}
	check(t, syscall.Kill(st.Models[0].WorkerPID, syscall.SIGKILL))
	killed := time.Now()
	for status := 0; status != 200; {
		status, err = c.ask(request)
		check(t, err)
	}
	late = time.Since(killed).Seconds() * 1000
	p, err := b.edge.Probe(t.Context(), st.Models[0].Ref)
	check(t, err)
	return late, p.LoadSeconds * 1000
}
