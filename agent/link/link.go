// Package link keeps one MQTT session with the controller and moves blocks
// from the spool to its database.
//
// Vocabulary: a session is one connection: CONNECT, subscribe to dn/#, HELLO,
// WELCOME, then the pump. A block is in flight from when it is sent until an
// ACK names its key. A suspect is a block in whose company sessions die; it is
// sent alone, after all others, and set aside when it keeps ending sessions. A
// pack counts as one block in all this, and its blocks are acknowledged each
// under its own key.
//
// paho is used as its traps demand: a new client for each connection, no
// reconnecting and no store of its own, handlers that only copy. A token that
// reports success proves nothing, so it is used for flow control alone.
//
// The one rule a caller can break: the callbacks in Options run on the
// session's goroutine; they must return at once and not call into the link.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Options configure a Link. ID, Dial, Spool and Hello are required.
type Options struct {
	ID identity.ID
	// Dial opens a connection to the broker, with TLS done.
	Dial  func(context.Context) (net.Conn, error)
	Spool *spool.Spool
	// Hello gives clock, inventory and what runs; the link fills in the rest.
	Hello     func() wire.Hello
	OnWelcome func(wire.Welcome)
	OnDesired func(envelope []byte) // from WELCOME and WANT
	OnLive    func(d time.Duration) // live samples are wanted for this long
	OnCare    func(wire.Care)       // what the box cannot know of its heat
	// Backoff between connections: full jitter from MinBackoff to a limit that
	// doubles up to MaxBackoff. Defaults 1 s and 5 min.
	MinBackoff, MaxBackoff time.Duration
	// FirstDelay bounds the random wait before the first connection, so that a
	// site whose power returns does not knock at once. Default none.
	FirstDelay time.Duration
	// KeepAlive of MQTT, whole seconds. A dead connection is noticed after it
	// and 10 s more. Default 60 s.
	KeepAlive time.Duration
	// HelloEvery says HELLO again on a connection that lasts, since what was
	// pushed may have been lost. Default 1 h, up to a fifth less by chance.
	HelloEvery time.Duration
}

func (o Options) withDefaults() Options {
	if o.OnWelcome == nil {
		o.OnWelcome = func(wire.Welcome) {}
	}
	if o.OnDesired == nil {
		o.OnDesired = func([]byte) {}
	}
	if o.OnLive == nil {
		o.OnLive = func(time.Duration) {}
	}
	if o.OnCare == nil {
		o.OnCare = func(wire.Care) {}
	}
	if o.MinBackoff == 0 {
		o.MinBackoff = time.Second
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 5 * time.Minute
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = time.Minute
	}
	if o.HelloEvery == 0 {
		o.HelloEvery = time.Hour
	}
	return o
}

// Status is what a status page shows.
type Status struct {
	Connected   bool       // a WELCOME was received on the present connection
	Since       time.Time  // of Connected or of the last loss
	Run         wire.RunID // of the last WELCOME
	Connections uint64     // attempts of this process
	Sent        uint64     // blocks, repeats included
	Acked       uint64
	Repeated    uint64
	Refused     uint64 // set aside
	InFlight    int
	LastError   string // why the last connection ended
}

// Link is one. Run moves blocks; the other methods are safe for concurrent use.
type Link struct {
	opts  Options
	log   *slog.Logger
	live  chan wire.Live // the newest; cap 1
	again chan struct{}  // HELLO is wanted again; cap 1

	mu     sync.Mutex // guards status
	status Status

	// Of the goroutine in Run:
	barren   int // sessions in a row that died young with blocks in flight and no ACK
	suspects map[wire.Key]*suspect
}

// suspect is a block or a pack in whose company sessions die.
type suspect struct {
	strikes int  // sessions that ended while it was alone in flight
	odd     bool // other blocks got through since: it is the block, not the link
}

// New prepares a link.
func New(opts Options, log *slog.Logger) *Link {
	return &Link{opts: opts.withDefaults(), log: log, live: make(chan wire.Live, 1), again: make(chan struct{}, 1), suspects: map[wire.Key]*suspect{}}
}

// maxStrikes is how many sessions a block may end, alone in flight, before it
// is set aside, if others get through.
const maxStrikes = 5

// goodAfter is how long a session must last to count as good when nothing was
// acknowledged on it.
const goodAfter = time.Minute

// Run connects, and connects again, until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	var wait time.Duration
	if l.opts.FirstDelay > 0 {
		wait = rand.N(l.opts.FirstDelay)
	}
	fails := 0
	for sleep(ctx, wait) {
		s := newSession(l)
		began := time.Now()
		err := s.run(ctx)
		l.ended(err)
		if ctx.Err() != nil {
			return nil
		}
		l.judge(s, err)
		if s.progress || s.welcomed && time.Since(began) >= goodAfter {
			fails = 0
		} else {
			fails++
		}
		wait = l.backoff(fails)
		l.log.Info("link lost", "err", err, "wait", wait)
	}
	return nil
}

func (l *Link) backoff(fails int) time.Duration {
	limit := l.opts.MinBackoff << min(fails+1, 20)
	limit = max(min(limit, l.opts.MaxBackoff), l.opts.MinBackoff)
	return l.opts.MinBackoff + rand.N(limit-l.opts.MinBackoff+1)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// errPeerClosed marks that the connection ended under us, in contrast to our
// giving it up.
var errPeerClosed = errors.New("connection lost")

// judge looks for a block that kills sessions: brokers answer some messages by
// closing the connection, and sending the same again would go on for ever. A
// controller that merely does not acknowledge makes no suspects.
func (l *Link) judge(s *session, err error) {
	if s.progress {
		l.barren = 0
	}
	if len(s.flights) == 0 || !errors.Is(err, errPeerClosed) || time.Since(s.lastSent) > 10*time.Second {
		return
	}
	if s.alone != nil {
		l.strike(s.alone.keys)
		return
	}
	if l.barren++; l.barren < 2 {
		return
	}
	for f := range s.flights {
		l.suspect(f.keys)
	}
}

// suspect makes one suspect of the blocks of a flight.
func (l *Link) suspect(keys []wire.Key) {
	one := &suspect{}
	for _, key := range keys {
		if s := l.suspects[key]; s != nil {
			one = s
		}
	}
	for _, key := range keys {
		l.suspects[key] = one
	}
}

// acquit notes that a block got through.
func (l *Link) acquit(key wire.Key) {
	delete(l.suspects, key)
	for _, s := range l.suspects {
		s.odd = true
	}
}

func (l *Link) strike(keys []wire.Key) {
	l.suspect(keys) // blocks may have become a pack since
	s := l.suspects[keys[0]]
	if s.strikes++; s.strikes < maxStrikes || !s.odd {
		return
	}
	l.log.Error("blocks set aside: each connection ended when they were sent", "first", keys[0].String(), "blocks", len(keys))
	for _, key := range keys {
		delete(l.suspects, key)
	}
	l.refuse(keys)
}

func (l *Link) refuse(keys []wire.Key) {
	n, err := l.opts.Spool.Refuse(keys)
	if err != nil {
		l.log.Warn("refused blocks stay in the spool", "err", err)
		return
	}
	l.note(func(st *Status) { st.Refused += uint64(n) })
}

// PublishLive sends the newest state if there is a session. It never blocks; a
// state that was not sent yet is replaced.
func (l *Link) PublishLive(live wire.Live) {
	for {
		select {
		case l.live <- live:
			return
		default:
		}
		select {
		case <-l.live:
		default:
		}
	}
}

// SayHello opens the conversation anew when there is a session: what the box
// says of itself has changed.
func (l *Link) SayHello() {
	select {
	case l.again <- struct{}{}:
	default: // asked for already
	}
}

// Connected reports whether a WELCOME was received on the present connection.
func (l *Link) Connected() bool { return l.Status().Connected }

// Status returns a copy.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (l *Link) note(fn func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(&l.status)
}

func (l *Link) ended(err error) {
	l.note(func(st *Status) {
		st.InFlight = 0
		if st.Connected {
			st.Connected, st.Since = false, time.Now()
		}
		if err != nil {
			st.LastError = err.Error()
		}
	})
}

func (l *Link) nextConn() (n uint64) {
	l.note(func(st *Status) { st.Connections++; n = st.Connections })
	return n
}

func lost(err error) error { return fmt.Errorf("%w: %w", errPeerClosed, err) }
