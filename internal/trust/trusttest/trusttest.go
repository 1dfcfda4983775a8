// Package trusttest is a repository of metadata for tests: all its keys in
// memory, all its documents in a map that a test may change as an attacker would.
//
// Vocabulary: Publish signs snapshot and timestamp for what the roles say now;
// before it nothing is served. Fetch is what a client asks.
//
// The one rule a caller can break: it is for tests; a program that imports it
// trusts keys that lie in its own memory.
package trusttest

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// Stable is the role that New delegates models of the channel stable to.
const Stable = "models-stable"

// Repo is a repository. Its fields may be changed between calls of Publish.
type Repo struct {
	T   testing.TB
	Now func() time.Time
	// Keys by role; root has three, two of which must sign; "online" signs
	// snapshot and timestamp.
	Keys map[string][]trust.PrivateKey

	Root    tufrepo.Root
	Targets tufrepo.Targets
	Roles   map[string]tufrepo.Targets
	Version int64 // of snapshot and timestamp

	Files map[string][]byte // what is served, by name
	Pin   []byte            // the first root
	Asked map[string]int
}

// New makes and publishes a repository with the empty roles models-stable and
// agent-stable.
func New(t testing.TB, now func() time.Time) *Repo {
	t.Helper()
	r := &Repo{T: t, Now: now, Keys: map[string][]trust.PrivateKey{}, Roles: map[string]tufrepo.Targets{}, Files: map[string][]byte{}, Asked: map[string]int{}}
	for role, n := range map[string]int{tufrepo.RoleRoot: 3, tufrepo.RoleTargets: 1, "online": 1, Stable: 1, "agent-stable": 1} {
		for range n {
			r.Keys[role] = append(r.Keys[role], NewKey(t))
		}
	}
	r.Root = tufrepo.Root{Version: 1, Expires: now().Add(tufrepo.RootLife), Root: r.Public(tufrepo.RoleRoot, 2), Targets: r.Public(tufrepo.RoleTargets, 1), Online: r.Public("online", 1)}
	r.PublishRoot(r.Keys[tufrepo.RoleRoot][:2]...)
	r.Pin = r.Files["1.root.json"]
	r.Targets = tufrepo.Targets{Version: 1, Expires: now().Add(tufrepo.TargetsLife), Policy: &tufrepo.Policy{Controllers: []trust.PublicKey{r.Keys["online"][0].Public()}}}
	r.Delegate(Stable, tufrepo.PathsFor(tufrepo.KindModel, "stable"))
	r.Delegate("agent-stable", tufrepo.PathsFor(tufrepo.KindRelease, "stable"))
	r.Publish()
	return r
}

// NewKey makes a key.
func NewKey(t testing.TB) trust.PrivateKey {
	t.Helper()
	k, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Public are the public keys of a role.
func (r *Repo) Public(role string, threshold int) tufrepo.Keys {
	k := tufrepo.Keys{Threshold: threshold}
	for _, p := range r.Keys[role] {
		k.Public = append(k.Public, p.Public())
	}
	return k
}

// Delegate gives a role its paths and makes it, empty.
func (r *Repo) Delegate(role string, paths []string) {
	r.Targets.Delegations = append(r.Targets.Delegations, tufrepo.Delegation{Role: role, Keys: r.Public(role, 1), Paths: paths})
	r.Roles[role] = tufrepo.Targets{Version: 1, Expires: r.Now().Add(tufrepo.RoleLife)}
}

// Model lists a version of a model in the channel stable; content stands for
// its envelope.
func (r *Repo) Model(name, version, content string, counter uint64) tufrepo.Target {
	t := tufrepo.Target{
		Digest: blob.Sum([]byte(content)), Length: int64(len(content)),
		Kind: tufrepo.KindModel, Name: name, Version: version, Channel: "stable", Counter: counter,
	}
	r.List(Stable, t)
	return t
}

// List adds a target to a role.
func (r *Repo) List(role string, t tufrepo.Target) {
	s := r.Roles[role]
	s.Version++
	s.Targets = append(s.Targets, t)
	r.Roles[role] = s
}

// PublishRoot signs the root as it is with the keys given.
func (r *Repo) PublishRoot(keys ...trust.PrivateKey) {
	r.T.Helper()
	r.Files[tufrepo.FileName(tufrepo.RoleRoot, r.Root.Version)] = r.Sign(r.Root, keys...)
}

// Sign encodes and signs a document.
func (r *Repo) Sign(d interface{ Encode() ([]byte, error) }, keys ...trust.PrivateKey) []byte {
	r.T.Helper()
	data, err := d.Encode()
	signers := []trust.Signer{}
	for _, k := range keys {
		signers = append(signers, k)
	}
	if err == nil {
		data, err = tufrepo.Sign(data, signers...)
	}
	if err != nil {
		r.T.Fatal(err)
	}
	return data
}

// Publish signs all but root, each role with all its keys.
func (r *Repo) Publish() {
	r.T.Helper()
	docs := map[string][]byte{tufrepo.RoleTargets: r.Sign(r.Targets, r.Keys[tufrepo.RoleTargets]...)}
	for role, s := range r.Roles {
		docs[role] = r.Sign(s, r.Keys[role]...)
	}
	r.PublishDocuments(docs)
}

// PublishDocuments signs snapshot and timestamp over documents as they are.
func (r *Repo) PublishDocuments(docs map[string][]byte) {
	r.T.Helper()
	r.Version++
	snapshot, timestamp, err := tufrepo.Online(docs, r.Version, r.Now(), r.Keys["online"][0])
	if err != nil {
		r.T.Fatal(err)
	}
	docs = maps.Clone(docs)
	docs[tufrepo.RoleSnapshot], docs[tufrepo.RoleTimestamp] = snapshot, timestamp
	for role, data := range docs {
		head, err := tufrepo.ParseHead(data)
		if err != nil {
			r.T.Fatal(err)
		}
		r.Files[tufrepo.FileName(role, head.Version)] = data
	}
}

// Fetch serves Files.
func (r *Repo) Fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	r.Asked[name]++
	data, ok := r.Files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, tufclient.ErrAbsent)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, nil
}
