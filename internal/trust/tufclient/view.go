package tufclient

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// view is what a complete walk found. It never changes.
type view struct {
	root, timestamp, snapshot, targets tufrepo.Head
	policy                             tufrepo.Policy
	found                              map[blob.Digest][]found
	failed                             []error // roles that could not be looked at
}

// found is a target in a role.
type found struct {
	target  tufrepo.Target
	role    string
	expires time.Time
}

func (w *walk) view() *view {
	tm := w.tm
	w.fetch = nil // all that there is has been fetched
	v := &view{
		root:      tufrepo.Head{Type: tufrepo.RoleRoot, Version: tm.Root.Signed.Version, Expires: tm.Root.Signed.Expires},
		timestamp: tufrepo.Head{Type: tufrepo.RoleTimestamp, Version: tm.Timestamp.Signed.Version, Expires: tm.Timestamp.Signed.Expires},
		snapshot:  tufrepo.Head{Type: tufrepo.RoleSnapshot, Version: tm.Snapshot.Signed.Version, Expires: tm.Snapshot.Signed.Expires},
		found:     map[blob.Digest][]found{}, failed: w.fails,
	}
	top := tm.Targets[tufrepo.RoleTargets].Signed
	v.targets = tufrepo.Head{Type: tufrepo.RoleTargets, Version: top.Version, Expires: top.Expires}
	if f := top.Targets[tufrepo.PolicyPath]; f != nil {
		p, err := tufrepo.PolicyOf(f)
		if err != nil { // signed, and yet no policy: without floors nothing may be installed
			v.found, v.failed = nil, append(v.failed, err)
			return v
		}
		v.policy = p
	}
	for role, m := range tm.Targets {
		if !w.done[edge{role, tufrepo.RoleTargets}] {
			continue // targets itself lists no versions; deeper roles are not ours
		}
		for path := range m.Signed.Targets {
			v.add(w, role, path, m.Signed.Expires)
		}
	}
	return v
}

// add takes a target for found if it is the one that its path leads to: a role
// must not list what it was given no paths for.
func (v *view) add(w *walk, role, path string, expires time.Time) {
	file, by, err := w.lookup(context.Background(), path)
	if err != nil || by != role {
		v.failed = append(v.failed, fmt.Errorf("%s lists %q, which is not its", role, path))
		return
	}
	t, err := tufrepo.TargetOf(path, file)
	if err != nil {
		v.failed = append(v.failed, err)
		return
	}
	v.found[t.Digest] = append(v.found[t.Digest], found{t, role, expires})
}

// first is the role that ends first of those without which nothing is listed.
func (v *view) first() (time.Time, string) {
	end := v.root
	for _, h := range []tufrepo.Head{v.timestamp, v.snapshot, v.targets} {
		if h.Expires.Before(end.Expires) {
			end = h
		}
	}
	return end.Expires, end.Type
}

func (v *view) ended(now time.Time) error {
	if end, role := v.first(); now.After(end) {
		return fmt.Errorf("%s ended %s", role, end.UTC().Format(time.RFC3339))
	}
	return nil
}

func (v *view) listed() (n int) {
	for _, f := range v.found {
		n += len(f)
	}
	return n
}
