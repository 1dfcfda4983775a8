package link

import (
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

// A block that is not acknowledged is sent again after this, or four round
// trips if that is longer; each time twice as long, up to the limit.
const (
	repeatAfter = 30 * time.Second
	repeatMax   = 10 * time.Minute
)

// pump decides what to send next on one session.
type pump struct {
	flights  map[wire.Key]*flight
	known    map[wire.SchemaID]bool // schemas the controller has
	blocks   int                    // window
	bytes    int                    // window
	rtt      time.Duration          // smoothed time from DATA to ACK
	since    spool.Mark             // of the connection: what is younger is live
	drainAt  time.Time              // the backlog waits until then
	oldFirst bool                   // whose turn it is
	alone    wire.Key               // the suspect in flight, if any
	progress bool                   // a block in flight was acknowledged
	lastSent time.Time
}

// flight is a block on its way.
type flight struct {
	sent   time.Time
	due    time.Time // to be sent again
	tries  int
	size   int
	schema wire.SchemaID
}

func (p *pump) window(w wire.Welcome) {
	p.blocks, p.bytes = defaultWindowBlocks, defaultWindowBytes
	if w.WindowCount > 0 {
		p.blocks = min(w.WindowCount, maxWindowBlocks)
	}
	if w.WindowBytes > 0 {
		p.bytes = int(min(w.WindowBytes, maxWindowBytes))
	}
	for _, id := range w.Schemas {
		p.known[id] = true
	}
}

// pick returns what to send now, nothing if the window is full or the spool
// has no more.
func (p *pump) pick(sp *spool.Spool, suspects map[wire.Key]*suspect, now time.Time) ([]wire.Block, error) {
	if p.alone != (wire.Key{}) {
		if f := p.flights[p.alone]; f != nil && now.Before(f.due) {
			return nil, nil
		}
		p.alone = wire.Key{}
	}
	count, size := p.blocks, p.bytes
	flying := 0
	for key, f := range p.flights {
		switch {
		case now.Before(f.due):
			flying++
			count--
			size -= f.size
		case now.Sub(f.due) > repeatMax: // the spool had to drop it
			delete(p.flights, key)
		}
	}
	if count <= 0 || flying > 0 && size <= 0 {
		return nil, nil
	}
	q := spool.Query{
		MaxBlocks: min(count, wire.MaxBlocks), MaxBytes: min(max(size, 1), maxDataBytes),
		OldFirst: p.oldFirst, LiveOnly: now.Before(p.drainAt), Since: p.since,
	}
	inFlight := func(k wire.Key) bool {
		f := p.flights[k]
		return f != nil && now.Before(f.due)
	}
	q.Skip = func(k wire.Key) bool {
		return suspects[k] != nil || inFlight(k)
	}
	blocks, err := sp.Pick(q)
	if err != nil || len(blocks) > 0 {
		p.oldFirst = !p.oldFirst
		return p.fit(blocks, flying, size), err
	}
	if flying > 0 || len(suspects) == 0 {
		return nil, nil
	}
	q.MaxBlocks = 1
	q.Skip = func(k wire.Key) bool { return suspects[k] == nil }
	blocks, err = sp.Pick(q)
	switch {
	case len(blocks) > 0:
		p.alone = blocks[0].Key
	case err == nil && !q.LiveOnly: // the spool had to drop them
		clear(suspects)
	}
	return blocks, err
}

// fit leaves out a first block that does not fit beside what is in flight, and
// everything from the second unknown schema on.
func (p *pump) fit(blocks []wire.Block, flying, room int) []wire.Block {
	if flying > 0 && len(blocks) > 0 && len(blocks[0].Payload) > room {
		return nil
	}
	var unknown wire.SchemaID
	for i, b := range blocks {
		if b.Kind != wire.KindSamples || p.known[b.Schema] || b.Schema == unknown {
			continue
		}
		if unknown != (wire.SchemaID{}) {
			return blocks[:i]
		}
		unknown = b.Schema
	}
	return blocks
}

// data adds the schema that the controller may lack. A schema counts as known
// when a block of it was acknowledged, not when it was sent.
func (p *pump) data(sp *spool.Spool, blocks []wire.Block) (wire.Data, error) {
	d := wire.Data{Blocks: blocks, Behind: p.behind(sp.Buffer(), blocks)}
	for _, b := range blocks {
		if b.Kind == wire.KindSamples && !p.known[b.Schema] {
			schemas, err := sp.Schemas(b.Schema)
			d.Schemas = schemas
			return d, err
		}
	}
	return d, nil
}

// behind is what a spool with fill b holds beside what is under way.
func (p *pump) behind(b wire.Buffer, blocks []wire.Block) wire.Buffer {
	for _, f := range p.flights {
		b.Blocks, b.Bytes = b.Blocks-1, b.Bytes-int64(f.size)
	}
	for _, block := range blocks {
		if p.flights[block.Key] == nil {
			b.Blocks, b.Bytes = b.Blocks-1, b.Bytes-int64(len(block.Payload))
		}
	}
	if b.Blocks <= 0 {
		b.Blocks, b.Bytes, b.OldestMs = 0, 0, 0
	}
	b.Bytes = max(0, b.Bytes)
	return b
}

// depart notes blocks as in flight and returns how many of them were before.
func (p *pump) depart(blocks []wire.Block, now time.Time) int {
	repeats := 0
	for _, b := range blocks {
		f := p.flights[b.Key]
		if f == nil {
			f = &flight{size: len(b.Payload) + 128}
			if b.Kind == wire.KindSamples {
				f.schema = b.Schema
			}
			p.flights[b.Key] = f
		} else {
			repeats++
		}
		f.sent, f.due = now, now.Add(p.patience(f.tries))
		f.tries++
	}
	p.lastSent = now
	return repeats
}

func (p *pump) patience(tries int) time.Duration {
	return min(max(repeatAfter, 4*p.rtt)<<min(tries, 6), repeatMax)
}

// land notes that a block has arrived, or never will.
func (p *pump) land(key wire.Key) {
	f := p.flights[key]
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
	p.known[f.schema] = true
	p.progress = true
	delete(p.flights, key)
	if p.alone == key {
		p.alone = wire.Key{}
	}
}

// nextDeadline is when to look again, at the latest at other.
func (p *pump) nextDeadline(other time.Time) time.Time {
	now := time.Now()
	for _, f := range p.flights {
		if f.due.After(now) && f.due.Before(other) {
			other = f.due
		}
	}
	if p.drainAt.After(now) && p.drainAt.Before(other) {
		other = p.drainAt
	}
	return other
}
