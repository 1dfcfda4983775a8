package agent

import (
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
)

// ladder is where the box stands on the variants of its models.
type ladder struct {
	govern.Ladder
	thrift govern.Thrift
	begun  bool
}

// rung judges which variants heat, power and load permit: the lower rung of
// what each of them asks for. It is nil until the runner has
// said where it stands: a new agent finds a box as hot as the old one left it.
func (a *Agent) rung(h govern.Health, saving string) *int {
	a.runner.mu.Lock()
	known, at, lowest := a.runner.version != "", a.runner.rung, a.runner.lowest
	a.runner.mu.Unlock()
	if !known {
		return nil
	}
	if !a.ladder.begun {
		// Without a temperature heat would never let it climb again.
		a.ladder = ladder{begun: true}
		if a.ladder.thrift.Rung = at; h.DieKnown {
			a.ladder.Rung, a.ladder.thrift.Rung = at, 0
		}
	}
	now, before := time.Now(), a.ladder.lower()
	need := govern.Need{Saving: saving}
	need.Overloaded, need.OverloadKnown = a.runner.overloaded()
	var heat, thrift string
	a.ladder.Ladder, heat = a.ladder.Step(h, lowest, now)
	a.ladder.thrift, thrift = a.ladder.thrift.Step(need, lowest, now)
	rung := a.ladder.lower()
	if rung != before {
		a.log.Info("models serve other variants", "rung", rung, "before", before, "heat", heat, "thrift", thrift)
	}
	return &rung
}

// lower is the rung that is served.
func (l *ladder) lower() int { return max(l.Rung, l.thrift.Rung) }
