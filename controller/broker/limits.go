package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// What one box or one address may cost the others. A box that sends too much is
// read more slowly, so TCP holds it back and nothing is lost. One that connects
// too often is refused. An address from which rules are broken shakes hands
// slowly from then on. One that opens connections and says nothing waits for its
// own: what waits in vain is no offence, since a whole fleet that comes back
// through one address does so too.
const (
	trafficBurst = 4 * time.Second // of a box at its full rate
	connectCost  = 2 * time.Second // a connection every two seconds, which is what agents do at most
	connectBurst = 30 * connectCost
	strikeCost   = time.Second // a connection of somebody who broke a rule
	strikeBurst  = 16 * strikeCost
	slowPending  = 4 // of an address with too many strikes
	slowPause    = 500 * time.Millisecond
	spareGates   = 1024 // kept before those that are idle are looked for
	pruneEvery   = time.Second
)

// ErrOffence is wrapped by the error of ServeConn for a box that breaks a rule.
var ErrOffence = errors.New("refused")

// ErrUnsure is wrapped by the error of a handshake for which it could not be
// found out who may enter: no fault of the box, nor of its address.
var ErrUnsure = errors.New("cannot be looked up at the moment")

// gate is a rate limit: GCRA, the leaky bucket that is one time. The zero gate
// is open.
type gate struct{ full time.Time }

// over is by how much cost would go beyond burst now.
func (g *gate) over(cost, burst time.Duration, now time.Time) time.Duration {
	return max(g.full.Sub(now), 0) + cost - burst
}

// take lets cost pass in any case, and returns how long to wait for it.
func (g *gate) take(cost, burst time.Duration, now time.Time) time.Duration {
	wait := g.over(cost, burst, now)
	if g.full.Before(now) {
		g.full = now
	}
	g.full = g.full.Add(cost)
	return max(wait, 0)
}

// try lets cost pass if it is within burst.
func (g *gate) try(cost, burst time.Duration, now time.Time) bool {
	if g.over(cost, burst, now) > 0 {
		return false
	}
	g.take(cost, burst, now)
	return true
}

func (g *gate) idle(now time.Time) bool { return !g.full.After(now) }

// gates are those of a box, of all its sessions together. They outlive them.
type gates struct {
	traffic, connects gate
	held              hold
}

// hold is how long a box was made to wait without end. No box that keeps to its
// window is for so long: the whole of its spool passes in half the time.
type hold struct{ since, until time.Time }

const floodAfter = 2 * time.Minute

// lasts notes a wait and reports, once in a while, that it was too much.
func (h *hold) lasts(now time.Time, wait time.Duration) bool {
	if now.Sub(h.until) > time.Second {
		h.since = now
	}
	h.until = now.Add(wait)
	if now.Sub(h.since) < floodAfter {
		return false
	}
	h.since = now
	return true
}

// source is an address that connects.
type source struct {
	pending int        // connections that were begun and whose CONNECT was not accepted
	parked  []net.Conn // connections that will be begun when others are through
	strikes gate
}

// gatesOf returns the gates of a box. Called with mu held.
func (b *Broker) gatesOf(id identity.ID) *gates {
	g := b.gates[id]
	if g == nil {
		b.prune()
		g = &gates{}
		b.gates[id] = g
	}
	return g
}

// pace waits until a box may have sent a message of that size.
func (b *Broker) pace(ctx context.Context, id identity.ID, bytes int) error {
	cost := time.Duration(float64(time.Second) * (1/b.opts.MessageRate + float64(bytes)/b.opts.ByteRate))
	b.mu.Lock()
	now := time.Now()
	g := b.gatesOf(id)
	wait := g.traffic.take(cost, trafficBurst, now)
	flood := wait > 0 && g.held.lasts(now, wait)
	b.mu.Unlock()
	if wait == 0 {
		return nil
	}
	if flood {
		b.opts.Faults.Note(id, fault.Flood, 1, fmt.Errorf("it sends more than it may for %s on end", floodAfter))
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return errEnding
	}
}

// mayConnect says whether a box may have a new session.
func (b *Broker) mayConnect(id identity.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gatesOf(id).connects.try(connectCost, connectBurst, time.Now()) {
		return fmt.Errorf("%w: box %s connects more often than every %s", ErrOffence, id, connectCost)
	}
	return nil
}

// addressOf is the address of the other end; all that is not TCP shares one. Of
// IPv6 it is the network, for whoever has one address of a /64 has them all.
func addressOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // never more bits than an address has
		return p.Addr()
	}
	return a
}

// park takes in a connection that was accepted; next has it served.
func (b *Broker) park(conn net.Conn) bool {
	from := addressOf(conn)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sources[from]
	if s == nil {
		b.prune()
		s = &source{}
		b.sources[from] = s
	}
	slow := s.slow(time.Now())
	if b.ending || len(b.conns)+b.pending+b.parked >= b.opts.MaxConns || slow && len(s.parked) >= slowPending {
		return false
	}
	if len(s.parked) == 0 {
		b.line = append(b.line, from)
	}
	s.parked = append(s.parked, conn)
	b.parked++
	return true
}

func (s *source) slow(now time.Time) bool {
	return s.strikes.over(strikeCost, strikeBurst, now) > 0
}

// next returns a connection that may shake hands now, and how long it must wait
// before. Addresses take turns, and each has a quarter of the places at most.
func (b *Broker) next() (conn net.Conn, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.line {
		if b.pending >= b.opts.MaxPending {
			return nil, 0
		}
		from := b.line[0]
		b.line = b.line[1:]
		s := b.sources[from]
		most := max(1, b.opts.MaxPending/4)
		if s.slow(time.Now()) {
			most, wait = min(most, slowPending), slowPause
		}
		if s.pending < most {
			conn, s.parked = s.parked[0], s.parked[1:]
			s.pending++
			b.pending++
			b.parked--
		}
		if len(s.parked) > 0 {
			b.line = append(b.line, from)
		}
		if conn != nil {
			return conn, wait
		}
		wait = 0
	}
	return nil, 0
}

// enters ends what next began; struck when somebody was at fault.
func (b *Broker) enters(from netip.Addr, struck bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sources[from]
	s.pending--
	b.pending--
	// Never more than it takes half a minute to forget.
	if now := time.Now(); struck && s.strikes.over(strikeCost, 2*strikeBurst, now) <= 0 {
		s.strikes.take(strikeCost, strikeBurst, now)
	}
	b.prune()
}

// prune forgets boxes and addresses that nothing is held against. Called with
// mu held.
func (b *Broker) prune() {
	now := time.Now()
	if len(b.gates) <= 2*len(b.boxes)+spareGates && len(b.sources) <= 2*len(b.conns)+spareGates || now.Sub(b.pruned) < pruneEvery {
		return
	}
	b.pruned = now
	for id, g := range b.gates {
		if g.traffic.idle(now) && g.connects.idle(now) {
			delete(b.gates, id)
		}
	}
	for a, s := range b.sources {
		if s.pending == 0 && len(s.parked) == 0 && s.strikes.idle(now) {
			delete(b.sources, a)
		}
	}
}
