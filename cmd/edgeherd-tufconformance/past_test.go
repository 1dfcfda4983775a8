package main

import "testing"

// Cases of the client's past, as those of refreshes: what has ended, and what
// goes back to where it was.
var pasts = []struct {
	name                    string
	arrange                 func(w *world)
	refusal, trusted, asked string
}{
	{"the root has ended: root_expired", func(w *world) {
		w.refreshed()
		w.publish("root")
		w.refreshed()
		w.roles["root"]["expires"] = days(-1)
		w.publish("root", "timestamp")
	}, "root 3 expired", "3 1 1 1", "root 3, root 4"},
	{"a root between has ended", func(w *world) {
		w.roles["root"]["expires"] = days(-1)
		w.publish("root")
		w.roles["root"]["expires"] = days(30)
		w.publish("root")
	}, "", "3 1 1 1", "root 2, root 3, root 4, timestamp, snapshot 1, targets 1"},
	{"a new timestamp has ended: timestamp_expired", ended("timestamp", "timestamp"),
		"timestamp.json is expired", "1 1 1 1", "root 2, timestamp"},
	{"a new snapshot has ended: snapshot_expired", ended("snapshot", "snapshot", "timestamp"),
		"snapshot.json is expired", "1 2 1 1", "root 2, timestamp, snapshot 2"},
	{"new targets have ended: targets_expired", ended("targets", "targets", "snapshot", "timestamp"),
		"targets is expired", "1 2 2 1", "root 2, timestamp, snapshot 2, targets 2"},
	{"an ended snapshot in a repository that the client does not know", func(w *world) {
		w.roles["snapshot"]["expires"] = days(-5)
		w.publish("snapshot", "timestamp")
	}, "snapshot.json is expired", "1 2 - -", "root 2, timestamp, snapshot 2"},
	{"what is here has ended and nothing new came", func(w *world) {
		w.refreshed()
		w.in(40)
	}, "root 1 expired", "1 1 1 1", "root 2"},
	{"the clock is taken from faketime: faketime", func(w *world) {
		w.roles["root"]["expires"] = days(7)
		w.publish("root")
		w.refreshed()
		w.in(8)
	}, "root 2 expired", "2 1 1 1", "root 3"},
	{"the root here has ended, the new one not: expired_local_root", func(w *world) {
		w.roles["root"]["expires"] = days(7)
		w.publish("root")
		w.refreshed()
		w.roles["root"]["expires"] = days(21)
		w.publish("root")
		w.in(18)
	}, "", "3 1 1 1", "root 3, root 4, timestamp"},
	{"the timestamp here has ended, the new one not: expired_local_timestamp", func(w *world) {
		w.roles["timestamp"]["expires"] = days(7)
		w.publish("timestamp")
		w.refreshed()
		w.roles["timestamp"]["expires"] = days(21)
		w.publish("targets", "snapshot", "timestamp")
		w.in(18)
	}, "", "1 3 2 2", "root 2, timestamp, snapshot 2, targets 2"},
	{"the snapshot here has ended, the new one not", replaced("snapshot", "snapshot", "timestamp"),
		"", "1 3 3 1", "root 2, timestamp, snapshot 3"},
	{"the targets here have ended, the new ones not", replaced("targets", "targets", "snapshot", "timestamp"),
		"", "1 3 3 3", "root 2, timestamp, snapshot 3, targets 3"},
	{"the targets here have ended and nothing new came", func(w *world) {
		w.roles["targets"]["expires"] = days(7)
		w.publish("targets", "snapshot", "timestamp")
		w.refreshed()
		w.in(18)
	}, "targets is expired", "1 2 2 2", "root 2, timestamp, targets 2"},
	{"an ended timestamp still guards against older ones", func(w *world) {
		w.roles["timestamp"]["expires"] = days(7)
		w.publish("timestamp")
		w.refreshed()
		w.forget("timestamp")
		w.roles["timestamp"]["expires"] = days(30)
		w.publish("timestamp")
		w.in(18)
	}, "timestamp version 1 must be >= 2", "1 2 1 1", "root 2, timestamp"},
	{"an ended root does not make the client forget what it saw", func(w *world) {
		w.roles["root"]["expires"] = days(7)
		w.publish("root", "timestamp")
		w.refreshed()
		w.in(18)
		if w.refresh() == nil {
			w.t.Error("an ended root did for a refresh")
		}
		w.roles["root"]["expires"] = days(30)
		w.publish("root")
		w.forget("timestamp")
		w.publish("timestamp")
	}, "timestamp version 1 must be >= 2", "3 2 1 1", "root 3, root 4, timestamp"},

	{"an older timestamp: new_timestamp_version_rollback", func(w *world) {
		w.publish("timestamp")
		w.refreshed()
		w.forget("timestamp")
		w.publish("timestamp")
	}, "timestamp version 1 must be >= 2", "1 2 1 1", "root 2, timestamp"},
	{"an older snapshot: snapshot_rollback", olderSnapshot(false),
		"snapshot version 1 must be >= 2", "1 2 2 1", "root 2, timestamp"},
	{"an older snapshot with its hash: snapshot_rollback", olderSnapshot(true),
		"snapshot version 1 must be >= 2", "1 2 2 1", "root 2, timestamp"},
	{"older targets: targets_rollback", olderTargets(false),
		"expected targets.json version", "1 3 2 2", "root 2, timestamp, snapshot 3"},
	{"older targets with their hash: targets_rollback", olderTargets(true),
		"expected targets.json version", "1 3 2 2", "root 2, timestamp, snapshot 3"},
	{"a snapshot that names fewer roles", func(w *world) {
		w.at("snapshot", "meta")["other.json"] = body{"version": 1}
		w.publish("snapshot", "timestamp")
		w.refreshed()
		delete(w.at("snapshot", "meta"), "other.json")
		w.publish("snapshot", "timestamp")
	}, "missing info for other.json", "1 3 2 1", "root 2, timestamp, snapshot 3"},

	// The way out for someone whose keys were stolen and versions driven up.
	{"a new key for timestamps lets them begin anew: new_timestamp_fast_forward_recovery", func(w *world) {
		w.roles["timestamp"]["version"] = 99
		w.publish("timestamp")
		w.refreshed()
		w.rotate("timestamp")
		w.forget("timestamp")
		w.publish("root", "timestamp")
	}, "", "2 1 1 1", "root 2, root 3, timestamp, snapshot 1"},
	{"new keys for both let snapshots begin anew: new_snapshot_fast_forward_recovery", func(w *world) {
		fastForward(w, "snapshot")
		w.publish("timestamp")
		w.refreshed()
		w.rotate("snapshot")
		w.rotate("timestamp")
		w.forget("snapshot")
		w.publish("root", "snapshot", "timestamp")
	}, "", "2 3 1 1", "root 2, root 3, timestamp, snapshot 1"},
	{"a new key for snapshots lets targets begin anew: new_targets_fast_forward_recovery", func(w *world) {
		fastForward(w, "targets")
		w.publish("snapshot", "timestamp")
		w.refreshed()
		w.rotate("snapshot")
		w.forget("targets")
		w.publish("root", "targets", "snapshot", "timestamp")
	}, "", "2 3 3 1", "root 2, root 3, timestamp, snapshot 3, targets 1"},
}

// ended publishes an ended version of a role to a client that has the one before.
func ended(role string, publish ...string) func(w *world) {
	return func(w *world) {
		w.refreshed()
		w.roles[role]["expires"] = days(-5)
		w.publish(publish...)
	}
}

// replaced publishes a version of a role that ends after a week to a client that
// comes back with it after that, and then one that goes on.
func replaced(role string, publish ...string) func(w *world) {
	return func(w *world) {
		w.roles[role]["expires"] = days(7)
		w.publish(publish...)
		w.refreshed()
		w.roles[role]["expires"] = days(21)
		w.publish(publish...)
		w.in(18)
	}
}

func olderSnapshot(sums bool) func(w *world) {
	return func(w *world) {
		w.sums = sums
		w.publish("snapshot", "timestamp")
		w.refreshed()
		w.forget("snapshot")
		w.publish("snapshot", "timestamp")
	}
}

func olderTargets(sums bool) func(w *world) {
	return func(w *world) {
		w.sums = sums
		w.publish("targets", "snapshot", "timestamp")
		w.refreshed()
		w.forget("targets")
		w.publish("targets", "snapshot", "timestamp")
	}
}

// fastForward brings a role to version 100.
func fastForward(w *world, role string) {
	for range 99 {
		w.publish(role)
	}
}

func TestWhatHasEndedOrGoesBackIsNotTaken(t *testing.T) {
	for _, tt := range pasts {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.arrange(w)
			w.check(w.refresh(), tt.refusal, tt.asked)
			if got := w.trusted(); got != tt.trusted {
				t.Errorf("trusted are %s, want %s", got, tt.trusted)
			}
		})
	}
}
