package tufclient

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// documents are the newest that were verified, by name: root, timestamp,
// snapshot, targets and the roles; and docTime.
type documents map[string][]byte

// docTime is no document: the newest time that was signed.
const docTime = "@time"

// walk is one pass over the metadata. It changes docs only to what was verified.
type walk struct {
	opts  Options
	fetch func(ctx context.Context, name string, limit int64) ([]byte, error) // nil: what is here must do
	tm    *trustedmetadata.TrustedMetadata
	docs  documents
	done  map[edge]bool // roles verified for a delegator in this pass
	fails []error       // of roles that others do not depend on
}

// edge is a delegation. A role that two delegate to is verified for each: what
// one vouches for must not count for the other.
type edge struct{ role, parent string }

func (c *Client) walk(fetch func(context.Context, string, int64) ([]byte, error)) (*walk, error) {
	w := &walk{opts: c.opts, fetch: fetch, docs: documents{}, done: map[edge]bool{}}
	for k, v := range c.docs {
		w.docs[k] = v
	}
	start := c.opts.Root
	if stored, err := tufrepo.ParseHead(w.docs[tufrepo.RoleRoot]); err == nil && stored.Version >= c.pin {
		start = w.docs[tufrepo.RoleRoot]
	}
	tm, err := take(tufrepo.RoleRoot, start, trustedmetadata.New)
	if err != nil { // the stored one was good once: the disk has changed it
		w.docs, start = documents{}, c.opts.Root
		if tm, err = take(tufrepo.RoleRoot, start, trustedmetadata.New); err != nil {
			return nil, fmt.Errorf("the root that this box was enrolled with: %w", err)
		}
	}
	w.tm, w.docs[tufrepo.RoleRoot] = tm, start
	tm.RefTime = c.now()
	if fetch == nil {
		// What is stored is good for what it knows, also when it has ended: a
		// revocation counts and a floor. Listed looks at the ends itself.
		tm.RefTime = time.Unix(0, 0)
	}
	return w, nil
}

// run is the client workflow 5.3 of the specification, as far as targets, and
// then every role that targets delegates to.
func (w *walk) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{w.roots, w.timestamp, w.snapshot, w.targets} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	keep := documents{}
	for _, name := range []string{tufrepo.RoleRoot, tufrepo.RoleTimestamp, tufrepo.RoleSnapshot, tufrepo.RoleTargets, docTime} {
		if data, ok := w.docs[name]; ok {
			keep[name] = data
		}
	}
	d := w.tm.Targets[tufrepo.RoleTargets].Signed.Delegations
	if d == nil {
		d = &metadata.Delegations{}
	}
	for i, r := range d.Roles {
		if i >= w.opts.Limits.Roles {
			w.fails = append(w.fails, fmt.Errorf("more than %d roles", w.opts.Limits.Roles))
			break
		}
		if w.tm.Snapshot.Signed.Meta[r.Name+".json"] == nil {
			continue // nobody has published there yet; once named, always named
		}
		// A channel that nobody renewed must not stop the others.
		if _, err := w.role(ctx, edge{r.Name, tufrepo.RoleTargets}); err != nil {
			w.fails = append(w.fails, fmt.Errorf("role %s: %w", r.Name, err))
			continue
		}
		keep[r.Name] = w.docs[r.Name]
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.docs = keep // not what nobody delegates to any more
	return nil
}

func (w *walk) roots(ctx context.Context) error {
	if w.fetch == nil {
		return nil
	}
	for range w.opts.Limits.Roots {
		next := w.tm.Root.Signed.Version + 1
		data, err := w.fetch(ctx, tufrepo.FileName(tufrepo.RoleRoot, next), w.opts.Limits.Root)
		if errors.Is(err, ErrAbsent) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("fetch root %d: %w", next, err)
		}
		if _, err := take(tufrepo.RoleRoot, data, w.tm.UpdateRoot); err != nil {
			return fmt.Errorf("root %d: %w", next, err)
		}
		w.docs[tufrepo.RoleRoot] = data
	}
	return nil
}

func (w *walk) timestamp(ctx context.Context) error {
	// Whoever signs the next root decides what it forgets, not a clock that is
	// ahead: an ended one changes nothing here (5.3.10).
	if root := w.tm.Root.Signed; root.IsExpired(w.tm.RefTime) {
		return fmt.Errorf("root %d expired %s", root.Version, root.Expires.UTC().Format(time.RFC3339))
	}
	// What is here guards against older ones even when it has ended. After a
	// change of the online key it does not verify and is forgotten: that is the
	// way out of versions that a thief of the key drove up (5.3.11).
	if local := w.docs[tufrepo.RoleTimestamp]; local != nil {
		_, err := take(tufrepo.RoleTimestamp, local, w.tm.UpdateTimestamp)
		if w.fetch == nil {
			return err
		}
		if err != nil && w.tm.Timestamp == nil {
			delete(w.docs, tufrepo.RoleTimestamp)
			delete(w.docs, tufrepo.RoleSnapshot)
		}
	}
	if w.fetch == nil {
		return errors.New("no timestamp is stored")
	}
	data, err := w.fetch(ctx, tufrepo.FileName(tufrepo.RoleTimestamp, 0), w.opts.Limits.Timestamp)
	if err != nil {
		return fmt.Errorf("fetch timestamp: %w", err)
	}
	var same *metadata.ErrEqualVersionNumber
	if _, err := take(tufrepo.RoleTimestamp, data, w.tm.UpdateTimestamp); errors.As(err, &same) {
		return nil
	} else if err != nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	w.docs[tufrepo.RoleTimestamp] = data
	return nil
}

func (w *walk) snapshot(ctx context.Context) error {
	verify := func(trusted bool) func([]byte) (*metadata.Metadata[metadata.SnapshotType], error) {
		return func(data []byte) (*metadata.Metadata[metadata.SnapshotType], error) {
			return w.tm.UpdateSnapshot(data, trusted)
		}
	}
	if local := w.docs[tufrepo.RoleSnapshot]; local != nil {
		_, err := take(tufrepo.RoleSnapshot, local, verify(true))
		if err == nil || w.fetch == nil {
			return err
		}
	}
	if w.fetch == nil {
		return errors.New("no snapshot is stored")
	}
	meta := w.tm.Timestamp.Signed.Meta["snapshot.json"]
	data, err := w.document(ctx, tufrepo.RoleSnapshot, meta, w.opts.Limits.Snapshot)
	if err != nil {
		return err
	}
	if _, err := take(tufrepo.RoleSnapshot, data, verify(false)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	w.docs[tufrepo.RoleSnapshot] = data
	return nil
}

func (w *walk) targets(ctx context.Context) error {
	_, err := w.role(ctx, edge{tufrepo.RoleTargets, tufrepo.RoleRoot})
	return err
}

// role returns a role as its delegator vouches for it.
func (w *walk) role(ctx context.Context, e edge) (*metadata.Metadata[metadata.TargetsType], error) {
	if w.done[e] {
		return w.tm.Targets[e.role], nil
	}
	if e.parent != tufrepo.RoleRoot && reserved(e.role) {
		return nil, fmt.Errorf("%s delegates to %s, which is root's to name", e.parent, e.role)
	}
	verify := func(data []byte) (*metadata.Metadata[metadata.TargetsType], error) {
		return w.tm.UpdateDelegatedTargets(data, e.role, e.parent)
	}
	if local := w.docs[e.role]; local != nil {
		m, err := take(e.role, local, verify)
		if err == nil {
			w.done[e] = true
			return m, nil
		}
		if w.fetch == nil {
			return nil, err
		}
	}
	if w.fetch == nil {
		return nil, errors.New("it is not stored")
	}
	meta := w.tm.Snapshot.Signed.Meta[e.role+".json"]
	if meta == nil {
		return nil, fmt.Errorf("the snapshot does not name %s", e.role)
	}
	data, err := w.document(ctx, e.role, meta, w.opts.Limits.Targets)
	if err != nil {
		return nil, err
	}
	m, err := take(e.role, data, verify)
	if err != nil {
		return nil, fmt.Errorf("role %s: %w", e.role, err)
	}
	w.docs[e.role], w.done[e] = data, true
	return m, nil
}

// document fetches a version that a trusted document names, no longer than that
// says and than we allow.
func (w *walk) document(ctx context.Context, role string, meta *metadata.MetaFiles, limit int64) ([]byte, error) {
	if meta == nil {
		return nil, fmt.Errorf("no version of %s is named", role)
	}
	if meta.Length > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", role, meta.Length, limit)
	}
	if meta.Length > 0 {
		limit = meta.Length
	}
	name := url.PathEscape(role) + ".json"
	if w.tm.Root.Signed.ConsistentSnapshot {
		name = fmt.Sprintf("%d.%s", meta.Version, name)
	}
	data, err := w.fetch(ctx, name, limit)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	return data, nil
}

// lookup finds the role that lists a path: the first in the order of the
// delegations, depth first (5.6.7). Each role is visited once, and few.
func (w *walk) lookup(ctx context.Context, path string) (*metadata.TargetFiles, string, error) {
	open := []edge{{tufrepo.RoleTargets, tufrepo.RoleRoot}}
	visited := map[string]bool{}
	for len(open) > 0 && len(visited) <= w.opts.Limits.Roles {
		e := open[len(open)-1]
		open = open[:len(open)-1]
		if visited[e.role] {
			continue
		}
		m, err := w.role(ctx, e)
		if err != nil {
			return nil, "", err
		}
		if f := m.Signed.Targets[path]; f != nil {
			return f, e.role, nil
		}
		visited[e.role] = true
		if m.Signed.Delegations == nil {
			continue
		}
		var down []edge
		for _, r := range delegated(m.Signed.Delegations, path) {
			down = append(down, edge{r.Name, e.role})
			if r.Terminating {
				open = nil
				break
			}
		}
		slices.Reverse(down)
		open = append(open, down...)
	}
	return nil, "", nil
}

// raiseFloor takes the time at which the timestamp was signed for past, but stays
// a month before the end of what people signed: who has the online key could else
// send the clocks of all boxes to where nothing is good any more.
func (w *walk) raiseFloor(c *Client) {
	at, ok := tufrepo.SignedAt(w.tm.Timestamp)
	if !ok {
		return
	}
	for _, end := range w.offlineEnds() {
		if last := end.Add(-tufrepo.OnlineLife); at.After(last) {
			at = last
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.floor) {
		c.floor, c.floorAt = at, time.Now()
		w.docs[docTime] = []byte(at.UTC().Format(time.RFC3339))
	}
}

func (w *walk) offlineEnds() []time.Time {
	ends := []time.Time{w.tm.Root.Signed.Expires}
	for _, m := range w.tm.Targets {
		ends = append(ends, m.Signed.Expires)
	}
	return ends
}
