package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// told stores what a box told of its heat, in an event block of that number.
func told(t *testing.T, s *store.Store, box identity.ID, seq uint64, e store.CareEffects) {
	t.Helper()
	_, err := s.Ingest(ctx, []store.Delivery{event(box, 9, seq, epoch, wire.EventFinding, nil)}, func(store.Delivery) (store.Effects, error) { return store.Effects{Care: e}, nil })
	check(t, err)
}

func found(box identity.ID, opened, closed, at int64, body string) store.CareEffects {
	return store.CareEffects{Findings: []store.FindingRow{{Box: box, Family: "resistance", OpenedMs: opened, ClosedMs: closed, TimeMs: at, Body: []byte(body)}}}
}

// bodies are the findings of a box, oldest first: their text, and when they
// closed.
func bodies(t *testing.T, s *store.Store, box identity.ID) string {
	t.Helper()
	all, err := s.Findings(ctx, box, time.UnixMilli(0))
	check(t, err)
	var out []string
	for _, f := range all {
		out = append(out, fmt.Sprintf("%s %d", f.Body, f.ClosedMs))
	}
	return strings.Join(out, ", ")
}

func heatCountsOnce(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	e := store.CareEffects{
		Hours:   []store.HourRow{{HourMs: 1000, Samples: 9, Body: []byte("nine")}, {HourMs: 2000, Samples: 1, Body: []byte("one")}},
		Resets:  []store.ResetRow{{Box: boxA, TimeMs: 5, Cause: "power-cut", Body: []byte("{}")}},
		Changes: []store.ChangeRow{{Box: boxA, TimeMs: 7, Kind: "rollout", Detail: "m:2"}},
	}
	for range 3 { // the same block comes again
		told(t, s, boxA, 1, e)
	}
	// Another block brings a poorer summary of one hour and a richer of the other.
	told(t, s, boxA, 2, store.CareEffects{Hours: []store.HourRow{{HourMs: 1000, Samples: 3, Body: []byte("three")}, {HourMs: 2000, Samples: 60, Body: []byte("sixty")}},
		Resets: e.Resets, Changes: e.Changes})
	hours, err := s.Hours(ctx, boxA, time.UnixMilli(0), 10)
	if err != nil || len(hours) != 2 || string(hours[0].Body) != "nine" || string(hours[1].Body) != "sixty" {
		t.Errorf("hours %+v, %v", hours, err)
	}
	causes, err := s.ResetCauses(ctx, "", time.UnixMilli(0))
	if err != nil || causes["power-cut"] != 1 {
		t.Errorf("resets %v, %v", causes, err)
	}
	changes, err := s.Changes(ctx, boxA, time.UnixMilli(0))
	if err != nil || len(changes) != 1 {
		t.Errorf("changes %v, %v", changes, err)
	}
	todo, err := s.Unjudged(ctx, 10)
	if err != nil || len(todo) != 1 || todo[0].Hours != 4 {
		t.Fatalf("to judge %+v, %v", todo, err)
	}
	h := todo[0]
	h.Judged, h.Body = h.Hours, []byte(`{"judged":true}`)
	for i, want := range []bool{true, false} { // the second came too late
		if kept, err := s.KeepHeat(ctx, h, 0, []byte("state")); err != nil || kept != want {
			t.Errorf("keeping %d: %v, %v", i, kept, err)
		}
	}
	state, err := s.HeatState(ctx, boxA)
	if todo, err2 := s.Unjudged(ctx, 10); err != nil || err2 != nil || len(todo) != 0 || string(state) != "state" || string(box(t, s, boxA).Heat) != `{"judged":true}` {
		t.Errorf("judged: %v, state %s, %v, %v", todo, state, err, err2)
	}
	both := []store.Box{{ID: boxB}, {ID: boxA}}
	if err := s.AddHeats(ctx, both); err != nil || len(both[0].Heat) != 0 || string(both[1].Heat) != `{"judged":true}` {
		t.Errorf("heat of two boxes: %s, %s, %v", both[0].Heat, both[1].Heat, err)
	}
	if b, err := s.Box(ctx, boxB, 0); err != nil || len(b.Heat) != 0 || len(b.Findings) != 0 {
		t.Errorf("the other box has %s %v, %v", b.Heat, b.Findings, err)
	}
}

func newestWordOnAFindingCounts(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	told(t, s, boxA, 1, found(boxA, 1000, 0, 3000, "second"))
	told(t, s, boxA, 2, found(boxA, 1000, 0, 2000, "first, late"))
	if got := bodies(t, s, boxA); got != "second 0" {
		t.Errorf("an older word won: %s", got)
	}
	told(t, s, boxA, 3, found(boxA, 1000, 4000, 4000, "closed"))
	told(t, s, boxA, 4, found(boxA, 1000, 0, 5000, "opened by an old block"))
	if got := bodies(t, s, boxA); got != "closed 4000" {
		t.Errorf("what is closed opened again: %s", got)
	}
	told(t, s, boxA, 5, found(boxA, 6000, 0, 6000, "again"))
	// The box lost its memory and finds the same anew.
	told(t, s, boxA, 6, found(boxA, 8000, 0, 8000, "anew"))
	if got := bodies(t, s, boxA); got != "closed 4000, again 8000, anew 0" {
		t.Errorf("findings %s", got)
	}
	if open := box(t, s, boxA).Findings; len(open) != 1 || string(open[0].Body) != "anew" {
		t.Errorf("open on the box: %v", open)
	}
}

func noNewsIsLost(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	told(t, s, boxA, 1, found(boxA, 1000, 0, 1000, "one"))
	told(t, s, boxB, 2, found(boxB, 1000, 0, 2000, "two"))
	take := func(fail error) (got []string) {
		err := s.Care(ctx, func(c *store.CareTx) error {
			got = nil
			news, err := c.News(ctx, 10)
			if err != nil {
				return err
			}
			for _, n := range news {
				got = append(got, string(n.Body))
			}
			ticket := fleetapi.Ticket{State: fleetapi.TicketOpen, Cause: "airflow", Box: boxA}
			if err := c.PutTicket(ctx, &ticket); err != nil {
				return err
			}
			if err := c.Seen(ctx, news); err != nil {
				return err
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
		return got
	}
	crash := errors.New("crash")
	if got := strings.Join(take(crash), " "); got != "one two" {
		t.Errorf("news %s", got)
	}
	if got := strings.Join(take(nil), " "); got != "one two" {
		t.Errorf("news after the crash: %s", got)
	}
	check(t, s.Care(ctx, func(c *store.CareTx) error {
		all, err := c.Tickets(ctx, time.UnixMilli(0))
		if len(all) != 1 || all[0].ID != "T-1" && all[0].ID != "T-2" {
			t.Errorf("tickets %+v", all)
		}
		news, err2 := c.News(ctx, 10)
		if len(news) != 0 {
			t.Errorf("news that were seen: %v", news)
		}
		// What comes between the reading and the noting is not noted.
		stale := store.FindingRow{Box: boxA, Family: "resistance", OpenedMs: 1000, TimeMs: 999}
		return errors.Join(err, err2, c.Seen(ctx, []store.FindingRow{stale}))
	}))
	told(t, s, boxA, 3, found(boxA, 1000, 0, 3000, "three"))
	check(t, s.Care(ctx, func(c *store.CareTx) error {
		return c.Seen(ctx, []store.FindingRow{{Box: boxA, Family: "resistance", OpenedMs: 1000, TimeMs: 1000}})
	}))
	check(t, s.Care(ctx, func(c *store.CareTx) error {
		news, err := c.News(ctx, 10)
		if len(news) != 1 || string(news[0].Body) != "three" {
			t.Errorf("news %v", news)
		}
		return err
	}))
}

func oneTicketOfACause(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	put := func(k fleetapi.Ticket) error {
		return s.Care(ctx, func(c *store.CareTx) error { return c.PutTicket(ctx, &k) })
	}
	first := fleetapi.Ticket{ID: "T-7", State: fleetapi.TicketOpen, Cause: "airflow", Box: boxA, Site: "berlin"}
	check(t, put(first))
	second := first
	second.ID = "T-8"
	if err := put(second); err == nil {
		t.Error("two open tickets of a cause")
	}
	first.State, first.Changed = fleetapi.TicketVerified, time.UnixMilli(epoch)
	check(t, put(first))
	check(t, put(second))
	// Tickets of a site and of a SKU have no box; those of two SKUs are two.
	for _, k := range []fleetapi.Ticket{{ID: "T-10", Site: "berlin"}, {ID: "T-11", SKU: "Acme A1"}, {ID: "T-12", SKU: "Acme B2"}} {
		k.State, k.Cause = fleetapi.TicketOpen, "airflow"
		check(t, put(k))
		if k.ID += "0"; put(k) == nil {
			t.Errorf("two open tickets of %q %q", k.Site, k.SKU)
		}
	}
	region := "north"
	check(t, s.ChangeSite(ctx, "berlin", "kim", func(v *fleetapi.SiteSettings) error { v.Region = &region; return nil }))
	check(t, s.CareView(ctx, func(c *store.CareTx) error {
		of, err := c.TicketsOf(ctx, boxA, "", time.UnixMilli(epoch+1))
		if len(of) != 1 || of[0].ID != "T-8" || of[0].Region != "north" {
			t.Errorf("tickets %+v", of)
		}
		all, err2 := c.TicketsOf(ctx, boxA, "", time.UnixMilli(epoch))
		if len(all) != 2 {
			t.Errorf("%d tickets with the one that ended", len(all))
		}
		ofSite, err4 := c.TicketsOf(ctx, "", "berlin", time.UnixMilli(0))
		groups, err5 := c.TicketsOfGroups(ctx, time.UnixMilli(0))
		if len(ofSite) != 1 || ofSite[0].ID != "T-10" || len(groups) != 3 {
			t.Errorf("of the site %+v, of groups %+v, %v, %v", ofSite, groups, err4, err5)
		}
		_, err3 := c.Ticket(ctx, "T-9")
		if !errors.Is(err3, store.ErrNotFound) {
			t.Errorf("T-9: %v", err3)
		}
		return errors.Join(err, err2)
	}))
}

func noticesAreQueuedOnce(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	queue := func(key string, due int64) {
		check(t, s.Care(ctx, func(c *store.CareTx) error {
			return c.Notify(ctx, store.Notice{Endpoint: "chat", Key: key, DueMs: due, Body: []byte("{}")})
		}))
	}
	queue("b", epoch)
	queue("a", epoch-1)
	queue("b", epoch-5)
	queue("later", epoch+1)
	due, err := s.DueNotices(ctx, 10)
	if err != nil || len(due) != 2 || due[0].Key != "a" || due[1].Key != "b" {
		t.Fatalf("due %+v, %v", due, err)
	}
	due[0].State = store.NoticeSent
	due[1].State, due[1].Err, due[1].DueMs, due[1].Tries = store.NoticeWaits, "away", epoch+9, 1
	check(t, s.KeepNotice(ctx, due[0]))
	check(t, s.KeepNotice(ctx, due[1]))
	queue("a", epoch) // it was sent: never again
	if due, err = s.DueNotices(ctx, 10); err != nil || len(due) != 0 {
		t.Errorf("due %+v, %v", due, err)
	}
	counts, err := s.NoticeCounts(ctx)
	if err != nil || counts["chat"] != [3]int{2, 1, 0} {
		t.Errorf("counts %v, %v", counts, err)
	}
	queue("c", epoch-3)
	queue("d", epoch-2)
	check(t, s.Care(ctx, func(c *store.CareTx) error {
		return c.Notify(ctx, store.Notice{Endpoint: "mail", Key: "a", DueMs: epoch, Body: []byte("{}")})
	}))
	if due, err = s.DueNotices(ctx, 1); err != nil || len(due) != 2 || due[0].Key != "c" || due[1].Endpoint != "mail" {
		t.Errorf("one of each endpoint: %+v, %v", due, err)
	}
	check(t, s.PutOff(ctx, "chat", epoch+9))
	if due, err = s.DueNotices(ctx, 9); err != nil || len(due) != 1 || due[0].Endpoint != "mail" {
		t.Errorf("after chat was put off: %+v, %v", due, err)
	}
}

func neighboursBreatheTheSameAir(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	check(t, s.AddBox(ctx, boxA, "box-a", "berlin"))
	check(t, s.AddBox(ctx, boxB, "box-b", "berlin"))
	d := samples(boxA, 1, 1, epoch, 40)
	sc := wire.Schema{Metrics: []wire.Metric{{Name: "temp_inlet_celsius"}, {Name: "temp_room_celsius"}}}
	d.Samples.Schema, d.Schema = sc, &sc
	d.Block.Schema = wire.SchemaIDOf(sc)
	d = seal(d, 1, wire.LaneTelemetry, 1)
	ingest(t, s, d)
	all, err := s.AirAt(ctx, "berlin")
	if err != nil || len(all) != 2 || all[0].Inlet.Value != 40 || all[0].Room.Value != 80 || all[0].Inlet.TimeMs != epoch || all[1].Inlet.TimeMs != 0 {
		t.Errorf("air %+v, %v", all, err)
	}
	if none, err := s.AirAt(ctx, "krakow"); err != nil || len(none) != 0 {
		t.Errorf("elsewhere %v, %v", none, err)
	}
}

func oldHoursGo(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	now := time.UnixMilli(epoch)
	told(t, s, boxA, 1, store.CareEffects{Hours: []store.HourRow{{HourMs: now.AddDate(0, 0, -40).UnixMilli(), Body: []byte("old")}, {HourMs: epoch, Body: []byte("new")}}})
	told(t, s, boxA, 2, found(boxA, 1000, 2000, 2000, "closed long ago"))
	told(t, s, boxA, 3, found(boxA, 3000, 0, 3000, "open"))
	_, _, err := s.Retain(ctx, store.Retention{Events: 30 * 24 * time.Hour}, 1000)
	check(t, err)
	check(t, s.ForgetCare(ctx, now))
	hours, err := s.Hours(ctx, boxA, time.UnixMilli(0), 10)
	if err != nil || len(hours) != 1 || string(hours[0].Body) != "new" {
		t.Errorf("hours %+v, %v", hours, err)
	}
	if got := bodies(t, s, boxA); !strings.Contains(got, "closed long ago") {
		t.Errorf("what no ticket knows of was forgotten: %s", got)
	}
	check(t, s.Care(ctx, func(c *store.CareTx) error {
		news, err := c.News(ctx, 10)
		return errors.Join(err, c.Seen(ctx, news))
	}))
	check(t, s.ForgetCare(ctx, now))
	if got := bodies(t, s, boxA); got != "open 0" {
		t.Errorf("findings %s", got)
	}
	// The box says a finding once: when a mute ends it is news again.
	for _, until := range []int64{epoch + 1, epoch - 1} {
		check(t, s.Care(ctx, func(c *store.CareTx) error {
			return c.Mute(ctx, store.Mute{Box: boxA, Family: "resistance", UntilMs: until})
		}))
		check(t, s.EndMutes(ctx))
		if news, err := s.AnyNews(ctx); err != nil || news != (until < epoch) {
			t.Errorf("muted until %d: news %v, %v", until-epoch, news, err)
		}
	}
}
