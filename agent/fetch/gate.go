package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// errClosed ends a request because nothing may be downloaded now.
var errClosed = errors.New("downloads wait")

// Quiet is a time in which nothing is downloaded.
type Quiet struct{ From, To time.Time }

// gate says how much may come over the line, and when. It counts what came.
type gate struct {
	limiter *rate.Limiter
	month   int64 // bytes that a month may have; 0: no bound
	ledger  durable.Journal
	wall    func() time.Time
	log     *slog.Logger

	mu     sync.Mutex // guards the fields below
	quiet  []Quiet
	moved  chan struct{} // closed when quiet changes
	used   usage
	unkept int64 // bytes of used that are not in the ledger yet
}

// usage is the ledger's content: bytes of a month, UTC.
type usage struct {
	Month string `json:"month"`
	Bytes int64  `json:"bytes"`
}

// keepBytes is how much may come before the ledger is written again: a kill
// forgets as much.
const keepBytes = 8 << 20

// lookAgain bounds a wait on the calendar: the clock may be set meanwhile.
const lookAgain = 10 * time.Minute

func newGate(opts Options, log *slog.Logger) *gate {
	g := &gate{
		limiter: rate.NewLimiter(rate.Inf, chunkBytes), month: opts.MonthBytes, wall: opts.WallClock, log: log,
		ledger: durable.Journal{Path: opts.Ledger, Version: 1}, moved: make(chan struct{}),
	}
	g.setRate(opts.RateBytesPerSec)
	if g.month > 0 {
		if _, err := g.ledger.Load(&g.used); err != nil {
			log.Warn("bytes of this month are not known, counting from none", "err", err)
		}
	}
	return g
}

func (g *gate) setRate(bytesPerSec int64) {
	limit := rate.Inf
	if bytesPerSec > 0 {
		limit = rate.Limit(bytesPerSec)
	}
	g.limiter.SetLimit(limit)
}

func (g *gate) setQuiet(q []Quiet) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.quiet = q
	close(g.moved)
	g.moved = make(chan struct{})
}

// closedLocked says until when, and why, nothing may come; zero: it may.
func (g *gate) closedLocked() (until time.Time, why string) {
	now := time.Now()
	for _, q := range g.quiet {
		if !now.Before(q.From) && now.Before(q.To) {
			return q.To, "quiet time of the site"
		}
	}
	if g.month <= 0 {
		return time.Time{}, ""
	}
	wall := g.wall().UTC()
	if month := wall.Format("2006-01"); g.used.Month != month {
		g.used, g.unkept = usage{Month: month}, 0
	}
	if g.used.Bytes < g.month {
		return time.Time{}, ""
	}
	first := time.Date(wall.Year(), wall.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	return now.Add(first.Sub(wall)), fmt.Sprintf("the %d bytes of this month are used up", g.month)
}

// wait returns when downloads may go on.
func (g *gate) wait(ctx context.Context) error {
	if local(ctx) {
		return nil
	}
	told := ""
	for {
		g.mu.Lock()
		until, why := g.closedLocked()
		moved := g.moved
		g.mu.Unlock()
		if why == "" {
			return nil
		}
		if told != why {
			told = why
			g.log.Info("downloads wait", "why", why, "until", until)
		}
		timer := time.NewTimer(min(time.Until(until), lookAgain))
		select {
		case <-timer.C:
		case <-moved:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// take waits for room for n bytes on the line and counts them.
func (g *gate) take(ctx context.Context, n int) error {
	if local(ctx) {
		return ctx.Err()
	}
	if err := g.limiter.WaitN(ctx, n); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, why := g.closedLocked(); why != "" {
		return fmt.Errorf("%w: %s", errClosed, why)
	}
	if g.month <= 0 {
		return nil
	}
	g.used.Bytes += int64(n)
	if g.unkept += int64(n); g.unkept >= keepBytes || g.used.Bytes >= g.month {
		g.unkept = 0
		if err := g.ledger.Save(g.used); err != nil {
			g.log.Warn("bytes of this month not kept", "err", err)
		}
	}
	return nil
}

// metered reads from the line as fast as the gate lets.
func (f *Fetcher) metered(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p[:min(len(p), chunkBytes)])
		if n > 0 {
			if gerr := f.gate.take(ctx, n); gerr != nil {
				return n, gerr
			}
		}
		return n, err
	})
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// shut reports whether nothing may come now.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, why := g.closedLocked()
	return why != ""
}
