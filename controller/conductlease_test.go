package controller

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// beside opens a second controller on the database of h, with the same keys.
func (h *herd) beside(database string) *Controller {
	h.t.Helper()
	opts := options(h.t.TempDir())
	opts.Database, opts.Blobs, opts.WallClock = database, h.c.blobs.Dir(), func() time.Time { return h.now }
	for _, dir := range []string{"ca", "keys"} {
		must(h.t, os.CopyFS(filepath.Join(opts.Dir, dir), os.DirFS(filepath.Join(h.c.opts.Dir, dir))))
	}
	c := mustOpen(h.t, opts)
	c.offerTime = h.c.offerTime
	h.t.Cleanup(func() { c.Close() })
	return c
}

// lead has a controller take the lease, and returns what it then writes with.
func lead(t *testing.T, c *Controller) context.Context {
	t.Helper()
	now, err := c.store.Beat(t.Context(), store.Beat{Name: "test", For: time.Hour})
	must(t, err)
	if now.Token == 0 {
		t.Fatal("another controller has the lease")
	}
	return store.Fenced(t.Context(), now.Token)
}

// A controller may be held up anywhere in a step, for longer than its lease. The
// other one conducts meanwhile; what the first does when it goes on reaches no
// box and no record.
func TestALeaseLostInTheMidstOfAStepStartsNothingTwice(t *testing.T) {
	server, err := storetest.New()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		storetest.Absent(t, err)
	}
	defer server.Remove()
	defer server.Stop()
	address, _, err := server.Create()
	must(t, err)
	h := newHerdOn(t, 4, address)
	other := h.beside(address)
	// Where the first controller is held up: before it looks, before it writes what
	// it decided, before it tells the first box, and between two boxes.
	for at, version := range []string{"1.0.0", "2.0.0", "3.0.0", "4.0.0"} {
		r := h.start("r-"+version, version)
		ctx := lead(t, h.c)
		held := h.heldUp(ctx, r, at, func() {
			must(t, h.c.store.Leave(t.Context())) // as the lease does that runs out
			mine := lead(t, other)
			for range 3 { // one reads it, one tells, one is too much
				must(t, other.step(mine))
			}
			if got := h.wanted(); got[version] != 4 {
				t.Errorf("held up at %d: the other one tells %v", at, got)
			}
		})
		// Who had not looked yet finds everything done.
		if !errors.Is(held, store.ErrFenced) && (at > 0 || held != nil) {
			t.Errorf("held up at %d: %v, want that another controller leads", at, held)
		}
		if err := h.c.step(ctx); !errors.Is(err, store.ErrFenced) && err != nil {
			t.Errorf("the next step of the one that leads no more: %v", err)
		}
		for _, b := range h.boxes() {
			if b.Desired.Generation != uint64(at+1) {
				t.Errorf("held up at %d: %s was told %d times, want %d", at, b.Name, b.Desired.Generation, at+1)
			}
		}
		records, err := other.store.RolloutRecords(t.Context(), r.ID)
		must(t, err)
		offers := 0
		for _, rec := range records {
			for _, d := range rec.Decisions {
				if d.Box != "" && d.To == string(fleetapi.TargetOffered) {
					offers++
				}
			}
		}
		if offers != 4 {
			t.Errorf("held up at %d: %d offers were decided, want one for each of 4 boxes", at, offers)
		}
		must(t, other.store.Leave(t.Context()))
	}
}

// heldUp does a step of the first controller and calls meanwhile in the midst.
func (h *herd) heldUp(ctx context.Context, r fleetapi.Rollout, at int, meanwhile func()) error {
	h.t.Helper()
	heads, err := h.c.store.RolloutHeads(ctx)
	must(h.t, err)
	l := look{head: heads[0], ages: map[string]int{}}
	for i, head := range heads {
		l.ages[head.ID] = len(heads) - i
	}
	if at == 0 {
		meanwhile()
		return h.c.stepRollout(ctx, l)
	}
	u, err := h.c.take(ctx, l.head)
	must(h.t, err)
	in, err := h.c.observe(ctx, u, l, h.now)
	must(h.t, err)
	rec, actions := u.course.Step(in, h.now.UTC())
	if at == 1 {
		meanwhile()
		return h.c.keep(ctx, u, r, rec)
	}
	must(h.t, h.c.keep(ctx, u, r, rec))
	if at == 3 {
		must(h.t, h.c.tellAll(ctx, r, actions[:1], l))
		actions = actions[1:]
	}
	meanwhile()
	return h.c.tellAll(ctx, r, actions, l)
}
