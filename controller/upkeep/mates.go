package upkeep

import (
	"context"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// stand is how far a box stands above its clean self, ln.
type stand struct {
	box  identity.ID
	rise float64
}

// watchPercent is where a box is watched.
const watchPercent = 3.5

// matesEvery is how often a box that rises hears how the others of its site do.
const matesEvery = 24 * time.Hour

// matesOf are the other boxes of a site, as they stood when boxes were last
// compared.
func (d *Desk) matesOf(site string, id identity.ID) health.Mates {
	d.mu.Lock()
	defer d.mu.Unlock()
	var rises []float64
	for _, s := range d.stands[site] {
		if s.box != id {
			rises = append(rises, s.rise)
		}
	}
	return health.MatesOf(rises)
}

// tellMates tells boxes whose resistance rose, and whose fans tell no speed, how
// the others of their site stand: a fan wears out alone.
func (d *Desk) tellMates(ctx context.Context, boxes []store.Box) error {
	stands := map[string][]stand{}
	var ask []identity.ID
	for _, b := range boxes {
		h, ok := care.ReadHeat(b.Heat)
		if !ok || b.Site == "" || d.now().Sub(time.Unix(h.LastHour, 0)) > heardWithin {
			continue
		}
		if h.Stand != nil {
			stands[b.Site] = append(stands[b.Site], stand{b.ID, *h.Stand})
		}
		if h.BlindFans && h.Percent != nil && *h.Percent >= watchPercent {
			ask = append(ask, b.ID)
		}
	}
	var due []identity.ID
	d.mu.Lock()
	told := map[identity.ID]time.Time{}
	d.stands = stands
	for _, id := range ask {
		if told[id] = d.told[id]; d.now().Sub(told[id]) >= matesEvery {
			told[id], due = d.now(), append(due, id)
		}
	}
	d.told = told // those that fell are forgotten
	d.mu.Unlock()
	for _, id := range due {
		if err := d.TellBox(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
