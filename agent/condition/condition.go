// Package condition judges the heat of this box on the box itself, with or
// without a controller: readings become hours, and package health makes
// findings of them.
//
//	STATE/health.json   the box's state, what waits for the spool, mutes,
//	                    changes that were applied; written once an hour
//
// Vocabulary: an hour is closed when the first reading of the next one comes. A
// batch is what one write of the file adds: hours and findings, numbered. A
// batch is in the file before it is in the spool, and its number is in the same
// transaction as its events: whatever dies in between, each is sent once. A fix
// is a moment on the clock of this boot and on the controller's calendar.
//
// Hours are made only of readings whose time is believed: the kernel says that
// its clock is synchronised, or the controller told the time in this boot. A
// clock that leaps drops the hour that is being gathered.
//
// A write is about 30 KB, up to 200 KB in the four weeks of learning, so some 3
// MB a day at worst; the flash of a small box takes a hundred times that for
// its whole life. A kill costs the readings of the hour that it falls into, a
// clean stop costs none.
//
// The one rule a caller can break: Observe, Now and Close belong to one goroutine.
// SetClock and SetCare may be called from any; they never wait.
package condition

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Options of a Condition. Path, Box, Boot, Deliver and Cursor are required.
type Options struct {
	Path           string // of health.json
	Box, Site, SKU string // SKU: what boxes of one make share; "" is one of its own
	Boot           string // names the boot of the operating system
	// Floor is a time before which no clock is believed; default none.
	Floor time.Time
	// Deliver appends events together with cursor, or neither. Cursor returns
	// what the last Deliver that succeeded was given.
	Deliver func(cursor []byte, events []wire.Event) error
	Cursor  func() ([]byte, error)
	// OnSave, if set, runs after each write of the file, for tests of crashes.
	OnSave func() error
}

// Moment is one moment on both clocks.
type Moment struct {
	Mono   time.Duration // since boot
	Wall   time.Time
	Synced bool // the kernel vouches for Wall
}

// Facts are what the box itself sees change. A change of one may move the
// baseline. "" is unknown and changes nothing.
type Facts struct {
	Models    string `json:"models,omitempty"` // that serve
	PowerMode string `json:"power_mode,omitempty"`
	BIOS      string `json:"bios,omitempty"` // version
}

// Reading is one reading of all sensors.
type Reading struct {
	At    Moment
	V     health.Figures
	Facts Facts
	TripC float64 // at which the die throttles, as the box knows it; 0: it does not
}

// fix is a moment on the clock of a boot and on the controller's calendar.
type fix struct {
	Boot   string `json:"boot"`
	MonoMs int64  `json:"mono_ms"`
	WallMs int64  `json:"wall_ms"`
}

// Condition is one. See the rule in the package comment.
type Condition struct {
	opts Options
	log  *slog.Logger

	mailbox struct {
		sync.Mutex // guards the fields below
		care       *wire.Care
		fix        *fix
	}

	// Of the goroutine that observes:
	state  state
	dirty  bool // state must be written before anything is delivered
	hours  health.Aggregator
	at     Moment    // of the last reading
	moment Moment    // of the last reading that counted
	time   time.Time // its believed time
	past   struct {  // readings that are older than the last hour
		since time.Duration
		is    bool
	}
	tripC float64
	prior *health.Prior
	wrong string // prior that was refused, so that it is said once
	said  string // last trouble, so that it is said once
	shown struct {
		sync.Mutex // guards report
		report     Report
	}
}

// Open reads the file of an earlier process. One that cannot be read is begun
// anew: a box without a baseline is better than one without a judge.
func Open(opts Options, log *slog.Logger) *Condition {
	c := &Condition{opts: opts, log: log}
	c.load()
	c.show()
	return c
}

// SetClock takes the controller's time of the moment mono.
func (c *Condition) SetClock(mono time.Duration, wall time.Time) {
	if wall.Before(c.opts.Floor) {
		return
	}
	c.mailbox.Lock()
	defer c.mailbox.Unlock()
	c.mailbox.fix = &fix{c.opts.Boot, mono.Milliseconds(), wall.UnixMilli()}
}

// SetCare takes what the controller knows.
func (c *Condition) SetCare(care wire.Care) {
	c.mailbox.Lock()
	defer c.mailbox.Unlock()
	c.mailbox.care = &care
}

// Observe takes one reading. What is found is with the spool, or in the file,
// when it returns; an error means that a disk takes no writes, and that the
// next call tries again.
func (c *Condition) Observe(r Reading) error {
	c.openMail(r.At)
	c.at, c.tripC = r.At, r.TripC
	c.take(r)
	return c.flush()
}

// Close keeps the hour that is being gathered for the next process.
func (c *Condition) Close() error {
	c.openMail(c.at)
	if h, ok := c.hours.Flush(); ok {
		c.keepPartial(h)
		c.dirty = true
	}
	return c.flush()
}

func (c *Condition) openMail(at Moment) {
	c.mailbox.Lock()
	defer c.mailbox.Unlock()
	if told := c.mailbox.fix; told != nil {
		c.state.Fix, c.mailbox.fix = *told, nil
	}
	// Changes have a date: they wait for a clock that is believed.
	if now, known := c.Now(at); known && c.mailbox.care != nil {
		c.state.takeCare(*c.mailbox.care, now)
		c.mailbox.care = nil
		c.readPrior()
	}
}

// leap is a difference of clocks that is none of drift or of a leap second.
const leap = 5 * time.Minute

// Now places a moment on the calendar, if anything vouches for it. It belongs to
// the goroutine that observes.
func (c *Condition) Now(m Moment) (time.Time, bool) {
	t := m.Wall
	if !m.Synced {
		f := c.state.Fix
		if f.Boot != c.opts.Boot {
			return time.Time{}, false
		}
		t = time.UnixMilli(f.WallMs).Add(m.Mono - time.Duration(f.MonoMs)*time.Millisecond)
	}
	if t.Before(c.opts.Floor) {
		return time.Time{}, false
	}
	return t, true
}

func (c *Condition) take(r Reading) {
	t, known := c.Now(r.At)
	if !known {
		c.hours, c.time = health.Aggregator{}, time.Time{}
		c.trouble("its clock is not synchronised and no controller has told the time since it booted")
		return
	}
	if !c.time.IsZero() {
		expected := c.time.Add(r.At.Mono - c.moment.Mono)
		if d := t.Sub(expected); d > leap || d < -leap {
			c.log.Info("clock has leapt; the hour that was being gathered is dropped", "from", expected.UTC(), "to", t.UTC())
			c.hours = health.Aggregator{}
		}
	}
	c.moment, c.time = r.At, t
	start := t.Unix() - t.Unix()%3600
	if start <= c.state.Box.Last.Start {
		c.older(r.At, t)
		return
	}
	c.past.is = false
	c.trouble("")
	s := health.Sample{Time: t, V: r.V}
	c.addAir(&s, t)
	if h, ok := c.hours.Add(&s); ok {
		c.closeHour(h)
	}
	c.noteFacts(r.Facts, t)
}

// patience is how long readings may be of the past before they are believed.
const patience = time.Hour

// older meets readings of an hour that was judged already. Right after a
// restart there are some. Where they go on and the last hour lies far ahead, the
// clock was wrong when it was made: what was judged in that future is forgotten.
func (c *Condition) older(at Moment, t time.Time) {
	if t.Unix() > c.state.Box.Last.Start-2*3600 {
		return
	}
	if !c.past.is {
		c.past.is, c.past.since = true, at.Mono
		return
	}
	if at.Mono-c.past.since < patience {
		return
	}
	c.past.is = false
	c.log.Warn("hours of the future are forgotten: the clock was wrong", "last", time.Unix(c.state.Box.Last.Start, 0).UTC(), "now", t.UTC())
	c.state.rewind(t.Unix())
	c.dirty = true
}

// airLife is how long the controller's word of the air in the room holds.
const airLife = 2 * time.Hour

func (c *Condition) addAir(s *health.Sample, t time.Time) {
	care := &c.state.Care
	if age := t.Sub(time.UnixMilli(care.AtMs)); age > airLife || age < -airLife {
		return
	}
	for f, v := range map[health.Field]float64{health.Room: care.RoomC, health.Neighbour: care.NeighbourC} {
		if s.V[f].OK() || v == 0 { // its own sensor is newer
			continue
		}
		if value, refused := health.Check(f, v); refused == nil {
			s.V[f] = value
		}
	}
}

// closeHour judges an hour and keeps what shall be sent.
func (c *Condition) closeHour(h health.Hour) {
	if p := c.state.Partial; p != nil {
		c.state.Partial = nil
		if p.Start == h.Start {
			h = health.Merge(*p, h)
		} else if p.Start < h.Start {
			c.judge(*p)
		}
	}
	c.judge(h)
	c.show()
}

func (c *Condition) keepPartial(h health.Hour) {
	p := c.state.Partial
	switch {
	case p == nil:
	case p.Start == h.Start:
		h = health.Merge(*p, h)
	case p.Start < h.Start:
		c.judge(*p)
	}
	c.state.Partial = &h
}

func (c *Condition) judge(h health.Hour) {
	if h.Start <= c.state.Box.Last.Start {
		return
	}
	text, err := h.MarshalText()
	if err != nil {
		c.log.Error("hour dropped", "err", err)
		return
	}
	env := health.Env{Prior: c.prior, TripC: c.state.Care.TripC}
	if (h.Start - c.state.Care.ToldAt) < int64(matesKnown/time.Second) {
		env.Mates = c.state.Care.Mates
	}
	if env.TripC == 0 {
		env.TripC = c.tripC
	}
	out := health.Advance(c.state.Box, &h, env)
	c.state.Next.Hours = append(c.state.Next.Hours, string(text))
	c.state.Next.Findings = append(c.state.Next.Findings, c.state.news(out, h.Start+3600)...)
	c.state.Next.bound()
	c.dirty = true
}

// noteFacts logs a change of what the box sees itself.
func (c *Condition) noteFacts(now Facts, t time.Time) {
	was := &c.state.Facts
	for _, f := range []struct {
		kind, is string
		was      *string
	}{{health.Rollout, now.Models, &was.Models}, {health.PowerMode, now.PowerMode, &was.PowerMode}, {health.BIOS, now.BIOS, &was.BIOS}} {
		if f.is == "" || f.is == *f.was {
			continue
		}
		if *f.was != "" {
			health.Log(c.state.Box, health.Change{At: t.Unix(), Box: c.opts.Box, Kind: f.kind, Detail: fmt.Sprintf("%s → %s", *f.was, f.is)})
			c.log.Info("change noted for the baseline", "kind", f.kind)
		}
		*f.was = f.is // on disk with the next hour, together with the change
	}
}

// trouble remembers why no hours are made, and says it once.
func (c *Condition) trouble(what string) {
	if what == c.said {
		return
	}
	c.said = what
	if what != "" {
		c.log.Warn("heat of the box is not judged: " + what)
	}
	c.show()
}
