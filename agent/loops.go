package agent

import (
	"context"
	"runtime"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// dutyLife is how long the runner obeys a duty without a newer one, at least.
const dutyLife = 60 * time.Second

// senseLoop reads the sensors, seals what they said and passes on the duty.
func (a *Agent) senseLoop(ctx context.Context) error {
	tick := time.NewTicker(a.opts.SensePeriod)
	defer tick.Stop()
	sealed := time.Now()
	defer func() { // what was read is not lost by a clean stop
		a.seal()
		if err := a.condition.Close(); err != nil {
			a.log.Warn("the hour that was gathered is lost", "err", err)
		}
		a.closeLastHour()
		if a.fan != nil {
			a.fan.Close()
		}
	}()
	for {
		readings, err := a.sampler.Read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			a.log.Debug("some sensors did not answer", "err", err)
		}
		if len(readings) > 0 {
			a.telemetry.add(readings)
		}
		a.publishLive(readings)
		a.govern(ctx, readings)
		a.judgeHeat(readings)
		a.record(readings)
		a.driveFan(readings)
		if time.Since(sealed) >= a.opts.SealPeriod || a.telemetry.full() {
			sealed = time.Now()
			a.seal()
		}
		if a.link.Connected() {
			// Whether a new agent must get a connection depends on the last
			// hour, and the link says HELLO hardly more often.
			a.update.Connected()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// seal commits what was read since the last time, in as few blocks as it fits.
func (a *Agent) seal() {
	rows := a.telemetry.take()
	for len(rows) > 0 {
		draft, n, err := sealSome(rows, a.clock.quality())
		if err != nil {
			// Bytes that will never fit would be in the way of all others.
			a.log.Error("samples dropped", "rows", n, "err", err)
			rows = rows[n:]
			continue
		}
		if _, err := a.spool.Append(draft); a.disk.note(err) != nil {
			a.telemetry.giveBack(rows)
			a.log.Debug("samples not stored yet", "err", err)
			return
		}
		rows = rows[n:]
	}
}

func (a *Agent) publishLive(readings []sense.Reading) {
	if !a.telemetry.live() {
		return
	}
	_, wall := a.clock.now()
	l := wire.Live{WallMs: wall, Buffer: a.spool.Buffer()}
	for _, r := range readings {
		if !fits(r.Metric) {
			continue
		}
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
	a.eased.Store(duty.Level != govern.Full)
	if duty.Level != before {
		a.must(a.event(wire.EventAlarm, "duty is now "+duty.Level.String()+": "+duty.Reason,
			wire.AlarmBody{Kind: "hot", Active: duty.Level != govern.Full, Value: h.DieCelsius}))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	d := runnerapi.Duty{Level: duty.Level.String(), MaxRateRatio: duty.MaxRateRatio, ValidSeconds: max(dutyLife, 3*a.opts.SensePeriod).Seconds()}
	a.rung(&d, h, a.sampler.Saving(readings))
	if err := a.opts.Runner.SetDuty(ctx, d); err != nil {
		a.log.Debug("duty not passed on", "err", err)
	}
}

// hello is what the box says of itself when a conversation begins.
func (a *Agent) hello() wire.Hello {
	board := a.sampler.Board()
	a.runner.mu.Lock()
	defer a.runner.mu.Unlock()
	return wire.Hello{
		V: wire.Version, Clock: a.clock.triple(), Running: a.nowRunning(), Heads: a.witness.Heads(), Starts: a.starts,
		Inventory: wire.Inventory{
			Name: a.id.Name, Class: board.Class, Vendor: board.Vendor, Product: board.Product, Serial: board.Serial,
			Arch: runtime.GOARCH, CPUs: board.CPUs, MemoryBytes: board.MemBytes, Simulated: board.Simulated,
			Agent: a.opts.Version, Runner: a.runner.version, Runtime: a.runner.runtime,
			AgentRelease: a.update.Status().Current.String(), Slot: string(a.slot),
		},
	}
}
