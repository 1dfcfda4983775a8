package care_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

var place = care.Place{BoxName: "till-1", Site: "shop-7", Region: "north"}

func finding(family, cause string, level fleetapi.Health) fleetapi.Finding {
	return fleetapi.Finding{Box: "d-aaaaaaaaaaaaa", Family: family, Cause: cause, Level: level, Confidence: 0.8, Since: now.Add(-time.Hour), Opened: now,
		Evidence: []fleetapi.Evidence{{Name: "x", Text: family + " says so"}}}
}

func over(f fleetapi.Finding) fleetapi.Finding {
	at := now
	f.Closed, f.ClosedBy = &at, "back to normal"
	return f
}

// desk keeps tickets as the store does.
type desk struct {
	tickets []fleetapi.Ticket
	made    int
}

func (d *desk) take(changed []fleetapi.Ticket) {
	for _, t := range changed {
		if t.ID == "" {
			d.made++
			t.ID = fmt.Sprint("T-", d.made)
		}
		i := slices.IndexFunc(d.tickets, func(o fleetapi.Ticket) bool { return o.ID == t.ID })
		if i < 0 {
			d.tickets = append(d.tickets, t)
		} else {
			d.tickets[i] = t
		}
	}
}

func (d *desk) String() string {
	var out []string
	for _, t := range d.tickets {
		out = append(out, fmt.Sprintf("%s %s %s %s %s", t.ID, t.State, t.Level, t.Cause, strings.Join(t.Families, "+")))
	}
	return strings.Join(out, "; ")
}

const (
	watch  = fleetapi.HealthWatch
	ticket = fleetapi.HealthTicket
	urgent = fleetapi.HealthUrgent
)

func TestFindingsBecomeTickets(t *testing.T) {
	slow, step := finding("resistance", "undetermined", ticket), finding("step", "blocked-vent", urgent)
	airflow := finding("resistance", "airflow", ticket)
	for _, c := range []struct {
		name  string
		found []fleetapi.Finding
		want  string
	}{
		{"watch makes none", []fleetapi.Finding{finding("resistance", "airflow", watch)}, ""},
		{"a ticket", []fleetapi.Finding{slow}, "T-1 open ticket undetermined resistance"},
		{"said twice", []fleetapi.Finding{slow, slow}, "T-1 open ticket undetermined resistance"},
		{"raised, and it never falls", []fleetapi.Finding{slow, finding("resistance", "undetermined", urgent), slow}, "T-1 open urgent undetermined resistance"},
		{"its cause becomes known", []fleetapi.Finding{slow, airflow}, "T-1 open ticket airflow resistance"},
		{"two causes are two tickets", []fleetapi.Finding{slow, step}, "T-1 open ticket undetermined resistance; T-2 open urgent blocked-vent step"},
		{"one cause of two families is one", []fleetapi.Finding{finding("fan1", "fan-wear", ticket), finding("fan2", "fan-wear", ticket)}, "T-1 open ticket fan-wear fan1+fan2"},
		{"a changed cause joins the ticket that is there", []fleetapi.Finding{finding("step", "airflow", ticket), slow, airflow},
			"T-1 open ticket airflow step+resistance; T-2 closed ticket undetermined "},
		{"one of two is over", []fleetapi.Finding{finding("fan1", "fan-wear", ticket), finding("fan2", "fan-wear", ticket), over(finding("fan1", "fan-wear", ticket))}, "T-1 open ticket fan-wear fan2"},
		{"over before anybody went", []fleetapi.Finding{slow, over(slow)}, "T-1 closed ticket undetermined "},
		{"the end of what nobody knew", []fleetapi.Finding{over(slow)}, ""},
		{"it closed and came back", []fleetapi.Finding{slow, over(slow), slow}, "T-1 closed ticket undetermined ; T-2 open ticket undetermined resistance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d desk
			for _, f := range c.found {
				d.take(care.Find(d.tickets, f, place, now))
			}
			if d.String() != c.want {
				t.Errorf("got  %s\nwant %s", d.String(), c.want)
			}
		})
	}
}

func act(t *testing.T, k fleetapi.Ticket, a fleetapi.TicketAction, excess float64, at time.Time) fleetapi.Ticket {
	t.Helper()
	out, err := care.Act(k, a, "kim", excess, at)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestATicketThatIsProvedComesBackWithinTwoWeeks(t *testing.T) {
	for _, c := range []struct {
		days int
		want string
	}{{13, "T-1 reopened ticket airflow resistance"}, {15, "T-1 verified ticket airflow ; T-2 open ticket airflow resistance"}} {
		var d desk
		f := finding("resistance", "airflow", ticket)
		d.take(care.Find(nil, f, place, now))
		d.take([]fleetapi.Ticket{act(t, d.tickets[0], fleetapi.TicketAction{Action: "done"}, 9, now)})
		d.take(care.Find(d.tickets, over(f), place, now.Add(24*time.Hour)))
		if s := d.tickets[0].State; s != fleetapi.TicketVerified {
			t.Fatalf("the finding closed after the work, and the ticket is %s", s)
		}
		later := now.Add(24*time.Hour + time.Duration(c.days)*24*time.Hour)
		d.take(care.Find(d.tickets, f, place, later))
		if d.String() != c.want {
			t.Errorf("after %d days: %s", c.days, d.String())
		}
	}
}

// TestWhatIsProvedIsNotDoubtedByWhatWasFelt: a box closes a finding only days
// after the work, and may name another cause until then.
func TestWhatIsProvedIsNotDoubtedByWhatWasFelt(t *testing.T) {
	f := finding("resistance", "airflow", ticket)
	var d desk
	d.take(care.Find(nil, f, place, now))
	d.take([]fleetapi.Ticket{act(t, d.tickets[0], fleetapi.TicketAction{Action: "done"}, 9, now.Add(time.Hour))})
	proved, ok := care.Verify(d.tickets[0], care.Reading{Percent: 1, Hours: 8}, now.Add(30*time.Hour))
	if !ok {
		t.Fatal("not proved")
	}
	d.take([]fleetapi.Ticket{proved})
	f.Cause = "paste"
	d.take(care.Find(d.tickets, f, place, now.Add(3*24*time.Hour)))
	if d.String() != "T-1 verified ticket airflow resistance" {
		t.Errorf("another cause of the same: %s", d.String())
	}
	f.Level = urgent
	d.take(care.Find(d.tickets, f, place, now.Add(4*24*time.Hour)))
	if d.String() != "T-1 verified ticket airflow resistance; T-2 open urgent paste resistance" {
		t.Errorf("it became worse: %s", d.String())
	}
}

func TestABoxThatMakesThingsUpFillsNoDisk(t *testing.T) {
	var flaps, families desk
	for i := range 300 {
		at := now.Add(time.Duration(i) * time.Minute)
		f := finding("resistance", fmt.Sprint("cause-", i), urgent)
		flaps.take(care.Find(flaps.tickets, f, place, at))
		flaps.take(care.Find(flaps.tickets, over(f), place, at))
		families.take(care.Find(families.tickets, finding(fmt.Sprint("family-", i), "airflow", ticket), place, at))
	}
	if n := len(flaps.tickets); n != 64 {
		t.Errorf("%d tickets of one box in a day", n)
	}
	if n := len(families.tickets[0].Families); n != 16 {
		t.Errorf("%d families of one ticket", n)
	}
}

func TestEveryCauseThatABoxFindsHasItsWork(t *testing.T) {
	for _, c := range []health.Cause{health.CauseAirflow, health.CausePaste, health.CauseUndetermined, health.CauseVent, health.CauseFanWear, health.CauseFanStop,
		health.CauseSensor, health.CauseAmbient, health.CauseHVAC, health.CauseDrive, health.CauseSupply} {
		if care.Do(string(c)) == care.Do("unheard-of") {
			t.Errorf("nobody is told what to do about %s", c)
		}
	}
	if d, s := care.PartOf(string(health.CauseDrive)), care.PartOf(string(health.CauseSupply)); d != "ssd" || s != "psu" {
		t.Errorf("parts %q and %q", d, s)
	}
}

func TestADigestIsShortEnoughForAChat(t *testing.T) {
	var watch []fleetapi.Finding
	for i := range 5000 {
		f := finding("resistance", "airflow", fleetapi.HealthWatch)
		f.BoxName, f.Site, f.Evidence[0].Text = fmt.Sprint("box-", i), fmt.Sprint("site-", i%50), strings.Repeat("ü", 300)
		watch = append(watch, f)
	}
	n, ok := care.Digest(watch, "2026-W11", now, nil)
	if !ok || len(n.Text) > 2500 || !strings.HasPrefix(n.Text, "site-0, box-0: airflow, ") || !strings.Contains(n.Text, "and 4980 more") || !strings.Contains(n.Title, "5000 to watch at 50 sites") {
		t.Errorf("%d bytes: %s\n%.300s", len(n.Text), n.Title, n.Text)
	}
	if !utf8.ValidString(n.Text) {
		t.Error("a letter was cut in two")
	}
}

func TestAFindingThatClosesOnTheWayLeavesTheTicketToItsPerson(t *testing.T) {
	var d desk
	f := finding("resistance", "airflow", ticket)
	d.take(care.Find(nil, f, place, now))
	d.take([]fleetapi.Ticket{act(t, d.tickets[0], fleetapi.TicketAction{Action: "assign", Assignee: "kim"}, 9, now)})
	d.take(care.Find(d.tickets, over(f), place, now))
	if s := d.tickets[0]; s.State != fleetapi.TicketDispatched || s.Cleared == nil {
		t.Fatalf("got %+v", s)
	}
	if s := act(t, d.tickets[0], fleetapi.TicketAction{Action: "done", NoFault: true}, 1, now); s.State != fleetapi.TicketVerified || !s.NoFault {
		t.Errorf("done after it closed: %s, no fault %v", s.State, s.NoFault)
	}
}

func TestProofOfWork(t *testing.T) {
	none := math.NaN()
	type look struct {
		hours   int
		percent float64
		steady  int
	}
	for _, c := range []struct {
		name   string
		cause  string
		excess float64
		looks  []look
		want   fleetapi.TicketState
		why    string
	}{
		{"half is gone after a day", "airflow", 10, []look{{24, 5, 8}}, fleetapi.TicketVerified, ""},
		{"not before a day", "airflow", 10, []look{{23, 0, 8}}, fleetapi.TicketDone, ""},
		{"less than half is not enough", "airflow", 10, []look{{48, 5.1, 8}}, fleetapi.TicketReopened, ""},
		{"what does not help at a day may at two", "airflow", 10, []look{{25, 7, 8}, {47, 4, 8}}, fleetapi.TicketVerified, ""},
		{"three hours decide nothing", "airflow", 10, []look{{60, 0, 3}}, fleetapi.TicketDone, ""},
		{"a box that was off proves nothing", "airflow", 10, []look{{100, none, 0}, {7 * 24, none, 0}}, fleetapi.TicketClosed, "unproved"},
		{"it came back later and proves it then", "airflow", 10, []look{{100, none, 0}, {120, 1, 6}}, fleetapi.TicketVerified, ""},
		{"a fan shows in no resistance", "fan-wear", 10, []look{{48, 0, 8}}, fleetapi.TicketDone, ""},
		{"a fan that is still slow after a week", "fan-wear", 10, []look{{7 * 24, 0, 8}}, fleetapi.TicketReopened, ""},
		{"too little to fall", "airflow", 1.5, []look{{48, 0, 8}}, fleetapi.TicketDone, ""},
		{"nobody knows how it stood", "airflow", none, []look{{7 * 24, 9, 8}}, fleetapi.TicketReopened, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := care.Find(nil, finding("f", c.cause, ticket), place, now)[0]
			k.ID = "T-1"
			k = act(t, k, fleetapi.TicketAction{Action: "done"}, c.excess, now)
			for _, l := range c.looks {
				k, _ = care.Verify(k, care.Reading{Percent: l.percent, Hours: l.steady}, now.Add(time.Duration(l.hours)*time.Hour))
			}
			if k.State != c.want || k.Resolution != c.why || k.State.Ended() != (k.Verified != nil || k.Closed != nil) {
				t.Errorf("got %s %q, want %s %q; check %+v", k.State, k.Resolution, c.want, c.why, k.Check)
			}
		})
	}
}

func TestAManualTicketThatNothingMeasuresEnds(t *testing.T) {
	k := fleetapi.Ticket{ID: "T-1", State: fleetapi.TicketOpen, Cause: "noise", Manual: true}
	k = act(t, k, fleetapi.TicketAction{Action: "done"}, math.NaN(), now)
	if k, changed := care.Verify(k, care.Reading{Percent: math.NaN()}, now.Add(48*time.Hour)); !changed || k.State != fleetapi.TicketClosed || k.Resolution != "unproved" {
		t.Errorf("got %s %s", k.State, k.Resolution)
	}
}

// TestActionsAreTotal: any action on any ticket is done or refused with a way
// out, ends are ends, and the history only grows by lines that say who.
func TestActionsAreTotal(t *testing.T) {
	actions := []string{"acknowledge", "assign", "arrive", "done", "reopen", "close", "note", "dance", ""}
	rapid.Check(t, func(r *rapid.T) {
		k := care.Find(nil, finding("resistance", "airflow", ticket), place, now)[0]
		k.ID = "T-1"
		at := now
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			at = at.Add(time.Hour)
			a := fleetapi.TicketAction{Action: rapid.SampledFrom(actions).Draw(r, "action")}
			if rapid.Bool().Draw(r, "complete") {
				a.Assignee, a.Resolution, a.Note = "kim", "accepted", "words"
			}
			was := k
			got, err := care.Act(k, a, "kim", 9, at)
			if err != nil {
				refusal, ok := err.(care.Refusal)
				if !ok || refusal.Hint == "" {
					r.Fatalf("%s on %s: %v", a.Action, k.State, err)
				}
				continue
			}
			if k = got; was.State.Ended() && !k.State.Ended() && a.Action != "reopen" {
				r.Fatalf("%s took up a ticket that had ended", a.Action)
			}
			if n := len(k.Timeline); n != len(was.Timeline) && (k.Timeline[n-1].By != "kim" || k.Timeline[n-1].State != k.State) {
				r.Fatalf("the history says %+v", k.Timeline[n-1])
			}
			if k.State.Ended() != (k.Closed != nil || k.Verified != nil) {
				r.Fatalf("%s with closed %v and verified %v", k.State, k.Closed, k.Verified)
			}
			if v, changed := care.Verify(k, care.Reading{Percent: 1, Hours: 8}, at.Add(30*time.Hour)); changed && k.State != fleetapi.TicketDone {
				r.Fatalf("%s was judged to be %s", k.State, v.State)
			}
		}
	})
}

func TestARoomThatCoolsEndsItsTicket(t *testing.T) {
	var d desk
	room := care.Room{Place: care.Place{Site: "shop-7"}, Boxes: []string{"a", "b"}, Evidence: []fleetapi.Evidence{{Text: "6 K"}}, Since: now}
	d.take(care.HotRoom(nil, room, now))
	if again := care.HotRoom(d.tickets, room, now); again != nil {
		t.Errorf("nothing new, and %d tickets changed", len(again))
	}
	room.Boxes = []string{"a", "b", "c"}
	d.take(care.HotRoom(d.tickets, room, now))
	if len(d.tickets) != 1 || len(d.tickets[0].Boxes) != 3 {
		t.Fatalf("got %+v", d.tickets)
	}
	room.Boxes = nil
	d.take(care.HotRoom(d.tickets, room, now))
	if d.String() != "T-1 closed urgent hvac " {
		t.Errorf("got %s", d.String())
	}
}

func due(id, site, box string, level fleetapi.Health, ago time.Duration) fleetapi.Ticket {
	return fleetapi.Ticket{ID: id, Site: site, BoxName: box, Box: identity.ID("d-" + box), State: fleetapi.TicketOpen, Level: level, Part: "filter", Opened: now.Add(-ago)}
}

func TestAVisitIsWorthItForTwoBoxesOrWhenItPresses(t *testing.T) {
	one, other := due("T-1", "s", "a", ticket, time.Hour), due("T-2", "s", "b", ticket, time.Hour)
	one.Box, other.Box = "d-a", "d-b"
	same := other
	same.Box = one.Box
	old, hot, soon, sent := one, one, one, other
	old.Opened = now.Add(-21 * 24 * time.Hour)
	hot.Level = urgent
	soon.Forecast = &fleetapi.HeatForecast{LowDays: 20}
	sent.State = fleetapi.TicketDispatched
	for name, c := range map[string]struct {
		tickets []fleetapi.Ticket
		want    bool
	}{
		"none": {nil, false}, "one box": {[]fleetapi.Ticket{one}, false}, "two boxes": {[]fleetapi.Ticket{one, other}, true},
		"two tickets of one box": {[]fleetapi.Ticket{one, same}, false}, "three weeks old": {[]fleetapi.Ticket{old}, true},
		"urgent": {[]fleetapi.Ticket{hot}, true}, "throttles within three weeks": {[]fleetapi.Ticket{soon}, true},
		"the other is taken care of": {[]fleetapi.Ticket{one, sent}, false},
	} {
		if got := care.VisitDue(c.tickets, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRouteOfADay(t *testing.T) {
	stops := care.Stops([]fleetapi.Ticket{
		due("T-1", "munich", "a", ticket, time.Hour), due("T-2", "hamburg", "b", urgent, time.Hour), due("T-3", "berlin", "c", ticket, time.Hour),
		due("T-4", "munich", "d", ticket, time.Hour), due("T-5", "potsdam", "e", ticket, time.Hour),
	})
	places := map[string]care.Point{"hamburg": {53.55, 9.99}, "berlin": {52.52, 13.40}, "potsdam": {52.39, 13.06}, "munich": {48.14, 11.58}}
	names := func(p fleetapi.VisitPlan) string {
		var out []string
		for _, s := range p.Stops {
			out = append(out, s.Site)
		}
		return strings.Join(out, " ")
	}
	p := care.Route(stops, places, 8)
	if got := names(p); got != "hamburg potsdam berlin munich" || p.Metres < 750_000 || p.Metres > 800_000 || len(p.Parts) != 1 || p.Parts[0].Count != 5 {
		t.Errorf("route %s, %.0f m, parts %v", got, p.Metres, p.Parts)
	}
	if got := names(care.Route(stops, places, 2)); got != "hamburg munich" {
		t.Errorf("the two most pressing: %s", got)
	}
	delete(places, "berlin")
	if p := care.Route(stops, places, 8); names(p) != "berlin hamburg munich potsdam" || p.Metres != 0 || !strings.Contains(p.Text, "location") {
		t.Errorf("without a place: %s, %s", names(p), p.Text)
	}
	if p := care.Route(nil, places, 8); len(p.Stops) != 0 || p.Stops == nil {
		t.Errorf("nothing due: %+v", p)
	}
}

func TestSparesAreEnoughInMostCases(t *testing.T) {
	needs := []care.Need{{"north", "fan", nil}, {"north", "fan", &fleetapi.HeatForecast{LowDays: 10, MidDays: 30, HighDays: 60}}, {"north", "fan", &fleetapi.HeatForecast{LowDays: 365, MidDays: 365, HighDays: 365}}, {"north", "", nil}}
	got := care.Spares(needs, map[[2]string]int{{"south", "filter"}: 73, {"north", "fan"}: 4}, 90)
	// fan: 1 now, 0.9 by the forecast, 0.1 · 90/365 of the far one; 4 a year are
	// fewer than these. Poisson(1.92): P(X<=4) = 0.954.
	if len(got) != 2 || got[0].Part != "fan" || math.Abs(got[0].Mean-1.92) > 0.02 || got[0].Stock != 4 || got[0].Boxes != 3 {
		t.Errorf("spares %+v", got)
	}
	if got[1].Region != "south" || got[1].Mean != 18 || got[1].Stock != 25 { // Poisson(18): P(X<=25) = 0.955
		t.Errorf("spares %+v", got)
	}
}

func TestFilterIntervalFollowsTheDustOfTheSite(t *testing.T) {
	mill, shop := care.Advise("industrial", &health.SiteDust{FilterDays: 61}), care.Advise("office", &health.SiteDust{FilterDays: 365})
	if mill.IntervalDays != 61 || shop.IntervalDays != 365 || !mill.Learnt || !strings.Contains(mill.Text, "61 days") {
		t.Errorf("mill %+v, shop %+v", mill, shop)
	}
	if a := care.Advise("industrial", &health.SiteDust{FilterDays: 200}); a.IntervalDays != 91 {
		t.Errorf("a clean workshop: %+v; want no later than its class", a)
	}
	if a := care.Advise("wood", nil); a.IntervalDays != 30 || a.Learnt {
		t.Errorf("wood %+v", a)
	}
}

func TestMeasuresCountWhatTheyName(t *testing.T) {
	at := func(h int) *time.Time { t := now.Add(time.Duration(h) * time.Hour); return &t }
	tickets := []fleetapi.Ticket{
		{State: fleetapi.TicketVerified, Cause: "airflow", Opened: now, Acknowledged: at(1), Verified: at(10)},
		{State: fleetapi.TicketVerified, Cause: "airflow", Opened: now, Acknowledged: at(3), Verified: at(20), NoFault: true},
		{State: fleetapi.TicketReopened, Cause: "paste", Opened: now, Timeline: []fleetapi.TicketStep{{What: "done", Time: *at(5)}, {What: "reopened", Time: *at(60)}}},
		{State: fleetapi.TicketOpen, Level: ticket, Cause: "paste", Opened: now},
		{State: fleetapi.TicketOpen, Cause: "airflow", Opened: now.AddDate(-1, 0, 0)},
	}
	var r fleetapi.CareReport
	care.Measure(&r, tickets, 10, now.AddDate(0, 0, -90), now)
	if *r.MTTA != 2*3600 || *r.MTTR != 15*3600 || r.Ended != 2 || r.NoFault != 1 || r.Reopened14 != 1 || r.MTBFDays["airflow"] != 450 {
		t.Errorf("report %+v, mtta %v, mttr %v", r, *r.MTTA, *r.MTTR)
	}
	if c := care.Count(tickets); c.Total != 5 || c.Open != 3 || c.Due != 1 || c.Causes["paste"] != 2 || c.States["verified"] != 2 {
		t.Errorf("counts %+v", c)
	}
}

func TestNoticesTellOfChangesThatMatter(t *testing.T) {
	k := care.Find(nil, finding("resistance", "airflow", ticket), place, now)[0]
	k.ID = "T-1"
	kinds := func(was *fleetapi.Ticket, is fleetapi.Ticket) string {
		var out []string
		for _, n := range care.Notices(was, is, now, nil) {
			out = append(out, n.Kind)
		}
		return strings.Join(out, " ")
	}
	acked := act(t, k, fleetapi.TicketAction{Action: "acknowledge"}, 9, now)
	done := act(t, acked, fleetapi.TicketAction{Action: "done"}, 9, now)
	proved, _ := care.Verify(done, care.Reading{Percent: 1, Hours: 8}, now.Add(30*time.Hour))
	hot := k
	hot.Level = urgent
	for _, c := range []struct {
		was  *fleetapi.Ticket
		is   fleetapi.Ticket
		want string
	}{{nil, k, "opened"}, {&k, k, ""}, {&k, acked, ""}, {&k, hot, "raised"}, {&acked, done, ""}, {&done, proved, "verified"}} {
		if got := kinds(c.was, c.is); got != c.want {
			t.Errorf("to %s: %q, want %q", c.is.State, got, c.want)
		}
	}
	n := care.Notices(nil, k, now, nil)[0]
	if n.Title != "till-1 at shop-7: airflow likely (80 %), opened" || !strings.Contains(n.Text, "To do: clean or change the filter") || !n.Active || !n.Quietly() {
		t.Errorf("notice %+v", n)
	}
	de, err := i18n.Open("de")
	if err != nil {
		t.Fatal(err)
	}
	k.BoxName = "load" // a name that is a word
	if n := care.Notices(nil, k, now, de)[0]; n.Title != "load in shop-7: Filter oder Kühlrippen verstopft wahrscheinlich (80 %), eröffnet" || !strings.Contains(n.Text, "Zu tun: Filter reinigen oder wechseln") {
		t.Errorf("in German: %+v", n)
	}
	// A restored database gives numbers anew, and histories have a bound.
	if other := care.Notices(nil, k, now.Add(time.Hour), nil)[0]; other.Key == n.Key {
		t.Errorf("two notices have the key %s", n.Key)
	}
	if care.Notices(nil, hot, now, nil)[0].Quietly() {
		t.Error("what is urgent waits for the end of the night")
	}
}
