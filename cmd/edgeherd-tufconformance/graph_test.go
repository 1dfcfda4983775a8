package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// delegations makes those of a list of words "FROM TO [PATHS]": the paths are
// "*" or as named, with ! the delegation is terminating.
func (w *world) delegations(words ...string) {
	changed := []string{}
	for _, line := range words {
		f := strings.Fields(line)
		more := body{"paths": []any{"*"}}
		for _, word := range f[2:] {
			switch {
			case word == "!":
				more["terminating"] = true
			case strings.HasPrefix(word, "#"):
				delete(more, "paths")
				more["path_hash_prefixes"] = []any{word[1:]}
			default:
				more["paths"] = []any{word}
			}
		}
		w.delegate(f[0], f[1], more)
		changed = append(changed, f[0], f[1])
	}
	slices.Sort(changed)
	w.publish(slices.Compact(changed)...)
	w.publish("snapshot", "timestamp")
}

// The suite's graph_traversal: roles are asked for in the order in which the
// delegations lead to them, the first and deepest first, each once.
var graphs = []struct {
	name        string
	delegations []string
	visited     string
}{
	{"one", []string{"targets A"}, "A"},
	{"two", []string{"targets A", "targets B"}, "A B"},
	{"one below the second", []string{"targets A", "targets B", "B C"}, "A B C"},
	{"two below the first", []string{"targets A", "targets B", "A C", "A D"}, "A C D B"},
	{"three levels below the first", []string{"targets A", "targets B", "A C", "C D"}, "A C D B"},
	{"a terminating one ends the search", []string{"targets A", "targets B", "A C !", "A D"}, "A C"},
	{"a terminating one is searched below", []string{"targets A", "targets B", "A C !", "C D"}, "A C D"},
	{"a terminating one for other paths ends nothing", []string{"targets A", "targets B", "A C ! *.py", "A D"}, "A D B"},
	{"not below where the path is another's", []string{"targets A *.py", "targets B", "A C"}, "B"},
	{"not below a level where the path is another's", []string{"targets A", "targets B", "A C *.py", "C D"}, "A B"},
	{"a circle", []string{"targets A", "targets B", "B C", "C D", "D B"}, "A B C D"},
	{"a role that delegates to itself", []string{"targets A", "A A", "targets B"}, "A B"},
	{"two that delegate to a third", []string{"targets A", "targets B", "B C", "A C"}, "A C B"},
	{"two that delegate to a third, one of them other paths", []string{"targets A", "targets B", "B C", "A C *.py"}, "A B C"},
	{"the bin of the hash of the path", []string{"targets A #a", "targets B #ffa", "targets C #ffa7", "targets D #FFA"}, "B"},
}

func TestDelegationsAreSearchedInTheirOrder(t *testing.T) {
	for _, tt := range graphs {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.delegations(tt.delegations...)
			asked := "root 2, timestamp, snapshot 2, targets 2"
			for _, role := range strings.Fields(tt.visited) {
				asked += ", " + role + " 1"
			}
			w.check(w.download("missing"), "not list", asked)
			// And what was found on the way is there the next time.
			w.check(w.download("missing"), "not list", "root 2, timestamp")
		})
	}
}

// The suite's targetfile_search.
func TestAPathIsFoundWhereEveryRoleOnTheWayWasGivenIt(t *testing.T) {
	for path, want := range map[string]struct{ by, asked string }{
		"file":              {"targets", ""},
		"README.md":         {"A", "A"},
		"releases/x/x_v1":   {"C", "B C"},
		"releases/y/y1.zip": {"D", "B D"},
		"releases/z/z1.zip": {"", "B"}, // D lists it, but was not given it
		"releases/x":        {"", ""},
		"deep/er/README.md": {"", ""}, // a star does not stand for a slash
	} {
		t.Run(path, func(t *testing.T) {
			w := newWorld(t)
			w.delegations("targets A *.md", "targets B releases/*/*", "B C releases/x/*", "B D releases/y/*.zip")
			for role, paths := range map[string][]string{
				"targets": {"file"}, "A": {"README.md", "deep/er/README.md"}, "C": {"releases/x/x_v1"},
				"D": {"releases/y/y1.zip", "releases/z/z1.zip"},
			} {
				for _, p := range paths {
					w.list(role, p, p+" by "+role)
				}
				w.publish(role)
			}
			w.publish("snapshot", "timestamp")
			asked := "root 2, timestamp, snapshot 3, targets 3"
			for _, role := range strings.Fields(want.asked) {
				asked += fmt.Sprintf(", %s %d", role, w.roles[role]["version"])
			}
			refusal, files := "not list", []string{}
			if want.by != "" {
				refusal, files = "", []string{path + " by " + want.by}
			}
			w.check(w.download(path), refusal, asked)
			if got := w.downloaded(); !slices.Equal(got, files) {
				t.Errorf("downloaded %q, want %q", got, files)
			}
		})
	}
}

// Bins share a key and have the hash of the path in their name (TAP 15).
func TestAPathIsSearchedInItsBinAlone(t *testing.T) {
	w := newWorld(t)
	k := newKey(t, "ed25519")
	w.roles["targets"]["delegations"] = body{"keys": body{k.id: k.public},
		"succinct_roles": body{"keyids": []any{k.id}, "threshold": 1, "bit_length": 5, "name_prefix": "bin"}}
	for i := range 32 {
		role := fmt.Sprintf("bin-%02x", i)
		w.roles[role] = body{"_type": "targets", "spec_version": "1.0.31", "expires": days(30), "targets": body{}}
		w.signers[role] = []*key{k}
		w.list(role, "missing", role)
		w.publish(role)
	}
	w.publish("targets", "snapshot", "timestamp")
	w.check(w.download("missing"), "", "root 2, timestamp, snapshot 2, targets 2, bin-1f 1")
	if got := w.downloaded(); !slices.Equal(got, []string{"bin-1f"}) {
		t.Errorf("downloaded %q", got)
	}
}

func TestASearchEndsAfterThirtyTwoRoles(t *testing.T) {
	w := newWorld(t)
	chain := []string{"targets R0"}
	for i := range 60 {
		chain = append(chain, fmt.Sprintf("R%d R%d", i, i+1))
	}
	w.delegations(chain...)
	w.list("R60", "far", "away")
	if err := w.download("far"); err == nil || len(w.asked) > 40 {
		t.Errorf("%v after %d requests", err, len(w.asked))
	}
}

// A role that does not hold ends the search (5.6.7): it might have listed the path.
func TestARoleThatDoesNotHoldEndsTheSearch(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"ended: delegated_targets_expired": func(w *world) {
			w.roles["A"]["expires"] = days(-1)
			w.publish("A")
		},
		"another key":                   func(w *world) { w.signers["A"] = []*key{newKey(w.t, "ed25519")}; w.publish("A") },
		"missing":                       func(w *world) { w.forget("A") },
		"the snapshot does not name it": func(w *world) { delete(w.at("snapshot", "meta"), "A.json") },
		"the snapshot names a later one": func(w *world) {
			w.at("snapshot", "meta", "A.json")["version"] = 2
			w.signed["A"] = append(w.signed["A"], w.signed["A"][0])
		},
		"the keys of the other delegator": func(w *world) { w.signers["A"] = w.signers["B"]; w.publish("A") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.delegate("targets", "A", body{"paths": []any{"*"}})
			w.delegate("targets", "B", body{"paths": []any{"*"}})
			w.list("B", "file", "by B")
			w.publish("A", "B", "targets")
			spoil(w)
			w.publish("snapshot", "timestamp")
			w.refreshed()
			if err := w.download("file"); err == nil || len(w.downloaded()) > 0 {
				t.Errorf("got %v, downloaded %q", err, w.downloaded())
			}
			if got := w.trusted(); got != "1 2 2 2" {
				t.Errorf("trusted are %s", got)
			}
		})
	}
}

// The suite's expired_local_delegated_targets and its _updates.
func TestARoleThatHasEndedHereIsFetchedAnew(t *testing.T) {
	w := newWorld(t)
	w.delegate("targets", "A", body{"paths": []any{"dir/*"}})
	w.roles["A"]["expires"] = days(7)
	w.list("A", "dir/one", "first")
	w.list("A", "dir/two", "second")
	w.publish("A", "targets", "snapshot", "timestamp")
	w.check(w.download("dir/one"), "", "root 2, timestamp, snapshot 2, targets 2, A 1")
	w.in(18)
	w.check(w.download("dir/two"), "A is expired", "root 2, timestamp, A 1")
	if got := w.downloaded(); !slices.Equal(got, []string{"first"}) {
		t.Errorf("downloaded %q", got)
	}
	w.roles["A"]["expires"] = days(21)
	w.publish("A", "snapshot", "timestamp")
	w.check(w.download("dir/two"), "", "root 2, timestamp, snapshot 3, A 2")
	if got := w.downloaded(); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("downloaded %q", got)
	}
}
