package care

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// bundle: what falls due within three weeks of each other is one visit.
const bundle = 21 * 24 * time.Hour

// visitBoxes with something due are worth a visit by themselves.
const visitBoxes = 2

// Due reports whether a ticket waits for somebody to take it up.
func Due(t fleetapi.Ticket) bool {
	switch t.State {
	case fleetapi.TicketOpen, fleetapi.TicketAcknowledged, fleetapi.TicketReopened:
		return AtLeast(t.Level, fleetapi.HealthTicket)
	}
	return false
}

// VisitDue reports whether the due tickets of one site are worth a visit now:
// two boxes, something urgent, or one that has waited as long as tickets are
// bundled.
func VisitDue(tickets []fleetapi.Ticket, now time.Time) bool {
	boxes := map[string]bool{}
	for _, t := range tickets {
		if !Due(t) {
			continue
		}
		if t.Level == fleetapi.HealthUrgent || len(t.Boxes) >= visitBoxes || now.Sub(t.Opened) >= bundle || soon(t, bundle) {
			return true
		}
		boxes[string(t.Box)] = true
	}
	return len(boxes) >= visitBoxes
}

// soon reports whether a box may throttle before tickets are bundled.
func soon(t fleetapi.Ticket, within time.Duration) bool {
	return t.Forecast != nil && t.Forecast.LowDays*24 < within.Hours()
}

// Stops bundles the due tickets by site.
func Stops(tickets []fleetapi.Ticket) []fleetapi.VisitStop {
	bySite := map[string][]fleetapi.Ticket{}
	for _, t := range tickets {
		if Due(t) && t.Site != "" { // nobody can go to a SKU
			bySite[t.Site] = append(bySite[t.Site], t)
		}
	}
	var out []fleetapi.VisitStop
	for _, site := range slices.Sorted(maps.Keys(bySite)) {
		s := fleetapi.VisitStop{Site: site, Tickets: bySite[site], Level: fleetapi.HealthTicket, Due: bySite[site][0].Opened}
		for _, t := range s.Tickets {
			s.Level = Worse(s.Level, t.Level)
			if t.Opened.Before(s.Due) {
				s.Due = t.Opened
			}
		}
		s.Parts = Parts(s.Tickets)
		out = append(out, s)
	}
	return out
}

// Parts is what the tickets need, one of each for each box.
func Parts(tickets []fleetapi.Ticket) []fleetapi.Part {
	count := map[string]int{}
	for _, t := range tickets {
		if t.Part != "" {
			count[t.Part] += max(1, len(t.Boxes))
		}
	}
	out := []fleetapi.Part{}
	for _, part := range slices.Sorted(maps.Keys(count)) {
		out = append(out, fleetapi.Part{Part: part, Count: count[part]})
	}
	return out
}

// Point is a place on the earth, in degrees.
type Point struct{ Lat, Lon float64 }

const earthMetres = 6_371_000.0

// metres as the crow flies (haversine).
func metres(a, b Point) float64 {
	rad := math.Pi / 180
	dLat, dLon := (b.Lat-a.Lat)*rad, (b.Lon-a.Lon)*rad
	h := math.Pow(math.Sin(dLat/2), 2) + math.Cos(a.Lat*rad)*math.Cos(b.Lat*rad)*math.Pow(math.Sin(dLon/2), 2)
	return 2 * earthMetres * math.Asin(math.Sqrt(min(1, h)))
}

// Route chooses the most pressing stops, at most most, and puts them in the
// order of the way: from the most urgent one always to the nearest next, where
// the places of all are known, else by name.
func Route(stops []fleetapi.VisitStop, places map[string]Point, most int) fleetapi.VisitPlan {
	chosen := slices.Clone(stops)
	slices.SortStableFunc(chosen, func(a, b fleetapi.VisitStop) int {
		return cmp.Or(urgency(b.Level)-urgency(a.Level), len(b.Tickets)-len(a.Tickets), a.Due.Compare(b.Due), cmp.Compare(a.Site, b.Site))
	})
	left := 0
	if most > 0 && len(chosen) > most {
		left = len(chosen) - most
		chosen = chosen[:most]
	}
	var p fleetapi.VisitPlan
	unknown := slices.DeleteFunc(slices.Clone(chosen), func(s fleetapi.VisitStop) bool { _, ok := places[s.Site]; return ok })
	if len(unknown) == 0 && len(chosen) > 0 {
		p.Stops, p.Metres = nearest(chosen, places)
		p.Text = "from the most urgent site always to the nearest next"
	} else {
		slices.SortStableFunc(chosen, func(a, b fleetapi.VisitStop) int { return cmp.Compare(a.Site, b.Site) })
		p.Stops, p.Text = chosen, "by name: set `location` of every site to have them in the order of the way"
	}
	if left > 0 {
		p.Text += fmt.Sprintf("; %d more wait for another day", left)
	}
	var all []fleetapi.Ticket
	for _, s := range p.Stops {
		all = append(all, s.Tickets...)
	}
	p.Parts = Parts(all)
	if p.Stops == nil {
		p.Stops = []fleetapi.VisitStop{}
	}
	return p
}

func nearest(stops []fleetapi.VisitStop, places map[string]Point) (out []fleetapi.VisitStop, sum float64) {
	rest := slices.Clone(stops)
	here := places[rest[0].Site]
	for len(rest) > 0 {
		best := 0
		for i := range rest {
			if metres(here, places[rest[i].Site]) < metres(here, places[rest[best].Site]) {
				best = i
			}
		}
		s := rest[best]
		if len(out) > 0 {
			s.Metres = math.Round(metres(here, places[s.Site]))
		}
		sum += s.Metres
		here, out, rest = places[s.Site], append(out, s), slices.Delete(rest, best, best+1)
	}
	return out, sum
}
