package agent

import (
	"errors"
	"time"

	"github.com/edgeherd/edgeherd/agent/witness"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// see remembers a signed head of the controller's audit log. One that contradicts
// what was seen before is an alarm, which goes to the very controller that it
// accuses, and into the log of this box, which does not.
func (a *Agent) see(envelope []byte) {
	if len(envelope) == 0 {
		return
	}
	err := a.remember(envelope)
	if err == nil {
		return
	}
	a.log.Error("head of the controller's audit log not taken", "err", err)
	var c *witness.Contradiction
	if errors.As(err, &c) && (a.doubted.IsZero() || time.Since(a.doubted) >= refusalEvery) {
		a.doubted = time.Now()
		a.must(a.event(wire.EventAlarm, err.Error(), wire.AlarmBody{Kind: "audit", Active: true}))
	}
}

func (a *Agent) remember(envelope []byte) error {
	payload, proof, err := a.guard.Keyring().Prove(trust.TypeAudit, envelope)
	if err != nil {
		return err
	}
	head, err := witness.Parse(payload)
	if err != nil {
		return err
	}
	head.Proof = (*witness.Proof)(&proof)
	return a.witness.See(head)
}
