package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxResults are taken over in one commit: about 64 KB.
const maxResults = 200

// dutyLife is how long the runner obeys a duty without a newer one.
const dutyLife = 60 * time.Second

// senseLoop reads the sensors, seals what they said and passes on the duty.
func (a *Agent) senseLoop(ctx context.Context) error {
	tick := time.NewTicker(a.opts.SensePeriod)
	defer tick.Stop()
	sealed := time.Now()
	for {
		readings, err := a.sampler.Read(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			a.log.Debug("some sensors did not answer", "err", err)
		}
		if len(readings) > 0 {
			a.telemetry.add(readings)
		}
		a.publishLive(readings)
		a.govern(ctx, readings)
		if time.Since(sealed) >= a.opts.SealPeriod {
			sealed = time.Now()
			a.seal()
		}
		select {
		case <-ctx.Done():
			a.seal()
			return nil
		case <-tick.C:
		}
	}
	a.seal() // what was read is not lost by a clean stop
	return nil
}

func (a *Agent) seal() {
	rows := a.telemetry.take()
	if len(rows) == 0 {
		return
	}
	draft, err := seal(rows, a.clock.quality())
	if err == nil {
		_, err = a.spool.Append(draft)
	}
	if err != nil {
		a.telemetry.giveBack(rows)
		a.log.Warn("samples not stored yet", "err", err)
	}
}

func (a *Agent) publishLive(readings []sense.Reading) {
	if !a.telemetry.live() {
		return
	}
	_, wall := a.clock.now()
	l := wire.Live{WallMs: wall, Buffer: a.spool.Buffer()}
	for _, r := range readings {
		l.Samples = append(l.Samples, wire.LiveSample{Name: r.Metric, Value: r.Value})
	}
	a.link.PublishLive(l)
}

// govern judges the heat and tells the runner what it may do.
func (a *Agent) govern(ctx context.Context, readings []sense.Reading) {
	h := govern.Health{}
	h.LimitCelsius, h.LimitKnown = a.sampler.DieLimitCelsius()
	for _, r := range readings {
		switch {
		case r.Metric == string(sense.TempDie):
			h.DieCelsius, h.DieKnown = r.Value, true
		case strings.HasPrefix(r.Metric, string(sense.CoolingState)):
			h.Throttling, h.ThrottlingKnown = h.Throttling || r.Value > 0, true
		}
	}
	before := a.duty.Level
	var duty govern.Duty
	a.duty, duty = govern.Next(a.duty, h, time.Now())
	if duty.Level != before {
		a.must(a.event(wire.EventAlarm, "duty is now "+duty.Level.String()+": "+duty.Reason,
			wire.AlarmBody{Kind: "hot", Active: duty.Level != govern.Full, Value: h.DieCelsius}))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := a.opts.Runner.SetDuty(ctx, runnerapi.Duty{Level: duty.Level.String(), MaxRateRatio: duty.MaxRateRatio, ValidSeconds: dutyLife.Seconds()})
	if err != nil {
		a.log.Debug("duty not passed on", "err", err)
	}
}

// runnerInfo is what is known of the runner for the inventory.
type runnerInfo struct {
	mu      sync.Mutex // guards the fields below
	version string
	runtime string
}

// resultLoop takes finished results over from the runner. The block and the
// cursor that names it are committed together, so each result is stored once
// however often either process dies.
func (a *Agent) resultLoop(ctx context.Context) error {
	tick := time.NewTicker(a.opts.ResultPeriod)
	defer tick.Stop()
	for {
		for {
			n, err := a.takeResults(ctx)
			if err != nil && ctx.Err() == nil {
				a.log.Debug("results not taken over", "err", err)
			}
			if n < maxResults {
				break
			}
		}
		a.askRunner(ctx)
		a.noteRunning()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *Agent) askRunner(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := a.opts.Runner.Status(ctx)
	if err != nil {
		return // keeps what it was
	}
	a.runner.mu.Lock()
	defer a.runner.mu.Unlock()
	if a.runner.version != s.Version || a.runner.runtime != s.RuntimeVersion {
		a.runner.version, a.runner.runtime = s.Version, s.RuntimeVersion
		a.link.SayHello()
	}
}

func (a *Agent) takeResults(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	outbox, after, err := a.resultCursor()
	if err != nil {
		return 0, err
	}
	r, err := a.opts.Runner.Results(ctx, after, maxResults)
	if err == nil && r.Outbox != outbox && after != 0 {
		// A new outbox counts from one again.
		r, err = a.opts.Runner.Results(ctx, 0, maxResults)
	}
	if err != nil || len(r.Records) == 0 {
		return 0, err
	}
	draft, err := a.resultDraft(r.Records)
	if err != nil {
		return 0, err
	}
	cursor := binary.BigEndian.AppendUint64(nil, r.Next)
	if _, err := a.spool.AppendWithCursor(resultCursorName, append(cursor, r.Outbox...), draft); err != nil {
		return 0, err
	}
	return len(r.Records), a.opts.Runner.Ack(ctx, r.Outbox, r.Next)
}

// resultCursorName is the key in the spool under which the position in the
// runner's outbox is kept: 8 bytes big endian, then the outbox id.
const resultCursorName = "runner-results"

func (a *Agent) resultCursor() (outbox string, after uint64, err error) {
	raw, err := a.spool.Cursor(resultCursorName)
	if err != nil || len(raw) == 0 {
		return "", 0, err
	}
	if len(raw) < 8 {
		return "", 0, errors.New("stored cursor of the runner's outbox is too short")
	}
	return string(raw[8:]), binary.BigEndian.Uint64(raw), nil
}

func (a *Agent) resultDraft(records []runnerapi.Result) (spool.Draft, error) {
	out := make([]wire.Result, len(records))
	for i, r := range records {
		out[i] = wire.Result{
			WallMs: r.UnixMs, Input: r.Input, Pipeline: r.Pipeline, Item: r.Item, Text: r.Text, Want: r.Want,
			ScorePPM: uint32(max(0, r.Score) * 1e6), LatencyUs: uint32(max(0, r.LatencyMs) * 1e3), Models: r.Models, Cursor: r.Cursor,
		}
	}
	payload, err := wire.EncodeResults(out)
	if err != nil {
		return spool.Draft{}, err
	}
	mono, wall := a.clock.now()
	first, last := out[0].WallMs, out[len(out)-1].WallMs
	return spool.Draft{
		Lane: wire.LaneTelemetry, Kind: wire.KindResults, MonoMs: mono - (wall - first), WallMs: first, SpanMs: max(0, last-first),
		Quality: a.clock.quality(), Count: uint32(len(out)), Payload: payload,
	}, nil
}

// hello is what the box says of itself when a conversation begins.
func (a *Agent) hello() wire.Hello {
	board := a.sampler.Board()
	a.runner.mu.Lock()
	defer a.runner.mu.Unlock()
	return wire.Hello{
		V: wire.Version, Clock: a.clock.triple(), Running: a.nowRunning(),
		Inventory: wire.Inventory{
			Name: a.id.Name, Class: board.Class, Vendor: board.Vendor, Product: board.Product, Serial: board.Serial,
			Arch: runtime.GOARCH, CPUs: board.CPUs, MemoryBytes: board.MemBytes, Simulated: board.Simulated,
			Agent: a.opts.Version, Runner: a.runner.version, Runtime: a.runner.runtime,
			AgentRelease: a.update.Status().Current.String(), Slot: string(a.slot),
		},
	}
}
