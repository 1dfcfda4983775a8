package plant

import (
	"fmt"
	"math"
	"time"
)

// site is a place with one room, one link and one kind of dust.
type site struct {
	id, class  string
	room       []float32 // °C, true, hourly
	sunny      []float32 // 0..1, hourly
	dust       []float32 // loading per day, daily: the air of the site, for a box of average luck
	hasSensor  bool
	roomOffset float64
	noise      stream
	outages    []window // the link is down
	backfill   string
	hvac       []*fault
	density    float64 // of its air, of that at sea level
	south      bool
	harvest    float64 // factor on dust, of mills in their season
	damp       float64 // sd of the resistance of dust
	cupboard   float64 // K that a box at full load warms its cupboard
	regime     regime
}

// window is from an hour up to but not including another.
type window struct{ from, to int }

func (w window) has(h int) bool { return h >= w.from && h < w.to }

// lifeFactor is how long a filter lasts in a class of site, relative to an
// office: office 12, retail 6, industrial 3, workshop (wood, flour) 1 months
// are the usual service intervals.
func lifeFactor(class string) float64 {
	switch class {
	case "retail":
		return 0.5
	case "industrial":
		return 0.25
	case "workshop":
		return 0.085
	}
	return 1
}

func newSite(f *Fleet, index int) *site {
	fam := &f.family
	id := fmt.Sprintf("s%03d", index)
	base := streamOf(f.opts.Seed, fam.Name+"/"+id)
	r := base.rng()
	s := &site{
		id: id, class: pick(r, fam.Structure[siteClass]), noise: streamOf(uint64(base), "room"),
		roomOffset: 0.4 * r.NormFloat64(), backfill: pick(r, fam.Structure[backfill]),
	}
	place := streamOf(uint64(base), "place").rng()
	s.south, s.density = fam.kind(hemisphere, "north", place) == "south", 1
	if m := fam.extra(altitude, place); place.Float64() < 0.4 {
		s.density = math.Exp(-m / 8400) // barometric: scale height of an atmosphere at 15 °C
	}
	s.damp = fam.extra(damp, place)
	if s.class == "industrial" || s.class == "workshop" {
		s.harvest = fam.extra(harvest, place)
	}
	if place.Float64() < fam.extra(cupboards, place) {
		s.cupboard = fam.extra(cupboardRise, place)
	}
	s.hasSensor = r.Float64() < fam.Spans[roomSensor].draw(r)
	years := float64(f.opts.Days) / 365
	for range poisson(r, fam.Spans[outages].draw(r)*years) {
		at, long := r.IntN(f.hours), 1+int(math.Exp(1+1.3*r.NormFloat64()))
		s.outages = append(s.outages, window{at, at + min(long, 24*14)})
	}
	rate := 1 / (fam.Spans[dustYears].draw(r) * 365 * lifeFactor(s.class)) * math.Exp(fam.Spans[siteDust].draw(r)*r.NormFloat64())
	if r.Float64() < 0.5 {
		rate *= 0.12 // a house whose ventilation filters the air
	}
	s.loadDust(f, rate)
	s.settle(f)
	if !f.opts.Healthy && s.regime.kind != "unheated" { // there, no cooling can fail
		for range poisson(r, fam.Rates[HVAC]*years) {
			on := r.IntN(f.hours)
			for range 4 { // cooling fails when it works hard
				if s.regime.kind != "closet" && s.summer(f.time(float64(on))) < 0 {
					on = r.IntN(f.hours)
				}
			}
			s.hvac = append(s.hvac, &fault{cause: HVAC, on: on, off: on + 8 + r.IntN(80), top: 1})
		}
	}
	s.weather(f)
	return s
}

// loadDust is the site's dust by day: a yearly swing, calm and busy weeks,
// and storms, which are building work next door.
func (s *site) loadDust(f *Fleet, rate float64) {
	r := streamOf(uint64(s.noise), "dust").rng()
	s.dust = make([]float32, f.opts.Days)
	if f.opts.Healthy {
		return
	}
	week := streamOf(uint64(s.noise), "dust weeks")
	phase := r.Float64() * 2 * math.Pi
	for d := range s.dust {
		s.dust[d] = float32(rate * (1 + 0.3*math.Sin(2*math.Pi*float64(d)/365+phase)) * math.Exp(0.3*week.smooth(d, 7)))
		if s.harvest > 0 && s.autumn(f.time(float64(24*d))) {
			s.dust[d] *= float32(s.harvest)
		}
	}
	for range poisson(r, f.family.Rates[storm]*float64(f.opts.Days)/365) {
		from, long := r.IntN(f.opts.Days), 12+r.IntN(40)
		add := float32((0.8 + 0.8*r.Float64()) / float64(long))
		for d := from; d < min(from+long, f.opts.Days); d++ {
			s.dust[d] += add
		}
	}
}

// weather runs the climate and the room: free air follows outdoors plus the
// gains of the house, cooling pulls towards the set point, and the room
// follows with the inertia of its walls.
func (s *site) weather(f *Fleet) {
	fam := &f.family
	r := streamOf(uint64(s.noise), "climate").rng()
	mean, swing := fam.Spans[outdoor].draw(r), fam.Spans[season].draw(r)
	strength := fam.Spans[cooling].draw(r)
	if s.class == "industrial" || s.class == "workshop" {
		strength *= 0.6
	}
	day, gain, set := 3+3*r.Float64(), 8+8*r.Float64(), 20+3*r.Float64()
	front, sky := streamOf(uint64(s.noise), "fronts"), streamOf(uint64(s.noise), "sky")
	doors := streamOf(uint64(s.noise), "doors")
	s.room, s.sunny = make([]float32, f.hours), make([]float32, f.hours)
	room, cooled := set, set // cooled is the room had its cooling never failed
	waves := make([]float64, f.hours)
	for range poisson(r, fam.Rates[heatWave]*float64(f.opts.Days)/365) {
		at, long, hot := r.IntN(f.hours), 24*(3+r.IntN(6)), 5+5*r.Float64()
		for h := at; h < min(at+long, f.hours); h++ {
			waves[h] = hot
		}
	}
	for h := range s.room {
		t := f.opts.Start.Add(time.Duration(h) * time.Hour)
		hour, warm := float64(t.Hour()), s.summer(t)
		if warm < 0.2 {
			waves[h] = 0
		}
		clear := clamp(0.6+0.5*sky.smooth(h, 30), 0, 1)
		s.sunny[h] = float32(clear * max(0, math.Sin(math.Pi*(hour-7)/12)) * (0.6 + 0.4*warm))
		out := mean + swing*warm + day*clear*math.Cos(2*math.Pi*(hour-15)/24) + 2.5*front.smooth(h, 60) + waves[h]
		k := s.regime.at(t, strength, set, gain)
		hold, pace := k.hold, 0.35 // 1/h: cooling answers within hours
		free := out + k.gain
		if k.inner > 0 { // the house around it is at its set point
			free += k.inner * (set - out)
		}
		if free < k.set {
			free = k.set - (k.set-free)*k.leaks
		}
		free += k.oven + k.sun*float64(s.sunny[h])
		cooled += pace * (free + hold*(k.set-free) - cooled)
		for _, x := range s.hvac {
			if h >= x.on && h < x.off {
				hold, pace = 0.05, 0.12
			}
		}
		room += pace * (free + hold*(k.set-free) - room)
		for _, x := range s.hvac {
			if h >= x.on && h < x.off {
				x.rise = max(x.rise, room-cooled)
			}
		}
		s.room[h] = float32(room + 0.25*s.noise.smooth(h, 3) + s.door(doors, h, out-room) + s.regime.propped(h, t, out-room))
	}
}

// summer is 1 in the hottest time, -1 in the coldest.
func (s *site) summer(t time.Time) float64 {
	x := math.Cos(2 * math.Pi * (float64(t.YearDay()) - 200) / 365)
	if s.south {
		return -x
	}
	return x
}

// autumn is the time in which mills take in the harvest.
func (s *site) autumn(t time.Time) bool {
	day := t.YearDay()
	if s.south {
		day = (day + 182) % 365
	}
	return day > 190 && day < 290
}

// wet is the factor of the day's damp on the resistance of dust.
func (s *site) wet(day int) float64 {
	if s.damp == 0 {
		return 1
	}
	return math.Exp(s.damp * streamOf(uint64(s.noise), "damp").smooth(day, 12))
}

// door is the gust of an hour in which a shop's door stood open.
func (s *site) door(d stream, h int, difference float64) float64 {
	if s.class == "office" || d.uniform(2*h) > 0.08 {
		return 0
	}
	return 0.15 * d.uniform(2*h+1) * difference
}
