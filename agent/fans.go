package agent

import (
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/edgeherd/edgeherd/agent/fan"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func fanJournal(state string) string { return filepath.Join(state, "fan.json") }

// openFan follows the policy for this kind of box, if there is one. A fan that
// cannot be driven stays the firmware's.
func (a *Agent) openFan() {
	if err := RestoreFan(a.opts.State, a.opts.Root); err != nil {
		a.log.Error("fan that an earlier agent raised", "err", err)
	}
	if a.opts.FanGuard == nil {
		return
	}
	sku := skuOf(a.sampler.Board())
	for _, p := range a.opts.Fans {
		f, err := fan.Open(fan.Options{
			Root: a.opts.Root, Journal: fanJournal(a.opts.State), Boot: a.sampler.Board().BootID, SKU: sku, Policy: p,
			Guard: a.opts.FanGuard, OnChange: a.fanChanged,
		}, a.log)
		switch {
		case errors.Is(err, fan.ErrOther):
		case err != nil:
			a.log.Warn("fan stays the firmware's", "err", err)
		default:
			a.fan = f
			a.log.Info("fan policy in force", "sku", sku)
			return
		}
	}
}

// RestoreFan gives back the fan that an agent on state had raised in this boot,
// for what runs after the agent's end.
func RestoreFan(state, root string) error {
	boot := sense.New(sense.Options{Root: root}, slog.New(slog.DiscardHandler)).Board().BootID
	return fan.Restore(fanJournal(state), boot)
}

func (a *Agent) fanChanged(c fan.Change) {
	body, text := wire.FanBody{Fan: c.Fan, State: "firmware", Reason: c.Reason}, "fan "+c.Fan+" is the firmware's again: "+c.Reason
	if c.Raised {
		body.State, body.Duty, text = "raised", c.Duty, "fan "+c.Fan+" raised above the firmware's curve: "+c.Reason
	}
	a.must(a.event(wire.EventFan, text, body))
}

func (a *Agent) driveFan(readings []sense.Reading) {
	if a.fan == nil {
		return
	}
	limit, _ := a.sampler.DieLimitCelsius() // 0: unknown
	a.fan.Step(a.clock.uptime(), float64(a.sampler.Figures(readings)[health.Die]), limit)
}
