package agent

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/blackbox"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// resetCursor is the key in the spool that names the boot whose reason was told.
const resetCursor = "reset"

// lastHour joins the ring of the last readings to the agent. Its fields belong
// to the sense loop.
type lastHour struct {
	recorder *blackbox.Recorder // nil: switched off, or the disk takes no file
	past     *blackbox.Past     // not told yet
	clues    blackbox.Clues
}

// openLastHour never keeps an agent from starting: a box without a ring is
// only less well explained.
func (a *Agent) openLastHour() {
	if a.opts.NoBlackbox {
		return
	}
	recorder, past, err := blackbox.Open(blackbox.Options{
		Path: filepath.Join(a.opts.State, "blackbox.ring"), Boot: a.clock.boot, Root: a.opts.Root, Period: a.opts.BlackboxPeriod,
		NoSync: a.opts.NoSync,
	}, a.log)
	if err != nil {
		a.log.Warn("last hour of the box is not recorded", "err", err)
		return
	}
	a.last = lastHour{recorder: recorder, past: past}
	told, err := a.spool.Cursor(resetCursor)
	if err == nil && string(told) == a.clock.boot.String() {
		a.last.past = nil
	}
	if past := a.last.past; past != nil {
		var since time.Time
		if at := past.Records[len(past.Records)-1].WallMs; at > 0 {
			since = time.UnixMilli(at).Add(-time.Minute)
		}
		a.last.clues = blackbox.Look(a.opts.Root, since)
	}
}

// tellReset says once why the box began anew. It waits for a minute, for a
// clock that says how long the box was away.
func (a *Agent) tellReset() {
	const patience = time.Minute
	if a.last.past == nil {
		return
	}
	up := a.clock.uptime()
	c := a.last.clues
	c.LimitC, _ = a.sampler.DieLimitCelsius()
	last := a.last.past.Records[len(a.last.past.Records)-1]
	now, known := a.condition.Now(a.moment())
	if !known && up < patience {
		return
	}
	if known && last.WallMs > 0 {
		c.Gap = max(0, now.Add(-up).Sub(time.UnixMilli(last.WallMs)))
	}
	body := blackbox.Judge(*a.last.past, c)
	data, err := json.Marshal(body)
	if err != nil {
		a.log.Error("cause of the reset not told", "err", err)
		a.last.past = nil
		return
	}
	mono, wall := a.clock.now()
	ev := wire.Event{MonoMs: mono, WallMs: wall, Type: wire.EventReset, Text: resetWords(body), Body: data}
	if err := a.appendEvents(resetCursor, []byte(a.clock.boot.String()), []wire.Event{ev}); err != nil {
		a.log.Debug("cause of the reset waits for the disk", "err", err)
		return
	}
	a.log.Info("box began anew", "cause", body.Cause, "confidence", body.Confidence)
	a.last.past = nil
}

func resetWords(b wire.ResetBody) string {
	what := map[string]string{
		wire.ResetThermal: "it was too hot", wire.ResetWatchdog: "it hung and its watchdog reset it", wire.ResetBrownOut: "its supply gave too little voltage",
		wire.ResetMemory: "it ran out of memory", wire.ResetPanic: "its kernel panicked", wire.ResetPowerCut: "power was cut",
		wire.ResetClean: "it was stopped in order", wire.ResetUnknown: "nobody can tell why",
	}[b.Cause]
	var why []string
	for _, p := range b.Evidence {
		why = append(why, p.Text)
	}
	return fmt.Sprintf("the box began anew: %s (%.0f %% sure); %s", what, 100*b.Confidence, strings.Join(why, "; "))
}

// record keeps a reading for the case that it is the last one.
func (a *Agent) record(readings []sense.Reading) {
	a.tellReset()
	if a.last.recorder == nil {
		return
	}
	limit, _ := a.sampler.DieLimitCelsius()
	a.last.recorder.Note(a.sampleOf(readings), limit, a.believedWall())
}

func (a *Agent) believedWall() time.Time {
	now, _ := a.condition.Now(a.moment()) // zero: nobody vouches for it
	return now
}

func (a *Agent) closeLastHour() {
	if a.last.recorder == nil {
		return
	}
	if err := a.last.recorder.Close(a.clock.uptime(), a.believedWall()); err != nil {
		a.log.Warn("ring of the last hour not closed cleanly", "err", err)
	}
}

func (a *Agent) sampleOf(readings []sense.Reading) blackbox.Sample {
	f := a.sampler.Figures(readings)
	s := blackbox.Blank()
	s.Mono = a.clock.uptime()
	for _, v := range []struct {
		into  *float64
		field health.Field
	}{
		{&s.Die, health.Die}, {&s.Inlet, health.Inlet}, {&s.Board, health.Board}, {&s.SSD, health.NVMe},
		{&s.Watts, health.Power}, {&s.Duty, health.PWM}, {&s.Throttled, health.Throttled},
		{&s.ClockHertz, health.Clock}, {&s.Busy, health.Busy},
		{&s.RPM[0], health.RPM1}, {&s.RPM[1], health.RPM2}, {&s.RPM[2], health.RPM3}, {&s.RPM[3], health.RPM4},
	} {
		*v.into = float64(f[v.field])
	}
	for _, r := range readings {
		switch {
		case r.Metric == string(sense.MemUsed):
			s.Memory = r.Value
		case r.Metric == string(sense.Load1):
			s.Load1 = r.Value
		case r.Metric == string(sense.Throttle):
			s.ThrottleCount = r.Value
		case strings.HasPrefix(r.Metric, string(sense.RailVolts)) && supplies(r.Metric):
			s.Volts = r.Value
		}
	}
	if p95, known := a.runner.slowest(); known {
		s.LatencySeconds = p95
	}
	return s
}

// supplies reports whether a rail is what feeds the box: its own regulators
// hold the other rails up until the end.
func supplies(metric string) bool {
	name := strings.ToLower(metric)
	for _, part := range []string{"vdd_in", "5v_in", "vin", "12v", "24v"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
