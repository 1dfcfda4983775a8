package bench

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/models"
)

// rolloutAck is how long it takes from the decision that a box gets a version
// until the controller has acknowledged the report of the box that it did, in a
// fleet that is online and sends a block a minute and box: one controller process,
// its broker and its database, and a rollout as the default policy has it.
func rolloutAck(t *testing.T) []Figure {
	n := fleetSize()
	b := newTestbed(t, n, program(t, "edgeherd"))
	heard := &hearing{at: make([]time.Time, n), left: n, all: make(chan struct{})}
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(b.state, "store.db")})
	check(t, err)
	defer db.Close()
	id := ""
	b.run(n, loadgen.Options{
		Every: time.Minute, For: 15 * time.Minute, Handshakes: 16, Connect: 10 * time.Minute, Enough: heard.all, Obeyed: heard.obeyed,
		Progress: func(p loadgen.Progress) {
			if id == "" && p.Connected == n {
				id = rolloutOf(t, db)
			}
		},
	})
	r, err := db.Rollout(t.Context(), id)
	check(t, err)
	var took []float64
	for _, w := range r.Waves {
		for _, target := range w.Targets {
			if at := heard.at[slices.Index(b.boxes, target.Box)]; target.Offered != nil && !at.IsZero() {
				took = append(took, at.Sub(*target.Offered).Seconds())
			}
		}
	}
	if len(took) < n {
		t.Fatalf("%d of %d boxes acknowledged: %s, %s", len(took), n, r.State, r.Sentence)
	}
	slices.Sort(took)
	return []Figure{
		{Name: "desired-to-acknowledged-p50", Value: took[n/2], Unit: "s"},
		{Name: "desired-to-acknowledged-p99", Value: took[n*99/100], Unit: "s", Goal: Goal{AtMost: 2}},
		{Name: "desired-to-acknowledged-max", Value: took[n-1], Unit: "s"},
	}
}

// hearing is when the controller acknowledged each box.
type hearing struct {
	mu   sync.Mutex // guards the fields below
	at   []time.Time
	left int
	all  chan struct{}
}

func (h *hearing) obeyed(box int, _ uint64, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at[box].IsZero() {
		h.at[box] = at
		if h.left--; h.left == 0 {
			close(h.all)
		}
	}
}

// rolloutOf starts a rollout to all boxes. It does so in the database: what people
// do comes in by it too, on another controller.
func rolloutOf(t *testing.T, db *store.Store) string {
	boxes, err := db.Boxes(t.Context(), 0)
	check(t, err)
	now := time.Now().UTC()
	var views []fleetapi.Box
	for _, b := range boxes {
		views = append(views, registry.View(b, now))
	}
	target := models.Ref{Name: "vad", Version: "2.0.0", Digest: blob.Sum([]byte("2.0.0"))}
	r, err := rollout.Plan(rollout.Order{ID: "r-acknowledged", Kind: fleetapi.KindModel,
		Request: fleetapi.PlanRequest{Model: target.String(), Waves: []string{"rest"}}, Target: target, Boxes: views, Now: now})
	check(t, err)
	r, err = rollout.Act{Action: rollout.ActStart}.On(r, now)
	check(t, err)
	check(t, db.PutRollout(t.Context(), r))
	return r.ID
}
