package upkeep

import (
	"cmp"
	"context"
	"encoding/json"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const (
	// learnBoxes of a SKU are pooled; more teach nothing new.
	learnBoxes = 100
	// learnHours is the window that a box is learnt from: days 2 to 28.
	learnHours = 28 * 24
	// leastLearnt steady hours make a box of use: three days of them.
	leastLearnt = 72
	// worthTelling is a change of a slope that moves a verdict.
	worthTelling = 0.01
	tripWorth    = 0.5 // K
)

// learnt is what is known of a SKU and when it was fitted.
type learnt struct {
	Prior health.Prior `json:"prior"`
	// TripC is the die temperature at which its boxes throttle; 0: none did
	// often enough.
	TripC  float64   `json:"trip_c,omitempty"`
	Fitted time.Time `json:"fitted"`
}

// env is what a box of a SKU is judged by.
func (l learnt) env() health.Env {
	e := health.Env{TripC: l.TripC}
	if l.Prior.SKU != "" {
		e.Prior = &l.Prior
	}
	return e
}

func (d *Desk) learntSKUs(ctx context.Context) (map[string]learnt, error) {
	rows, err := d.opts.Store.Priors(ctx)
	out := map[string]learnt{}
	for sku, raw := range rows {
		var l learnt
		if json.Unmarshal(raw, &l) == nil {
			out[sku] = l
		}
	}
	return out, err
}

// Learn fits the slopes and fan curve of each SKU to its boxes anew, and tells
// the boxes when they moved.
func (d *Desk) Learn(ctx context.Context) error {
	boxes, err := d.opts.Store.Boxes(ctx, d.now().UnixMilli())
	if err != nil {
		return err
	}
	bySKU := map[string][]identity.ID{}
	for _, b := range boxes {
		if sku := store.SKUOf(b.Inventory); sku != "" {
			bySKU[sku] = append(bySKU[sku], b.ID)
		}
	}
	known, err := d.learntSKUs(ctx)
	if err != nil {
		return err
	}
	for sku, ids := range bySKU {
		was, is := known[sku], learnt{Fitted: d.now()}
		if is.Prior, err = d.fit(ctx, sku, ids); err != nil {
			return err
		}
		if is.TripC, err = d.trip(ctx, ids); err != nil {
			return err
		}
		if is.Prior.SKU == "" { // no box of it has three days yet
			is.Prior = was.Prior
		}
		if is.TripC == 0 { // what boxes have shown holds, also of those that are gone
			is.TripC = was.TripC
		}
		if !moved(was, is) {
			continue
		}
		raw, err := json.Marshal(is)
		if err != nil {
			return err
		}
		if err := d.opts.Store.KeepPrior(ctx, sku, raw); err != nil {
			return err
		}
		p := is.Prior
		d.log.Info("SKU learnt", "sku", sku, "boxes", p.Boxes, "air", p.Slopes.Air, "load", p.Slopes.Load, "trip", is.TripC)
		for _, id := range ids {
			if err := d.TellBox(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// fit pools the hours of boxes of a SKU; a prior without a name: there are none.
func (d *Desk) fit(ctx context.Context, sku string, ids []identity.ID) (health.Prior, error) {
	var hours [][]health.Hour
	for _, id := range some(ids) {
		h, err := d.window(ctx, id)
		if err != nil {
			return health.Prior{}, err
		}
		if len(h) >= leastLearnt {
			hours = append(hours, h)
		}
	}
	if len(hours) == 0 {
		return health.Prior{}, nil
	}
	return health.FitPrior(sku, hours), nil
}

// trip is where boxes of a SKU throttle, °C, to half a degree; 0: not known.
func (d *Desk) trip(ctx context.Context, ids []identity.ID) (float64, error) {
	var boxes []*health.Box
	for _, id := range some(ids) {
		s, err := d.heatOf(ctx, id)
		if err != nil {
			return 0, err
		}
		if s.Box != nil {
			boxes = append(boxes, s.Box)
		}
	}
	c, _ := health.PooledTrip(boxes)
	return math.Round(2*c) / 2, nil
}

// some picks boxes in an order that is the same each day and has nothing to do
// with their names.
func some(ids []identity.ID) []identity.ID {
	hash := func(id identity.ID) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(id))
		return h.Sum64()
	}
	ids = slices.SortedFunc(slices.Values(ids), func(a, b identity.ID) int { return cmp.Compare(hash(a), hash(b)) })
	return ids[:min(len(ids), learnBoxes)]
}

// window reads the hours that a box is learnt from.
func (d *Desk) window(ctx context.Context, id identity.ID) ([]health.Hour, error) {
	rows, err := d.opts.Store.Hours(ctx, id, time.UnixMilli(0), learnHours)
	if err != nil {
		return nil, err
	}
	var hours []health.Hour
	for _, row := range rows {
		var h health.Hour
		if h.UnmarshalBinary(row.Body) == nil {
			hours = append(hours, h)
		}
	}
	return health.LearnWindow(hours), nil
}

// moved reports whether a SKU is known so much better that its boxes are told.
func moved(was, is learnt) bool {
	a, b := was.Prior, is.Prior
	return a.SKU != b.SKU || math.Abs(was.TripC-is.TripC) > tripWorth || a.Boxes != b.Boxes && 2*min(a.Boxes, b.Boxes) < max(a.Boxes, b.Boxes) || a.Air != b.Air || a.Load != b.Load ||
		math.Abs(a.Slopes.Air-b.Slopes.Air) > worthTelling || math.Abs(a.Slopes.Load-b.Slopes.Load) > worthTelling
}

// TellBox sends a box what it cannot know by itself. One that is away hears it
// at its next HELLO.
func (d *Desk) TellBox(ctx context.Context, id identity.ID) error {
	care, err := d.careFor(ctx, id)
	if err != nil {
		return err
	}
	if err := d.opts.Tell(id, care); err != nil {
		d.log.Debug("box not told of its heat", "device", id, "err", err)
	}
	return nil
}

func (d *Desk) careFor(ctx context.Context, id identity.ID) (wire.Care, error) {
	c := wire.Care{V: wire.Version}
	p, err := d.place(ctx, id)
	if err != nil {
		return c, err
	}
	priors, err := d.learntSKUs(ctx)
	if err != nil {
		return c, err
	}
	if l := priors[p.SKU]; l.Prior.SKU != "" {
		if c.Prior, err = json.Marshal(l.Prior); err != nil {
			return c, err
		}
		if len(c.Prior) > wire.MaxPriorBytes {
			c.Prior = nil
		}
	}
	c.TripC = priors[p.SKU].TripC
	mates := d.matesOf(p.Site, id)
	c.Mates, c.MatesRise = uint(mates.N), mates.R
	changes, err := d.opts.Store.Changes(ctx, id, d.now().Add(-changesLast))
	if err != nil {
		return c, err
	}
	for _, ch := range changes {
		if ch.Kind != health.Rollout { // a box sees for itself what it serves
			c.Changes = append(c.Changes, wire.CareChange{At: ch.TimeMs / 1000, Kind: kindOf(ch.Kind), Detail: ch.Detail})
		}
	}
	c.Changes = c.Changes[max(0, len(c.Changes)-wire.MaxCareChanges):]
	err = d.opts.Store.CareView(ctx, func(t *store.CareTx) error {
		mutes, err := t.Mutes(ctx, id)
		c.Mutes = nil
		for _, m := range mutes[:min(len(mutes), wire.MaxCareMutes)] {
			c.Mutes = append(c.Mutes, wire.CareMute{Family: m.Family, Until: m.UntilMs / 1000, Why: m.Why})
		}
		return err
	})
	if err != nil {
		return c, err
	}
	boxes, err := d.airAt(ctx, p.Site)
	if err != nil {
		return c, err
	}
	c.RoomC, c.NeighbourC, c.AtMs = air(boxes, id, d.now())
	return c, nil
}

// siteAir is the air of the boxes of a site as it was read.
type siteAir struct {
	at    time.Time
	boxes []store.Air
}

// airKept is how long what was read is used: boxes of a large site that all
// come back at once would each have all of them read.
const airKept = 10 * time.Second

func (d *Desk) airAt(ctx context.Context, site string) ([]store.Air, error) {
	d.mu.Lock()
	defer d.mu.Unlock() // meanwhile: who asks for the same waits for it
	if have, now := d.airs[site], d.now(); !have.at.IsZero() && now.Sub(have.at).Abs() < airKept {
		return have.boxes, nil
	}
	boxes, err := d.opts.Store.AirAt(ctx, site)
	if err != nil {
		return nil, err
	}
	if d.airs == nil {
		d.airs = map[string]siteAir{}
	}
	d.airs[site] = siteAir{d.now(), boxes}
	return boxes, nil
}

// airFresh is how old a reading of the air may be.
const airFresh = 15 * time.Minute

// air is what others measured in the room of a box: the site's room sensor, and
// the inlets of its neighbours, each as the median.
func air(all []store.Air, id identity.ID, now time.Time) (room, neighbour float64, atMs int64) {
	var rooms, inlets []float64
	old := now.Add(-airFresh).UnixMilli()
	for _, a := range all {
		if a.Room.TimeMs >= old && a.Room.Value != 0 {
			rooms, atMs = append(rooms, a.Room.Value), max(atMs, a.Room.TimeMs)
		}
		if a.Box != id && a.Inlet.TimeMs >= old && a.Inlet.Value != 0 {
			inlets, atMs = append(inlets, a.Inlet.Value), max(atMs, a.Inlet.TimeMs)
		}
	}
	middle := func(v []float64) float64 {
		if len(v) == 0 {
			return 0
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return middle(rooms), middle(inlets), atMs
}

// tellAir tells boxes without an inlet of their own what their neighbours
// breathe.
func (d *Desk) tellAir(ctx context.Context) error {
	boxes, err := d.opts.Store.Airs(ctx)
	if err != nil {
		return err
	}
	old := d.now().Add(-airFresh).UnixMilli()
	for _, all := range boxes {
		for _, a := range all {
			if !a.Connected || a.Inlet.TimeMs >= old {
				continue
			}
			if room, neighbour, _ := air(all, a.Box, d.now()); room == 0 && neighbour == 0 {
				continue
			}
			if err := d.TellBox(ctx, a.Box); err != nil {
				return err
			}
		}
	}
	return nil
}
