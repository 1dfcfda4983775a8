package agent

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/agent/activate"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// refusalEvery is how often a refused desired state raises an alarm: it comes
// again with every connection, and alarms take the room of other events.
const refusalEvery = time.Hour

// desiredFile is desired.json: the envelope that was accepted last.
type desiredFile struct {
	Envelope []byte `json:"envelope"`
}

// desiredState is a desired state that has been checked.
type desiredState struct {
	wire.Desired
	content blob.Digest // of what was signed
}

// resumeDesired goes on with what was wanted before the restart; no network is
// needed for it. What cannot be read is ignored: the controller sends it again,
// and an agent that does not start could never be told.
func (a *Agent) resumeDesired() {
	var f desiredFile
	found, err := a.desired.Load(&f)
	if err == nil && !found {
		return
	}
	var d desiredState
	if err == nil {
		d, err = a.openDesired(f.Envelope)
	}
	if err != nil {
		a.log.Warn("stored desired state ignored", "err", err)
		return
	}
	a.follow(d)
}

// accept takes a desired state from the controller if it is signed, meant for
// this box and not older than the one followed now.
func (a *Agent) accept(envelope []byte) {
	d, err := a.openDesired(envelope)
	if a.refusalIsNews(err) {
		text, body := "desired state accepted again", wire.AlarmBody{Kind: "desired"}
		if err != nil {
			text, body.Active = "desired state refused: "+err.Error(), true
		}
		a.must(a.event(wire.EventAlarm, text, body))
	}
	if err != nil {
		a.log.Warn("desired state refused", "err", err)
		return
	}
	a.running.mu.Lock()
	have, content := a.running.generation, a.running.content
	a.running.mu.Unlock()
	switch {
	case d.Generation < have:
		a.log.Warn("older desired state refused", "gen", d.Generation, "have", have)
		return
	case d.Generation == have && d.content == content:
		return
	case d.Generation == have:
		// A controller never signs two of one generation, unless its database
		// came back from a backup and has caught up. The newest word counts.
		a.log.Warn("another desired state of the same generation", "gen", d.Generation)
	}
	if err := a.desired.Save(desiredFile{envelope}); err != nil {
		a.log.Error("desired state not stored, not followed", "err", err)
		return
	}
	a.log.Info("desired state accepted", "gen", d.Generation)
	a.follow(d)
}

// refusalIsNews reports whether people should hear of the outcome err.
func (a *Agent) refusalIsNews(err error) bool {
	r := &a.running
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		was := r.refusing
		r.refusing = false
		return was
	}
	if !r.refused.IsZero() && time.Since(r.refused) < refusalEvery {
		return false
	}
	r.refusing, r.refused = true, time.Now()
	return true
}

func (a *Agent) openDesired(envelope []byte) (desiredState, error) {
	payload, err := a.guard.Keyring().Open(trust.TypeDesired, envelope)
	if err != nil {
		return desiredState{}, err
	}
	d, err := wire.DecodeDesired(payload)
	if err != nil {
		return desiredState{}, err
	}
	if d.Box != a.id.ID {
		return desiredState{}, fmt.Errorf("desired state is for box %s", d.Box)
	}
	return desiredState{d, blob.Sum(payload)}, nil
}

func (a *Agent) follow(d desiredState) {
	a.running.mu.Lock()
	a.running.generation, a.running.content = d.Generation, d.content
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
	for _, m := range d.Keep {
		want.Keep = append(want.Keep, models.Ref{Name: m.Name, Version: m.Version, Digest: m.Digest})
	}
	// First: a model that starts may bring inputs which need a password.
	changed, err := a.secrets.Follow(d.Secrets)
	if changed {
		a.link.SayHello() // who set it wants to know that it has come
	}
	if err != nil {
		a.log.Error("not all secrets of this box could be opened", "err", err)
		a.must(a.event(wire.EventAlarm, "secrets: "+err.Error(), wire.AlarmBody{Kind: "secrets", Active: true}))
	}
	a.settings.Want(d.Config)
	a.activate.SetDesired(want)
	a.update.SetDesired(release)
	a.wantAccept(d.Accept)
}
