package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
)

// The suite's keytype_and_scheme; it has no P-384.
func TestEveryKindOfKeySignsAndItsWrongSignatureDoesNot(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa", "ecdsa-p384", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			k := newKey(t, kind)
			w.authorise("root", k)
			w.at("root", "roles", "root")["threshold"] = 2
			w.publish("root")
			w.refreshed()
			w.publish("root")
			// The signature that the same key made of the version before.
			w.tamper("root", func(d body) {
				var before body
				if err := json.Unmarshal(w.signed["root"][1], &before); err != nil {
					t.Fatal(err)
				}
				d["signatures"] = before["signatures"]
			})
			w.check(w.refresh(), "not enough signatures", "root 3")
			if got := w.trusted(); got != "2 1 1 1" {
				t.Errorf("trusted are %s", got)
			}
		})
	}
}

// Each case changes what signs the snapshot, or how it is signed.
var signings = []struct {
	name             string
	arrange          func(w *world)
	refusal, trusted string
}{
	{"three of three", func(w *world) {
		w.authorise("snapshot", newKey(w.t, "ed25519"), newKey(w.t, "ecdsa"))
		w.at("root", "roles", "snapshot")["threshold"] = 3
		w.publish("root", "snapshot", "timestamp")
	}, "", "2 2 2 1"},
	{"two of three: snapshot_does_not_meet_threshold", func(w *world) {
		w.authorise("snapshot", newKey(w.t, "ed25519"), newKey(w.t, "ecdsa"))
		w.at("root", "roles", "snapshot")["threshold"] = 3
		w.signers["snapshot"] = w.signers["snapshot"][:2]
		w.publish("root", "snapshot", "timestamp")
	}, "got 2, want 3", "2 2 - -"},
	{"more than there are keys: snapshot_has_too_few_keys", func(w *world) {
		w.at("root", "roles", "snapshot")["threshold"] = 2
		w.publish("root", "snapshot", "timestamp")
	}, "got 1, want 2", "2 2 - -"},
	{"a threshold of none", func(w *world) {
		w.at("root", "roles", "snapshot")["threshold"] = 0
		w.publish("root", "snapshot", "timestamp")
	}, "insufficient threshold", "2 2 - -"},
	{"one key that is named and signs nine times: duplicate_keys", func(w *world) {
		one := w.signers["snapshot"][0]
		for range 8 {
			w.authorise("snapshot", one)
		}
		w.at("root", "roles", "snapshot")["threshold"] = 6
		w.publish("root", "snapshot", "timestamp")
	}, "multiple signatures", "2 2 - -"},
	{"one key that is named nine times", func(w *world) {
		one := w.signers["snapshot"][0]
		for range 8 {
			w.authorise("snapshot", one)
		}
		w.at("root", "roles", "snapshot")["threshold"] = 6
		w.signers["snapshot"] = w.signers["snapshot"][:1]
		w.publish("root", "snapshot", "timestamp")
	}, "got 1, want 6", "2 2 - -"},
	{"one key under two names", func(w *world) {
		again := *w.signers["snapshot"][0]
		again.id = "another"
		w.authorise("snapshot", &again)
		w.at("root", "roles", "snapshot")["threshold"] = 2
		w.publish("root", "snapshot", "timestamp")
	}, "got 1, want 2", "2 2 - -"},
	{"a signature that is there twice: duplicate_sig_keyids", func(w *world) {
		w.signers["snapshot"] = append(w.signers["snapshot"], w.signers["snapshot"][0])
		w.publish("root", "snapshot", "timestamp")
	}, "multiple signatures", "2 2 - -"},
	{"a key whose id is not its hash", func(w *world) {
		k := newKey(w.t, "ecdsa")
		k.id = "the-key-of-snapshots"
		w.at("root", "roles", "snapshot")["keyids"], w.signers["snapshot"] = []any{}, nil
		w.authorise("snapshot", k)
		w.publish("root", "snapshot", "timestamp")
	}, "", "2 2 2 1"},
	{"a kind of key that nobody knows, beside one that signs", func(w *world) {
		k := newKey(w.t, "ed25519")
		k.public["keytype"], k.public["scheme"] = "ml-dsa-65", "ml-dsa-65"
		k.rename(w.t)
		w.authorise("snapshot", k)
		w.publish("root", "snapshot", "timestamp")
	}, "unsupported public key type", "2 2 - -"},
	{"a key that is named but not there", func(w *world) {
		w.at("root", "roles", "snapshot")["keyids"] = []any{w.signers["snapshot"][0].id, "missing"}
		w.publish("root", "snapshot", "timestamp")
	}, "key with ID missing not found", "2 2 - -"},
	{"a wrong signature beside a right one: invalid_sig_in_valid_metadata", func(w *world) {
		w.authorise("snapshot", newKey(w.t, "ecdsa"))
		w.publish("root", "snapshot", "timestamp")
		w.tamper("snapshot", func(d body) {
			sigs := d["signatures"].([]any)
			sigs[1].(body)["sig"] = sigs[0].(body)["sig"]
		})
	}, "", "2 2 2 1"},
	{"an empty signature beside a right one: invalid_sig_in_valid_metadata", func(w *world) {
		w.authorise("snapshot", newKey(w.t, "ed25519"))
		w.publish("root", "snapshot", "timestamp")
		w.tamper("snapshot", func(d body) { d["signatures"].([]any)[0].(body)["sig"] = "" })
	}, "", "2 2 2 1"},
	{"the signature of a key that nobody named beside a right one", func(w *world) {
		w.signers["snapshot"] = append(w.signers["snapshot"], newKey(w.t, "rsa"))
		w.publish("root", "snapshot", "timestamp")
	}, "", "2 2 2 1"},
	{"a signature of the same bytes by the key of another role", func(w *world) {
		w.signers["snapshot"] = w.signers["timestamp"]
		w.publish("root", "snapshot", "timestamp")
	}, "got 0, want 1", "2 2 - -"},
	{"a changed byte", func(w *world) {
		w.publish("root", "snapshot", "timestamp")
		w.tamper("snapshot", func(d body) { d["signed"].(body)["expires"] = days(300) })
	}, "got 0, want 1", "2 2 - -"},
}

func TestAThresholdCountsDifferentKeysThatSigned(t *testing.T) {
	for _, tt := range signings {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tt.arrange(w)
			asked := "root 2, root 3, timestamp, snapshot 2"
			if tt.refusal == "" {
				asked += ", targets 1"
			}
			w.check(w.refresh(), tt.refusal, asked)
			if got := w.trusted(); got != tt.trusted {
				t.Errorf("trusted are %s, want %s", got, tt.trusted)
			}
		})
	}
}

// signing is a version of a role: "KEYS THRESHOLD SIGNATURES", keys by digit.
type signing string

// apply makes a role of root as a signing says.
func (s signing) apply(t *testing.T, w *world, role string, keys []*key) {
	var named, signed string
	var threshold int
	if _, err := fmt.Sscan(string(s), &named, &threshold, &signed); err != nil {
		t.Fatal(err)
	}
	entry := w.at("root", "roles", role)
	entry["keyids"], entry["threshold"], w.signers[role] = []any{}, threshold, nil
	for _, digit := range named {
		w.authorise(role, keys[digit-'0'])
	}
	w.signers[role] = nil
	for _, digit := range signed {
		w.signers[role] = append(w.signers[role], keys[digit-'0'])
	}
}

// The suite's root_rotation. The last version is refused where good is false.
var rotations = []struct {
	name     string
	versions []signing
	good     bool
}{
	{"one key for another", []signing{"1 1 1", "2 1 21", "2 1 2"}, true},
	{"one key for another among signatures of strangers", []signing{"1 1 314", "2 1 3214", "2 1 324"}, true},
	{"any three of five", []signing{"01234 3 024", "01234 3 041", "01234 3 013", "01234 3 234"}, true},
	{"one of five for another", []signing{"01234 3 024", "01345 3 041"}, true},
	{"one of five for another, the old one signing once more", []signing{"01234 3 024", "01345 3 0245", "01345 3 045"}, true},
	{"five for five others", []signing{"01234 3 024", "56789 3 024567", "56789 3 567"}, true},
	{"a higher threshold", []signing{"123 1 1", "123 2 12"}, true},
	{"a lower threshold", []signing{"123 2 12", "123 1 12", "123 1 1"}, true},
	{"a second key that must sign", []signing{"1 1 1", "12 2 12"}, true},
	{"the old key did not sign", []signing{"1 1 1", "2 1 234"}, false},
	{"the new key did not sign", []signing{"1 1 1", "2 1 134"}, false},
	{"too few of the new keys", []signing{"01234 3 024", "01345 3 024"}, false},
	{"too few of the old keys", []signing{"01234 3 024", "01345 3 045"}, false},
	{"too few for the higher threshold", []signing{"123 1 1", "123 2 2"}, false},
	{"too few for the threshold that was higher", []signing{"123 2 12", "123 1 1"}, false},
}

func TestARootIsTakenIfTheKeysOfBeforeAndItsOwnSigned(t *testing.T) {
	for _, tt := range rotations {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, keys := newWorld(t), tenKeys(t)
			w.forget("root")
			for _, v := range tt.versions {
				v.apply(t, w, "root", keys)
				w.publish("root")
			}
			if err := w.init(w.signed["root"][0]); err != nil {
				t.Fatal(err)
			}
			last := len(tt.versions)
			if err := w.refresh(); (err == nil) != tt.good {
				t.Errorf("refresh: %v", err)
			}
			if !tt.good {
				last--
			}
			if got := w.kept("root"); !bytes.Equal(got, w.signed["root"][last-1]) {
				t.Errorf("the root is %s, want version %d", got, last)
			}
		})
	}
}

// The suite's non_root_rotations.
var roleRotations = []struct {
	name string
	signing
	good bool
}{
	{"another key", "2 1 2", true},
	{"among signatures of strangers", "1 1 314", true},
	{"the new key did not sign", "2 1 134", false},
	{"one of three signed with a key of before", "01345 3 024", false},
	{"one signature too few", "01345 3 04", false},
	{"three of five", "01234 3 024", true},
	{"three of five, in another order", "01234 3 041", true},
	{"three of five, the first two", "01234 3 013", true},
	{"three of five, those between", "01234 3 123", true},
	{"three of five, the last", "01234 3 234", true},
}

func TestARoleIsTakenIfTheKeysThatRootNamesNowSigned(t *testing.T) {
	for _, tt := range roleRotations {
		for _, role := range []string{"timestamp", "snapshot", "targets"} {
			t.Run(tt.name+" "+role, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.refreshed()
				tt.apply(t, w, role, tenKeys(t))
				w.publish("root", "targets", "snapshot", "timestamp")
				if err := w.refresh(); (err == nil) != tt.good {
					t.Errorf("refresh: %v", err)
				}
				if got, want := w.kept(role), w.signed[role][1]; bytes.Equal(got, want) != tt.good {
					t.Errorf("%s is %s", role, got)
				}
			})
		}
	}
}

func tenKeys(t *testing.T) (keys []*key) {
	for range 10 {
		keys = append(keys, newKey(t, "ed25519"))
	}
	return keys
}
