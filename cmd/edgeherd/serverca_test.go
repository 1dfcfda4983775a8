package main

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// TestARolloverEndsWhenEveryBoxKnowsTheNewRoot: who would be locked out is named,
// and --force says so in the audit log.
func TestARolloverEndsWhenEveryBoxKnowsTheNewRoot(t *testing.T) {
	state := t.TempDir()
	dir := filepath.Join(state, "ca")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(state, "store.db"), WallClock: time.Now})
	must(err)
	t.Cleanup(func() { s.Close() }) // as a controller that runs on
	db, err := sql.Open("sqlite", filepath.Join(state, "store.db"))
	must(err)
	t.Cleanup(func() { db.Close() })
	boxes := map[string]identity.ID{"till-1": "d-aaaaaaaaaaaaa", "till-2": "d-bbbbbbbbbbbbb", "till-3": "d-ccccccccccccc"}
	for name, id := range boxes {
		must(s.AddBox(t.Context(), id, name, "x"))
	}
	renews := func(name string) {
		t.Helper()
		ca, err := identity.OpenCA(dir, nil)
		must(err)
		key, err := identity.MakeKey(filepath.Join(t.TempDir(), "key.pem"))
		must(err)
		pem, err := ca.IssueDevice(boxes[name], "x", identity.Keys{Sign: key.Public()})
		must(err)
		_, err = db.Exec(`UPDATE device_cert SET state = 'superseded' WHERE box = ?`, boxes[name])
		must(err)
		_, err = db.Exec(`INSERT INTO device_cert (serial, box, key, state, changed_ms, ends_ms, address, pem) VALUES (hex(randomblob(8)), ?, '', 'current', 0, 0, '', ?)`, boxes[name], pem)
		must(err)
	}
	step := func(args ...string) (string, int) {
		var out, words bytes.Buffer
		code := run(t.Context(), append([]string{"server", "ca"}, append(args, "--state", state)...), terminal{in: strings.NewReader(""), out: &out, words: &words, env: func(string) string { return "" }})
		return words.String(), code
	}
	renews("till-1")
	renews("till-2")
	for _, verb := range []string{"begin", "switch"} {
		if words, code := step("rollover", verb); code != 0 {
			t.Fatalf("%s: %d: %s", verb, code, words)
		}
	}
	renews("till-1")
	words, code := step("rollover", "finish")
	if code != exitConflict || !strings.Contains(words, "2 of 3 boxes have no certificate by the new root: till-2 (d-bbbbbbbbbbbbb), till-3 (d-ccccccccccccc).") {
		t.Errorf("finish with two behind: %d: %s", code, words)
	}
	renews("till-2")
	_, err = s.ChangeStanding(t.Context(), store.Change{Box: boxes["till-3"], To: store.StateRevoked, By: "anna"})
	must(err)
	if ca, err := identity.OpenCA(dir, nil); err != nil || len(ca.Roots()) != 2 {
		t.Errorf("what was refused changed something: %v", err)
	}
	_, err = db.Exec(`UPDATE standing SET state = 'active'`) // it is found again
	must(err)
	if words, code := step("rollover", "finish", "--force"); code != 0 {
		t.Errorf("forced: %d: %s", code, words)
	}
	var verbs []string
	_, err = s.AuditLines(t.Context(), 0, 0, func(line []byte) error {
		r, err := audit.Parse(line)
		verbs = append(verbs, r.Verb+" "+r.Note)
		return err
	})
	must(err)
	want := "ca.rollover-begin ; ca.rollover-switch ; ca.rollover-finish 1 of 3 boxes have no certificate by the new root: till-3 (d-ccccccccccccc)"
	if got := strings.Join(verbs, "; "); !strings.HasSuffix(got, want) {
		t.Errorf("the audit log says %s\nwant %s", got, want)
	}
	if _, code := step("show"); code != 0 {
		t.Error("show")
	}
}
