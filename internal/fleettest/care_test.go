package fleettest_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/fleettest"
)

// TestACloggedBoxIsVisitedAndProvesTheWork: what a box finds becomes a ticket,
// the ticket a visit, and the box itself tells that the cleaning helped, with a
// controller that is away most of the time. Three weeks take a minute of work
// even so: only with EDGEHERD_PROVE=1.
func TestACloggedBoxIsVisitedAndProvesTheWork(t *testing.T) {
	if os.Getenv("EDGEHERD_PROVE") == "" {
		t.Skip("EDGEHERD_PROVE=1 runs it; controller/upkeep keeps the same promise without agents")
	}
	const learnt, period = 15, 15 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		f := fleettest.New(t, 1)
		b := f.Boxes[0]
		var cleaned atomic.Bool
		stop := dustyBoard(t, b, period, func(days float64) float64 {
			if cleaned.Load() || days < learnt {
				return 0
			}
			return min((days-learnt)/4, 1) * 0.5
		})
		learn(t, f, b, learnt*24*time.Hour, period)
		b.Tune = func(o *agent.Options) {
			o.SensePeriod, o.SealPeriod, o.ResultPeriod = period, time.Hour, 6*time.Hour
		}
		b.StartAgent()
		f.StartController()
		ctx := context.Background()
		open := func(filter string) []fleetapi.Ticket {
			list, err := f.API.AllTickets(ctx, filter, "")
			if err != nil {
				t.Fatal(err)
			}
			return list.Items
		}
		// away lets days pass without a controller: the box goes on judging.
		away := func(days int) {
			f.StopController()
			time.Sleep(time.Duration(days) * 24 * time.Hour)
			f.StartController()
			time.Sleep(20 * time.Minute) // a link that was down for days waits up to five
		}
		for days := 0; len(open("due = true")) == 0; days += 5 {
			if days == 15 {
				t.Fatalf("no ticket after %d days of dust", days)
			}
			away(5)
		}
		first := open("due = true")[0]
		if box, err := f.API.Box(ctx, b.ID); err != nil || box.Health != first.Level || len(box.Thermal.Causes) == 0 || first.Box != b.ID || len(first.Evidence) == 0 {
			t.Errorf("the box is %s for %v, the ticket %+v, %v", box.Health, box.Thermal.Causes, first, err)
		}
		plan, err := f.API.PlanVisits(ctx, fleetapi.PlanVisits{Assignee: "kim", Keep: true})
		if err != nil || len(plan.Made) != 1 {
			t.Fatalf("plan %+v, %v", plan, err)
		}
		cleaned.Store(true)
		work := []fleetapi.Work{{Box: b.Name, Kind: fleetapi.WorkCleaned}}
		if _, err := f.API.ActOnVisit(ctx, plan.Made[0].ID, fleetapi.VisitAction{Action: "done", Work: work}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the box hears of it
		for days := 0; len(open("open = true")) > 0; days += 3 {
			if days == 9 {
				t.Fatalf("open %d days after the cleaning: %+v", days, open("open = true"))
			}
			away(3)
		}
		for _, k := range open("") {
			if k.State != fleetapi.TicketVerified {
				t.Errorf("%s %s ended %s (%s): %+v", k.ID, k.Cause, k.State, k.Resolution, k.Timeline)
			}
		}
		care, err := f.API.BoxCare(ctx, b.ID)
		if err != nil || care.Level != fleetapi.HealthHealthy || len(care.Changes) == 0 {
			t.Errorf("after all: %s, changes %+v, %v", care.Level, care.Changes, err)
		}
		stop()
		f.Close()
	})
}
