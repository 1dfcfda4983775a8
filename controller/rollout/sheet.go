package rollout

import (
	"cmp"
	"sort"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// What a box needs beside its download, for the forecast: to be told, to try
// the version and to watch it (agent/activate watches for 30 s).
const workTime = time.Minute

// sheet tells what a plan means for sites, and when it would end.
func (o Order) sheet(r fleetapi.Rollout, p Policy, skipped []fleetapi.PlanSkip) *fleetapi.PlanSheet {
	bySite := map[string]*fleetapi.PlanSite{}
	for _, w := range r.Waves {
		for _, t := range w.Targets {
			s := bySite[t.Site]
			if s == nil {
				s = &fleetapi.PlanSite{Site: t.Site, TimeZone: t.Traits.Zone}
				if len(p.Windows) > 0 {
					s.Window = nextWindow(p.Windows, t.Traits.Zone, o.Now).Text
				}
				bySite[t.Site] = s
			}
			s.Boxes++
			s.Bytes += o.size(t.Box)
		}
	}
	sheet := &fleetapi.PlanSheet{Sites: []fleetapi.PlanSite{}, Skipped: skipped}
	for _, s := range bySite {
		sheet.Sites = append(sheet.Sites, *s)
	}
	sort.Slice(sheet.Sites, func(i, j int) bool { return sheet.Sites[i].Site < sheet.Sites[j].Site })
	o.heat(bySite, p)
	for i, s := range sheet.Sites {
		sheet.Sites[i].Waits = bySite[s.Site].Waits
	}
	sheet.Ends = o.forecast(r, p)
	return sheet
}

// heat tells which sites are too hot now for one more box at work.
func (o Order) heat(bySite map[string]*fleetapi.PlanSite, p Policy) {
	for _, rule := range p.Budgets {
		if rule.Per != "site" || !rule.heat() {
			continue
		}
		groups := map[string]*group{}
		for _, b := range o.Boxes {
			if bySite[b.Site] == nil || b.Link != fleetapi.LinkLive {
				continue
			}
			g := groups[b.Site]
			if g == nil {
				g = &group{}
				groups[b.Site] = g
			}
			g.watts += b.Latest["power_watts"].Value
			if b.Latest["temp_die_celsius"].Value > rule.Hot {
				g.hot++
			}
		}
		for name, g := range groups {
			bySite[name].Waits = cmp.Or(bySite[name].Waits, g.heated(rule, name).Text)
		}
	}
}

// size is the download of a box.
func (o Order) size(id identity.ID) int64 {
	if n, ok := o.Sizes[id]; ok {
		return n
	}
	return o.Bytes
}

// forecast adds up the waves: how long the slowest site loads and all boxes are
// told, their work, the soak. Windows and approvals have no time that is known
// ahead, nor has the end of a plan that waits for them.
func (o Order) forecast(r fleetapi.Rollout, p Policy) *time.Time {
	if len(p.Windows) > 0 || len(p.Approve) > 0 {
		return nil
	}
	at := o.Now
	for _, w := range r.Waves {
		if len(w.Targets) == 0 {
			continue
		}
		perSite := map[string]int64{}
		for _, t := range w.Targets {
			perSite[t.Site] += o.size(t.Box)
		}
		var load time.Duration
		for name, n := range perSite {
			if rate := o.Rates[name]; rate > 0 {
				load = max(load, seconds(float64(n)/float64(rate)))
			}
		}
		told := time.Duration(len(w.Targets)/max(p.AtOnce, 1)) * time.Second
		at = at.Add(load + told + workTime + time.Duration(p.Soak))
	}
	return &at
}
