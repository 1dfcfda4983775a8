package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// shards is how many goroutines serve connections: one does 20,000 messages a
// second, and the controller needs the other cores.
const shards = 2

// progressEvery is how often Progress is called.
const progressEvery = 5 * time.Second

// engine is what all shards share.
type engine struct {
	opts   Options
	began  time.Time
	wall0  time.Time
	maker  *maker
	ledger *Ledger
	stats  *stats
	dialer *dialer
}

// now is the time since the engine began; 0 is before all of it.
func (e *engine) now() int64 { return int64(time.Since(e.began)) + 1 }

// wall is the wall clock at now, of devices whose clock is right.
func (e *engine) wall(now int64) time.Time { return e.wall0.Add(time.Duration(now)) }

// run is one Run.
type run struct {
	*engine
	shards []*shard
	report Report
}

// Run connects all devices, has them make blocks, waits for the last ACK and
// reports. An error means that it could not measure; what went wrong with the
// controller is in the report.
func Run(ctx context.Context, opts Options) (Report, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return Report{}, err
	}
	if err := descriptors(uint64(len(opts.Boxes) + opts.Twins + opts.Handshakes + spareFiles)); err != nil {
		return Report{}, err
	}
	before := memory()
	r := &run{engine: &engine{opts: opts, began: time.Now(), wall0: opts.WallClock(), stats: newStats()}}
	if r.maker, err = newMaker(opts.Seed); err != nil {
		return Report{}, err
	}
	if r.ledger, err = NewLedger(opts.Ledger, opts.Boxes); err != nil {
		return Report{}, err
	}
	r.dialer = newDialer(opts.Addr, opts.TLS, opts.Certificates)
	for n := range shards {
		if devices := r.devices(n); len(devices) > 0 {
			s, err := newShard(r.engine, devices)
			if err != nil {
				return Report{}, err
			}
			defer s.close()
			r.shards = append(r.shards, s)
		}
	}
	r.report.Own.State = memory() - before
	return r.drive(ctx, before)
}

// devices makes the share of shard n: every box whose number says so, and its
// twin if it has one.
func (r *run) devices(n int) []device {
	var out []device
	add := func(box int) *device {
		out = append(out, device{
			id: r.opts.Boxes[box], box: int32(box), answerAt: never, pingAt: never, makeAt: never,
			rng: stream(r.opts.Seed ^ uint64(len(out)*shards+n)*0x9e3779b97f4a7c15),
		})
		d := &out[len(out)-1]
		d.newLife()
		binary.LittleEndian.PutUint64(d.boot[:], d.rng.next())
		return d
	}
	for box := n; box < len(r.opts.Boxes); box += shards {
		add(box).dialAt = 1
	}
	singles := len(out)
	for i := range singles {
		box := int(out[i].box)
		if box >= r.opts.Twins {
			break
		}
		d := add(box)
		d.dormant, d.twinOf, d.snapshot = true, int32(i), box/shards%2 == 1
	}
	return out
}

// drive goes through the phases. Shards outlive the dialers, so that no
// connection is handed to nobody.
func (r *run) drive(ctx context.Context, before int64) (Report, error) {
	var serving errgroup.Group
	stopped := make([]bool, len(r.shards))
	for i, s := range r.shards {
		serving.Go(func() error { return s.run(&stopped[i]) })
	}
	var dialing sync.WaitGroup
	for range min(r.opts.Handshakes, len(r.opts.Boxes)) {
		dialing.Go(func() { r.dialer.run(ctx) })
	}
	progressDone, stopProgress := make(chan struct{}), make(chan struct{})
	go func() { defer close(progressDone); r.progress(stopProgress) }()
	err := r.phases(ctx, before)
	close(stopProgress)
	<-progressDone
	r.dialer.close()
	dialing.Wait()
	for i, s := range r.shards {
		s.post(s.leave)
		s.post(func(int64) { stopped[i] = true })
	}
	if served := serving.Wait(); err == nil {
		err = served
	}
	if flushed := r.ledger.Flush(); err == nil && flushed != nil {
		err = fmt.Errorf("write ledger: %w", flushed)
	}
	r.conclude()
	return r.report, err
}

func (r *run) phases(ctx context.Context, before int64) error {
	rep := &r.report
	rep.begin(r.opts)
	began := time.Now()
	if err := r.until(ctx, r.opts.Connect, func() bool { return r.stats.welcomed.Load() >= int64(len(r.opts.Boxes)) }); err != nil {
		return err
	}
	rep.ConnectSeconds = time.Since(began).Seconds()
	rep.Connected = int(r.stats.welcomed.Load())
	if rep.Connected < len(r.opts.Boxes) {
		return nil // the report says why
	}
	rep.Own.Connected = memory() - before
	if err := r.steady(ctx); err != nil {
		return err
	}
	r.askAll((*shard).rest) // all of them first: for a moment nothing may wait while blocks are made
	began = time.Now()
	err := r.until(ctx, r.opts.Drain, func() bool { return r.stats.waiting.Load() == 0 })
	rep.DrainSeconds = time.Since(began).Seconds()
	return err
}

// steady has blocks made for the time of For, with the storms in it.
func (r *run) steady(ctx context.Context) error {
	rep := &r.report
	watch, err := r.watch()
	if err != nil {
		return err
	}
	r.stats.phase()
	ackedBefore := r.stats.acked.Load()
	for _, s := range r.shards {
		s.post(s.begin)
	}
	began := time.Now()
	for n := range r.opts.Storms {
		next := began.Add(r.opts.For * time.Duration(n+1) / time.Duration(r.opts.Storms+1))
		if err := r.until(ctx, time.Until(next), nil); err != nil {
			return err
		}
		if err := r.storm(ctx); err != nil {
			return err
		}
	}
	if err := r.until(ctx, time.Until(began.Add(r.opts.For)), r.enough); err != nil {
		return err
	}
	took := time.Since(began)
	rep.Seconds = took.Seconds()
	rep.Rate = float64(r.stats.acked.Load()-ackedBefore) / took.Seconds()
	rep.Latency = latencyOf(r.stats.phase())
	return watch(&rep.Controller)
}

func (r *run) enough() bool {
	select {
	case <-r.opts.Enough:
		return true
	default:
		return false
	}
}

// storm cuts off a share of all devices and waits until all are back.
func (r *run) storm(ctx context.Context) error {
	r.stats.phase() // what a storm delays is told by the storm
	before := r.stats.failures.Load() + r.stats.lost.Load()
	began := time.Now()
	left := r.stats.connects.Load()
	r.askAll(func(s *shard, _ int64) { s.storm(r.opts.StormShare, r.opts.StormSpread) })
	target := int64(r.report.Connected)
	err := r.until(ctx, r.opts.Connect, func() bool { return r.stats.welcomed.Load() >= target })
	r.report.Storms = append(r.report.Storms, Storm{
		Devices: int(r.stats.connects.Load() - left), Seconds: time.Since(began).Seconds(),
		Back: r.stats.welcomed.Load() >= target, Errors: int(r.stats.failures.Load() + r.stats.lost.Load() - before),
	})
	return err
}

// askAll has every shard do something and waits until all have.
func (r *run) askAll(what func(s *shard, now int64)) {
	var asked sync.WaitGroup
	for _, s := range r.shards {
		asked.Add(1)
		s.post(func(now int64) { defer asked.Done(); what(s, now) })
	}
	asked.Wait()
}

// until waits until done, or for most; being cancelled is an error.
func (r *run) until(ctx context.Context, most time.Duration, done func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(most)
	defer end.Stop()
	for done == nil || !done() {
		select {
		case <-tick.C:
		case <-end.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("load: %w", context.Cause(ctx))
		}
	}
	return nil
}

func (r *run) progress(stop <-chan struct{}) {
	if r.opts.Progress == nil {
		return
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.opts.Progress(r.snapshot())
		case <-stop:
			return
		}
	}
}
