package controller

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

// crowd is a controller whose database was filled with boxes behind its back,
// and that reports for them in the same way.
type crowd struct {
	*herd
	db  *sql.DB
	ids []identity.ID
}

func newCrowd(t *testing.T, n int) *crowd {
	h := newHerd(t, 0)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.c.opts.Dir, "store.db")+"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w := &crowd{herd: h, db: db}
	old := fmt.Sprintf(`{"generation":0,"models":[{"name":"vad","version":"1.0.0","digest":%q}]}`, blob.Sum([]byte("1.0.0")))
	w.tx(func(exec func(string, ...any)) {
		for i := range n {
			id := identity.NewID()
			w.ids = append(w.ids, id)
			exec(`INSERT INTO box (id, name, site, enrolled_ms, last_seen_ms, connected, inventory, running) VALUES (?,?,?,?,?,?,?,?)`, id, fmt.Sprintf("box-%06d", i),
				fmt.Sprintf("site-%d", i%(1+n/20)), 1, h.now.UnixMilli(), true, `{"name":"b","class":"itx","vendor":"v","product":"p","serial":"1","arch":"amd64","cpus":8,"agent":"1.0.0"}`, old)
		}
	})
	return w
}

func (w *crowd) tx(do func(exec func(string, ...any))) {
	w.t.Helper()
	tx, err := w.db.Begin()
	if err != nil {
		w.t.Fatal(err)
	}
	do(func(text string, args ...any) {
		if _, err := tx.Exec(text, args...); err != nil {
			w.t.Fatal(err)
		}
	})
	if err := tx.Commit(); err != nil {
		w.t.Fatal(err)
	}
}

// report lets boxes serve the version of r.
func (w *crowd) report(r fleetapi.Rollout, ids []identity.ID) {
	w.t.Helper()
	running := fmt.Sprintf(`{"generation":1,"models":[{"name":"vad","version":%q,"digest":%q}]}`, r.Target.Version, r.Target.Digest)
	w.tx(func(exec func(string, ...any)) {
		for _, id := range ids {
			exec(`UPDATE box SET running = ? WHERE id = ?`, running, id)
			exec(`INSERT INTO phase (box, digest, rollout, kind, name, version, phase, err, body, t_ms, boot, mono_ms, seq) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
				ON CONFLICT DO NOTHING`, id, r.Target.Digest.String(), r.ID, "model", "vad", r.Target.Version, "active", "", "{}", w.now.UnixMilli(), []byte{0}, 0, 0)
		}
	})
	for _, id := range ids {
		w.c.changes.add(id)
	}
}

// told are boxes that were offered the version and have not succeeded, some.
func (w *crowd) told(id string, n int) []identity.ID {
	var out []identity.ID
	for _, wave := range w.c.underWay[id].course.Rollout().Waves {
		for _, t := range wave.Targets {
			if t.State == fleetapi.TargetOffered && w.c.underWay[id].course.Fact(t.Box).DesiredRollout == id && len(out) < n {
				out = append(out, t.Box)
			}
		}
	}
	return out
}

// TestALargeRolloutMovesInShortSteps: EDGEHERD_PROVE=1 takes 100,000 boxes and
// prints the figures that internal/bench reads.
func TestALargeRolloutMovesInShortSteps(t *testing.T) {
	n, ticks := 6000, 12
	if os.Getenv("EDGEHERD_PROVE") != "" {
		n, ticks = 100_000, 60
	}
	w := newCrowd(t, n)
	began := time.Now()
	var views []fleetapi.Box
	for _, b := range w.boxes() {
		views = append(views, registry.View(b, w.now))
	}
	ref := models.Ref{Name: "vad", Version: "2.0.0", Digest: blob.Sum([]byte("2.0.0"))}
	r, err := rollout.Plan(rollout.Order{ID: "r-1", Kind: fleetapi.KindModel, Request: fleetapi.PlanRequest{Model: ref.String(),
		Policy: "waves: [rest]\ngates: {error_limit: 5%, evidence: {bad: 5%}}\n"}, Target: ref, Boxes: views, Now: w.now.UTC()})
	if err != nil {
		t.Fatal(err)
	}
	w.put(w.act(r, rollout.ActStart))
	views = nil
	t.Logf("figure planning %.3f s", time.Since(began).Seconds())
	began = time.Now()
	w.step()
	t.Logf("figure taking-up %.3f s", time.Since(began).Seconds())
	var took, latency []time.Duration
	wait := time.Second
	for range ticks {
		reports := w.told("r-1", int(50*wait.Seconds()))
		w.report(r, reports)
		w.now = w.now.Add(wait)
		began := time.Now()
		w.step()
		d := time.Since(began)
		took = append(took, d)
		for i := range reports { // they came one after the other while the conductor waited
			latency = append(latency, wait*time.Duration(i)/time.Duration(len(reports))+d)
		}
		wait = max(time.Second, d) // as conduct does
	}
	slices.Sort(took)
	slices.Sort(latency)
	t.Logf("figure tick-median %.3f s", took[len(took)/2].Seconds())
	t.Logf("figure tick-max %.3f s", took[len(took)-1].Seconds())
	t.Logf("figure decision-p99 %.3f s", latency[len(latency)*99/100].Seconds())
	t.Logf("figure memory %.0f MiB", peakMiB(t))
	done := 0
	for _, target := range w.rollout("r-1").Waves[0].Targets {
		if target.State == fleetapi.TargetSucceeded {
			done++
		}
	}
	if want := len(latency); done != want {
		t.Errorf("%d boxes succeeded, %d reported", done, want)
	}
	w.inStep("r-1")
}

// inStep checks that what is stored is what the conductor holds, and that the
// log gives the same rollout again.
func (w *crowd) inStep(id string) {
	w.t.Helper()
	stored, held := w.rollout(id), w.c.underWay[id].course.Rollout()
	held.Sheet = stored.Sheet // of the plan: the conductor does not read it
	a, err1 := json.Marshal(stored)
	b, err2 := json.Marshal(held)
	if err1 != nil || err2 != nil || string(a) != string(b) {
		w.t.Errorf("what is stored is not what the conductor holds: %v %v", err1, err2)
	}
	records, err := w.c.store.RolloutRecords(w.t.Context(), id)
	if err != nil || len(records) == 0 {
		w.t.Errorf("%d records, %v", len(records), err)
	}
}

// peakMiB is the most memory that this process has had.
func peakMiB(t *testing.T) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kb float64
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb / 1024
}
