package fleettest_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// back lets a box that was lost reach the network again.
func (b *post) back() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = false
}

// allSay waits until every controller has said something since the last call
// of hush.
func (r *rig) allSay(text string) {
	r.t.Helper()
	for i, h := range r.hosts {
		await(r.t, time.Minute, fmt.Sprintf("controller %d says %q", i, text), func() error {
			if !strings.Contains(h.said.String(), text) {
				return errors.New("it does not")
			}
			return nil
		})
	}
}

// hush forgets what was said.
func (r *rig) hush() {
	for _, h := range r.hosts {
		h.said.mu.Lock()
		h.said.text.Reset()
		h.said.mu.Unlock()
	}
}

// TestControllersOutliveTheirDatabase takes PostgreSQL away from two controllers
// at work, once with a word to its clients and once without, while a box is lost.
// Nobody restarts anything but PostgreSQL.
func TestControllersOutliveTheirDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	t.Parallel()
	assets.Program(t, "haproxy")
	r := newRig(t, 2, 4, "")
	r.startAll()
	r.startBoxes(r.balance())
	r.allConnected(time.Minute)
	stop := r.work()
	for round, end := range []func(){r.pg.Stop, r.pg.Kill} {
		lost := r.boxes[round]
		r.hush()
		end()
		r.allSay("other controllers not reached")
		lost.lose()
		await(t, time.Minute, "the end of its session cannot be stored", func() error {
			for _, h := range r.hosts {
				if strings.Contains(h.said.String(), "the end of a session is not stored yet") {
					return nil
				}
			}
			return errors.New("nobody says so")
		})
		before := r.delivered()
		must(t, r.pg.Start())
		await(t, time.Minute, "the lost box is gone and the others are there", func() error {
			if n := r.ask(`SELECT count(*) FROM box WHERE connected`); n != strconv.Itoa(len(r.boxes)-1) {
				return fmt.Errorf("%s boxes are connected", n)
			}
			if r.ask(`SELECT connected FROM box WHERE id = '`+string(lost.id.ID)+`'`) != "f" {
				return errors.New("the lost one is among them")
			}
			return nil
		})
		await(t, 2*time.Minute, "the others deliver again", func() error {
			if now := r.delivered(); now <= before {
				return fmt.Errorf("%d blocks were acknowledged, as before", now)
			}
			return nil
		})
		lost.back()
		r.allConnected(time.Minute)
		// The lease is held, by one, and messages go from controller to controller.
		r.done(r.hosts[1], r.roll(r.hosts[0], r.push(r.hosts[0], fmt.Sprintf("1.0.%d", round))))
		if n := r.ask(`SELECT count(*) FROM lease JOIN node ON node.id = lease.node`); n != "1" {
			t.Errorf("%s controllers lead", n)
		}
	}
	stop()
	r.settle()
	for i, h := range r.hosts {
		s, err := h.api().Summary(t.Context())
		must(t, err)
		if s.Links[string(fleetapi.LinkLive)] != len(r.boxes) {
			t.Errorf("controller %d shows %v, want all boxes live", i, s.Links)
		}
	}
}

// delivered counts the blocks that were acknowledged to all boxes together.
func (r *rig) delivered() (n uint64) {
	for _, b := range r.boxes {
		n += b.link.Status().Acked
	}
	return n
}
