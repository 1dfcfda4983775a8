package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// The suite's unusual_role_name and more: what the name is in the request.
var roleNames = []struct{ role, asked string }{
	{"?", "%3F"},
	{"#", "%23"},
	{"/delegatedrole", "%2Fdelegatedrole"},
	{"../delegatedrole", "..%2Fdelegatedrole"},
	{".", "."},
	{"..", ".."},
	{"a b", "a%20b"},
	{"ü", "%C3%BC"},
	{"%2F", "%252F"},
	{"1.targets", "1.targets"},
	{`"\`, "%22%5C"},
}

func TestARoleOfAnyNameIsAskedForAndKept(t *testing.T) {
	for _, consistent := range []bool{true, false} {
		for _, tt := range roleNames {
			if !consistent && tt.role == "1.targets" {
				continue // it has the file name of a version of targets
			}
			t.Run(tt.role, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.roles["root"]["consistent_snapshot"] = consistent
				w.delegate("targets", tt.role, body{"paths": []any{"*"}})
				w.list(tt.role, "file", "by the role")
				w.publish("root", tt.role, "targets", "snapshot", "timestamp")
				asked := "root 2, root 3, timestamp, snapshot 2, targets 2, " + tt.asked + " 1"
				if !consistent {
					asked = "root 2, root 3, timestamp, snapshot, targets, " + tt.asked
				}
				w.check(w.download("file"), "", asked)
				w.check(w.download("file"), "", "root 3, timestamp")
				if got, want := w.trusted(), "2 2 2 2 "+tt.asked+" 1"; got != want {
					t.Errorf("trusted are %s, want %s", got, want)
				}
			})
		}
	}
}

// A delegation under the name of a role of root's would put its document in that
// role's place. (That of a timestamp has another name where it is served, and
// targets has been searched by then.)
func TestARoleOfRootsIsDelegatedByRootAlone(t *testing.T) {
	for _, role := range []string{"root", "snapshot"} {
		t.Run(role, func(t *testing.T) {
			w := newWorld(t)
			evil := *w.sim // with a document and keys of its own
			evil.roles, evil.signers = map[string]body{"targets": w.roles["targets"]}, map[string][]*key{}
			evil.delegate("targets", role, body{"paths": []any{"*"}})
			evil.list(role, "file", "evil")
			evil.roles[role]["version"] = 1
			w.at("snapshot", "meta")[role+".json"] = body{"version": 1}
			w.publish("targets", "snapshot", "timestamp")
			w.refreshed()
			before := w.kept(role)
			w.signed[role] = [][]byte{evil.sign(role)}
			w.check(w.download("file"), "which is root's to name", "root 2, timestamp")
			if got := w.kept(role); !bytes.Equal(got, before) || len(w.downloaded()) > 0 {
				t.Errorf("%s is now %s, downloaded %q", role, got, w.downloaded())
			}
		})
	}
}

// HASH stands for the hash that a name begins with.
var targetNames = []struct{ target, fetched string }{
	{"file.txt", "HASH.file.txt"},
	{"path/to/a/file.txt", "path/to/a/HASH.file.txt"},
	{"a b", "HASH.a%20b"},
	{"ü/ü", "%C3%BC/HASH.%C3%BC"},
	{"a?b#c", "HASH.a%3Fb%23c"},
	{"a%2fb", "HASH.a%252fb"},
	{"a:b&c=d+e", "HASH.a:b&c=d+e"},
	{"a//b", "a//HASH.b"},
	{"/root/file", "/root/HASH.file"},
	{"../file", "../HASH.file"},
	{"a/../b", "a/../HASH.b"},
	{"..", "HASH..."},
	{".", "HASH.."},
	{strings.Repeat("long", 80), "HASH." + strings.Repeat("long", 80)},
}

// The suite's client_downloads_expected_file, also in_sub_dir, and more names.
func TestATargetOfAnyNameIsFetchedAndKeptInTheFolder(t *testing.T) {
	for _, consistent := range []bool{true, false} {
		for _, tt := range targetNames {
			t.Run(tt.target, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.roles["root"]["consistent_snapshot"] = consistent
				w.list("targets", tt.target, "content")
				w.publish("root", "targets", "snapshot", "timestamp")
				prefix := ""
				if consistent {
					prefix = sumOf("sha256", []byte("content")) + "."
				}
				want := strings.Replace(tt.fetched, "HASH.", prefix, 1)
				if err := w.download(tt.target); err != nil || !slices.Equal(w.fetched, []string{want}) {
					t.Errorf("%v, fetched %q, want %q", err, w.fetched, want)
				}
				if got := w.downloaded(); !slices.Equal(got, []string{"content"}) {
					t.Errorf("downloaded %q", got)
				}
			})
		}
	}
}
