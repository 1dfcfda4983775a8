package upkeep

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Tickets are all tickets that are open, and those that ended since.
func (d *Desk) Tickets(ctx context.Context, since time.Time) (all []fleetapi.Ticket, err error) {
	err = d.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		all, err = c.Tickets(ctx, since)
		return err
	})
	return all, err
}

// view is one state of the fleet's upkeep.
type view struct {
	boxes    []store.Box
	heats    map[string]care.Heat // by box id
	tickets  []fleetapi.Ticket
	visits   []fleetapi.Visit
	settings map[string]store.Site
	dust     map[string]*health.SiteDust
	fleet    float64 // rate of the middle site
	now      time.Time
}

func (d *Desk) look(ctx context.Context, since time.Time) (v view, err error) {
	v.now = d.now()
	if v.boxes, err = d.opts.Store.CareBoxes(ctx); err != nil {
		return v, err
	}
	if v.settings, err = d.opts.Store.Sites(ctx); err != nil {
		return v, err
	}
	err = d.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		if v.tickets, err = c.Tickets(ctx, since); err != nil {
			return err
		}
		v.visits, err = c.Visits(ctx, store.OpenOnly)
		return err
	})
	v.heats = map[string]care.Heat{}
	var dust []health.BoxDust
	for _, b := range v.boxes {
		h, ok := care.ReadHeat(b.Heat)
		if !ok {
			continue
		}
		v.heats[string(b.ID)] = h
		if h.DustRate != nil {
			dust = append(dust, health.BoxDust{Site: b.Site, Rate: *h.DustRate, Sigma: h.DustSigma})
		}
	}
	v.dust = map[string]*health.SiteDust{}
	var rates []float64
	for _, s := range health.Dust(dust) {
		v.dust[s.Site], rates = &s, append(rates, s.Rate)
	}
	if slices.Sort(rates); len(rates) > 0 {
		v.fleet = rates[len(rates)/2]
	}
	return v, err
}

func (v *view) effect(site string) (region, class string) {
	own, all := v.settings[site].Settings, v.settings[store.SiteDefaults].Settings
	if r := cmp.Or(own.Region, all.Region); r != nil {
		region = *r
	}
	if c := cmp.Or(own.Class, all.Class); c != nil {
		class = *c
	}
	return region, class
}

func (v *view) advice(site string) fleetapi.FilterAdvice {
	_, class := v.effect(site)
	return care.Advise(class, v.dust[site])
}

// levelOf is the level of a box, as registry shows it.
func (v *view) levelOf(b store.Box) fleetapi.Health {
	level := fleetapi.HealthUnknown
	if _, ok := v.heats[string(b.ID)]; ok {
		level = fleetapi.HealthHealthy
	}
	for _, row := range b.Findings {
		if f, ok := row.Finding(); ok && !f.Muted {
			level = care.Worse(level, f.Level)
		}
	}
	return level
}

// Sites tells how each site stands, the worst first.
func (d *Desk) Sites(ctx context.Context) (fleetapi.SiteCareList, error) {
	v, err := d.look(ctx, store.OpenOnly)
	if err != nil {
		return fleetapi.SiteCareList{}, err
	}
	sites := map[string]*fleetapi.SiteCare{}
	for _, b := range v.boxes {
		s := sites[b.Site]
		if s == nil {
			s = &fleetapi.SiteCare{Site: b.Site, Levels: map[string]int{}, Level: fleetapi.HealthUnknown, Filter: v.advice(b.Site)}
			s.Region, s.Class = v.effect(b.Site)
			if d := v.dust[b.Site]; d != nil {
				s.Dust, s.DustRatio = care.Number(d.PercentPerMonth()), care.Number(d.Rate/max(v.fleet, 1e-3))
			}
			sites[b.Site] = s
		}
		level := v.levelOf(b)
		s.Boxes++
		s.Levels[string(level)]++
		s.Level = care.Worse(s.Level, level)
		if p := v.heats[string(b.ID)].Percent; p != nil && (s.WorstValue == nil || *p > *s.WorstValue) {
			s.WorstBox, s.WorstValue = b.Name, p
		}
	}
	v.addTickets(sites)
	list := fleetapi.SiteCareList{Items: []fleetapi.SiteCare{}}
	for _, name := range slices.Sorted(maps.Keys(sites)) {
		list.Items = append(list.Items, *sites[name])
	}
	slices.SortStableFunc(list.Items, func(a, b fleetapi.SiteCare) int {
		worse := 0
		if a.Level != b.Level {
			worse = 1
			if care.AtLeast(a.Level, b.Level) {
				worse = -1
			}
		}
		return cmp.Or(worse, cmp.Compare(b.Due, a.Due), cmp.Compare(b.Tickets, a.Tickets))
	})
	return list, nil
}

// addTickets counts tickets and visits at their sites.
func (v *view) addTickets(sites map[string]*fleetapi.SiteCare) {
	due := map[string][]fleetapi.Ticket{}
	for _, t := range v.tickets {
		s := sites[t.Site]
		if s == nil || t.State.Ended() {
			continue
		}
		s.Tickets++
		s.HotRoom = s.HotRoom || t.Cause == care.CauseHVAC
		if t.Box == "" {
			s.Level = care.Worse(s.Level, t.Level)
		}
		if care.Due(t) {
			s.Due++
			due[t.Site] = append(due[t.Site], t)
		}
	}
	for name, t := range due {
		sites[name].VisitDue = care.VisitDue(t, v.now)
	}
	for _, visit := range v.visits {
		if s := sites[visit.Site]; s != nil && visit.Ended == nil && (s.NextDay == "" || visit.Day < s.NextDay) {
			s.NextVisit, s.NextDay = visit.ID, visit.Day
		}
	}
}

// spareDays is how far ahead spare parts are counted.
const spareDays = 90

// Report tells of the fleet's upkeep since a time.
func (d *Desk) Report(ctx context.Context, from time.Time) (fleetapi.CareReport, error) {
	r := fleetapi.CareReport{From: from, Levels: map[string]int{}, Causes: map[string]int{}, SKUs: []fleetapi.Cohort{}, Priors: map[string]fleetapi.CarePrior{}}
	v, err := d.look(ctx, from)
	if err != nil {
		return r, err
	}
	var needs []care.Need
	bySKU := map[string][]float64{}
	for _, b := range v.boxes {
		h := v.heats[string(b.ID)]
		r.Levels[string(v.levelOf(b))]++
		if !h.Judged {
			r.Unjudged++
		}
		if h.Percent != nil && h.SKU != "" {
			bySKU[h.SKU] = append(bySKU[h.SKU], *h.Percent)
		}
		region, _ := v.effect(b.Site)
		for _, row := range b.Findings {
			f, ok := row.Finding()
			if !ok || f.Muted {
				continue
			}
			r.Causes[f.Cause]++
			n := care.Need{Region: region, Part: care.PartOf(f.Cause)}
			if !care.AtLeast(f.Level, fleetapi.HealthTicket) {
				n.Forecast = f.Forecast
			}
			if n.Forecast != nil || care.AtLeast(f.Level, fleetapi.HealthTicket) {
				needs = append(needs, n)
			}
		}
	}
	for _, sku := range slices.Sorted(maps.Keys(bySKU)) {
		r.SKUs = append(r.SKUs, care.Cohort("sku", sku, bySKU[sku]))
	}
	r.Watch = watched(v.boxes)
	r.Tickets = care.Count(v.tickets)
	care.Measure(&r, v.tickets, len(v.boxes), from, v.now)
	err = d.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		used, err := c.PartsUsed(ctx, v.now.AddDate(-1, 0, 0))
		if err != nil {
			return err
		}
		r.Spares = care.Spares(needs, used, spareDays)
		return err
	})
	if err != nil {
		return r, err
	}
	if r.Resets, err = d.opts.Store.ResetCauses(ctx, "", from); err != nil {
		return r, err
	}
	skus, err := d.learntSKUs(ctx)
	for sku, l := range skus {
		r.Priors[sku] = fleetapi.CarePrior{Boxes: l.Prior.Boxes, Air: l.Prior.Slopes.Air, Load: l.Prior.Slopes.Load, Sigma: 100 * l.Prior.Sigma, Bound: l.Prior.Bound, TripC: l.TripC, Fitted: l.Fitted}
	}
	return r, err
}

// Box tells all of the heat and upkeep of one box; it is as people see it now.
func (d *Desk) Box(ctx context.Context, b fleetapi.Box) (fleetapi.BoxCare, error) {
	now := d.now()
	out := fleetapi.BoxCare{
		Box: b.ID, Name: b.Name, Site: b.Site, Level: b.Health, Thermal: b.Thermal, Findings: []fleetapi.Finding{}, Days: []fleetapi.CareDay{},
		Changes: []fleetapi.CareChange{}, Resets: []fleetapi.Reset{}, Cleanings: []fleetapi.Cleaning{},
	}
	rows, err := d.opts.Store.Findings(ctx, b.ID, now.AddDate(0, 0, -90))
	if err != nil {
		return out, err
	}
	for _, row := range rows {
		if f, ok := row.Finding(); ok {
			f.BoxName, f.Site = b.Name, b.Site
			out.Findings = append(out.Findings, f)
		}
	}
	slices.SortStableFunc(out.Findings, func(a, b fleetapi.Finding) int { return b.Opened.Compare(a.Opened) })
	changes, err := d.opts.Store.Changes(ctx, b.ID, now.Add(-changesLast))
	if err != nil {
		return out, err
	}
	for _, c := range changes {
		out.Changes = append(out.Changes, fleetapi.CareChange{Time: time.UnixMilli(c.TimeMs).UTC(), Kind: c.Kind, Detail: c.Detail, By: c.By})
	}
	resets, err := d.opts.Store.Resets(ctx, b.ID, now.AddDate(0, 0, -90), 50)
	if err != nil {
		return out, err
	}
	for _, r := range resets {
		out.Resets = append(out.Resets, ResetOf(r))
	}
	err = d.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		if out.Upkeep, err = c.Upkeep(ctx, b.ID); err != nil {
			return err
		}
		out.Tickets, err = c.TicketsOf(ctx, b.ID, "", time.UnixMilli(0))
		return err
	})
	if err != nil {
		return out, err
	}
	slices.SortStableFunc(out.Tickets, func(a, b fleetapi.Ticket) int { return b.Opened.Compare(a.Opened) })
	out.Tickets = out.Tickets[:min(len(out.Tickets), 20)]
	return out, d.addHeat(ctx, b, &out)
}

// addHeat adds what the hours of a box say.
func (d *Desk) addHeat(ctx context.Context, b fleetapi.Box, out *fleetapi.BoxCare) error {
	s, err := d.heatOf(ctx, b.ID)
	if err != nil {
		return err
	}
	v, err := d.look(ctx, store.OpenOnly)
	if err != nil {
		return err
	}
	out.Filter = v.advice(b.Site)
	since := out.Upkeep.FilterInstalled
	if s.Box != nil {
		ofToday(out.Findings, s.Box.Open)
		for i := range s.Box.Days {
			day := &s.Box.Days[i]
			out.Days = append(out.Days, fleetapi.CareDay{
				Day: time.Unix(int64(day.Day)*86400, 0).UTC().Format(time.DateOnly), Percent: percentOf(day.R), Week: percentOf(day.S7), Hours: day.N,
			})
		}
		for _, c := range s.Box.Cleanings {
			at := time.Unix(int64(c.At), 0).UTC()
			out.Cleanings = append(out.Cleanings, fleetapi.Cleaning{Time: at, Before: math.Round(10*health.Percent(c.Before)) / 10, After: math.Round(10*health.Percent(c.After)) / 10, Logged: c.Logged})
			if since == nil || at.After(*since) {
				since = &at
			}
		}
		out.Forecast = care.ForecastOf(s.Box.Trend)
	}
	out.Filter.Due = care.DueAt(out.Filter, since)
	h := v.heats[string(b.ID)]
	if h.Percent == nil || h.SKU == "" {
		return nil
	}
	var like []float64
	for _, o := range v.heats {
		if o.SKU == h.SKU && o.Percent != nil {
			like = append(like, *o.Percent)
		}
	}
	if len(like) >= 5 {
		c := care.Score(care.Cohort("sku", h.SKU, like), *h.Percent)
		out.Cohort = &c
	}
	return nil
}

// ofToday gives open findings the figures of today; the box told of them when
// they changed.
func ofToday(found []fleetapi.Finding, open []health.Finding) {
	for i := range found {
		f := &found[i]
		at := slices.IndexFunc(open, func(o health.Finding) bool { return o.Family == f.Family && string(o.Cause) == f.Cause })
		if f.Closed != nil || at < 0 {
			continue
		}
		f.Evidence = care.Evidences(open[at].Evidence)
		if fc := care.ForecastOf(open[at].Forecast); fc != nil {
			f.Forecast = fc
		}
	}
}

// ResetOf is a stored reset as people see it.
func ResetOf(r store.ResetRow) fleetapi.Reset {
	out := fleetapi.Reset{Box: r.Box, Time: time.UnixMilli(r.TimeMs).UTC(), Cause: r.Cause, Evidence: []fleetapi.Evidence{}}
	var body wire.ResetBody
	if json.Unmarshal(r.Body, &body) != nil {
		return out
	}
	out.Confidence = body.Confidence
	for _, p := range body.Evidence {
		out.Evidence = append(out.Evidence, fleetapi.Evidence{Name: p.Code, Text: p.Text, Code: p.Code, Args: p.Args})
	}
	if body.AtMs > 0 {
		t := time.UnixMilli(body.AtMs).UTC()
		out.Last = &t
	}
	return out
}
