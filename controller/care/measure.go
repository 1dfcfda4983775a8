package care

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// Count counts tickets.
func Count(tickets []fleetapi.Ticket) fleetapi.TicketCounts {
	c := fleetapi.TicketCounts{Total: len(tickets), States: map[string]int{}, Levels: map[string]int{}, Causes: map[string]int{}, Sites: map[string]int{}}
	for _, t := range tickets {
		c.States[string(t.State)]++
		if t.State.Ended() {
			continue
		}
		c.Open++
		if Due(t) {
			c.Due++
		}
		c.Levels[string(t.Level)]++
		c.Causes[t.Cause]++
		c.Sites[t.Site]++
	}
	return c
}

// Measure fills in how fast and how well tickets opened since from were dealt
// with. boxes is how many boxes there were, for the days between failures.
func Measure(r *fleetapi.CareReport, tickets []fleetapi.Ticket, boxes int, from, now time.Time) {
	r.MTBFDays = map[string]float64{}
	var ack, repair []float64
	causes := map[string]int{}
	for _, t := range tickets {
		if t.Opened.Before(from) {
			continue
		}
		causes[t.Cause]++
		if t.Acknowledged != nil {
			ack = append(ack, t.Acknowledged.Sub(t.Opened).Seconds())
		}
		if t.State == fleetapi.TicketVerified && t.Verified != nil {
			repair = append(repair, t.Verified.Sub(t.Opened).Seconds())
		}
		if t.State.Ended() {
			r.Ended++
		}
		if t.NoFault {
			r.NoFault++
		}
		r.Reopened14 += reopenedSoon(t)
	}
	r.MTTA, r.MTTR = mean(ack), mean(repair)
	for cause, n := range causes {
		r.MTBFDays[cause] = math.Round(float64(boxes) * now.Sub(from).Hours() / 24 / float64(n))
	}
}

// reopenedSoon is 1 when work was undone within 14 days.
func reopenedSoon(t fleetapi.Ticket) int {
	var ended time.Time
	for _, s := range t.Timeline {
		switch {
		case s.What == "done", s.What == "verified":
			ended = s.Time
		case s.What == "reopened" && !ended.IsZero() && s.Time.Sub(ended) <= reopenWithin:
			return 1
		}
	}
	return 0
}

func mean(v []float64) *float64 {
	if len(v) == 0 {
		return nil
	}
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	m := math.Round(sum / float64(len(v)))
	return &m
}

// Need is what may want a part within the time: an open ticket or a forecast.
type Need struct {
	Region, Part string
	Forecast     *fleetapi.HeatForecast // nil: it is needed now
}

// chance is the probability that a forecast comes true within days: through
// 10, 50 and 90 % at its three numbers, straight between them.
func chance(f *fleetapi.HeatForecast, days float64) float64 {
	if f == nil {
		return 1
	}
	x := []float64{0, f.LowDays, f.MidDays, f.HighDays}
	y := []float64{0, 0.1, 0.5, 0.9}
	for i := 1; i < len(x); i++ {
		if days < x[i] {
			return y[i-1] + (y[i]-y[i-1])*(days-x[i-1])/(x[i]-x[i-1])
		}
	}
	return 0.9
}

// Spares is how many parts each region should have for the coming days. used
// is what was put in there in the year before; both add up to a Poisson mean,
// and the stock is enough in 95 of 100 cases.
func Spares(needs []Need, used map[[2]string]int, days int) []fleetapi.SpareDemand {
	type sum struct {
		mean  float64
		boxes int
	}
	all := map[[2]string]sum{}
	for _, n := range needs {
		if n.Part == "" {
			continue
		}
		s := all[[2]string{n.Region, n.Part}]
		all[[2]string{n.Region, n.Part}] = sum{s.mean + chance(n.Forecast, float64(days)), s.boxes + 1}
	}
	for k, count := range used {
		s := all[k]
		// What is already known to be due is part of what the year would bring.
		all[k] = sum{max(s.mean, float64(count)*float64(days)/365), s.boxes}
	}
	out := []fleetapi.SpareDemand{}
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b [2]string) int { return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1])) }) {
		s := all[k]
		out = append(out, fleetapi.SpareDemand{Region: k[0], Part: k[1], Mean: math.Round(100*s.mean) / 100, Stock: quantile95(s.mean), Boxes: s.boxes, Days: days})
	}
	return out
}

// quantile95 is the least k with P(Poisson(mean) <= k) of 95 % or more.
func quantile95(mean float64) int {
	if mean <= 0 {
		return 0
	}
	if mean > 500 { // e^-mean is no number any more; the normal law is as good
		return int(math.Ceil(mean + 1.645*math.Sqrt(mean)))
	}
	p := math.Exp(-mean)
	sum := p
	k := 0
	for sum < 0.95 {
		k++
		p *= mean / float64(k)
		sum += p
	}
	return k
}
