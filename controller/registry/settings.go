package registry

import (
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// settingsOf joins the settings that a box shall follow with those it follows.
func settingsOf(b store.Box) *fleetapi.BoxSettings {
	want, runs := b.Desired.Config, b.Running.Config
	if want == nil && runs == nil {
		return nil
	}
	if want == nil {
		want = &wire.DesiredConfig{}
	}
	v := &fleetapi.BoxSettings{State: fleetapi.ConfigCurrent, Digest: want.Digest, Documents: []fleetapi.BoxDocument{}}
	running := map[string]wire.RunningModel{}
	if runs != nil {
		v.Running, v.Local = runs.Digest, runs.Local
		for _, d := range runs.Documents {
			running[d.Name] = d
		}
	}
	if v.Running != want.Digest.String() {
		v.State = fleetapi.ConfigWaiting
	}
	for _, d := range want.Documents {
		doc := fleetapi.BoxDocument{Name: d.Name, Version: d.Version, Running: running[d.Name].Version, Out: d.Out}
		for _, p := range b.Phases {
			if p.Digest == d.Digest.String() && p.Rollout == d.Rollout {
				doc.Phase, doc.Err = p.Phase, p.Err
			}
		}
		switch {
		case failedPhase(doc.Phase):
			v.State, v.Err = fleetapi.ConfigFailed, doc.Err
		case running[d.Name].Digest != d.Digest.String() && v.State == fleetapi.ConfigCurrent:
			v.State = fleetapi.ConfigWaiting
		case doc.Phase == "trial" && v.State != fleetapi.ConfigFailed:
			v.State = fleetapi.ConfigTrial
		}
		v.Documents = append(v.Documents, doc)
	}
	return v
}
