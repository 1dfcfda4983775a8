package care_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// fleet has 6 sites with 4 boxes each, of the SKUs A1 and B2 in turn; rise is
// how far each stands above its clean self.
func fleet(rise func(site int, sku string) float64) []care.Member {
	var out []care.Member
	for site := range 6 {
		for box := range 4 {
			sku := []string{"Acme A1", "Acme B2"}[box%2]
			name := fmt.Sprintf("box-%d-%d", site, box)
			out = append(out, care.Member{Box: identity.ID("d-" + name), Name: name, Site: fmt.Sprint("shop-", site), SKU: sku,
				Percent: rise(site, sku) + 0.3*float64(box)})
		}
	}
	return out
}

func find(all []care.Standing, name string) care.Standing {
	i := slices.IndexFunc(all, func(s care.Standing) bool { return s.Site == name || s.SKU == name })
	if i < 0 {
		return care.Standing{}
	}
	return all[i]
}

func TestBoxesThatRiseTogetherAreOneTicketOfTheirSiteOrSKU(t *testing.T) {
	for _, c := range []struct {
		name string
		rise func(site int, sku string) float64
		want string // group and cause
	}{
		{"all are clean", func(int, string) float64 { return 0.5 }, ""},
		{"all clog alike", func(int, string) float64 { return 9 }, ""},
		{"one site is dusty", func(site int, _ string) float64 { return map[bool]float64{true: 6}[site == 2] }, "shop-2 dusty-site"},
		{"one site is dusty, a bit", func(site int, _ string) float64 { return map[bool]float64{true: 3}[site == 2] }, ""},
		{"a SKU is poor", func(_ int, sku string) float64 { return map[bool]float64{true: 7}[sku == "Acme B2"] }, "Acme B2 sku-heat"},
		{"a SKU is poor at two sites", func(site int, sku string) float64 { return map[bool]float64{true: 7}[sku == "Acme B2" && site < 2] }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range care.Standings(fleet(c.rise)) {
				for _, k := range care.Agreed(nil, s, nil, now) {
					got = append(got, k.Site+k.SKU+" "+k.Cause)
					if k.State != fleetapi.TicketOpen || k.Box != "" || len(k.Boxes) == 0 || len(k.Evidence) == 0 || k.Evidence[0].Code == "" || k.Opening == nil {
						t.Errorf("%+v", k)
					}
				}
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("tickets %q, want %q", got, c.want)
			}
		})
	}
	if got := care.Standings(fleet(func(int, string) float64 { return 5 })[:8]); len(got) != 0 {
		t.Errorf("two sites, too few to compare: %+v", got)
	}
}

func TestATicketOfASiteGivesWayToThoseOfItsBoxes(t *testing.T) {
	dusty := fleet(func(site int, _ string) float64 { return map[bool]float64{true: 6}[site == 2] })
	s := find(care.Standings(dusty), "shop-2")
	tickets := care.Agreed(nil, s, nil, now)
	tickets[0].ID = "T-1"
	own := func(id string, box int) fleetapi.Ticket {
		return fleetapi.Ticket{ID: id, State: fleetapi.TicketOpen, Cause: "airflow", Level: fleetapi.HealthTicket, Box: identity.ID(fmt.Sprint("d-box-2-", box))}
	}
	if got := care.Agreed(tickets, s, nil, now.Add(time.Hour)); got != nil {
		t.Errorf("an hour later, with the same boxes: %+v", got)
	}
	got := care.Agreed(tickets, s, []fleetapi.Ticket{own("T-2", 0)}, now.Add(time.Hour))
	if len(got) != 1 || got[0].State != fleetapi.TicketOpen || !slices.Equal(got[0].Tickets, []string{"T-2"}) {
		t.Errorf("with a ticket of one box: %+v", got)
	}
	two := []fleetapi.Ticket{own("T-2", 0), own("T-3", 1)}
	if got = care.Agreed(tickets, s, two, now.Add(time.Hour)); len(got) != 1 || got[0].Resolution != "cleared" {
		t.Errorf("with tickets of two boxes: %+v", got)
	}
	if got = care.Agreed(nil, s, two, now); got != nil {
		t.Errorf("two boxes have tickets, and the site got one: %+v", got)
	}
	// A SKU asks for other work than its boxes do.
	poor := find(care.Standings(fleet(func(_ int, sku string) float64 { return map[bool]float64{true: 7}[sku == "Acme A1"] })), "Acme A1")
	if got = care.Agreed(nil, poor, two, now); len(got) != 1 || !slices.Equal(got[0].Tickets, []string{"T-2"}) {
		t.Errorf("the SKU with tickets of its boxes: %+v", got)
	}
}

func TestATicketOfAGroupEndsWithItsCause(t *testing.T) {
	at := func(rise float64) care.Standing {
		return find(care.Standings(fleet(func(site int, _ string) float64 { return map[bool]float64{true: rise}[site == 2] })), "shop-2")
	}
	tickets := care.Agreed(nil, at(6), nil, now)
	if got := care.Agreed(tickets, at(2.4), nil, now.Add(time.Hour)); len(got) == 1 && got[0].State.Ended() {
		t.Errorf("ended between the lines: %+v", got)
	}
	if got := care.Agreed(tickets, at(1), nil, now.Add(time.Hour)); len(got) != 1 || got[0].State != fleetapi.TicketClosed {
		t.Errorf("not ended below them: %+v", got)
	}
	closed, err := care.Act(tickets[0], fleetapi.TicketAction{Action: "close", Resolution: "accepted", MuteDays: 30}, "kim", 0, now)
	if err != nil {
		t.Fatal(err)
	}
	if got := care.Lost(append(tickets, closed), now.AddDate(0, 0, 15)); len(got) != 1 || got[0].Resolution != "cleared" {
		t.Errorf("nothing to be compared with for 15 days: %+v", got)
	}
	for _, c := range []struct {
		days int
		want int
	}{{29, 0}, {31, 1}} {
		if got := care.Agreed([]fleetapi.Ticket{closed}, at(6), nil, now.AddDate(0, 0, c.days)); len(got) != c.want {
			t.Errorf("%d days after it was accepted: %+v", c.days, got)
		}
	}
}

// The figures of a ticket follow its finding; those of its opening stay.
func TestFiguresOfAnOpenTicketAreOfToday(t *testing.T) {
	finding := func(percent string, low float64) fleetapi.Finding {
		return fleetapi.Finding{Family: "resistance", Cause: "airflow", Level: fleetapi.HealthTicket, Opened: now,
			Evidence: []fleetapi.Evidence{{Text: percent}}, Forecast: &fleetapi.HeatForecast{LowDays: low, MidDays: 60, HighDays: 90}}
	}
	tickets := care.Find(nil, finding("6 %", 40), care.Place{BoxName: "till-1"}, now)
	if got := care.Refreshed(tickets, []fleetapi.Finding{finding("6.1 %", 39)}, now.Add(time.Hour)); got != nil {
		t.Errorf("an hour later: %+v", got)
	}
	other := finding("20 %", 1)
	other.Cause = "paste"
	if got := care.Refreshed(tickets, []fleetapi.Finding{other}, now.AddDate(0, 0, 9)); got != nil {
		t.Errorf("by a finding of another cause: %+v", got)
	}
	got := care.Refreshed(tickets, []fleetapi.Finding{finding("9 %", 20)}, now.AddDate(0, 0, 9))
	if len(got) != 1 || got[0].Why != "9 %" || got[0].Forecast.LowDays != 20 || !got[0].Measured.Equal(now.AddDate(0, 0, 9)) ||
		got[0].Opening.Evidence[0].Text != "6 %" || got[0].Opening.Forecast.LowDays != 40 || len(got[0].Timeline) != 1 {
		t.Errorf("nine days later: %+v, opening %+v", got, got[0].Opening)
	}
}
