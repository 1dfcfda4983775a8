package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxResults are taken over in one commit: about 64 KB.
const maxResults = 200

// maxResultSpan is what one block of results spans at most; the controller
// does not read one that spans more than a day.
const maxResultSpan = 12 * time.Hour

// runnerInfo is what is known of the runner for the inventory.
type runnerInfo struct {
	mu      sync.Mutex // guards the fields below
	version string
	runtime string
	p95     float64 // seconds, of the slowest model; 0: none serves
	rung    int     // that it follows
	cause   govern.Cause
	lowest  int       // rung of any model that serves
	started int64     // Unix ms; the count of refused requests begins anew with it
	shed    int64     // requests refused for lack of room
	pressed bool      // some were between the last two answers
	at      time.Time // of the last answer
	began   time.Time // of the first question that had none
}

// load takes over whether requests were refused since the answer before.
func (r *runnerInfo) load(s runnerapi.Status) {
	r.pressed = s.StartedUnixMs == r.started && s.Shed > r.shed
	r.started, r.shed, r.at = s.StartedUnixMs, s.Shed, time.Now()
}

// overloaded says whether requests are being refused; it is not known of a
// runner that has been silent for a while.
func (r *runnerInfo) overloaded() (yes, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known = !r.at.IsZero() && time.Since(r.at) < time.Minute
	return r.pressed && known, known
}

// silent is how long the runner has not answered this process.
func (r *runnerInfo) silent() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began.IsZero() {
		r.began = time.Now()
	}
	if r.at.IsZero() {
		return time.Since(r.began)
	}
	return time.Since(r.at)
}

// slowest is the 95th percentile of the slowest model's latency.
func (r *runnerInfo) slowest() (seconds float64, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.p95, r.p95 > 0
}

// known reports whether the runner has answered this process.
func (r *runnerInfo) known() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.version != ""
}

// resultLoop takes finished results over from the runner. The block and the
// cursor that names it are committed together, so each result is stored once
// however often either process dies.
func (a *Agent) resultLoop(ctx context.Context) error {
	tick := time.NewTicker(a.opts.ResultPeriod)
	defer tick.Stop()
	for {
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = a.takeResults(ctx); err != nil && ctx.Err() == nil {
				a.log.Debug("results not taken over", "err", err)
			}
		}
		if s, err := a.askRunner(ctx); err == nil {
			a.noteServing(s)
		} else if ctx.Err() == nil {
			a.noteSilence(err, a.activate.Serving())
		}
		a.noteRunning()
		a.must(a.disk.store(a.spool)) // events that wait for a disk that was full
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *Agent) askRunner(ctx context.Context) (runnerapi.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := a.opts.Runner.Status(ctx)
	if err != nil {
		return s, err // keeps what it was
	}
	if s.Settings != nil && a.settings.SetRunnerLocal(s.Settings.Local) {
		a.link.SayHello()
	}
	a.runner.mu.Lock()
	defer a.runner.mu.Unlock()
	a.runner.p95, a.runner.rung, a.runner.cause, a.runner.lowest = 0, s.Rung, govern.Cause(s.RungCause), 0
	a.runner.load(s)
	for _, m := range s.Models {
		a.runner.p95 = max(a.runner.p95, m.LatencyP95)
		a.runner.lowest = max(a.runner.lowest, m.Rungs())
	}
	if a.runner.version != s.Version || a.runner.runtime != s.RuntimeVersion {
		a.runner.version, a.runner.runtime = s.Version, s.RuntimeVersion
		a.link.SayHello()
	}
	return s, nil
}

// takeResults takes one block of results over and reports whether there may be
// more. An error ends the round: what failed is asked for again next time.
func (a *Agent) takeResults(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	outbox, after, err := a.resultCursor()
	if err != nil {
		return false, err
	}
	r, err := a.opts.Runner.Results(ctx, after, maxResults)
	if err == nil && r.Outbox != outbox && after != 0 {
		// A new outbox counts from one again.
		r, err = a.opts.Runner.Results(ctx, 0, maxResults)
	}
	if err != nil || len(r.Records) == 0 {
		return false, err
	}
	draft, n, err := a.resultDraft(r.Records)
	if err != nil {
		return false, err
	}
	last := r.Records[n-1].Cursor
	cursor := append(binary.BigEndian.AppendUint64(nil, last), r.Outbox...)
	if _, err := a.spool.AppendWithCursor(resultCursorName, cursor, draft); a.disk.note(err) != nil {
		return false, err
	}
	if err := a.opts.Runner.Ack(ctx, r.Outbox, last); err != nil {
		return false, err
	}
	return n < len(r.Records) || n == maxResults, nil
}

// resultCursorName is the key in the spool under which the position in the
// runner's outbox is kept: 8 bytes big endian, then the outbox id.
const resultCursorName = "runner-results"

func (a *Agent) resultCursor() (outbox string, after uint64, err error) {
	raw, err := a.spool.Cursor(resultCursorName)
	if err != nil || len(raw) == 0 {
		return "", 0, err
	}
	if len(raw) < 8 {
		return "", 0, errors.New("stored cursor of the runner's outbox is too short")
	}
	return string(raw[8:]), binary.BigEndian.Uint64(raw), nil
}

// resultDraft makes a block of the first n records, as many as fit into one.
func (a *Agent) resultDraft(records []runnerapi.Result) (draft spool.Draft, n int, err error) {
	now := a.clock.triple()
	out := make([]wire.Result, 0, len(records))
	for _, r := range records {
		at := a.stamp(r.UnixMs, now)
		if len(out) > 0 && (at < out[0].WallMs || at-out[0].WallMs > maxResultSpan.Milliseconds()) {
			break
		}
		out = append(out, wire.Result{
			WallMs: at, Input: r.Input, Pipeline: r.Pipeline, Item: r.Item, Text: r.Text, Want: r.Want,
			ScorePPM: millionths(r.Score), LatencyUs: millionths(r.LatencyMs / 1e3),
			Models: r.Models[:min(len(r.Models), wire.MaxModels)], Cursor: r.Cursor,
		})
	}
	payload, err := wire.EncodeResults(out)
	for err != nil && len(out) > 1 { // long texts: try with half of them
		out = out[:len(out)/2]
		payload, err = wire.EncodeResults(out)
	}
	if err != nil {
		return spool.Draft{}, 0, err
	}
	first, span := out[0].WallMs, int64(0)
	for _, r := range out {
		span = max(span, r.WallMs-first)
	}
	return spool.Draft{
		Lane: wire.LaneTelemetry, Kind: wire.KindResults, MonoMs: now.MonoMs - (now.WallMs - first), WallMs: first, SpanMs: span,
		Quality: now.Quality, Count: uint32(len(out)), Payload: payload,
	}, len(out), nil
}

// beforeBoot is how long before this boot a result may claim to be made while
// nobody vouches for the clock: what waited in the outbox over a reboot.
const beforeBoot = 24 * time.Hour

// stamp is the time of a result as far as it can be believed: where the clock
// was set after the result was made, it would be one of 1970, of last year or
// of the future. It is one of now then.
func (a *Agent) stamp(made int64, now wire.Clock) int64 {
	floor := a.id.Certificate.Leaf.NotBefore.UnixMilli()
	oldest := now.WallMs - now.MonoMs - beforeBoot.Milliseconds()
	switch {
	case made > now.WallMs, made < floor && floor <= now.WallMs:
		return now.WallMs
	case made < oldest && now.Quality != wire.TimeSynced:
		return now.WallMs
	}
	return made
}

// millionths returns v·10^6, as far as the wire can say it.
func millionths(v float64) uint32 {
	return uint32(min(max(0, v*1e6), math.MaxUint32))
}
