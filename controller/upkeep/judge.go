package upkeep

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

const (
	// judgeBoxes are read in one go.
	judgeBoxes = 500
	// judgeHours of one box are read in one go: 40 days.
	judgeHours = 960
	// changesLast is how long a logged change may still move a box.
	changesLast = 60 * 24 * time.Hour
)

// stored is the state of a box's heat in the database.
type stored struct {
	Box *health.Box `json:"box"`
	// Logged are the changes that the box was told of, as keys.
	Logged []string    `json:"logged,omitempty"`
	Warmth care.Warmth `json:"warmth"`
}

// Judge takes the hours that came since into the heat of their boxes.
func (d *Desk) Judge(ctx context.Context) error {
	skus, err := d.learntSKUs(ctx)
	if err != nil {
		return err
	}
	todo, err := d.opts.Store.Unjudged(ctx, judgeBoxes)
	if err != nil || len(todo) == 0 {
		return err
	}
	for _, h := range todo {
		if err := d.judgeBox(ctx, h, skus); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if len(todo) == judgeBoxes {
		d.news()
	}
	return nil
}

// heatOf reads the state of a box, or begins it. What cannot be read is begun
// anew from the hours, which are all there.
func (d *Desk) heatOf(ctx context.Context, id identity.ID) (stored, error) {
	raw, err := d.opts.Store.HeatState(ctx, id)
	if err != nil {
		return stored{}, err
	}
	var s stored
	if raw != nil {
		if err := json.Unmarshal(raw, &s); err != nil || s.Box == nil {
			d.log.Warn("heat of a box judged anew", "device", id, "err", err)
			s = stored{}
		}
	}
	return s, nil
}

func (d *Desk) judgeBox(ctx context.Context, h store.Heat, skus map[string]learnt) error {
	s, err := d.heatOf(ctx, h.Box)
	if err != nil {
		return err
	}
	if s.Box == nil {
		place, err := d.place(ctx, h.Box)
		if err != nil {
			return err
		}
		s.Box = health.New(string(h.Box), place.Site, place.SKU)
	}
	changes, err := d.opts.Store.Changes(ctx, h.Box, d.now().Add(-changesLast))
	if err != nil {
		return err
	}
	env, was, last := skus[s.Box.SKU].env(), h.Judged, lastDay(s.Box)
	env.Mates = d.matesOf(s.Box.Site, h.Box)
	for {
		hours, err := d.opts.Store.Hours(ctx, h.Box, time.Unix(s.Box.Last.Start+1, 0), judgeHours)
		if err != nil {
			return err
		}
		for _, row := range hours {
			var hour health.Hour
			if err := hour.UnmarshalBinary(row.Body); err != nil {
				continue // of a newer agent; it was checked when it came
			}
			s.log(changes, hour.Start)
			health.Advance(s.Box, &hour, env)
			s.Warmth.Take(&hour)
		}
		if len(hours) < judgeHours {
			break
		}
	}
	h.Judged = h.Hours
	told := summary(s.Box)
	told.Cooling = s.Warmth.Cooling(s.Box.Limit())
	if h.Body, err = json.Marshal(told); err != nil {
		return err
	}
	state, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("keep the heat of %s: %w", h.Box, err)
	}
	if _, err := d.opts.Store.KeepHeat(ctx, h, was, state); err != nil {
		return err
	}
	d.changedBox(h.Box)
	if len(s.Box.Open) > 0 && lastDay(s.Box) != last {
		return d.refresh(ctx, h.Box, s.Box)
	}
	return nil
}

// lastDay is the newest day that a box is judged by; 0: none.
func lastDay(b *health.Box) int32 {
	if n := len(b.Days); n > 0 {
		return b.Days[n-1].Day
	}
	return 0
}

// log tells the box of changes up to an hour, each once, also of those that
// somebody wrote down later.
func (s *stored) log(changes []store.ChangeRow, hour int64) {
	for _, c := range changes {
		at := c.TimeMs / 1000
		key := fmt.Sprintf("%d %s %s", at, c.Kind, c.Detail)
		if at > hour || slices.Contains(s.Logged, key) {
			continue
		}
		if n := len(s.Logged); n >= 200 {
			s.Logged = slices.Delete(s.Logged, 0, n-199)
		}
		s.Logged = append(s.Logged, key)
		health.Log(s.Box, health.Change{At: at, Kind: kindOf(c.Kind), Detail: c.Detail})
	}
}

// kindOf is the kind of change that work is for the judgement.
func kindOf(kind string) string {
	switch kind {
	case health.Rollout, health.PowerMode, health.BIOS, health.Visit, health.Cleaned, health.FanReplaced, health.PasteReplaced, health.FilterInstalled, health.Moved:
		return kind
	case fleetapi.WorkBoxReplaced:
		return health.Moved // other hardware in the same place: the clean box is learnt anew
	}
	return health.Visit
}

// summary is what lists show of a box.
func summary(b *health.Box) care.Heat {
	h := care.Heat{
		SKU: b.SKU, Judged: b.Base != nil, Reference: b.Basis.Ref, LastHour: b.Last.Start, FirstHour: b.First,
		Forecast: care.ForecastOf(b.Trend), InletC: care.Number(float64(b.Last.V[health.Inlet])), RoomC: care.Number(float64(b.Last.V[health.Room])),
	}
	if b.Base == nil {
		l := b.Learning()
		h.Learning = &l
	} else {
		h.Sigma = care.Number(100 * b.Base.Sigma)
	}
	if n := len(b.Days); n > 0 && b.Base != nil {
		h.Percent = percentOf(b.Days[n-1].S7)
	}
	if r, ok := b.Stand(); ok {
		h.Stand = &r
	}
	h.BlindFans = b.BlindFans()
	if rate, sigma, ok := b.DustRate(); ok {
		h.DustRate, h.DustSigma = &rate, sigma
	}
	return h
}

func percentOf(r health.Value) *float64 {
	if !r.OK() {
		return nil
	}
	return care.Number(health.Percent(float64(r)))
}

// readingSince is what a box measured since a moment, of its last steady hours.
func readingSince(b *health.Box, from time.Time) care.Reading {
	var starts []int64
	var percents []float64
	for _, m := range b.Recent {
		starts, percents = append(starts, m.Start), append(percents, health.Percent(m.R))
	}
	return care.MedianOf(starts, percents, from)
}

// place tells where a box stands.
func (d *Desk) place(ctx context.Context, id identity.ID) (p care.Place, err error) {
	err = d.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		p, err = c.Place(ctx, id)
		return err
	})
	return p, err
}

func (d *Desk) changedBox(id identity.ID) {
	d.opts.Changed(fleetapi.Change{Topic: "boxes", ID: string(id)})
}
