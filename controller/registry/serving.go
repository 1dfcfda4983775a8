package registry

import (
	"encoding/json"
	"strings"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Serve adds to a view of one box how its models serve, or why they do not. What
// a box said of a version that does not run any more is left out.
func Serve(v *fleetapi.Box, b store.Box, serving map[string]store.ServingRow) {
	for i := range v.Models {
		m := &v.Models[i]
		if r, ok := serving[m.Name]; ok && r.Digest == m.RunningDigest.String() {
			m.Serving = &r.Serving
		} else if ok && m.RunningVersion == "" && r.Err != "" {
			m.Err = down(*m, r.Serving)
		}
		for _, p := range b.Phases {
			if p.Kind == "model" && p.Digest == m.DesiredDigest.String() && m.DesiredVersion != "" {
				m.Tried = shadowOf(p)
			}
		}
		if s := m.Serving; s != nil && s.Shadow != nil && s.Shadow.Version == m.DesiredVersion {
			m.Tried = s.Shadow
		}
	}
}

// down is what is wrong with a model of which nothing serves. What its last phase
// says of the wanted version comes first.
func down(m fleetapi.BoxModel, s wire.Serving) string {
	switch {
	case s.Digest != m.DesiredDigest.String():
		return strings.TrimPrefix(m.Err+"; "+s.Version+" does not serve: "+s.Err, "; ")
	case m.Err != "":
		return m.Err
	}
	return s.Err
}

// shadowOf reads it from what was measured with a phase; nil: nothing was.
func shadowOf(p store.Phase) *wire.ServingShadow {
	var body struct {
		Probe struct {
			Shadow *wire.ServingShadow `json:"shadow"`
		} `json:"probe"`
	}
	if json.Unmarshal([]byte(p.Body), &body) != nil || body.Probe.Shadow == nil {
		return nil
	}
	body.Probe.Shadow.Version = p.Version
	return body.Probe.Shadow
}
