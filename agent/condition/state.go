package condition

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// fileVersion is the shape of health.json. History: 1 first.
const fileVersion = 1

// state is health.json.
type state struct {
	// Life names this file in the spool's cursor: a file that is begun anew
	// counts its batches from one again.
	Life string `json:"life"`
	Seq  uint64 `json:"seq"` // of Pending
	// Pending is in the spool if the cursor there is Seq of this Life. Next
	// waits until Pending is.
	Pending batch `json:"pending"`
	Next    batch `json:"next"`

	Box     *health.Box  `json:"box"`
	Partial *health.Hour `json:"partial,omitempty"` // of a clean stop
	Fix     fix          `json:"fix"`
	Facts   Facts        `json:"facts"`
	Care    care         `json:"care"`
	Applied []applied    `json:"applied,omitempty"`
	// Reported are the open findings as they were sent, by family.
	Reported map[string]health.Finding `json:"reported"`
}

type batch struct {
	Hours    []string         `json:"hours,omitempty"`
	Findings []health.Finding `json:"findings,omitempty"`
}

func (b *batch) empty() bool { return len(b.Hours) == 0 && len(b.Findings) == 0 }

// maxHours wait for a spool that takes no writes: a month. The oldest go.
const maxHours = 720

func (b *batch) bound() {
	b.Hours = b.Hours[max(0, len(b.Hours)-maxHours):]
	b.Findings = b.Findings[max(0, len(b.Findings)-maxHours):]
}

// care is what the last wire.Care said; its changes are in Applied.
type care struct {
	Prior      json.RawMessage `json:"prior,omitempty"`
	TripC      float64         `json:"trip_c,omitempty"`
	RoomC      float64         `json:"room_c,omitempty"`
	NeighbourC float64         `json:"neighbour_c,omitempty"`
	AtMs       int64           `json:"at_ms,omitempty"`
	Mates      health.Mates    `json:"mates,omitzero"`
	ToldAt     int64           `json:"told_at,omitempty"` // Unix seconds
	Mutes      []Mute          `json:"mutes,omitempty"`
}

// Mute is a family of findings that people closed.
type Mute struct {
	Family string      `json:"family"`
	Until  health.Unix `json:"until"`
	Why    string      `json:"why,omitempty"`
}

// applied names a change that health was told of.
type applied struct {
	At     int64  `json:"at"`
	Kind   string `json:"kind"`
	Detail string `json:"detail,omitempty"`
}

// ownKinds the box sees itself; the controller's word of them would be a second.
var ownKinds = []string{health.Rollout, health.PowerMode, health.BIOS}

// Limits of what is taken from a controller, beside those of package wire.
const (
	tripLow, tripHigh = 50, 125                 // °C: no die throttles outside
	maxChanges        = 2 * wire.MaxCareChanges // that wait or are remembered
	changeLife        = 90 * 24 * time.Hour     // a change is told for 60 days
	changeAhead       = time.Hour               // of clocks that differ
	maxMates          = 1 << 20
	matesKnown        = 7 * 24 * time.Hour // how long what was said of other boxes is believed
)

// takeCare keeps what the controller said and logs the changes that are new. A
// controller that is wrong costs no box its baseline: changes of another time,
// and more of them than people can make, are passed over.
func (s *state) takeCare(c wire.Care, now time.Time) {
	s.Care = care{RoomC: c.RoomC, NeighbourC: c.NeighbourC, AtMs: c.AtMs, Mates: health.Mates{N: int(min(c.Mates, maxMates)), R: c.MatesRise}, ToldAt: now.Unix()}
	if c.TripC >= tripLow && c.TripC <= tripHigh {
		s.Care.TripC = c.TripC
	}
	if json.Valid(c.Prior) {
		s.Care.Prior = c.Prior
	}
	for _, m := range c.Mutes {
		s.Care.Mutes = append(s.Care.Mutes, Mute{m.Family, health.Unix(m.Until), m.Why})
	}
	oldest, newest := now.Add(-changeLife).Unix(), now.Add(changeAhead).Unix()
	s.Applied = slices.DeleteFunc(s.Applied, func(a applied) bool { return a.At < oldest || a.At > newest })
	for _, ch := range c.Changes {
		a := applied{ch.At, ch.Kind, ch.Detail}
		if ch.Kind == "" || ch.At < oldest || ch.At > newest || slices.Contains(ownKinds, ch.Kind) || slices.Contains(s.Applied, a) {
			continue
		}
		if len(s.Applied) >= maxChanges || len(s.Box.Changes) >= maxChanges {
			return
		}
		s.Applied = append(s.Applied, a)
		health.Log(s.Box, health.Change{At: ch.At, Box: s.Box.Name, Kind: ch.Kind, Detail: ch.Detail})
	}
}

// news are the findings to send, after out was opened, raised or closed. What
// people muted is kept back until it is urgent or the mute ends.
func (s *state) news(out []health.Finding, at int64) []health.Finding {
	var send []health.Finding
	for _, f := range out {
		if _, told := s.Reported[f.Family]; told && f.Closed != 0 {
			send = append(send, f)
			delete(s.Reported, f.Family)
		}
	}
	open := map[string]bool{}
	for _, f := range s.Box.Open {
		open[f.Family] = true
		was, told := s.Reported[f.Family]
		if told && was.Opened == f.Opened && was.Level == f.Level && was.Cause == f.Cause {
			continue
		}
		if s.muted(f.Family, at) && f.Level < health.Urgent {
			continue
		}
		send = append(send, f)
		s.Reported[f.Family] = f
	}
	// A box that was moved forgets what was open.
	for family, f := range s.Reported {
		if !open[family] {
			f.Closed, f.ClosedBy = health.Unix(at), "moved"
			send = append(send, f)
			delete(s.Reported, family)
		}
	}
	return send
}

func (s *state) muted(family string, at int64) bool {
	return slices.ContainsFunc(s.Care.Mutes, func(m Mute) bool { return m.Family == family && int64(m.Until) > at })
}

// rewind forgets what was judged after now by a clock that was wrong.
func (s *state) rewind(now int64) {
	b := s.Box
	b.Last = health.Hour{V: health.Blank()}
	b.First = min(b.First, now)
	b.Learn = slices.DeleteFunc(b.Learn, func(h health.Hour) bool { return h.Start > now })
	b.Days = slices.DeleteFunc(b.Days, func(d health.Day) bool { return int64(d.Day) > now/86400 })
	b.Changes = slices.DeleteFunc(b.Changes, func(c health.Change) bool { return c.At > now })
	b.Recent, b.CleanDay = nil, min(b.CleanDay, int32(now/86400))
	s.Partial = nil
}

// forget begins the box anew, without what has no JSON, and with no hour twice.
func (s *state) forget(box *health.Box) {
	box.Last.Start = s.Box.Last.Start
	s.Box, s.Partial = box, nil
	unsayable := func(f health.Finding) bool {
		_, err := json.Marshal(f)
		return err != nil
	}
	maps.DeleteFunc(s.Reported, func(_ string, f health.Finding) bool { return unsayable(f) })
	s.Pending.Findings = slices.DeleteFunc(s.Pending.Findings, unsayable)
	s.Next.Findings = slices.DeleteFunc(s.Next.Findings, unsayable)
}

func (c *Condition) journal() durable.Journal {
	return durable.Journal{Path: c.opts.Path, Version: fileVersion, OnSave: c.opts.OnSave}
}

func (c *Condition) load() {
	var s state
	found, err := c.journal().Load(&s)
	if err != nil {
		c.log.Warn("state of the box's heat not read; it is learnt anew", "err", err)
	}
	o := c.opts
	if err != nil || !found || s.Box == nil || s.Life == "" {
		s = state{Life: newLife(), Box: health.New(o.Box, o.Site, o.SKU)}
	}
	if s.Box.SKU != o.SKU && o.SKU != "" { // a board that does not say today what it is, is no other
		c.log.Info("other hardware than before; its heat is learnt anew", "was", s.Box.SKU, "is", o.SKU)
		s.forget(health.New(o.Box, o.Site, o.SKU))
	}
	s.Box.Name, s.Box.Site = o.Box, o.Site
	if s.Reported == nil {
		s.Reported = map[string]health.Finding{}
	}
	c.state = s
	c.readPrior()
}

func newLife() string {
	var raw [8]byte
	rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

// readPrior makes the prior of what the controller said; nil: the shipped one.
func (c *Condition) readPrior() {
	c.prior = nil
	raw := string(c.state.Care.Prior)
	if raw == "" {
		return
	}
	var p health.Prior
	err := json.Unmarshal(c.state.Care.Prior, &p)
	if err == nil {
		err = checkPrior(p)
	}
	if err != nil {
		if raw != c.wrong { // it comes again with each connection
			c.wrong = raw
			c.log.Warn("prior of the controller ignored", "err", err)
		}
		return
	}
	c.prior = &p
}

// checkPrior refuses slopes that no air and no heat sink has: a baseline that
// was made with them would never fit.
func checkPrior(p health.Prior) error {
	if !(math.Abs(p.Slopes.Air) <= 2 && math.Abs(p.Slopes.Load) <= 2 && p.Sigma >= 0 && p.Sigma <= 1) {
		return fmt.Errorf("slopes %g and %g, spread %g: want −2 to 2, and 0 to 1", p.Slopes.Air, p.Slopes.Load, p.Sigma)
	}
	for _, v := range p.Curve {
		if v.OK() && math.Abs(float64(v)) > 5 {
			return fmt.Errorf("curve of the fan has %g: want the logarithm of a ratio of speeds", v)
		}
	}
	return nil
}

// flush writes the state and hands batches to the spool, as far as both let it.
func (c *Condition) flush() error {
	for {
		if !c.state.Pending.empty() {
			if c.dirty { // Box and Pending are of one write
				if err := c.save(); err != nil {
					return err
				}
			}
			if err := c.deliver(); err != nil {
				return err
			}
			c.state.Pending = batch{}
		}
		if !c.dirty && c.state.Next.empty() {
			return nil
		}
		if !c.state.Next.empty() {
			c.state.Pending, c.state.Next = c.state.Next, batch{}
			c.state.Seq++
		}
		if err := c.save(); err != nil {
			return err
		}
	}
}

func (c *Condition) save() error {
	err := c.journal().Save(&c.state)
	var unsayable *json.UnsupportedValueError
	if errors.As(err, &unsayable) {
		// No number in the box's state may keep hours from the controller.
		c.log.Error("state of the box's heat has no JSON; it is learnt anew", "err", err)
		c.state.forget(health.New(c.opts.Box, c.opts.Site, c.opts.SKU))
		err = c.journal().Save(&c.state)
	}
	if err != nil {
		c.dirty = true
		return fmt.Errorf("keep state of the box's heat: %w", err)
	}
	c.dirty = false
	return nil
}

// deliver appends Pending to the spool unless it is there.
func (c *Condition) deliver() error {
	have, err := c.opts.Cursor()
	if err != nil {
		return fmt.Errorf("look for the batch in the spool: %w", err)
	}
	if life, seq, ok := readCursor(have); ok && life == c.state.Life && seq >= c.state.Seq {
		return nil
	}
	events, err := c.state.Pending.events(c.at)
	if err != nil {
		return err
	}
	return c.opts.Deliver(cursorOf(c.state.Life, c.state.Seq), events)
}

// The cursor is 8 bytes of the batch's number, big endian, and the life.
func cursorOf(life string, seq uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, seq), life...)
}

func readCursor(raw []byte) (life string, seq uint64, ok bool) {
	if len(raw) < 8 {
		return "", 0, false
	}
	return string(raw[8:]), binary.BigEndian.Uint64(raw), true
}

// events are the batch as it travels.
func (b *batch) events(at Moment) ([]wire.Event, error) {
	var out []wire.Event
	add := func(kind, text string, body any) error {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode event %s: %w", kind, err)
		}
		out = append(out, wire.Event{MonoMs: at.Mono.Milliseconds(), WallMs: at.Wall.UnixMilli(), Type: kind, Text: text, Body: data})
		return nil
	}
	for hours := range slices.Chunk(b.Hours, wire.MaxEventHours) {
		if err := add(wire.EventHours, "", wire.HoursBody{Hours: hours}); err != nil {
			return nil, err
		}
	}
	for _, f := range b.Findings {
		if err := add(wire.EventFinding, Sentence(f), f); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// day is how people read a moment of a finding.
func day(u health.Unix) string { return time.Unix(int64(u), 0).UTC().Format("2006-01-02") }
