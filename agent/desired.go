package agent

import (
	"fmt"

	"github.com/edgeherd/edgeherd/agent/activate"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// desiredFile is desired.json: the envelope that was accepted last.
type desiredFile struct {
	Envelope []byte `json:"envelope"`
}

// resumeDesired goes on with what was wanted before the restart; no network
// is needed for it.
func (a *Agent) resumeDesired() error {
	var f desiredFile
	found, err := a.desired.Load(&f)
	if err != nil || !found {
		return err
	}
	d, err := a.openDesired(f.Envelope)
	if err != nil {
		// The controller sends it again; serving goes on meanwhile.
		a.log.Warn("stored desired state ignored", "err", err)
		return nil
	}
	a.follow(d)
	return nil
}

// accept takes a desired state from the controller if it is signed, meant for
// this box and not older than the one followed now.
func (a *Agent) accept(envelope []byte) {
	d, err := a.openDesired(envelope)
	if err != nil {
		a.log.Warn("desired state refused", "err", err)
		a.must(a.event(wire.EventAlarm, "desired state refused: "+err.Error(), wire.AlarmBody{Kind: "desired", Active: true}))
		return
	}
	a.running.mu.Lock()
	have := a.running.generation
	a.running.mu.Unlock()
	switch {
	case d.Generation < have:
		a.log.Warn("older desired state refused", "gen", d.Generation, "have", have)
		return
	case d.Generation == have:
		return
	}
	if err := a.desired.Save(desiredFile{envelope}); err != nil {
		a.log.Error("desired state not stored, not followed", "err", err)
		return
	}
	a.log.Info("desired state accepted", "gen", d.Generation)
	a.follow(d)
}

func (a *Agent) openDesired(envelope []byte) (wire.Desired, error) {
	payload, err := a.id.Keyring.Open(trust.TypeDesired, envelope)
	if err != nil {
		return wire.Desired{}, err
	}
	d, err := wire.DecodeDesired(payload)
	if err != nil {
		return wire.Desired{}, err
	}
	if d.Box != a.id.ID {
		return wire.Desired{}, fmt.Errorf("desired state is for box %s", d.Box)
	}
	return d, nil
}

func (a *Agent) follow(d wire.Desired) {
	a.running.mu.Lock()
	a.running.generation = d.Generation
	var release blob.Digest // zero withdraws what was wanted
	if d.Agent != nil {
		a.running.rollout, release = d.Agent.Rollout, d.Agent.Digest
	}
	a.running.mu.Unlock()
	want := activate.Desired{Generation: d.Generation}
	for _, m := range d.Models {
		w := activate.Want{Attempt: m.Attempt, Rollout: m.Rollout}
		w.Name, w.Version, w.Digest = m.Name, m.Version, m.Digest
		want.Models = append(want.Models, w)
	}
	a.activate.SetDesired(want)
	a.update.SetDesired(release)
}
