package main

import (
	"encoding/json"
	"testing"
)

// Whoever serves documents, or has one of the keys, must not be able to end the
// client with a document that lacks what every document has.
var malformed = []struct {
	name    string
	arrange func(w *world)
}{
	{"a target that is nothing, not even signed", func(w *world) {
		w.publish("targets", "snapshot", "timestamp")
		w.tamper("targets", func(d body) { d["signed"].(body)["targets"] = body{"x": nil} })
	}},
	{"a timestamp that names no snapshot", func(w *world) {
		w.roles["timestamp"]["meta"] = body{}
		w.publish("timestamp")
	}},
	{"a snapshot that is nothing", func(w *world) {
		w.roles["timestamp"]["meta"] = body{"snapshot.json": nil}
		w.publish("timestamp")
	}},
	{"a timestamp that says everything twice, and the second time names no snapshot", func(w *world) {
		w.roles["timestamp"]["meta"] = body{}
		w.publish("timestamp")
		last := &w.signed["timestamp"][len(w.signed["timestamp"])-1]
		*last = append([]byte(`{"signed":{"meta":{"snapshot.json":{"version":9}}},`), (*last)[1:]...)
	}},
	{"a timestamp of no meta", func(w *world) {
		delete(w.roles["timestamp"], "meta")
		w.publish("timestamp")
	}},
	{"a snapshot that names no targets", func(w *world) {
		w.roles["snapshot"]["meta"] = body{}
		w.publish("snapshot", "timestamp")
	}},
	{"targets that are nothing in the snapshot", func(w *world) {
		w.roles["snapshot"]["meta"] = body{"targets.json": nil}
		w.publish("snapshot", "timestamp")
	}},
	{"a root without the role of timestamps", func(w *world) {
		delete(w.at("root", "roles"), "timestamp")
		w.publish("root")
	}},
	{"a role of root that is nothing", func(w *world) {
		w.at("root", "roles")["timestamp"] = nil
		w.publish("root")
	}},
	{"a root without roles and keys", func(w *world) {
		delete(w.roles["root"], "roles")
		delete(w.roles["root"], "keys")
		w.publish("root")
	}},
	{"a key that is nothing", func(w *world) {
		w.at("root", "keys")[w.signers["timestamp"][0].id] = nil
		w.publish("root")
	}},
	{"a key that is too short", func(w *world) {
		w.signers["timestamp"][0].public["keyval"] = body{"public": "ab"}
		w.publish("root")
	}},
	{"a delegation that is nothing", func(w *world) {
		w.roles["targets"]["delegations"] = body{"keys": body{}, "roles": []any{nil}}
		w.publish("targets", "snapshot", "timestamp")
	}},
	{"a delegation with a key that is nothing", func(w *world) {
		delete(w.at("targets", "targets"), "file")
		w.delegate("targets", "A", body{"paths": []any{"*"}})
		w.list("A", "file", "content")
		w.at("targets", "delegations", "keys")[w.signers["A"][0].id] = nil
		w.publish("A", "targets", "snapshot", "timestamp")
	}},
	{"bins without bits", func(w *world) {
		w.roles["targets"]["delegations"] = body{"keys": body{}, "succinct_roles": body{"keyids": []any{}, "threshold": 1, "bit_length": 0, "name_prefix": "x"}}
		w.publish("targets", "snapshot", "timestamp")
	}},
	{"a list for a document", func(w *world) { w.signed["timestamp"] = [][]byte{[]byte("[]")} }},
	{"nothing for a document", func(w *world) { w.signed["timestamp"] = [][]byte{[]byte("null")} }},
	{"no bytes for a document", func(w *world) { w.signed["timestamp"] = [][]byte{{}} }},
	{"a document without signatures", func(w *world) { w.tamper("timestamp", func(d body) { delete(d, "signatures") }) }},
	{"a signature that is nothing", func(w *world) {
		w.tamper("timestamp", func(d body) { d["signatures"] = []any{nil} })
	}},
}

func TestAMalformedDocumentIsRefusedAndTheNextGoodOneTaken(t *testing.T) {
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, known := range []bool{false, true} {
				w := newWorld(t)
				w.list("targets", "file", "content")
				w.publish("targets", "snapshot", "timestamp")
				if known {
					w.refreshed()
				}
				good := w.copyRoles()
				tt.arrange(w)
				if err := w.download("file"); err == nil || len(w.fetched) > 0 {
					t.Errorf("known %v: got %v, fetched %v", known, err, w.fetched)
				}
				w.restore(good)
				w.publish("root", "root", "targets", "snapshot", "timestamp")
				if err := w.download("file"); err != nil {
					t.Errorf("known %v: what is good again: %v", known, err)
				}
			}
		})
	}
}

// copyRoles is what restore takes.
func (r *sim) copyRoles() []byte {
	data, err := json.Marshal(r.roles)
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

// restore lets roles say again what they said, in versions of now. Roots begin after
// the first: a client that refused the second waits for another second one.
func (r *sim) restore(data []byte) {
	var roles map[string]body
	if err := json.Unmarshal(data, &roles); err != nil {
		r.t.Fatal(err)
	}
	for name, role := range roles {
		role["version"] = r.roles[name]["version"]
	}
	if delegated := r.at("snapshot", "meta")["A.json"]; delegated != nil { // once named, always named
		roles["snapshot"]["meta"].(body)["A.json"] = delegated
	}
	r.roles, r.signed["root"] = roles, r.signed["root"][:1]
	r.roles["root"]["version"] = 1
}
