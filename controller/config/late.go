package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxBad is how many late boxes may go back one after the other before no more
// are asked: at the default prior of a rollout's evidence three of three mean
// that the document is bad, and not the boxes.
const maxBad = 3

// badFor is how long that counts: those that come a day later are asked again.
const badFor = 24 * time.Hour

// passing are facts of a box that come and go by themselves: who chooses boxes by
// them wants those of that moment.
var passing = []string{"link", "health", "update", "temp_die", "resistance", "cause", "state"}

// Standing is a document that went through a rollout: boxes that are enrolled
// later, or get other labels, get it as well.
type Standing struct {
	Version
	// Request is how it was rolled out; zero: nobody had it yet.
	Request fleetapi.PlanRequest
	// Why says why nobody gets it now; empty: late boxes do.
	Why string
	// After is when the newest of its rollouts was planned: one for late boxes
	// comes before all that people plan later, whenever they start it.
	After time.Time
	// filters of its rollouts, which may be narrower than its selector; left are
	// boxes that people left out.
	filters []registry.Filter[fleetapi.Box]
	left    map[identity.ID]bool
}

// takes reports whether a box is to have the document.
func (s Standing) takes(b fleetapi.Box) bool {
	for _, f := range s.filters {
		if f.Match(b) {
			return s.Matches(b) && !s.left[b.ID]
		}
	}
	return false
}

// past is what is remembered of a rollout of a document.
type past struct {
	id, name  string
	version   string
	state     fleetapi.RolloutState
	late      bool
	request   fleetapi.PlanRequest
	left      []identity.ID
	good, bad int
	whole     bool // to every box of its filter
	created   time.Time
	ended     time.Time
}

func pastOf(r fleetapi.Rollout) past {
	p := past{id: r.ID, state: r.State, late: r.Late, request: r.Request, created: r.Created}
	if r.Ended != nil {
		p.ended = *r.Ended
	}
	if r.Kind != fleetapi.KindConfig {
		return p
	}
	p.whole = rollout.Whole(r.Request)
	p.name, p.version = r.Target.Name, r.Target.Version
	for _, w := range r.Waves {
		for _, t := range w.Targets {
			switch t.State {
			case fleetapi.TargetCanceled:
				p.left = append(p.left, t.Box)
			case fleetapi.TargetSucceeded:
				p.good++
			case fleetapi.TargetFailed:
				p.bad++
			}
		}
	}
	return p
}

// stand finds the version of a document that late boxes get; ok is false if
// there is none. all are the rollouts of the document, newest first, without drafts.
func stand(newest store.Document, all []past, now time.Time) (version string, s Standing, ok bool) {
	if newest.Body == "" {
		return "", s, false
	}
	s.left = map[identity.ID]bool{}
	bad, told := 0, false
	for _, p := range all {
		if p.created.After(s.After) {
			s.After = p.created
		}
		under := p.state == fleetapi.RolloutRunning || p.state == fleetapi.RolloutPaused
		switch {
		case under:
			s.Why = cmp.Or(s.Why, fmt.Sprintf("rollout %s of %s:%s is %s", p.id, p.name, p.version, p.state))
		case p.late && !told && !ok:
			// Those that did well clear what was before.
			if told = p.good > 0; !told && now.Sub(p.ended) < badFor {
				bad += p.bad
			}
		case !p.late && p.whole && p.state == fleetapi.RolloutDone && (!ok || version == p.version):
			told = true
			if !ok {
				version, s.Request, ok = p.version, p.request, true
			}
			f, err := registry.ParseFilter(p.request.Filter)
			if err != nil {
				continue // it was parsed when it was planned
			}
			s.filters = append(s.filters, f)
		case !p.late:
			told = true
		}
		if !under && (!ok || version == p.version) {
			for _, id := range p.left {
				s.left[id] = true
			}
		}
	}
	if !ok && s.Why != "" { // the first one is on its way: boxes are told what for
		for _, p := range all {
			if f, err := registry.ParseFilter(p.request.Filter); err == nil && p.version == newest.Version && p.whole {
				version, ok, s.filters = p.version, true, append(s.filters, f)
			}
		}
	}
	if newest.Waits && !slices.ContainsFunc(all, func(p past) bool { return !p.late && p.version == newest.Version }) {
		version, s.Request, ok = newest.Version, fleetapi.PlanRequest{}, true
		s.filters = []registry.Filter[fleetapi.Box]{{}}
	}
	if bad >= maxBad {
		s.Why = cmp.Or(s.Why, fmt.Sprintf("the last %d boxes that got it went back; apply it again", bad))
	}
	return version, s, ok
}

// Ledger knows which documents stand. It keeps what it read of rollouts that are
// over, so that to ask again costs little.
type Ledger struct {
	mu   sync.Mutex // guards all below
	past map[string]past
	lib  Library
}

// Standing reads the documents that stand, by name, with a library of their
// versions. The library is the caller's own.
func (l *Ledger) Standing(ctx context.Context, s *store.Store, now time.Time) ([]Standing, Library, error) {
	docs, err := s.NewestDocuments(ctx)
	if err != nil || len(docs) == 0 {
		return nil, Library{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := l.rollouts(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	var out []Standing
	lib := Library{}
	for _, d := range docs {
		version, st, ok := stand(d, all[d.Name], now)
		if !ok {
			continue
		}
		key := d.Name + ":" + version
		if _, known := l.lib[key]; !known {
			stored, err := s.Document(ctx, d.Name, version)
			if errors.Is(err, store.ErrNotFound) {
				continue // the database came back from a backup
			}
			if err == nil {
				l.lib[key], err = Of(stored)
			}
			if err != nil {
				return nil, nil, err
			}
		}
		st.Version = l.lib[key]
		lib[key] = st.Version
		if st.Gone {
			continue
		}
		if name := st.filter.Uses(passing...); name != "" {
			st.Why = fmt.Sprintf("its selector asks for %s, which comes and goes by itself; apply it again", name)
		}
		out = append(out, st)
	}
	return out, lib, nil
}

// rollouts are those of documents by name, newest first, without drafts.
func (l *Ledger) rollouts(ctx context.Context, s *store.Store) (map[string][]past, error) {
	heads, err := s.RolloutHeads(ctx)
	if err != nil {
		return nil, err
	}
	if l.past == nil || len(l.lib) > 1000 {
		l.past, l.lib = map[string]past{}, Library{}
	}
	known, out := map[string]past{}, map[string][]past{}
	for _, h := range heads {
		if h.State == fleetapi.RolloutDraft {
			continue
		}
		p, ok := l.past[h.ID]
		if !ok || p.state != h.State {
			r, err := s.Rollout(ctx, h.ID)
			if err != nil {
				return nil, err
			}
			p = pastOf(r)
		}
		known[h.ID] = p
		if p.name != "" {
			out[p.name] = append(out[p.name], p)
		}
	}
	l.past = known
	return out, nil
}

// Late is what a box is to get, or to lose, without another apply.
type Late struct {
	Standing
	// Has is the version that the box keeps, filled in anew, or loses; it may be
	// another one than stands.
	Has Version
	Out bool
	// Bytes the settings of the box have then.
	Bytes int64
	// Why says why it does not get it now; empty: nothing is in the way.
	Why string
}

// LateOf finds what a box lacks of the documents that stand: those that it is to
// have, those that it is not to have any more, those whose facts have changed. A
// document that the box has in another version stays as it is: versions change by
// rollouts that people start. lib has all versions of the box's hand.
func LateOf(b fleetapi.Box, was *wire.DesiredConfig, all []Standing, lib Library, has func(name string) bool) []Late {
	var out []Late
	for _, s := range all {
		l := Late{Standing: s, Has: s.Version, Why: s.Why}
		at := -1
		if was != nil {
			at = slices.IndexFunc(was.Documents, func(d wire.DesiredDocument) bool { return d.Name == s.Name })
		}
		switch {
		case at < 0 || was.Documents[at].Out:
			if !s.takes(b) {
				continue
			}
		default:
			d := was.Documents[at]
			v, ok := lib[d.Name+":"+d.Version]
			if !ok || v.Gone || v.filter.Uses(passing...) != "" {
				continue
			}
			l.Has, l.Out = v, !v.Matches(b)
			if !l.Out && d.Fault == "" && !(v.Templated() && stale(b, was, v, lib)) {
				continue
			}
		}
		add := wire.DesiredDocument{Name: l.Has.Name, Version: l.Has.Ref.Version, Digest: l.Has.Ref.Digest}
		next, err := Deal(b, was, add, lib, has)
		switch {
		case err != nil:
			l.Why = brief(err)
		default:
			l.Bytes = int64(len(next.Content))
		}
		out = append(out, l)
	}
	return out
}
