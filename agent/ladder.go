package agent

import (
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// ladder is where the box stands on the variants of its models.
type ladder struct {
	govern.Ladder
	thrift govern.Thrift
	begun  bool
}

// rung judges which variants heat, power and load permit: the lower rung of
// what each of them asks for. It says nothing until the runner has
// said where it stands: a new agent finds a box as hot as the old one left it.
func (a *Agent) rung(d *runnerapi.Duty, h govern.Health, saving string) {
	a.runner.mu.Lock()
	known, at, lowest, cause := a.runner.version != "", a.runner.rung, a.runner.lowest, a.runner.cause
	a.runner.mu.Unlock()
	if !known {
		return
	}
	if !a.ladder.begun {
		// Without a temperature heat would never let it climb again.
		a.ladder = ladder{begun: true}
		if a.ladder.thrift.Rung, a.ladder.thrift.Cause = at, cause; h.DieKnown && cause != govern.CausePower && cause != govern.CauseLoad {
			a.ladder.Rung, a.ladder.thrift = at, govern.Thrift{}
		}
	}
	now, before := time.Now(), a.ladder.lower()
	need := govern.Need{Saving: saving}
	need.Overloaded, need.OverloadKnown = a.runner.overloaded()
	var heat, thrift string
	a.ladder.Ladder, heat = a.ladder.Step(h, lowest, now)
	a.ladder.thrift, thrift = a.ladder.thrift.Step(need, lowest, now)
	rung, cause, climbs := govern.Served(a.ladder.Ladder, a.ladder.thrift, now)
	if rung != before {
		a.log.Info("models serve other variants", "rung", rung, "before", before, "heat", heat, "thrift", thrift)
	}
	d.Rung, d.RungCause, d.RungSeconds = &rung, string(cause), climbs.Seconds()
	switch cause {
	case govern.CauseHot:
		d.RungReason = heat
	case govern.CausePower, govern.CauseLoad:
		d.RungReason = thrift
	}
}

// lower is the rung that is served.
func (l *ladder) lower() int { return max(l.Rung, l.thrift.Rung) }
