package tufclient_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// documents are the newest of each role, as served now.
func (w *world) documents() map[string][]byte {
	out := map[string][]byte{}
	for name, data := range w.Files {
		role, version, err := tufrepo.ParseFileName(name)
		w.must(err)
		head, err := tufrepo.ParseHead(data)
		w.must(err)
		if have, err := tufrepo.ParseHead(out[role]); err != nil || version == 0 || have.Version < head.Version {
			out[role] = data
		}
	}
	return out
}

// only returns the documents that a snapshot names.
func only(docs map[string][]byte) map[string][]byte {
	docs = maps.Clone(docs)
	for _, role := range []string{tufrepo.RoleRoot, tufrepo.RoleSnapshot, tufrepo.RoleTimestamp} {
		delete(docs, role)
	}
	return docs
}

// hostile are what whoever serves the metadata may do. Each is after v2 was
// published and before the client heard of it.
var hostile = []struct {
	name string
	do   func(w *world)
	text string // of the refusal
}{
	{"rollback of the timestamp", func(w *world) {
		w.Version = 0
		w.Publish()
	}, "timestamp version 1 must be"},
	{"rollback of the snapshot in a new timestamp", func(w *world) {
		snapshot, _, err := tufrepo.Online(only(w.documents()), 1, w.Now(), w.Keys["online"][0])
		w.must(err)
		_, timestamp, err := tufrepo.Online(only(w.documents()), 1, w.Now(), w.Keys["online"][0])
		w.must(err)
		w.Files["1.snapshot.json"] = snapshot
		w.Files["timestamp.json"] = w.edit(timestamp, `"version":1,"x`, `"version":9`, w.Keys["online"][0])
	}, "new snapshot version 1 must be"},
	{"rollback of targets in a new snapshot", func(w *world) {
		w.Targets.Version = 0
		w.Targets.Version++
		w.Targets.Expires = w.Targets.Expires.Add(time.Hour)
		role := w.Roles[trusttest.Stable]
		role.Version = 1
		w.Roles[trusttest.Stable] = role
		w.Publish()
	}, "version"},
	{"rollback of a role in a new snapshot", func(w *world) {
		docs := only(w.documents())
		old := w.Roles[trusttest.Stable]
		old.Version = 1
		docs[trusttest.Stable] = w.Sign(old, w.Keys[trusttest.Stable]...)
		w.PublishDocuments(docs)
	}, "version"},
	{"a role left out of a new snapshot", func(w *world) {
		docs := only(w.documents())
		delete(docs, "agent-stable")
		w.PublishDocuments(docs)
	}, "missing info for agent-stable"},
	{"rollback of the root", func(w *world) {
		w.Files["2.root.json"] = w.Files["1.root.json"]
	}, "bad version number"},
	{"a gap between roots", func(w *world) {
		w.Root.Version = 3
		w.PublishRoot(w.Keys[tufrepo.RoleRoot]...)
		w.Files["2.root.json"] = w.Files["3.root.json"]
	}, "bad version number"},
	{"a new root that the old keys did not sign", func(w *world) {
		w.Keys[tufrepo.RoleRoot] = []trust.PrivateKey{trusttest.NewKey(w.t), trusttest.NewKey(w.t)}
		w.Root.Version, w.Root.Root = 2, w.Public(tufrepo.RoleRoot, 2)
		w.PublishRoot(w.Keys[tufrepo.RoleRoot]...)
	}, "not enough signatures"},
	{"a new root that the new keys did not sign", func(w *world) {
		old := w.Keys[tufrepo.RoleRoot]
		w.Keys[tufrepo.RoleRoot] = []trust.PrivateKey{trusttest.NewKey(w.t), trusttest.NewKey(w.t)}
		w.Root.Version, w.Root.Root = 2, w.Public(tufrepo.RoleRoot, 2)
		w.PublishRoot(old...)
	}, "not enough signatures"},
	{"a root with one signature of two", func(w *world) {
		w.Root.Version = 2
		w.PublishRoot(w.Keys[tufrepo.RoleRoot][0])
	}, "got 1, want 2"},
	{"a threshold filled by one key twice", func(w *world) {
		w.Root.Version = 2
		w.PublishRoot(w.Keys[tufrepo.RoleRoot][0])
		data := string(w.Files["2.root.json"])
		at := strings.LastIndex(data, `{"keyid"`)
		end := strings.LastIndex(data, "]")
		w.Files["2.root.json"] = []byte(data[:end] + "," + data[at:end] + data[end:])
	}, "multiple signatures"},
	{"a timestamp that another key signed", func(w *world) {
		w.Keys["online"] = []trust.PrivateKey{trusttest.NewKey(w.t)}
		w.Publish()
	}, "not enough signatures"},
	{"targets that another key signed", func(w *world) {
		w.Keys[tufrepo.RoleTargets] = []trust.PrivateKey{trusttest.NewKey(w.t)}
		w.Targets.Version++
		w.Publish()
	}, "not enough signatures"},
	{"targets that the online key signed", func(w *world) {
		w.Keys[tufrepo.RoleTargets] = w.Keys["online"]
		w.Targets.Version++
		w.Publish()
	}, "not enough signatures"},
	{"mix and match: a snapshot of another time", func(w *world) {
		w.Files[fmt.Sprintf("%d.snapshot.json", w.Version)] = w.Files[fmt.Sprintf("%d.snapshot.json", w.Version-1)]
	}, "mismatch"},
	{"mix and match: targets of another time", func(w *world) {
		w.Targets.Version++
		w.Publish()
		w.Files[tufrepo.FileName(tufrepo.RoleTargets, w.Targets.Version)] = w.Files["1.targets.json"]
	}, "mismatch"},
	{"one role served as another", func(w *world) {
		w.Targets.Version++
		w.Publish()
		docs := only(w.documents())
		docs[tufrepo.RoleTargets] = docs[trusttest.Stable]
		w.PublishDocuments(docs)
	}, "not enough signatures"},
	{"a changed byte in the timestamp", func(w *world) {
		data := w.Files["timestamp.json"]
		w.Files["timestamp.json"] = []byte(strings.Replace(string(data), `"version":`, `"version":1`, 1))
	}, "not enough signatures"},
	{"endless timestamp", func(w *world) { w.Files["timestamp.json"] = make([]byte, 1<<20) }, "longer than"},
	{"endless snapshot", func(w *world) {
		w.Files[fmt.Sprintf("%d.snapshot.json", w.Version)] = make([]byte, 1<<20)
	}, "longer than"},
	{"endless root", func(w *world) { w.Files["2.root.json"] = make([]byte, 1<<20) }, "longer than"},
	{"a snapshot that says it is endless", func(w *world) {
		for i := range 2000 {
			w.Roles[fmt.Sprintf("role-%d", i)] = tufrepo.Targets{Version: 1, Expires: w.Roles[trusttest.Stable].Expires}
		}
		w.Publish()
	}, "more than"},
	{"freeze: the timestamp has ended", func(w *world) {
		w.now = w.now.Add(tufrepo.OnlineLife + time.Minute)
	}, "expired"},
	{"the snapshot is withheld", func(w *world) {
		delete(w.Files, fmt.Sprintf("%d.snapshot.json", w.Version))
	}, "no such document"},
	{"no JSON", func(w *world) { w.Files["timestamp.json"] = []byte("<html>") }, "invalid character"},
	{"JSON of nothing", func(w *world) { w.Files["timestamp.json"] = []byte("{}") }, "no type"},
	{"a timestamp of no snapshot", func(w *world) {
		w.timestamp(func(signed map[string]any) { signed["meta"] = map[string]any{} })
	}, "it names no snapshot"},
	{"a timestamp of a snapshot that is nothing", func(w *world) {
		w.timestamp(func(signed map[string]any) { signed["meta"] = map[string]any{"snapshot.json": nil} })
	}, "it names no version of snapshot.json"},
	{"a timestamp of another specification", func(w *world) {
		w.timestamp(func(signed map[string]any) { signed["spec_version"] = "2.0.0" })
	}, `version "2.0.0" of the TUF specification`},
	{"a role that lists nothing under a name", func(w *world) {
		docs := only(w.documents())
		docs[tufrepo.RoleTargets] = []byte(strings.Replace(string(docs[tufrepo.RoleTargets]), `"targets":{`, `"targets":{"x":null,`, 1))
		w.PublishDocuments(docs)
		w.Files[tufrepo.FileName(tufrepo.RoleTargets, w.Targets.Version)] = docs[tufrepo.RoleTargets]
	}, "malformed"},
	{"deep JSON", func(w *world) {
		w.Files["timestamp.json"] = []byte(strings.Repeat("[", 2000) + strings.Repeat("]", 2000))
	}, ""},
}

// edit changes a signed document and signs it again: what the holder of that
// key can do.
func (w *world) edit(data []byte, old, other string, key trust.PrivateKey) []byte {
	w.t.Helper()
	at := strings.Index(string(data), `"version":1`)
	last := strings.LastIndex(string(data), `"version":1`)
	if at < 0 || at == last {
		w.t.Fatalf("nothing to change in %s", data)
	}
	out := string(data[:last]) + `"version":9` + string(data[last+len(`"version":1`):])
	signed, err := tufrepo.Sign([]byte(out), key)
	w.must(err)
	return signed
}

// timestamp changes the one that is served as the holder of its key can.
func (w *world) timestamp(change func(signed map[string]any)) {
	w.t.Helper()
	var d map[string]any
	w.must(json.Unmarshal(w.Files["timestamp.json"], &d))
	change(d["signed"].(map[string]any))
	data, err := json.Marshal(d)
	w.must(err)
	w.Files["timestamp.json"], err = tufrepo.Sign(data, w.Keys["online"][0])
	w.must(err)
}

// The attacks of the specification's section 1.5.2 by whoever serves the
// metadata (T8, T9): each is refused, what was known before stays in force while
// it is good, and the honest server is believed again.
func TestT8T9WhatAServerMayDoIsRefusedAndSurvived(t *testing.T) {
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			v2 := w.Model("vad", "2.0.0", "two", 2)
			w.Publish()
			honest, version, at := maps.Clone(w.Files), w.Version, w.now
			tt.do(w)
			for _, again := range []string{"", ", started anew"} {
				err := w.c.Refresh(t.Context())
				if err == nil || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("refresh%s: %v, want %q", again, err, tt.text)
				}
				if err := w.listed(v2); err == nil {
					t.Errorf("what was never fetched is listed%s", again)
				}
				if err := w.listed(w.v1); w.now == at && again == "" && err != nil {
					t.Errorf("what was good is no more: %v", err)
				}
				w.open()
			}
			w.Files, w.now, w.Version = honest, at, version
			if strings.HasPrefix(tt.name, "rollback of a") || strings.HasPrefix(tt.name, "rollback of targets") || strings.HasPrefix(tt.name, "a role left") ||
				strings.HasPrefix(tt.name, "one role") || strings.HasPrefix(tt.name, "mix and match: targets") || strings.HasPrefix(tt.name, "targets that") || strings.HasPrefix(tt.name, "a snapshot that") || strings.HasPrefix(tt.name, "a role that") {
				return // whoever signs timestamps went on: an older one is a rollback now
			}
			if err := w.c.Refresh(t.Context()); err != nil {
				t.Fatalf("the honest server again: %v", err)
			}
			w.must(w.listed(v2))
		})
	}
}

// T27: the online key and the database are the intruder's.
func TestT27AnIntruderInTheControllerListsNothingNew(t *testing.T) {
	for name, forge := range map[string]func(w *world, evil tufrepo.Target){
		"in a role, signed online": func(w *world, evil tufrepo.Target) {
			w.List(trusttest.Stable, evil)
			docs := only(w.documents())
			docs[trusttest.Stable] = w.Sign(w.Roles[trusttest.Stable], w.Keys["online"]...)
			w.PublishDocuments(docs)
		},
		"in a role of another channel": func(w *world, evil tufrepo.Target) {
			w.List("agent-stable", evil) // the key of that role is the thief's as well
			w.Publish()
		},
		"by a role of its own": func(w *world, evil tufrepo.Target) {
			w.Keys["models-evil"] = w.Keys["online"]
			w.Delegate("models-evil", tufrepo.PathsFor(tufrepo.KindModel, "stable"))
			w.List("models-evil", evil)
			docs := only(w.documents())
			docs["models-evil"] = w.Sign(w.Roles["models-evil"], w.Keys["online"]...)
			w.PublishDocuments(docs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			evil := tufrepo.Target{Digest: blob.Sum([]byte("evil")), Length: 4, Kind: tufrepo.KindModel, Name: "vad", Version: "6.6.6", Channel: "stable", Counter: 99}
			forge(w, evil)
			_ = w.c.Refresh(t.Context()) // whatever it says
			if err := w.listed(evil); err == nil {
				t.Error("listed")
			}
		})
	}
}

func TestT26OneOfTwoSignaturesListsNothing(t *testing.T) {
	w := newWorld(t)
	w.Keys[trusttest.Stable] = append(w.Keys[trusttest.Stable], trusttest.NewKey(t))
	w.Targets.Delegations[0].Keys = w.Public(trusttest.Stable, 2)
	w.Targets.Version++
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(w.v1))
	v2 := w.Model("vad", "2.0.0", "two", 2)
	docs := only(w.documents())
	docs[trusttest.Stable] = w.Sign(w.Roles[trusttest.Stable], w.Keys[trusttest.Stable][0])
	w.PublishDocuments(docs)
	_ = w.c.Refresh(t.Context())
	if err := w.listed(v2); !errors.Is(err, tufclient.ErrStale) {
		t.Fatalf("with one signature of two: %v", err)
	}
	second, err := tufrepo.Sign(docs[trusttest.Stable], w.Keys[trusttest.Stable][1])
	w.must(err)
	docs[trusttest.Stable] = second
	w.PublishDocuments(docs)
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
}

// T28: an old version that the intruder may still list is below the floor.
func TestT28AnOldVersionInTheMetadataIsBelowTheFloor(t *testing.T) {
	w := newWorld(t)
	v2 := w.Model("vad", "2.0.0", "two", 2)
	w.Targets.Policy.Floors = map[string]uint64{"model/vad": 2}
	w.Targets.Version++
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
	if err := w.listed(w.v1); !errors.Is(err, tufclient.ErrFloor) {
		t.Errorf("got %v", err)
	}
}

// Fast-forward recovery, 5.3.11: a thief drove the versions up as far as they
// go. A root with another online key is the way out.
func TestFastForwardedVersionsAreForgottenWithTheStolenKey(t *testing.T) {
	w := newWorld(t)
	w.Version = 1<<53 - 2
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.Keys["online"] = []trust.PrivateKey{trusttest.NewKey(t)}
	w.Root.Version, w.Root.Online = 2, w.Public("online", 1)
	w.PublishRoot(w.Keys[tufrepo.RoleRoot][:2]...)
	w.Version = 10
	v2 := w.Model("vad", "2.0.0", "two", 2)
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
	w.open()
	w.must(w.listed(v2))
}

// A clock that runs ahead, or a root that nobody renewed, must not open the way
// back to what was served before.
func TestAnEndedRootMakesTheClientForgetNoVersion(t *testing.T) {
	w := newWorld(t)
	old := maps.Clone(w.Files)
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.now = began.AddDate(30, 0, 0)
	if err := w.c.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "root 1 expired") {
		t.Errorf("in thirty years: %v", err)
	}
	w.now, w.Files = began.Add(time.Hour), old
	if err := w.c.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "must be >=") {
		t.Errorf("the timestamp of before: %v", err)
	}
}

func TestDelegationsInACircleOrWithoutEndAreWalkedOnce(t *testing.T) {
	w := newWorld(t)
	evil := w.Roles[trusttest.Stable]
	evil.Version++
	evil.Delegations = []tufrepo.Delegation{
		{Role: trusttest.Stable, Keys: w.Public(trusttest.Stable, 1), Paths: []string{"model/stable/*/*"}},
		{Role: "agent-stable", Keys: w.Public("agent-stable", 1), Paths: []string{"*/*/*/*"}},
	}
	w.Roles[trusttest.Stable] = evil
	for i := range 100 {
		role := fmt.Sprintf("models-%d", i)
		w.Keys[role] = w.Keys[trusttest.Stable]
		w.Delegate(role, tufrepo.PathsFor(tufrepo.KindModel, fmt.Sprint(i)))
	}
	w.Targets.Version++
	w.Publish()
	clear(w.Asked)
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(w.v1))
	if len(w.Asked) > 40 {
		t.Errorf("%d documents were asked for", len(w.Asked))
	}
	for name, n := range w.Asked {
		if n > 1 {
			t.Errorf("%s was asked for %d times", name, n)
		}
	}
}

// A role that two delegate to counts for each only by the keys that it names.
func TestARoleIsVerifiedForEachThatDelegatesToIt(t *testing.T) {
	w := newWorld(t)
	w.Targets.Delegations = append(w.Targets.Delegations, tufrepo.Delegation{
		Role: "models-dev", Keys: tufrepo.Keys{Public: []trust.PublicKey{trusttest.NewKey(t).Public()}, Threshold: 1}, Paths: tufrepo.PathsFor(tufrepo.KindModel, "dev"),
	})
	dev := tufrepo.Targets{Version: 1, Expires: w.Roles[trusttest.Stable].Expires}
	nightly := w.v1
	nightly.Channel, nightly.Version = "dev", "2.0.0"
	dev.Targets = []tufrepo.Target{nightly}
	w.Targets.Version++
	w.Publish()
	docs := only(w.documents())
	docs["models-dev"] = w.Sign(dev, w.Keys[trusttest.Stable]...) // not the key that targets names
	w.PublishDocuments(docs)
	w.must(w.c.Refresh(t.Context()))
	if err := w.listed(nightly); err == nil {
		t.Error("listed by a role whose key nobody named")
	}
}
