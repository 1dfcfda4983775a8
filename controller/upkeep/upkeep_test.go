package upkeep_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const (
	till  = identity.ID("d-aaaaaaaaaaaaa")
	shelf = identity.ID("d-bbbbbbbbbbbbb")
)

// start is a Monday.
var start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// herd is a store with two boxes at one site, a desk, and a clock.
type herd struct {
	t     *testing.T
	now   time.Time
	store *store.Store
	desk  *upkeep.Desk
	seq   uint64
	told  map[identity.ID][]wire.Care
}

func newHerd(t *testing.T, channels ...upkeep.Channel) *herd {
	h := &herd{t: t, now: start, told: map[identity.ID][]wire.Care{}}
	clock := func() time.Time { return h.now }
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: clock})
	h.check(err)
	t.Cleanup(func() { s.Close() })
	h.store = s
	h.desk = upkeep.New(upkeep.Options{Store: s, WallClock: clock, Channels: channels,
		Tell: func(id identity.ID, c wire.Care) error { h.told[id] = append(h.told[id], c); return nil }}, slog.New(slog.DiscardHandler))
	h.check(s.AddBox(t.Context(), till, "till-1", "shop-7"))
	h.check(s.AddBox(t.Context(), shelf, "shelf-1", "shop-7"))
	for _, id := range []identity.ID{till, shelf} {
		h.check(s.Hello(t.Context(), id, wire.Hello{V: wire.Version, Inventory: wire.Inventory{Vendor: "Acme", Product: "A1"}, Clock: wire.Clock{Boot: wire.BootID{1}}}))
	}
	return h
}

func (h *herd) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// say stores what a box told, as ingest does.
func (h *herd) say(box identity.ID, e store.CareEffects) {
	h.t.Helper()
	h.seq++
	payload, err := wire.EncodeEvents([]wire.Event{{Type: wire.EventFinding}})
	h.check(err)
	d := store.Delivery{Box: box, StartMs: h.now.UnixMilli(), Block: wire.Block{Key: wire.Key{SID: wire.SID{7: 1}, Lane: wire.LaneEvents, Seq: h.seq},
		Boot: wire.BootID{1}, Kind: wire.KindEvents, Count: 1, Payload: payload, WallMs: h.now.UnixMilli(), Quality: wire.TimeSynced}}
	h.check(wire.Seal(&d.Block))
	_, err = h.store.Ingest(h.t.Context(), []store.Delivery{d}, func(store.Delivery) (store.Effects, error) { return store.Effects{Care: e}, nil })
	h.check(err)
}

func (h *herd) finds(f health.Finding, box identity.ID) {
	h.t.Helper()
	if f.Opened == 0 {
		f.Opened = health.Unix(h.now.Unix())
	}
	f.Box = string(box)
	body, err := json.Marshal(f)
	h.check(err)
	row := store.FindingRow{Box: box, Family: f.Family, OpenedMs: int64(f.Opened) * 1000, ClosedMs: int64(f.Closed) * 1000, TimeMs: h.now.UnixMilli(), Body: body}
	h.say(box, store.CareEffects{Findings: []store.FindingRow{row}})
	h.check(h.desk.TakeNews(h.t.Context()))
}

// hours lets a box run for a while with a resistance above the clean one.
func (h *herd) hours(box identity.ID, n int, excess float64) {
	h.t.Helper()
	var rows []store.HourRow
	for range n {
		hour := health.Hour{Start: h.now.Unix(), V: health.Blank(), Samples: 360, Period: 10}
		i := float64(hour.Start / 3600)
		noise := 0.01 * math.Sin(i*1.7) * math.Cos(i*0.61)
		power := 30 + 8*math.Sin(i/4)
		hour.V[health.Power], hour.V[health.PowerSD] = health.Value(power), 1
		hour.V[health.Inlet] = health.Value(24 + 2*math.Sin(i/24*2*math.Pi))
		hour.V[health.PWM], hour.V[health.PWMSD] = 0.5, 0.01
		hour.V[health.RPM1], hour.V[health.RPMSD] = health.Value(2000*(1+0.02*math.Sin(i/5))), 8
		hour.V[health.Die] = hour.V[health.Inlet] + health.Value(power*1.2*(1+excess)*(1+noise))
		raw, err := hour.AppendBinary(nil)
		h.check(err)
		rows = append(rows, store.HourRow{HourMs: hour.Start * 1000, Samples: 360, Body: raw})
		h.now = h.now.Add(time.Hour)
	}
	h.say(box, store.CareEffects{Hours: rows})
	h.check(h.desk.Judge(h.t.Context()))
}

func (h *herd) tickets() []fleetapi.Ticket {
	h.t.Helper()
	all, err := h.desk.Tickets(h.t.Context(), time.UnixMilli(0))
	h.check(err)
	return all
}

func airflow(level health.Level) health.Finding {
	return health.Finding{Family: "resistance", Cause: health.CauseAirflow, Level: level, Confidence: 0.82,
		Evidence: []health.Evidence{{Name: "resistance_percent", Value: 9, Text: "+9 % against the clean box"}}}
}

func TestACleaningIsProvedByTheBox(t *testing.T) {
	for _, c := range []struct {
		name  string
		after float64
		want  fleetapi.TicketState
	}{{"the filter was cleaned", 0.005, fleetapi.TicketVerified}, {"somebody only looked", 0.085, fleetapi.TicketReopened}} {
		t.Run(c.name, func(t *testing.T) {
			h := newHerd(t)
			h.hours(till, 24*12, 0)
			b, err := h.store.Box(t.Context(), till, 0)
			h.check(err)
			if heat, ok := care.ReadHeat(b.Heat); !ok || heat.Cooling == nil || math.Abs(heat.Cooling.KelvinPerWatt-1.2) > 0.03 || heat.Cooling.CoolHours == [24]bool{} {
				t.Fatalf("a box of 1.2 K/W told of %s", b.Heat)
			}
			h.hours(till, 24*9, 0.09)
			found := airflow(health.Ticket)
			found.Cause = health.CauseUndetermined // as the hours here are, which have no second sensor
			h.finds(found, till)
			all := h.tickets()
			if len(all) != 1 || all[0].State != fleetapi.TicketOpen || all[0].BoxName != "till-1" || all[0].Part != "filter" || all[0].SKU != "Acme A1" {
				t.Fatalf("tickets %+v", all)
			}
			ctx := t.Context()
			h.hours(till, 30, 0.09)
			if k := h.tickets()[0]; k.Evidence[0].Code != "rise" || k.Opening.Evidence[0].Text != "+9 % against the clean box" || !k.Measured.After(k.Opened) || len(k.Timeline) != 1 {
				t.Errorf("a day later the ticket says %+v, at its opening %+v", k.Evidence, k.Opening)
			}
			plan, err := h.desk.Plan(ctx, fleetapi.PlanVisits{Assignee: "kim", Keep: true}, "ops")
			h.check(err)
			if len(plan.Made) != 1 || len(plan.Parts) != 1 || h.tickets()[0].State != fleetapi.TicketDispatched {
				t.Fatalf("plan %+v", plan)
			}
			h.now = h.now.Add(time.Hour)
			_, err = h.desk.ActVisit(ctx, plan.Made[0].ID, fleetapi.VisitAction{Action: "done", Work: []fleetapi.Work{{Box: "till-1", Kind: fleetapi.WorkCleaned}}}, "kim")
			h.check(err)
			got := h.tickets()[0]
			if got.State != fleetapi.TicketDone || got.Check == nil || got.Check.Before < 6 || got.Check.Unmeasured {
				t.Fatalf("after the work: %+v, check %+v", got.State, got.Check)
			}
			if told := h.told[till]; len(told) == 0 || len(told[len(told)-1].Changes) != 1 || told[len(told)-1].Changes[0].Kind != health.Cleaned {
				t.Errorf("the box was told %+v", told)
			}
			h.hours(till, 20, c.after)
			h.check(h.desk.Verify(ctx))
			if s := h.tickets()[0].State; s != fleetapi.TicketDone {
				t.Fatalf("decided after 20 h: %s", s)
			}
			h.hours(till, 30, c.after)
			h.check(h.desk.Verify(ctx))
			got = h.tickets()[0]
			if got.State != c.want || got.Check.After == nil {
				t.Fatalf("after 50 h: %s, check %+v", got.State, got.Check)
			}
			report, err := h.desk.Report(ctx, start)
			h.check(err)
			if c.want == fleetapi.TicketVerified && (report.MTTA == nil || report.MTTR == nil || report.Reopened14 != 0) || c.want == fleetapi.TicketReopened && report.Reopened14 != 1 {
				t.Errorf("report %+v", report)
			}
		})
	}
}

// What one box shows of the point at which it throttles is told to its brothers,
// and what is judged here is judged by it, too.
func TestBoxesHearWhereTheirSKUThrottles(t *testing.T) {
	h := newHerd(t)
	var rows []store.HourRow
	for range 8 {
		hour := health.Hour{Start: h.now.Unix(), V: health.Blank(), Samples: 360, Period: 10}
		hour.V[health.Die], hour.V[health.Throttled] = 90.6, 0.2
		raw, err := hour.AppendBinary(nil)
		h.check(err)
		rows = append(rows, store.HourRow{HourMs: hour.Start * 1000, Samples: 360, Body: raw})
		h.now = h.now.Add(time.Hour)
	}
	h.say(till, store.CareEffects{Hours: rows})
	h.check(h.desk.Judge(t.Context()))
	for range 2 { // the second time there is no news
		h.check(h.desk.Learn(t.Context()))
	}
	if told := h.told[shelf]; len(told) != 1 || told[0].TripC != 90.5 || len(told[0].Prior) != 0 {
		t.Errorf("the other box was told %+v", told)
	}
	r, err := h.desk.Report(t.Context(), start)
	h.check(err)
	if p := r.Priors["Acme A1"]; p.TripC != 90.5 {
		t.Errorf("the report says %+v", p)
	}
}

// Other hardware in the place of a box is judged anew; the findings about the
// hardware of before are over.
func TestABoxThatWasReplacedIsLearntAnew(t *testing.T) {
	h := newHerd(t)
	h.hours(till, 24*12, 0)
	b := fleetapi.Box{ID: till, Name: "till-1", Site: "shop-7"}
	if v, err := h.desk.Box(t.Context(), b); err != nil || len(v.Days) == 0 {
		t.Fatalf("days %+v, %v", v.Days, err)
	}
	_, err := h.desk.AddVisit(t.Context(), fleetapi.NewVisit{Site: "shop-7", Done: true, Work: []fleetapi.Work{{Box: "till-1", Kind: fleetapi.WorkBoxReplaced, Part: "A1"}}}, "kim")
	h.check(err)
	if told := h.told[till]; len(told) == 0 || len(told[len(told)-1].Changes) != 1 || told[len(told)-1].Changes[0].Kind != health.Moved {
		t.Errorf("the box was told %+v", told)
	}
	h.hours(till, 2, 0.3)
	boxes, err := h.store.CareBoxes(t.Context())
	h.check(err)
	for _, b := range boxes {
		if heat, ok := care.ReadHeat(b.Heat); b.ID == till && (!ok || heat.Judged || heat.Learning == nil || heat.Learning.Days > 1) {
			t.Errorf("after it was replaced: %s", b.Heat)
		}
	}
}

func TestTwoBoxesInWarmAirAreOneTicketOfTheSite(t *testing.T) {
	h := newHerd(t, upkeep.Channel{Name: "chat", Quiet: []string{"00:00-24:00"}})
	warm := health.Finding{Family: "ambient", Cause: health.CauseAmbient, Level: health.Watch, Evidence: []health.Evidence{{Name: "above_usual_k", Value: 6, Text: "6 K warmer"}}}
	h.finds(warm, till)
	if n := len(h.tickets()); n != 0 {
		t.Fatalf("one warm box made %d tickets", n)
	}
	h.now = h.now.Add(time.Hour)
	h.finds(warm, shelf)
	all := h.tickets()
	if len(all) != 1 || all[0].Cause != "hvac" || all[0].Level != fleetapi.HealthUrgent || all[0].Box != "" || strings.Join(all[0].Boxes, " ") != "shelf-1 till-1" {
		t.Fatalf("tickets %+v", all)
	}
	due, err := h.store.DueNotices(t.Context(), 10)
	if err != nil || len(due) != 1 || !strings.HasPrefix(due[0].Key, "T-1/opened/") {
		t.Errorf("an urgent notice waits for the end of a quiet time: %+v, %v", due, err)
	}
	warm.Opened = health.Unix(h.now.Add(-time.Hour).Unix())
	h.now = h.now.Add(5 * time.Hour)
	warm.Closed, warm.ClosedBy = health.Unix(h.now.Unix()), "back to normal"
	h.finds(warm, till)
	if got := h.tickets()[0]; got.State != fleetapi.TicketClosed || got.Resolution != "cleared" {
		t.Errorf("after one box is back to normal: %s %s", got.State, got.Resolution)
	}
}

func TestNoticesWaitForTheEndOfQuietTimesAndAreQueuedOnce(t *testing.T) {
	h := newHerd(t, upkeep.Channel{Name: "mail", Quiet: []string{"22:00-06:00"}}, upkeep.Channel{Name: "other", Sites: []string{"elsewhere"}},
		upkeep.Channel{Name: "weekly", Least: fleetapi.HealthWatch}, upkeep.Channel{Name: "elsewhere", Sites: []string{"shop-8"}, Least: fleetapi.HealthWatch})
	h.now = start.Add(23 * time.Hour)
	h.finds(airflow(health.Ticket), till)
	h.finds(airflow(health.Ticket), till)
	due, err := h.store.DueNotices(t.Context(), 10)
	if err != nil || len(due) != 1 || due[0].Endpoint != "weekly" {
		t.Fatalf("due at 23:00: %+v, %v", due, err)
	}
	h.now = start.Add(30 * time.Hour)
	if due, err = h.store.DueNotices(t.Context(), 10); err != nil || len(due) != 2 {
		t.Errorf("due at 06:00: %d, %v", len(due), err)
	}
	watch := airflow(health.Watch)
	watch.Opened = health.Unix(start.Unix())
	h.finds(watch, shelf)
	h.now = start.Add(7*24*time.Hour + 8*time.Hour)
	for range 3 {
		h.check(h.desk.Digest(t.Context()))
	}
	last, err := h.store.LastNotices(t.Context(), 100)
	digests := 0
	for _, n := range last {
		if n.Key == "digest/2026-W11" && n.Endpoint == "weekly" && strings.Contains(string(n.Body), "shelf-1: airflow") {
			digests++
		}
	}
	if err != nil || digests != 1 {
		t.Errorf("%d digests of %+v, %v", digests, last, err)
	}
	for _, n := range last {
		if n.Endpoint == "elsewhere" {
			t.Errorf("who is told of another site only heard of %s", n.Key)
		}
	}
}

func TestAFalseAlarmIsMuted(t *testing.T) {
	h := newHerd(t)
	h.finds(airflow(health.Ticket), till)
	_, err := h.desk.Act(t.Context(), "T-1", fleetapi.TicketAction{Action: "close", Resolution: "false-alarm", Note: "sun"}, "ops")
	h.check(err)
	if told := h.told[till]; len(told) == 0 || len(told[len(told)-1].Mutes) != 1 || told[len(told)-1].Mutes[0].Family != "resistance" {
		t.Errorf("told %+v", told)
	}
	again := airflow(health.Ticket)
	again.Opened = health.Unix(h.now.Add(24 * time.Hour).Unix())
	h.finds(again, till)
	if n := len(h.tickets()); n != 1 {
		t.Errorf("%d tickets after a false alarm", n)
	}
	h.check(h.store.EndMutes(t.Context()))
	h.check(h.desk.TakeNews(t.Context()))
	if n := len(h.tickets()); n != 1 {
		t.Errorf("%d tickets while the mute holds", n)
	}
	h.now = h.now.Add(91 * 24 * time.Hour)
	h.check(h.store.EndMutes(t.Context())) // the box says nothing new: it is as it was
	h.check(h.desk.TakeNews(t.Context()))
	if n := len(h.tickets()); n != 2 {
		t.Errorf("%d tickets when the mute was over", n)
	}
}

func TestSKUsAreLearntAndTold(t *testing.T) {
	h := newHerd(t)
	h.hours(till, 24*10, 0)
	h.check(h.desk.Learn(t.Context()))
	report, err := h.desk.Report(t.Context(), start)
	if p := report.Priors["Acme A1"]; err != nil || p.Boxes != 1 || p.Air == 0 {
		t.Fatalf("priors %+v, %v", report.Priors, err)
	}
	for _, id := range []identity.ID{till, shelf} {
		if told := h.told[id]; len(told) != 1 || len(told[0].Prior) == 0 {
			t.Errorf("%s was told %d times", id, len(told))
		}
	}
	h.check(h.desk.Learn(t.Context()))
	if n := len(h.told[till]); n != 1 {
		t.Errorf("told %d times although nothing moved", n)
	}
}

func TestPersonsAndFindingsNeverMakeTwoTicketsOfACause(t *testing.T) {
	h := newHerd(t)
	ctx := t.Context()
	_, err := h.desk.Open(ctx, fleetapi.NewTicket{Box: "till-1", Cause: "airflow"}, "ops")
	h.check(err)
	if _, err = h.desk.Open(ctx, fleetapi.NewTicket{Box: string(till), Cause: "airflow"}, "ops"); err == nil {
		t.Error("a second ticket of a cause")
	} else if r, ok := upkeep.IsRefusal(err); !ok || !strings.Contains(r.Why, "T-1") {
		t.Errorf("said %v", err)
	}
	h.finds(airflow(health.Ticket), till)
	fan := health.Finding{Family: "fan1", Cause: health.CauseFanWear, Level: health.Ticket, Evidence: []health.Evidence{{Text: "slow"}}}
	h.finds(fan, till)
	fan.Family = "fan2"
	h.finds(fan, till)
	all := h.tickets()
	if len(all) != 2 || len(all[0].Families) != 1 || len(all[1].Families) != 2 {
		t.Errorf("tickets %s", words(all))
	}
}

// TestAVisitMovesItsOwnTicketsOnly: not those that another visit took over, nor
// those whose work waits for its proof.
func TestAVisitMovesItsOwnTicketsOnly(t *testing.T) {
	h := newHerd(t)
	ctx := t.Context()
	h.finds(airflow(health.Ticket), till)
	h.finds(airflow(health.Ticket), shelf)
	first, err := h.desk.AddVisit(ctx, fleetapi.NewVisit{Site: "shop-7", Assignee: "kim"}, "ops")
	h.check(err)
	second, err := h.desk.AddVisit(ctx, fleetapi.NewVisit{Site: "shop-7", Assignee: "alex", Tickets: []string{"T-1", "T-1"}}, "ops")
	h.check(err)
	if len(first.Tickets) != 2 || len(second.Tickets) != 1 {
		t.Fatalf("visits %+v, %+v", first, second)
	}
	states := func() string {
		var out []string
		for _, k := range h.tickets() {
			out = append(out, strings.TrimSpace(fmt.Sprint(k.ID, " ", k.State, " ", k.Visit, " ", k.Assignee)))
		}
		return strings.Join(out, "; ")
	}
	act := func(id string, a fleetapi.VisitAction) {
		t.Helper()
		_, err := h.desk.ActVisit(ctx, id, a, "kim")
		h.check(err)
	}
	act(first.ID, fleetapi.VisitAction{Action: "arrive"})
	if got := states(); got != "T-1 dispatched V-2 alex; T-2 on-site V-1 kim" {
		t.Errorf("after the first arrived: %s", got)
	}
	act(first.ID, fleetapi.VisitAction{Action: "done", Work: []fleetapi.Work{{Box: "till-1", Kind: fleetapi.WorkInspected}}})
	if got := states(); got != "T-1 dispatched V-2 alex; T-2 acknowledged" {
		t.Errorf("after the first: %s", got)
	}
	if last := h.tickets()[1].Timeline; last[len(last)-1].Text != "nobody worked on the box in V-1" {
		t.Errorf("its history says %+v", last[len(last)-1])
	}
	act(second.ID, fleetapi.VisitAction{Action: "done", Work: []fleetapi.Work{{Box: "till-1", Kind: fleetapi.WorkCleaned}}})
	_, err = h.desk.AddVisit(ctx, fleetapi.NewVisit{Site: "shop-7", Tickets: []string{"T-1"}}, "ops")
	if r, ok := upkeep.IsRefusal(err); !ok || !strings.Contains(r.Why, "T-1 is done") {
		t.Errorf("somebody is sent while the proof is awaited: %v", err)
	}
	_, err = h.desk.AddVisit(ctx, fleetapi.NewVisit{Site: "shop-7", Work: []fleetapi.Work{{Box: "till-1", Kind: fleetapi.WorkCleaned}}}, "ops")
	if _, ok := upkeep.IsRefusal(err); !ok {
		t.Errorf("work of a visit that is planned was dropped: %v", err)
	}
}

func words(all []fleetapi.Ticket) string {
	var b strings.Builder
	for _, t := range all {
		fmt.Fprintf(&b, "%s %s %s %v; ", t.ID, t.State, t.Cause, t.Families)
	}
	return b.String()
}

func TestRunEndsWithItsContext(t *testing.T) {
	h := newHerd(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.check(h.desk.Run(ctx))
}
