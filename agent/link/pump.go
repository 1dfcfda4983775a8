package link

import (
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The window until a WELCOME says otherwise, and the limits of what it may say.
const (
	defaultWindowBlocks = 8
	defaultWindowBytes  = 64 << 10
	maxWindowBlocks     = 512
	maxWindowBytes      = 4 << 20
)

// maxDataBytes bounds the blocks of one DATA, so that a schema fits as well.
const maxDataBytes = wire.MaxMessageBytes - wire.MaxSchemaBytes - 6<<10

// What is not acknowledged is sent again after this, or four round
// trips if that is longer; each time twice as long, up to the limit.
const (
	repeatAfter = 30 * time.Second
	repeatMax   = 10 * time.Minute
)

// pump decides what to send next on one session.
type pump struct {
	flights  map[*flight]struct{}
	byKey    map[wire.Key]*flight
	known    map[wire.SchemaID]bool // schemas the controller has
	parcels  int                    // window
	bytes    int                    // window
	rtt      time.Duration          // smoothed time from DATA to ACK
	since    spool.Mark             // of the connection: what is younger is live
	drainAt  time.Time              // the backlog waits until then
	backlog  bucket                 // the backlog waits for it, too
	quiet    []span                 // in which only events go up
	oldFirst bool                   // whose turn it is
	alone    *flight                // the suspect in flight, if any
	progress bool                   // a block in flight was acknowledged
	lastSent time.Time
}

func newPump(since spool.Mark) pump {
	return pump{flights: map[*flight]struct{}{}, byKey: map[wire.Key]*flight{}, known: map[wire.SchemaID]bool{}, since: since}
}

// flight is a block or a pack on its way.
type flight struct {
	keys   []wire.Key
	left   int // keys not acknowledged
	sent   time.Time
	due    time.Time // to be sent again
	tries  int
	size   int
	schema wire.SchemaID
}

// bucket lets backlog through at a rate. A parcel that is larger than what has
// gathered goes all the same and makes the next ones wait.
type bucket struct {
	rate   int64   // bytes a second; 0 sets no limit
	tokens float64 // bytes; below zero after a large parcel
	at     time.Time
}

// limit sets the rate. A second's worth may gather.
func (b *bucket) limit(rate int64, now time.Time) {
	if rate != b.rate {
		*b = bucket{rate: rate, tokens: float64(rate), at: now}
	}
}

func (b *bucket) refill(now time.Time) {
	b.tokens = min(b.tokens+now.Sub(b.at).Seconds()*float64(b.rate), float64(b.rate))
	b.at = now
}

// open says whether backlog may go now, and else when it may.
func (b *bucket) open(now time.Time) (bool, time.Time) {
	if b.rate == 0 {
		return true, now
	}
	b.refill(now)
	if b.tokens > 0 {
		return true, now
	}
	wait := time.Duration((1 - b.tokens) / float64(b.rate) * float64(time.Second))
	return false, now.Add(max(wait, time.Millisecond))
}

func (b *bucket) take(bytes int) { b.tokens -= float64(bytes) }

// span is a time from one moment to another.
type span struct{ from, to time.Time }

func (p *pump) window(w wire.Welcome, now time.Time) {
	p.parcels, p.bytes = defaultWindowBlocks, defaultWindowBytes
	if w.WindowCount > 0 {
		p.parcels = min(w.WindowCount, maxWindowBlocks)
	}
	if w.WindowBytes > 0 {
		p.bytes = int(min(w.WindowBytes, maxWindowBytes))
	}
	clear(p.known) // what it had when it said so last, a restored database may lack
	for _, id := range w.Schemas {
		p.known[id] = true
	}
	p.backlog.limit(w.BacklogRate, now)
	p.quiet = nil
	for _, q := range w.Quiet {
		from := now.Add(time.Duration(q.InMs) * time.Millisecond)
		p.quiet = append(p.quiet, span{from, from.Add(time.Duration(q.ForMs) * time.Millisecond)})
	}
}

// isQuiet says whether only events may go up now.
func (p *pump) isQuiet(now time.Time) bool {
	return slices.ContainsFunc(p.quiet, func(s span) bool { return !now.Before(s.from) && now.Before(s.to) })
}

// pick returns what to send now, nothing if the window is full or the spool
// has no more.
func (p *pump) pick(sp *spool.Spool, suspects map[wire.Key]*suspect, now time.Time) ([]spool.Parcel, error) {
	if p.alone != nil {
		if _, flying := p.flights[p.alone]; flying && now.Before(p.alone.due) {
			return nil, nil
		}
		p.alone = nil
	}
	count, size := p.parcels, p.bytes
	flying := 0
	for f := range p.flights {
		switch {
		case now.Before(f.due):
			flying++
			count--
			size -= f.size
		case now.Sub(f.due) > repeatMax: // the spool had to drop it, or packed it
			p.forget(f)
		}
	}
	if count <= 0 || flying > 0 && size <= 0 {
		return nil, nil
	}
	open, _ := p.backlog.open(now)
	q := spool.Query{
		MaxParcels: min(count, wire.MaxPacks), MaxBytes: min(max(size, 1), maxDataBytes),
		OldFirst: p.oldFirst, LiveOnly: now.Before(p.drainAt) || !open, EventsOnly: p.isQuiet(now), Since: p.since,
	}
	inFlight := func(k wire.Key) bool {
		f := p.byKey[k]
		return f != nil && now.Before(f.due)
	}
	q.Skip = func(k wire.Key) bool {
		return suspects[k] != nil || inFlight(k)
	}
	parcels, err := sp.Pick(q)
	if err != nil || len(parcels) > 0 {
		p.oldFirst = !p.oldFirst
		return p.fit(parcels, flying, size), err
	}
	if flying > 0 || len(suspects) == 0 {
		return nil, nil
	}
	q.MaxParcels = 1
	q.Skip = func(k wire.Key) bool { return suspects[k] == nil }
	parcels, err = sp.Pick(q)
	switch {
	case len(parcels) > 0:
		p.alone = &flight{keys: parcels[0].Keys()} // until it departs
	case err == nil && !q.LiveOnly && !q.EventsOnly: // the spool had to drop them, or packed them
		clear(suspects)
	}
	return parcels, err
}

// fit leaves out a first parcel that does not fit beside what is in flight, and
// everything from the second unknown schema on, from more keys than an ACK has,
// and from the backlog for which there is no rate left.
func (p *pump) fit(parcels []spool.Parcel, flying, room int) []spool.Parcel {
	if flying > 0 && len(parcels) > 0 && parcels[0].Bytes > room {
		return nil
	}
	var unknown wire.SchemaID
	keys, rate := 0, p.backlog.tokens
	for i, c := range parcels {
		if keys += len(c.Keys()); keys > wire.MaxKeys {
			return parcels[:i]
		}
		if c.Old && p.backlog.rate > 0 {
			if rate <= 0 {
				return parcels[:i]
			}
			rate -= float64(c.Bytes)
		}
		id, samples := c.Schema()
		if !samples || p.known[id] || id == unknown {
			continue
		}
		if unknown != (wire.SchemaID{}) {
			return parcels[:i]
		}
		unknown = id
	}
	return parcels
}

// data adds the schema that the controller may lack. A schema counts as known
// when a block of it was acknowledged, not when it was sent.
func (p *pump) data(sp *spool.Spool, parcels []spool.Parcel) (wire.Data, error) {
	d := wire.Data{Behind: p.behind(sp.Buffer(), parcels)}
	var unknown []wire.SchemaID
	for _, c := range parcels {
		if c.Pack != nil {
			d.Packs = append(d.Packs, *c.Pack)
		} else {
			d.Blocks = append(d.Blocks, c.Block)
		}
		if id, samples := c.Schema(); samples && !p.known[id] {
			unknown = []wire.SchemaID{id}
		}
	}
	if len(unknown) == 0 {
		return d, nil
	}
	var err error
	d.Schemas, err = sp.Schemas(unknown...)
	return d, err
}

// behind is what a spool with fill b holds beside what is under way.
func (p *pump) behind(b wire.Buffer, parcels []spool.Parcel) wire.Buffer {
	for f := range p.flights {
		b.Blocks, b.Bytes = b.Blocks-int64(f.left), b.Bytes-int64(f.size)
	}
	for _, c := range parcels {
		fresh := int64(0)
		for _, k := range c.Keys() {
			if p.byKey[k] == nil {
				fresh++
			}
		}
		if b.Blocks -= fresh; fresh > 0 {
			b.Bytes -= int64(c.Bytes)
		}
	}
	if b.Blocks <= 0 {
		b.Blocks, b.Bytes, b.OldestMs = 0, 0, 0
	}
	b.Bytes = max(0, b.Bytes)
	return b
}

// depart notes parcels as in flight and returns how many blocks they are, and
// how many of those were in flight before.
func (p *pump) depart(parcels []spool.Parcel, now time.Time) (blocks, repeats int) {
	for _, c := range parcels {
		f := &flight{keys: c.Keys(), size: c.Bytes}
		f.left = len(f.keys)
		f.schema, _ = c.Schema()
		for _, k := range f.keys {
			if old := p.byKey[k]; old != nil {
				f.tries = max(f.tries, old.tries)
				repeats++
				p.leave(k)
			}
			p.byKey[k] = f
		}
		p.flights[f] = struct{}{}
		f.sent, f.due = now, now.Add(p.patience(f.tries))
		f.tries++
		blocks += len(f.keys)
		if p.alone != nil {
			p.alone = f
		}
		if c.Old {
			p.backlog.take(c.Bytes)
		}
	}
	p.lastSent = now
	return blocks, repeats
}

// leave takes one key out of its flight, which ends with its last.
func (p *pump) leave(key wire.Key) {
	f := p.byKey[key]
	delete(p.byKey, key)
	if f.left--; f.left == 0 {
		delete(p.flights, f)
	}
}

func (p *pump) forget(f *flight) {
	for _, k := range f.keys {
		if p.byKey[k] == f {
			delete(p.byKey, k)
		}
	}
	delete(p.flights, f)
}

func (p *pump) forgetAll() {
	clear(p.flights)
	clear(p.byKey)
	p.alone = nil
}

func (p *pump) patience(tries int) time.Duration {
	return min(max(repeatAfter, 4*p.rtt)<<min(tries, 6), repeatMax)
}

// land notes that a block was stored, or never will be.
func (p *pump) land(key wire.Key, stored bool) {
	f := p.byKey[key]
	if f == nil {
		return
	}
	if f.tries == 1 { // of a repeat nobody knows which one was answered
		sample := time.Since(f.sent)
		if p.rtt == 0 {
			p.rtt = sample
		}
		p.rtt += (sample - p.rtt) / 8
	}
	if stored { // what is refused need not have brought its schema there
		p.known[f.schema] = true
	}
	p.progress = true
	p.leave(key)
	if p.alone == f && f.left == 0 {
		p.alone = nil
	}
}

// nextDeadline is when to look again, at the latest at other.
func (p *pump) nextDeadline(other time.Time) time.Time {
	now := time.Now()
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(other) {
			other = t
		}
	}
	for f := range p.flights {
		sooner(f.due)
	}
	sooner(p.drainAt)
	if _, at := p.backlog.open(now); at.After(now) {
		sooner(at)
	}
	for _, q := range p.quiet {
		sooner(q.to)
	}
	return other
}
