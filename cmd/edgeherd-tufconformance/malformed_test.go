package main

import "testing"

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
		w.delegate("targets", "A", body{"paths": []any{"*"}})
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
				if known {
					w.refreshed()
				}
				tt.arrange(w)
				if err := w.download("file"); err == nil {
					t.Error("the download of nothing succeeded")
				}
			}
		})
	}
}
