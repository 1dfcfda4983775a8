package rollout

import (
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// ErrUnreported says that a policy judges by what no box reports, so that it
// would never judge.
var ErrUnreported = errors.New("no box of the plan reports it")

// asks lists what a policy judges by: rules, with the metric of boxes.
func (p Policy) asks() (rules []struct{ name, metric string }) {
	add := func(on bool, name, metric string) {
		if on {
			rules = append(rules, struct{ name, metric string }{name, metric})
		}
	}
	g := p.Gates
	add(g.Temperature.Rise > 0, "gate temperature", "temp_die_celsius")
	add(g.Throttles != nil, "gate throttles", "throttle_count")
	add(p.Health.MaxDie > 0, "health max_die", "temp_die_celsius")
	for _, b := range p.Budgets {
		add(b.MaxWatts > 0, "budget max_watts per "+b.Per, "power_watts")
		add(b.MaxHot > 0, "budget max_hot per "+b.Per, "temp_die_celsius")
	}
	return rules
}

// unreported refuses a policy that no box can be judged by, and tells of boxes
// that cannot be.
func (o Order) unreported(p Policy, targets []fleetapi.Box) (warnings []phrase.Phrase, err error) {
	if g := p.Gates; o.Kind != fleetapi.KindModel && (g.Latency.on() || g.Memory.on() || g.Agreement > 0) {
		return nil, fmt.Errorf("%w: gates latency, memory and agreement are of the trial of a model, which this is not", ErrUnreported)
	}
	if p.Admission != nil && o.Kind != fleetapi.KindModel {
		return nil, fmt.Errorf("%w: admission is by the power of a model, which this is not", ErrUnreported)
	}
	for _, rule := range p.asks() {
		n := 0
		for _, b := range targets {
			if _, ok := b.Latest[rule.metric]; ok {
				n++
			}
		}
		switch {
		case n == 0:
			return nil, fmt.Errorf("%s: %w: %s", rule.name, ErrUnreported, rule.metric)
		case n < len(targets):
			warnings = append(warnings, phrase.Of("unreported", "%s: %d of %d boxes do not report %s and are not judged by it", rule.name, len(targets)-n, len(targets), rule.metric))
		}
	}
	for _, b := range p.Budgets {
		key, ok := b.key()
		if !ok {
			continue
		}
		n := 0
		for _, box := range targets {
			if box.Labels[key] != "" {
				n++
			}
		}
		switch {
		case n == 0:
			return nil, fmt.Errorf("budget per %s: %w: no box has the label %q", b.Per, ErrUnreported, key)
		case n < len(targets):
			warnings = append(warnings, phrase.Of("unlabelled", "budget per %s: %d of %d boxes have no such label and are not bounded by it", b.Per, len(targets)-n, len(targets)))
		}
	}
	return warnings, nil
}
