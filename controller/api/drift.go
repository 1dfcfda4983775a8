package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

const (
	driftDays   = 7 // that are compared unless another number is asked for
	maxMoved    = 50
	movedFrom   = 0.25 // PSI; below, what differs is as likely another week
	maxDriftAge = 5 * time.Minute
)

func (a *API) registerDrift() {
	route(a, get("/models/{name}/drift", "modelDrift", "How far what a model sees and answers is from its first week", "artefacts"), a.modelDrift)
}

type driftInput struct {
	Name    string `path:"name" maxLength:"256" example:"silero-vad"`
	Version string `query:"version" maxLength:"256" doc:"default: the newest that runs"`
	Box     string `query:"box" maxLength:"64" doc:"ID of a box; default: all"`
	Site    string `query:"site" maxLength:"256" doc:"default: all"`
	Days    int    `query:"days" minimum:"1" maximum:"90" default:"7" doc:"how many days are compared"`
}

func (a *API) modelDrift(ctx context.Context, in *driftInput) (fleetapi.Drift, error) {
	if in.Box != "" {
		if err := a.mustKnow(ctx, in.Box); err != nil {
			return fleetapi.Drift{}, err
		}
	}
	if err := onlyOwn(ctx, in); err != nil {
		return fleetapi.Drift{}, err
	}
	if in.Version == "" {
		m, err := a.getModel(ctx, &modelInput{Name: in.Name})
		if err != nil {
			return fleetapi.Drift{}, err
		}
		in.Version = m.Versions[0].Version
		if i := slices.IndexFunc(m.Versions, func(v fleetapi.ModelVersion) bool { return v.Running > 0 }); i >= 0 {
			in.Version = m.Versions[i].Version
		}
	}
	d, streams, err := a.drift(ctx, *in)
	if err == nil && streams == 0 && in.Box == "" && in.Site == "" {
		// A box may run what nobody pushed here; what nobody knows is a mistake.
		_, err = a.opts.Store.Model(ctx, in.Name, in.Version)
	}
	return d, err
}

// onlyOwn keeps a comparison at the sites that the caller sees.
func onlyOwn(ctx context.Context, in *driftInput) error {
	c := who(ctx)
	if c.Everywhere() || in.Box != "" {
		return nil // mustKnow has seen the box
	}
	if in.Site == "" && len(c.Sites) == 1 {
		in.Site = c.Sites[0]
	}
	if in.Site == "" {
		return badRequest("", "name a site: you see %s", strings.Join(c.Sites, ", "))
	}
	return mayAt(ctx, authz.See, in.Site)
}

// drift compares, and returns how many inputs showed the version anything.
func (a *API) drift(ctx context.Context, in driftInput) (fleetapi.Drift, int, error) {
	now := a.opts.WallClock().UTC()
	from := now.Add(-time.Duration(in.Days) * 24 * time.Hour).Truncate(time.Hour)
	d := fleetapi.Drift{
		Model: in.Name, Version: in.Version, Box: identity.ID(in.Box), Site: in.Site, From: from, Days: in.Days,
		Shifts: []fleetapi.DriftShift{}, Moved: []fleetapi.DriftInput{},
	}
	streams, err := a.opts.Store.Drift(ctx, store.DriftQuery{Model: in.Name, Version: in.Version, Box: d.Box, Site: in.Site, FromMs: from.UnixMilli()})
	if err != nil {
		return d, 0, err
	}
	var reference, current drift.Sketch
	boxes := map[identity.ID]bool{}
	for _, s := range streams {
		// Nothing is in Now before the week is over.
		if s.Now.Items == 0 {
			d.Waiting++
			continue
		}
		boxes[s.Box] = true
		d.Inputs++
		reference.Merge(s.Reference)
		current.Merge(s.Now)
		if shifts := shiftsOf(drift.Compare(s.Reference, s.Now)); slices.ContainsFunc(shifts, isMoved) {
			d.Moved = append(d.Moved, fleetapi.DriftInput{Box: s.Box, Name: s.Name, Site: s.Site, Input: s.Input, Line: driftWords(shifts), Shifts: shifts})
		}
	}
	d.Boxes, d.Shifts = len(boxes), shiftsOf(drift.Compare(reference, current))
	slices.SortStableFunc(d.Moved, func(x, y fleetapi.DriftInput) int { return cmp.Compare(furthest(y.Shifts), furthest(x.Shifts)) })
	d.Line = driftLine(d)
	d.Moved = d.Moved[:min(len(d.Moved), maxMoved)]
	return d, len(streams), nil
}

func isMoved(s fleetapi.DriftShift) bool { return s.Moved }

func shiftsOf(all []drift.Shift) []fleetapi.DriftShift {
	out := []fleetapi.DriftShift{}
	for _, s := range all {
		out = append(out, fleetapi.DriftShift{
			Aspect: s.Aspect, PSI: s.PSI, JensenShannon: s.JensenShannon, Reference: s.Reference, Now: s.Current,
			Moved: s.Telling() && s.PSI > movedFrom,
		})
	}
	return out
}

func furthest(all []fleetapi.DriftShift) (psi float64) {
	for _, s := range all {
		if s.Moved {
			psi = max(psi, s.PSI)
		}
	}
	return psi
}

// driftWords says what moved, and what that most likely is: a soiled lens moves
// how frames look and only then what is seen in them.
func driftWords(shifts []fleetapi.DriftShift) string {
	var moved []string
	frames := false
	for _, s := range shifts {
		if s.Moved {
			moved = append(moved, fmt.Sprintf("%s (PSI %.2f)", s.Aspect, s.PSI))
			frames = frames || s.Aspect == "sharpness" || s.Aspect == "brightness"
		}
	}
	switch {
	case len(moved) == 0:
		return ""
	case frames:
		return strings.Join(moved, ", ") + " moved: look at the lens, the light and where it points"
	default:
		return strings.Join(moved, ", ") + " moved, frames look as before: the world or the input changed"
	}
}

// driftLine is said of a model: the inputs that moved, and what moved in all.
func driftLine(d fleetapi.Drift) string {
	all := driftWords(d.Shifts)
	switch {
	case len(d.Moved) == 0 && all == "":
		return ""
	case all == "":
		return fmt.Sprintf("%d of %d inputs moved from their first week", len(d.Moved), d.Inputs)
	default:
		return fmt.Sprintf("%s; %d of %d inputs moved from their first week", all, len(d.Moved), d.Inputs)
	}
}

// driftLines keeps the lines of versions for a while: each takes all sketches of
// a week to make.
type driftLines struct {
	mu    sync.Mutex // guards lines
	lines map[models.Ref]keptLine
}

type keptLine struct {
	text string
	made time.Time
}

// addDrift sets the lines of the versions that run.
func (a *API) addDrift(ctx context.Context, m *fleetapi.Model) error {
	for i := range m.Versions {
		v := &m.Versions[i]
		if v.Running == 0 {
			continue
		}
		now := a.opts.WallClock()
		a.drifts.mu.Lock()
		kept, ok := a.drifts.lines[models.Ref{Name: v.Name, Version: v.Version}]
		a.drifts.mu.Unlock()
		if !ok || now.Sub(kept.made).Abs() > maxDriftAge {
			d, _, err := a.drift(ctx, driftInput{Name: v.Name, Version: v.Version, Days: driftDays})
			if err != nil {
				return err
			}
			kept = keptLine{d.Line, now}
			a.drifts.keep(models.Ref{Name: v.Name, Version: v.Version}, kept)
		}
		v.Drift = kept.text
	}
	return nil
}

func (l *driftLines) keep(ref models.Ref, k keptLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		l.lines = map[models.Ref]keptLine{}
	}
	l.lines[ref] = k
}
