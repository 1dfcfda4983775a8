package deliver

import (
	"cmp"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// GateOptions bound what boxes download at once.
type GateOptions struct {
	// Transfers is how many requests for contents are served at once; default 100:
	// 0.8 of 1 Gbit/s over sites of 8 Mbit/s. Each is at most 16 MiB of a file.
	Transfers int
	// BytesPerSecond bounds all of them together; default no bound.
	BytesPerSecond int64
}

// How long a box that was refused shall wait, at random between them so that boxes
// do not come back as one; and how long its site counts as waiting.
const (
	waitMin   = 30 * time.Second
	waitMax   = 90 * time.Second
	waitsFor  = waitMax + 30*time.Second
	paceChunk = 32 << 10
	// boxMost is how many of its downloads one box may have going: it takes a file
	// frame by frame, and a line that broke may hold some of before. One that asks
	// for more, and reads slowly, would keep all others out for as long as it likes.
	boxMost = 8
	// spare is the part of all places, 1/8, that a site which has its share already
	// leaves to one that comes next: places that slow readers hold are free no sooner
	// because somebody waits.
	spare = 8
)

// Gate lets so many boxes download at once that each gets on. When it is full,
// sites have equal shares of it: one with many boxes, or that asks most, does not
// keep the others out. Safe for concurrent use.
type Gate struct {
	most    int
	limiter *rate.Limiter

	mu      sync.Mutex           // guards the fields below
	inside  map[string]int       // by site
	boxes   map[string]int       // of inside and beside, by box
	all     int                  // of inside
	beside  map[*Pass]bool       // slow ones that go on without a place
	waiting map[string]time.Time // sites that were refused, until when they count
}

// NewGate returns a gate.
func NewGate(o GateOptions) *Gate {
	limit := rate.Inf
	if o.BytesPerSecond > 0 {
		limit = rate.Limit(o.BytesPerSecond)
	}
	return &Gate{most: cmp.Or(max(o.Transfers, 0), 100), limiter: rate.NewLimiter(limit, paceChunk), inside: map[string]int{}, boxes: map[string]int{}, beside: map[*Pass]bool{}, waiting: map[string]time.Time{}}
}

// Enter lets a box of a site in, which must leave, or says how long it shall wait.
func (g *Gate) Enter(site, box string, now time.Time) (p *Pass, wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.boxes[box] >= boxMost {
		return nil, waitMin
	}
	sites, others := len(g.inside), false
	for s, until := range g.waiting {
		if now.After(until) {
			delete(g.waiting, s)
			continue
		}
		if g.inside[s] == 0 {
			sites++
		}
		others = others || s != site
	}
	if g.inside[site] == 0 && g.waiting[site].IsZero() {
		sites++
	}
	share := max(1, g.most/max(1, sites))
	if g.all >= g.most || others && g.inside[site] >= share || g.most-g.all <= g.most/spare && g.inside[site] >= g.most/(sites+1) {
		g.waiting[site] = now.Add(waitsFor)
		return nil, waitMin + rand.N(waitMax-waitMin)
	}
	delete(g.waiting, site)
	g.inside[site]++
	g.boxes[box]++
	g.all++
	return &Pass{g: g, site: site, box: box}, 0
}

// Paced reads no faster than all transfers together may.
func (g *Gate) Paced(ctx context.Context, r io.ReadSeeker) io.ReadSeeker {
	if g.limiter.Limit() == rate.Inf {
		return r
	}
	return paced{r, func(n int) error { return g.limiter.WaitN(ctx, n) }}
}

type paced struct {
	io.ReadSeeker
	wait func(n int) error
}

func (p paced) Read(b []byte) (int, error) {
	n, err := p.ReadSeeker.Read(b[:min(len(b), paceChunk)])
	if n > 0 {
		if werr := p.wait(n); werr != nil {
			return n, werr
		}
	}
	return n, err
}
