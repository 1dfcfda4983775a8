// Package fault keeps a tally of what goes wrong with the messages of boxes.
//
// Vocabulary: a cause is one kind of trouble, from the fixed list below; an
// entry is how often it came up with one box, when first and last, and what was
// said then. A Book counts in memory and hands entries over to the database
// every few seconds, so that a box that means harm costs neither a write nor a
// line of log for each of its messages: each cause is logged once an hour a box.
//
// The one rule a caller can break: note only boxes that have proved who they
// are, since the Book has room for as many boxes as a fleet has.
package fault

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Cause is one kind of trouble. The words are shown by the API.
type Cause string

// What boxes send that is not right.
const (
	Malformed      Cause = "malformed"       // bytes or packets that cannot be read
	Oversized      Cause = "oversized"       // a packet beyond the limit
	WrongTopic     Cause = "wrong-topic"     // a topic, client id or will that is not the box's own
	BadSeal        Cause = "bad-seal"        // blocks that are not what their key was made of
	Unreadable     Cause = "unreadable"      // sealed, but its content cannot be read; kept as it is
	Replayed       Cause = "replayed"        // a HELLO of an earlier connection
	FromTheFuture  Cause = "from-the-future" // a clock called right is more than 5 min ahead
	Undated        Cause = "undated"         // from before any clock was right, and nothing says when
	Bomb           Cause = "bomb"            // a pack that would expand beyond the limit
	SchemaConflict Cause = "schema-conflict" // samples without their schema, or that do not fit it
	Flood          Cause = "flood"           // more connections or messages than a box may make
)

// What else stands between a box and the database.
const (
	DuplicateIdentity Cause = "duplicate-identity" // two machines with one certificate
	RefusedByStore    Cause = "refused-by-store"   // the database did not take it; the box sends it again
)

// What a box says of itself.
const (
	SpoolFull    Cause = "spool-full"    // it dropped blocks for want of room
	SpoolDamaged Cause = "spool-damaged" // its disk gave back other bytes than were written
	SetAside     Cause = "set-aside"     // it gave blocks up that this side refused
	DiskRefuses  Cause = "disk-refuses"  // its disk takes no writes
)

// Causes are all of them.
func Causes() []Cause {
	return []Cause{Malformed, Oversized, WrongTopic, BadSeal, Unreadable, Replayed, FromTheFuture, Undated, Bomb, SchemaConflict, Flood,
		DuplicateIdentity, RefusedByStore, SpoolFull, SpoolDamaged, SetAside, DiskRefuses}
}

// Entry is one cause of one box.
type Entry struct {
	Box             identity.ID
	Cause           Cause
	Count           int64
	FirstMs, LastMs int64  // Unix milliseconds
	Text            string // what was said the last time
}

const (
	logEvery = time.Hour
	// maxTallies bounds the memory: 4096 boxes with every cause at once.
	maxTallies = 1 << 16
	maxText    = 300
)

// Options of a Book.
type Options struct {
	// Keep adds entries to what the database has; nil means that they stay in
	// memory.
	Keep func(context.Context, []Entry) error
	// Every is how often Keep is called at most; default 10 s.
	Every time.Duration
	// WallClock stamps entries; nil means time.Now.
	WallClock func() time.Time
}

// Book counts. Safe for concurrent use; the methods of nil do nothing.
type Book struct {
	opts Options
	log  *slog.Logger

	mu      sync.Mutex // guards the fields below
	tallies map[name]*tally
	full    time.Time // when it was said last that there is no room
}

type name struct {
	box   identity.ID
	cause Cause
}

type tally struct {
	Entry
	logged time.Time
}

// New returns an empty Book.
func New(opts Options, log *slog.Logger) *Book {
	if opts.Every <= 0 {
		opts.Every = 10 * time.Second
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	return &Book{opts: opts, log: log, tallies: map[name]*tally{}}
}

// Note counts n of a cause and logs it, unless that was done within the hour.
func (b *Book) Note(id identity.ID, cause Cause, n int64, err error) {
	b.add(id, cause, n, err, true)
}

// Count counts n of a cause that is logged elsewhere, for all boxes at once.
func (b *Book) Count(id identity.ID, cause Cause, n int64, err error) {
	b.add(id, cause, n, err, false)
}

func (b *Book) add(id identity.ID, cause Cause, n int64, err error, loud bool) {
	if b == nil || n <= 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tallyLocked(name{id, cause})
	if t == nil {
		return
	}
	now := b.opts.WallClock().UnixMilli()
	if t.Count == 0 {
		t.FirstMs = now
	}
	t.Count, t.LastMs = t.Count+n, now
	if err != nil {
		t.Text = clean(err.Error())
	}
	if loud && (t.logged.IsZero() || time.Since(t.logged) >= logEvery) {
		t.logged = time.Now()
		b.log.Warn("trouble with messages of a box", "device", id, "cause", string(cause), "err", t.Text)
	}
}

func (b *Book) tallyLocked(k name) *tally {
	if t := b.tallies[k]; t != nil {
		return t
	}
	if len(b.tallies) >= maxTallies { // flush makes room
		if b.full.IsZero() || time.Since(b.full) >= logEvery {
			b.full = time.Now()
			b.log.Warn("more boxes in trouble than can be counted", "causes", len(b.tallies))
		}
		return nil
	}
	t := &tally{Entry: Entry{Box: k.box, Cause: k.cause}}
	b.tallies[k] = t
	return t
}

// pruneLocked forgets what was kept and logged long ago.
func (b *Book) pruneLocked() {
	for k, t := range b.tallies {
		if t.Count == 0 && time.Since(t.logged) >= logEvery {
			delete(b.tallies, k)
		}
	}
}

// Pending returns what of a box was not handed to Keep yet.
func (b *Book) Pending(id identity.ID) []Entry {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Entry
	for _, c := range Causes() {
		if t := b.tallies[name{id, c}]; t != nil && t.Count > 0 {
			out = append(out, t.Entry)
		}
	}
	return out
}

// Run hands entries over until ctx is done, and once more then.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(b.opts.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			b.flush(last)
			return nil
		}
	}
}

// flush takes what was counted and gives it back when Keep fails: trouble with
// the database is among what is counted, and is logged where it is met.
func (b *Book) flush(ctx context.Context) {
	if b.opts.Keep == nil {
		return
	}
	var out []Entry
	b.mu.Lock()
	for _, t := range b.tallies {
		if t.Count > 0 {
			out = append(out, t.Entry)
			t.Count = 0
		}
	}
	b.pruneLocked()
	b.mu.Unlock()
	if len(out) == 0 {
		return
	}
	slices.SortFunc(out, func(a, c Entry) int {
		if d := strings.Compare(string(a.Box), string(c.Box)); d != 0 {
			return d
		}
		return strings.Compare(string(a.Cause), string(c.Cause))
	})
	if err := b.opts.Keep(ctx, out); err != nil {
		b.log.Debug("trouble of boxes not stored yet", "err", err)
		b.giveBack(out)
	}
}

func (b *Book) giveBack(entries []Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range entries {
		t := b.tallyLocked(name{e.Box, e.Cause})
		if t == nil {
			continue
		}
		if t.Count == 0 {
			t.LastMs, t.Text = e.LastMs, e.Text
		}
		t.Count, t.FirstMs = t.Count+e.Count, e.FirstMs
	}
}

// clean makes a text of a box fit for a log and a page.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
