package deliver

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// A reader is slow that takes less than slowRate in bytes per second for slowFor:
// below the slowest line that is worth a place (64 kbit/s), for longer than an
// outage of a wireless line.
const (
	slowRate = 8 << 10
	slowFor  = time.Minute
)

// Pass is a place in the gate, until Leave.
type Pass struct {
	g         *Gate
	site, box string
	taken     atomic.Int64 // bytes since the last look
	once      sync.Once

	// Guarded by the mutex of the gate.
	watch *time.Timer // nil until Body
	end   func()      // of the transfer; nil until Body and when it was called
	last  int64       // bytes between the last two looks
	left  bool
}

// Body reads no faster than all transfers together may, and watches how fast that is
// taken. A slow one loses its place and goes on beside, since it costs the uplink
// next to nothing; when more of them go on than there are places, end is called of the
// one that took least. The box asks again for the frames that it lacks.
func (p *Pass) Body(ctx context.Context, r io.ReadSeeker, end func()) io.ReadSeeker {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if p.watch == nil && !p.left {
		p.end = end
		p.watch = time.AfterFunc(slowFor, p.look)
	}
	return counted{p.g.Paced(ctx, r), p}
}

// look takes the place of a reader that was slow since the last time.
func (p *Pass) look() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.last = p.taken.Swap(0)
	if p.left {
		return
	}
	p.watch.Reset(slowFor)
	if p.last >= p.g.least() || p.g.beside[p] || p.end == nil {
		return
	}
	// Who comes last goes first of equals: the others have got further.
	slowest, going := p, 0
	for q := range p.g.beside {
		if q.end == nil {
			continue // it is about to leave
		}
		if going++; q.last < slowest.last {
			slowest = q
		}
	}
	if going >= p.g.most {
		slowest.end()
		slowest.end = nil
	}
	if p.end != nil {
		p.g.beside[p] = true
		p.g.vacate(p.site)
	}
}

// least is how many bytes a reader takes in slowFor that is not slow. When all
// together are held back, each is a little.
func (g *Gate) least() int64 {
	per := float64(slowRate)
	if l := g.limiter.Limit(); l != rate.Inf {
		per = min(per, float64(l)/float64(g.most)/4)
	}
	return int64(per * slowFor.Seconds())
}

// Leave gives the place back. Again does nothing.
func (p *Pass) Leave() {
	p.once.Do(func() {
		p.g.mu.Lock()
		defer p.g.mu.Unlock()
		p.left = true
		if p.watch != nil {
			p.watch.Stop()
		}
		if p.g.boxes[p.box]--; p.g.boxes[p.box] == 0 {
			delete(p.g.boxes, p.box)
		}
		if p.g.beside[p] {
			delete(p.g.beside, p)
			return
		}
		p.g.vacate(p.site)
	})
}

// vacate frees a place of a site; with the mutex held.
func (g *Gate) vacate(site string) {
	g.all--
	if g.inside[site]--; g.inside[site] == 0 {
		delete(g.inside, site)
	}
}

// counted counts what is read under a pass.
type counted struct {
	io.ReadSeeker
	p *Pass
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.ReadSeeker.Read(b)
	c.p.taken.Add(int64(n))
	return n, err
}
