package api

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/backup"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// logWorld is a controller's log with boxes that witness it.
type logWorld struct {
	t     *testing.T
	clock *clock
	dir   string
	store *store.Store
	api   *API
	keys  [3]trust.PrivateKey
}

func newLogWorld(t *testing.T) *logWorld {
	w := &logWorld{t: t, clock: &clock{now: testStart}, dir: filepath.Join(t.TempDir(), "state"), api: &API{}}
	must(t, durable.MkdirAll(w.dir, 0o700))
	for i := range w.keys {
		var err error
		w.keys[i], err = trust.NewKey()
		must(t, err)
	}
	w.open(0)
	return w
}

// open is a start of a controller that signs with a key.
func (w *logWorld) open(key int) {
	w.t.Helper()
	var err error
	w.store, err = store.Open(w.t.Context(), store.Options{Path: filepath.Join(w.dir, "store.db"), WallClock: w.clock.Now})
	must(w.t, err)
	opened := w.store
	w.t.Cleanup(func() { opened.Close() })
	w.api.opts.Store, w.api.opts.Keyring = w.store, trust.DevelopmentKeyring(w.keys[key].Public())
	must(w.t, w.store.SignsAudit(w.t.Context(), w.keys[key].Public().String()))
}

func (w *logWorld) record(n int) {
	w.t.Helper()
	for i := range n {
		must(w.t, w.store.RecordAudit(audit.With(w.t.Context(), &audit.Draft{Actor: "anna", Source: "192.0.2.1", Verb: "site.set", Object: fmt.Sprint(i)})))
	}
	w.clock.add(time.Minute)
}

// sealed signs the newest head, as the controller does.
func (w *logWorld) sealed(key int) wire.AuditHead {
	w.t.Helper()
	head, err := w.store.AuditHead(w.t.Context())
	must(w.t, err)
	payload, err := head.Seal(w.clock.Now())
	must(w.t, err)
	envelope, err := trust.Sign(trust.TypeAudit, payload, w.keys[key])
	must(w.t, err)
	must(w.t, w.store.PutSeal(w.t.Context(), store.Seal{Seq: head.Seq, Time: w.clock.Now(), Envelope: envelope}))
	_, proof, err := trust.DevelopmentKeyring(w.keys[key].Public()).Prove(trust.TypeAudit, envelope)
	must(w.t, err)
	hash, err := hex.DecodeString(head.Hash)
	must(w.t, err)
	id, err := hex.DecodeString(string(proof.Key))
	must(w.t, err)
	return wire.AuditHead{Seq: uint64(head.Seq), Hash: hash, UnixS: w.clock.Now().Unix(), Key: id, Sig: proof.Sig}
}

const (
	boxA = identity.ID("d-aaaaaaaaaaaaa")
	boxB = identity.ID("d-bbbbbbbbbbbbb")
)

func (w *logWorld) tells(box identity.ID, heads ...wire.AuditHead) {
	w.t.Helper()
	must(w.t, w.store.AddBox(w.t.Context(), box, "box-"+string(box[2]), "a"))
	must(w.t, w.store.Hello(w.t.Context(), box, wire.Hello{V: wire.Version, Heads: heads}))
}

func (w *logWorld) verify() fleetapi.AuditState {
	w.t.Helper()
	state, err := w.api.verifyAudit(w.t.Context(), nil)
	must(w.t, err)
	return state
}

// T30: a head counts when a controller signed it. What a box makes up is the
// fault of the box.
func TestT30NoBoxMakesUpAHeadOfTheLog(t *testing.T) {
	w := newLogWorld(t)
	w.record(5)
	good := w.sealed(0)
	w.record(2)
	w.tells(boxA, good)
	for name, c := range map[string]struct {
		change          func(*wire.AuditHead)
		forged, unknown int
	}{
		"another hash":         {func(h *wire.AuditHead) { h.Hash = make([]byte, 32) }, 1, 0},
		"a later number":       {func(h *wire.AuditHead) { h.Seq = 900 }, 1, 0},
		"another time":         {func(h *wire.AuditHead) { h.UnixS++ }, 1, 0},
		"a key of its own":     {func(h *wire.AuditHead) { h.Key, h.Hash = make([]byte, 8), make([]byte, 32) }, 0, 1},
		"a key that fits":      {func(h *wire.AuditHead) { h.Key = make([]byte, 8) }, 0, 0},
		"another one's number": {func(h *wire.AuditHead) { h.Seq = 2 }, 1, 0},
	} {
		lie := good
		c.change(&lie)
		w.tells(boxB, lie)
		s := w.verify()
		if s.Broken != "" || len(s.Contradicted) != 0 || s.Witnesses != 1 || s.Witnessed != 5 || len(s.Forged) != c.forged || len(s.Unjudged) != c.unknown {
			t.Errorf("%s: %+v", name, s)
		}
		for _, f := range append(s.Forged, s.Unjudged...) {
			if f.Box != boxB || f.Name != "box-b" || f.Seq != int64(lie.Seq) {
				t.Errorf("%s is put down to %+v", name, f)
			}
		}
	}
}

// TestANewKeyOfTheControllerLeavesTheLogWhole: the log says from which key to which.
func TestANewKeyOfTheControllerLeavesTheLogWhole(t *testing.T) {
	w := newLogWorld(t)
	for key := range w.keys {
		must(t, w.store.Close())
		w.open(key)
		w.record(3)
		w.tells(boxA, w.sealed(key))
	}
	s := w.verify()
	if s.Broken != "" || s.Seals != 3 || s.Witnesses != 1 || len(s.Forged)+len(s.Unjudged) != 0 || s.Records != 11 {
		t.Errorf("%+v", s)
	}
	lines, err := w.store.AuditNewest(t.Context(), store.AuditQuery{Before: 9, Limit: 1})
	must(t, err)
	if r, err := audit.Parse(lines[0]); err != nil || r.Verb != audit.NewKey || r.Before != w.keys[1].Public().String() || r.After != w.keys[2].Public().String() {
		t.Errorf("record 8 is %s", lines[0])
	}
	w.api.opts.Keyring = trust.DevelopmentKeyring(w.keys[0].Public())
	if s := w.verify(); !strings.Contains(s.Broken, "not signed by this controller") {
		t.Errorf("seals of a key that the log does not name: %+v", s)
	}
}

// TestARestoreIsHistoryLossAndACutIsNot: what a backup lacks is lost, and the log
// says so; what was signed after the restore and is not there was cut.
func TestARestoreIsHistoryLossAndACutIsNot(t *testing.T) {
	w := newLogWorld(t)
	w.record(4)
	w.sealed(0)
	opts := backup.Options{State: w.dir, WallClock: w.clock.Now}
	file := filepath.Join(t.TempDir(), "b.tar")
	_, err := backup.Write(t.Context(), opts, file)
	must(t, err)
	w.record(6)
	seen := w.sealed(0)
	w.tells(boxA, seen)
	if s := w.verify(); s.Broken != "" || s.Witnessed != 10 {
		t.Fatalf("before: %+v", s)
	}
	must(t, w.store.Close())
	w.clock.add(time.Hour)
	_, err = backup.Restore(t.Context(), opts, file, true)
	must(t, err)
	w.open(0)
	w.tells(boxA, seen)
	s := w.verify()
	if s.Broken != "" || len(s.Contradicted) != 0 || s.Records != 5 || len(s.Restores) != 1 || s.Restores[0].Seq != 5 || s.Restores[0].Lost != 10 || !strings.Contains(s.Restores[0].Note, "from the backup of 20") {
		t.Errorf("right after: %+v", s)
	}
	w.record(9) // the log outgrows what was seen
	if s := w.verify(); s.Broken != "" || s.Restores[0].Lost != 10 {
		t.Errorf("later: %+v", s)
	}
	after := w.sealed(0)

	// The backup is put in place once more, as it is and without a word.
	must(t, w.store.Close())
	_, err = backup.Restore(t.Context(), opts, file, true)
	must(t, err)
	w.clock.add(time.Hour)
	w.open(0)
	w.record(20)
	later := w.sealed(0)
	w.tells(boxA, seen, after)
	if s := w.verify(); s.Broken != "" || len(s.Restores) != 1 || s.Restores[0].Lost != 14 {
		t.Errorf("a second restore: %+v", s)
	}
	w.tells(boxA, later)
	w.tells(boxB, seen)
	w.cut(10)
	if s := w.verify(); !strings.Contains(s.Broken, "cut, and box box-a has seen it") || s.BrokenSeq != 25 || len(s.Contradicted) != 1 || s.Restores[0].Lost != 10 {
		t.Errorf("a log that was cut after a restore: %+v", s)
	}
}

// cut leaves the first records and no trace of others in the database.
func (w *logWorld) cut(n int) {
	w.t.Helper()
	must(w.t, w.store.Close())
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "store.db"))
	must(w.t, err)
	var line []byte
	must(w.t, db.QueryRow(`SELECT line FROM audit WHERE seq = ?`, n).Scan(&line))
	for _, q := range []string{`DELETE FROM audit WHERE seq > ?1`, `DELETE FROM audit_seal WHERE seq > ?1`, `UPDATE audit_head SET seq = ?1, hash = ?2`} {
		_, err := db.Exec(q, n, audit.Hash(line))
		must(w.t, err)
	}
	must(w.t, db.Close())
	w.open(0)
}
