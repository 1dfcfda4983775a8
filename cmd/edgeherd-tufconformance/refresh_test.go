package main

import (
	"bytes"
	"testing"
)

// Each case arranges a repository and the client's past; then the client
// refreshes. trusted is what its folder has afterwards (root, timestamp,
// snapshot, targets), asked what the refresh asked for. The text of a case that
// the public suite has as well ends in its name there.
var refreshes = []struct {
	name                    string
	arrange                 func(w *world)
	refusal, trusted, asked string
}{
	{"a new client asks for each document once: basic", func(*world) {},
		"", "1 1 1 1", "root 2, timestamp, snapshot 1, targets 1"},
	{"nothing new costs two requests", func(w *world) { w.refreshed() },
		"", "1 1 1 1", "root 2, timestamp"},
	{"all is new", func(w *world) {
		w.refreshed()
		w.publish("root", "targets", "snapshot", "timestamp")
	}, "", "2 2 2 2", "root 2, root 3, timestamp, snapshot 2, targets 2"},

	// What is not signed as it must be ends the walk there.
	{"root without its signature: unsigned_metadata", unsigned("root"),
		"Verifying root failed", "1 - - -", "root 2"},
	{"timestamp without its signature: unsigned_metadata", unsigned("timestamp"),
		"Verifying timestamp failed", "2 - - -", "root 2, root 3, timestamp"},
	{"snapshot without its signature: unsigned_metadata", unsigned("snapshot"),
		"Verifying snapshot failed", "2 2 - -", "root 2, root 3, timestamp, snapshot 2"},
	{"targets without its signature: unsigned_metadata", unsigned("targets"),
		"Verifying targets failed", "2 2 2 -", "root 2, root 3, timestamp, snapshot 2, targets 2"},
	{"a timestamp made of a snapshot: incorrect_metadata_type", func(w *world) {
		w.authorise("snapshot", w.signers["timestamp"]...)
		w.roles["snapshot"]["meta"] = body{"snapshot.json": body{"version": 1}}
		w.publish("root", "snapshot")
		w.signed["timestamp"] = w.signed["snapshot"]
	}, "expected metadata type timestamp", "2 - - -", "root 2, root 3, timestamp"},

	// Versions.
	{"root 2 says that it is 3: url_and_metadata_version_mismatch", misnumbered("root"),
		"bad version number", "1 - - -", "root 2"},
	{"the snapshot after 1 is 3: url_and_metadata_version_mismatch", misnumbered("snapshot"),
		"no such document", "2 2 - -", "root 2, root 3, timestamp, snapshot 3"},
	{"the targets after 1 are 3: url_and_metadata_version_mismatch", misnumbered("targets"),
		"no such document", "2 2 2 -", "root 2, root 3, timestamp, snapshot 2, targets 3"},
	{"snapshot 2 is served as 1", func(w *world) {
		w.publish("snapshot")
		w.signed["snapshot"][0] = w.signed["snapshot"][1]
	}, "expected 1, got 2", "1 1 - -", "root 2, timestamp, snapshot 1"},
	{"the same timestamp with another content: timestamp_content_changes", func(w *world) {
		w.refreshed()
		w.at("timestamp", "meta", "snapshot.json")["version"] = 100
		w.forget("timestamp")
		w.publish("timestamp")
	}, "", "1 1 1 1", "root 2, timestamp"},
	{"targets that no snapshot names: new_targets_version_mismatch", func(w *world) {
		w.refreshed()
		w.publish("targets")
	}, "", "1 1 1 1", "root 2, timestamp"},
	{"a snapshot that no timestamp names: simple_snapshot_rollback", func(w *world) {
		w.publish("snapshot", "timestamp")
		w.refreshed()
		w.publish("snapshot")
	}, "", "1 2 2 1", "root 2, timestamp"},
	{"a timestamp that names the snapshot before the newest: new_snapshot_version_mismatch", func(w *world) {
		w.publish("snapshot")
		w.at("timestamp", "meta", "snapshot.json")["version"] = 1
		w.publish("root", "timestamp")
	}, "", "2 2 1 1", "root 2, root 3, timestamp, snapshot 1, targets 1"},

	// What is missing.
	{"no timestamp: timestamp_404", func(w *world) {
		w.refreshed()
		w.forget("timestamp")
	}, "no such document", "1 1 1 1", "root 2, timestamp"},
	{"no snapshot: snapshot_404", func(w *world) {
		w.refreshed()
		w.at("timestamp", "meta", "snapshot.json")["version"] = 2
		w.publish("timestamp")
	}, "no such document", "1 2 1 1", "root 2, timestamp, snapshot 2"},
	{"no targets: targets_404", func(w *world) {
		w.refreshed()
		w.at("snapshot", "meta", "targets.json")["version"] = 2
		w.publish("snapshot", "timestamp")
	}, "no such document", "1 2 2 1", "root 2, timestamp, snapshot 2, targets 2"},

	// Hashes and lengths in snapshot and timestamp.
	{"right hashes and lengths: basic_metadata_hash_support", func(w *world) {
		w.sums = true
		w.publish("targets", "snapshot", "timestamp")
	}, "", "1 2 2 2", "root 2, timestamp, snapshot 2, targets 2"},
	{"a wrong hash of targets: basic_metadata_hash_support", func(w *world) {
		w.sums = true
		w.publish("targets", "snapshot", "timestamp")
		w.refreshed()
		w.publish("targets")
		w.at("snapshot", "meta", "targets.json", "hashes")["sha256"] = sumOf("sha256", nil)
		w.publish("snapshot", "timestamp")
	}, "hash verification failed", "1 3 3 2", "root 2, timestamp, snapshot 3, targets 3"},
	{"a length without a hash", func(w *world) {
		w.sums = true
		w.publish("targets")
		delete(w.at("snapshot", "meta", "targets.json"), "hashes")
		w.at("snapshot", "meta", "targets.json")["length"] = 1000
		w.publish("snapshot", "timestamp")
	}, "length verification failed", "1 2 2 -", "root 2, timestamp, snapshot 2, targets 2"},
	{"a hash without a length", func(w *world) {
		w.sums = true
		w.publish("targets", "snapshot")
		delete(w.at("timestamp", "meta", "snapshot.json"), "length")
		w.publish("timestamp")
	}, "", "1 2 2 2", "root 2, timestamp, snapshot 2, targets 2"},
	{"a snapshot that is longer than it should be", func(w *world) {
		w.sums = true
		w.publish("snapshot")
		w.at("timestamp", "meta", "snapshot.json")["length"] = 10
		w.publish("timestamp")
	}, "is longer than 10 bytes", "1 2 - -", "root 2, timestamp, snapshot 2"},

	// What the client does not know.
	{"fields that nobody knows: custom_fields", func(w *world) {
		k := newKey(w.t, "ed25519")
		k.public["x-of"] = body{"a": 1, "b": []any{"<&>", nil, true}}
		k.rename(w.t)
		w.authorise("root", k)
		w.roles["root"]["x-note"] = "a \"note\", a \\, a\nline, ü and \u2028"
		w.at("root", "roles", "root")["x-more"] = "value"
		for _, role := range []string{"timestamp", "snapshot", "targets"} {
			w.roles[role]["x-note"] = body{"deep": []any{body{}}}
		}
		w.publish("root", "targets", "snapshot", "timestamp")
	}, "", "2 2 2 2", "root 2, root 3, timestamp, snapshot 2, targets 2"},
	{"a field of old with a wrong value: deprecated_keyid_hash_algorithms", func(w *world) {
		w.rotate("snapshot")
		k := w.signers["snapshot"][0]
		k.public["keyid_hash_algorithms"] = "md5"
		k.rename(w.t)
		w.signers["snapshot"], w.at("root", "roles", "snapshot")["keyids"] = nil, []any{}
		w.authorise("snapshot", k)
		w.publish("root", "snapshot", "timestamp")
	}, "", "2 2 2 1", "root 2, root 3, timestamp, snapshot 2, targets 1"},
	{"a later version of the same specification", func(w *world) {
		w.roles["timestamp"]["spec_version"] = "1.9.0"
		w.publish("timestamp")
	}, "", "1 2 1 1", "root 2, timestamp, snapshot 1, targets 1"},
	{"another specification", func(w *world) {
		w.roles["timestamp"]["spec_version"] = "2.0.0"
		w.publish("timestamp")
	}, "specification", "1 - - -", "root 2, timestamp"},
	{"a root of another specification", func(w *world) {
		w.roles["root"]["spec_version"] = "2.0.0"
		w.publish("root")
	}, "specification", "1 - - -", "root 2"},
	{"targets of no specification", func(w *world) {
		w.roles["targets"]["spec_version"] = ""
		w.publish("targets", "snapshot", "timestamp")
	}, "specification", "1 2 2 -", "root 2, timestamp, snapshot 2, targets 2"},

	{"a root that does not say whether snapshots are consistent", func(w *world) {
		delete(w.roles["root"], "consistent_snapshot")
		w.publish("root")
	}, "Verifying root failed", "1 - - -", "root 2"},
	{"a delegation that does not say whether it is terminating", func(w *world) {
		w.delegate("targets", "A", body{"paths": []any{"*"}})
		delete(w.at("targets", "delegations")["roles"].([]any)[0].(body), "terminating")
		w.publish("targets", "snapshot", "timestamp")
	}, "Verifying targets failed", "1 2 2 -", "root 2, timestamp, snapshot 2, targets 2"},

	// Names of files without versions.
	{"no consistent snapshot: requests without versions", func(w *world) {
		w.roles["root"]["consistent_snapshot"] = false
		w.publish("root")
	}, "", "2 1 1 1", "root 2, root 3, timestamp, snapshot, targets"},
}

// unsigned takes the signature of a role away.
func unsigned(role string) func(w *world) {
	return func(w *world) {
		w.signers[role] = nil
		w.publish("root", "targets", "snapshot", "timestamp")
	}
}

// misnumbered leaves out a version of a role.
func misnumbered(role string) func(w *world) {
	return func(w *world) {
		w.roles[role]["version"] = 2
		w.publish("root", "targets", "snapshot", "timestamp")
	}
}

func TestARefreshTakesWhatIsRightAndStopsAtWhatIsNot(t *testing.T) {
	for _, tt := range refreshes {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tt.arrange(w)
			w.check(w.refresh(), tt.refusal, tt.asked)
			if got := w.trusted(); got != tt.trusted {
				t.Errorf("trusted are %s, want %s", got, tt.trusted)
			}
		})
	}
}

// The suite's invalid_initial_root and unsigned_initial_root.
func TestAClientWithoutAGoodRootAsksForNothing(t *testing.T) {
	for name, spoil := range map[string]func(d body){
		"no version":      func(d body) { delete(d["signed"].(body), "version") },
		"wrong signature": func(d body) { d["signatures"].([]any)[0].(body)["sig"] = "3045" },
		"no signature":    func(d body) { d["signatures"] = []any{} },
		"of targets":      func(d body) { d["signed"].(body)["_type"] = "targets" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.tamper("root", spoil)
			if err := w.init(w.signed["root"][0]); err != nil {
				t.Fatal(err)
			}
			if err := w.refresh(); err == nil || len(w.asked) > 0 {
				t.Errorf("refresh: %v, asked %v", err, w.asked)
			}
		})
	}
}

// The suite's metadata_bytes_match: hashes are over what was served.
func TestMetadataIsKeptAsItWasServed(t *testing.T) {
	w := newWorld(t)
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		w.signed[role][0] = append(w.signed[role][0], " \n"...)
	}
	w.refreshed()
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		if got, want := w.kept(role), w.signed[role][0]; !bytes.Equal(got, want) {
			t.Errorf("%s is %q, want %q", role, got, want)
		}
	}
}
