package fleettest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// people hold the keys of a fleet in production.
type people struct {
	f               *Fleet
	root            []trust.PrivateKey
	targets, models trust.PrivateKey
}

// found takes the fleet into production.
func found(f *Fleet) *people {
	f.T.Helper()
	p := &people{f: f, root: []trust.PrivateKey{trusttest.NewKey(f.T), trusttest.NewKey(f.T)}, targets: trusttest.NewKey(f.T), models: trusttest.NewKey(f.T)}
	state, err := f.API.Trust(context.Background())
	if err != nil || !state.Development {
		f.T.Fatalf("not in development: %v", err)
	}
	one := func(k trust.PrivateKey) tufrepo.Keys {
		return tufrepo.Keys{Public: []trust.PublicKey{k.Public()}, Threshold: 1}
	}
	doc, err := tufrepo.Documents{}.NextRoot(time.Now(), func(r *tufrepo.Root) error {
		r.Root = tufrepo.Keys{Public: []trust.PublicKey{p.root[0].Public(), p.root[1].Public()}, Threshold: 2}
		r.Targets, r.Online = one(p.targets), tufrepo.Keys{Public: []trust.PublicKey{state.Controller}, Threshold: 1}
		return nil
	})
	p.submit(tufrepo.RoleRoot, doc, err, p.root[0], p.root[1])
	p.change(tufrepo.RoleTargets, p.targets, func(t *tufrepo.Targets) error {
		t.Policy = &tufrepo.Policy{Controllers: []trust.PublicKey{state.Controller}}
		t.Delegations = []tufrepo.Delegation{{Role: trusttest.Stable, Keys: one(p.models), Paths: tufrepo.PathsFor(tufrepo.KindModel, "stable")}}
		return nil
	})
	return p
}

func (p *people) submit(role string, doc []byte, err error, keys ...trust.Signer) {
	p.f.T.Helper()
	if err == nil {
		doc, err = tufrepo.Sign(doc, keys...)
	}
	if err == nil {
		_, err = p.f.API.SubmitTrust(context.Background(), fleetapi.SubmitTrust{Role: role, Document: doc})
	}
	if err != nil {
		p.f.T.Fatalf("submit %s: %v", role, err)
	}
}

// change signs the next version of a role.
func (p *people) change(role string, key trust.PrivateKey, change func(*tufrepo.Targets) error) {
	p.f.T.Helper()
	state, err := p.f.API.Trust(context.Background())
	if err != nil {
		p.f.T.Fatal(err)
	}
	docs := tufrepo.Documents{}
	for _, d := range state.Documents {
		docs[d.Role] = d.Document
	}
	doc, err := docs.NextTargets(role, time.Now(), change)
	p.submit(role, doc, err, key)
}

// push makes a model that its publisher signed, and lists it if asked to.
func (p *people) push(version string, list bool) models.Ref {
	f := p.f
	f.T.Helper()
	key := f.keyPath
	defer func() { f.keyPath = key }()
	text, err := p.models.MarshalText()
	if err != nil {
		f.T.Fatal(err)
	}
	f.keyPath = filepath.Join(f.T.TempDir(), "publisher.key")
	if err := os.WriteFile(f.keyPath, text, 0o600); err != nil {
		f.T.Fatal(err)
	}
	ref := f.MustPush(Model{Name: "eye", Version: version})
	if list {
		p.change(trusttest.Stable, p.models, func(t *tufrepo.Targets) error {
			return t.List(tufrepo.Target{Kind: tufrepo.KindModel, Name: ref.Name, Version: ref.Version, Channel: "stable", Digest: ref.Digest, Length: 1})
		})
	}
	return ref
}

func running(f *Fleet, ref models.Ref) func() bool {
	return func() bool {
		for _, b := range f.boxes() {
			for _, m := range b.Models {
				if m.RunningDigest == ref.Digest {
					return true
				}
			}
		}
		return false
	}
}

// rolled brings a version to all boxes.
func rolled(f *Fleet, ref models.Ref) {
	f.T.Helper()
	id := f.Roll(ref, "rest").ID
	f.Until(ref.String()+" is rolled out", 3*time.Hour, func() bool { return f.Rollout(id).State == fleetapi.RolloutDone })
	if !running(f, ref)() {
		f.T.Errorf("%s does not run", ref)
	}
}

// assign does what an intruder does who has the controller's key and database:
// it signs what a box shall run without asking anybody.
func assign(f *Fleet, ref models.Ref, key trust.PrivateKey) {
	f.Store(func(s *store.Store) {
		_, err := s.SetDesired(context.Background(), f.Boxes[0].ID, func(d *wire.Desired) error {
			d.Models = []wire.DesiredModel{{Name: ref.Name, Version: ref.Version, Digest: ref.Digest, Attempt: 9}}
			return nil
		}, func(payload []byte) ([]byte, error) { return trust.Sign(trust.TypeDesired, payload, key) })
		if err != nil {
			f.T.Error(err)
		}
	})
}

func (f *Fleet) ownKey() trust.PrivateKey {
	f.T.Helper()
	text, err := os.ReadFile(f.keyPath)
	if err != nil {
		f.T.Fatal(err)
	}
	key, err := trust.ParsePrivateKey(text)
	if err != nil {
		f.T.Fatal(err)
	}
	return key
}

// phaseOf is what a box said last of a version.
func phaseOf(f *Fleet, ref models.Ref) (phase, err string) {
	for _, m := range f.boxes()[0].Models {
		if m.DesiredDigest == ref.Digest {
			return m.Phase, m.Err
		}
	}
	return "", ""
}

// The whole way: a fleet in development goes into production while its boxes
// run, people's keys bring a model to them, and what those keys did not sign
// never runs, whoever says so (T11, T27); the end of the metadata stops nothing
// that runs (T39).
func TestAFleetGoesIntoProductionAndStaysThere(t *testing.T) {
	story(t, 1, func(f *Fleet) {
		b := f.Boxes[0]
		settled(f)
		v1 := f.MustPush(Model{Name: "eye", Version: "1.0.0"})
		rolled(f, v1)
		p := found(f)
		if _, err := f.Push(Model{Name: "eye", Version: "1.1.0"}); err == nil {
			t.Error("the controller's key still publishes models")
		}
		v2 := p.push("2.0.0", true)
		rolled(f, v2) // by a box whose session began before
		id, err := enrol.Load(filepath.Join(b.State(), "identity"))
		if err != nil || id.Keyring.Development || !id.Keyring.Targets || len(id.TrustRoot) == 0 {
			t.Fatalf("the box is not in production: %+v, %v", id.Keyring, err)
		}

		evil := p.push("3.0.0", false)
		if _, err := f.API.Plan(context.Background(), fleetapi.PlanRequest{Model: evil.String(), Waves: []string{"rest"}}); err == nil || !strings.Contains(err.Error(), "does not list") {
			t.Errorf("a plan for what is not listed: %v", err)
		}
		assign(f, evil, f.ownKey())
		f.Until("the box refuses", 3*time.Hour, func() bool { _, err := phaseOf(f, evil); return strings.Contains(err, "does not list") })
		if !running(f, v2)() {
			t.Error("version 2 runs no more")
		}
		assign(f, v1, trusttest.NewKey(t)) // the broker's, or anybody's
		pass(10 * time.Minute)
		if running(f, v1)() {
			t.Error("the box follows a stranger")
		}
		assign(f, v2, f.ownKey())
		f.Until("version 2 is wanted again", 3*time.Hour, running(f, v2))

		f.StopController()
		b.SetClock(60 * 24 * time.Hour) // the timestamp has ended; the agent must not
		if err := b.StopAgent(); err != nil {
			t.Fatalf("the agent ended by itself: %v", err)
		}
		b.StartAgent()
		pass(10 * time.Minute)
		b.SetClock(0)
		f.StartController()
		f.Until("all is well again", 24*time.Hour, running(f, v2))
		v4 := p.push("4.0.0", true)
		rolled(f, v4)
	})
}
