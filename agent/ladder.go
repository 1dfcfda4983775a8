package agent

import (
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
)

// ladder is where the box stands on the variants of its models.
type ladder struct {
	govern.Ladder
	begun bool
}

// rung judges which variants the heat permits. It is nil until the runner has
// said where it stands: a new agent finds a box as hot as the old one left it.
func (a *Agent) rung(h govern.Health) *int {
	a.runner.mu.Lock()
	known, at, lowest := a.runner.version != "", a.runner.rung, a.runner.lowest
	a.runner.mu.Unlock()
	if !known {
		return nil
	}
	if !a.ladder.begun {
		a.ladder = ladder{govern.Ladder{Rung: at}, true}
	}
	before, why := a.ladder.Rung, ""
	a.ladder.Ladder, why = a.ladder.Step(h, lowest, time.Now())
	if a.ladder.Rung != before {
		a.log.Info("models serve other variants", "rung", a.ladder.Rung, "before", before, "reason", why)
	}
	rung := a.ladder.Rung
	return &rung
}
