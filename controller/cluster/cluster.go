// Package cluster lets several controllers on one PostgreSQL act as one.
//
// Vocabulary: a node is one run of one controller process; it says every second
// that it lives, and counts as dead when it was not heard for a few. The lease
// is held by one node, which leads: it moves rollouts and does whatever one
// controller alone may do. A notice is a short text from node to node, by LISTEN
// and NOTIFY of PostgreSQL: a message for a box whose session another node
// holds, or a change that pages show. Notices may be lost; what they tell is in
// the database and is looked up when a node has been deaf.
//
// The one rule a caller can break: a node that leads may be replaced while it
// waits for something. What it writes as the leader goes through Fence.
package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Times of a node. A dead one is replaced after about beatFor.
const (
	beatEvery = time.Second
	beatFor   = 5 * time.Second
	// A node stops leading so long before the others may take over.
	beatMargin = time.Second
	shareEvery = 200 * time.Millisecond
	listenWait = time.Second
	tellWithin = 5 * time.Second
)

// channelAll is heard by every node, channelOf by one.
const channelAll = "edgeherd_all"

func channelOf(node string) string { return "edgeherd_" + node }

// NewID names a run of a controller process.
func NewID() string {
	var raw [8]byte
	rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

// Options of a Node. Store, opened with ID as its Node, and all functions are
// required; they must return soon.
type Options struct {
	ID    string
	Name  string // for people: the host
	Store *store.Store
	// Tell hands over a message for a box whose session this node holds.
	Tell func(id identity.ID, topic wire.Topic, payload []byte)
	// Deaf is called when notices may have been missed, or sessions of this node
	// ended by others, and at the beginning.
	Deaf func()
	// Change hands over what another node has changed.
	Change func(fleetapi.Change)
	// Wake is called when another node wants the leader to look at rollouts.
	Wake func()
	// Gone is called for boxes that are gone with the node that held them.
	Gone func([]identity.ID)
	// Watching reports whether somebody looks at this node's pages.
	Watching func() bool
}

// Node is this controller among the others.
type Node struct {
	opts Options
	log  *slog.Logger
	life time.Duration // beatFor; tests say otherwise before Run

	// Of the goroutine in live.
	steady time.Time // when a beat failed last, or the first was
	failed bool      // the last beat failed

	mu       sync.Mutex // guards the fields below
	token    int64      // of the lease, 0 when another node holds it
	good     time.Time  // until when the lease is ours for certain
	watching bool       // somebody looks at the pages of some node
	pending  map[fleetapi.Change]bool
	lives    map[string]*fleetapi.LiveSample
	wake     bool
	tells    []notice // for boxes of nobody knows which node
}

// New returns a node that has not said that it lives.
func New(opts Options, log *slog.Logger) *Node {
	return &Node{opts: opts, log: log, life: beatFor, steady: time.Now(), pending: map[fleetapi.Change]bool{}, lives: map[string]*fleetapi.LiveSample{}}
}

// Beat says once that the node lives. Call it before sessions begin.
func (n *Node) Beat(ctx context.Context) error {
	began := time.Now()
	s, err := n.opts.Store.Beat(ctx, store.Beat{Name: n.opts.Name, Watching: n.opts.Watching(), For: n.life})
	if err != nil {
		return err
	}
	n.mu.Lock()
	was := n.token
	if s.Watching && !n.watching { // what was not shared while nobody watched
		for _, topic := range fleetapi.ChangeTopics() {
			n.pending[fleetapi.Change{Topic: topic}] = true
		}
	}
	n.token, n.watching = s.Token, s.Watching
	if s.Token != 0 {
		n.good = began.Add(n.life - beatMargin)
	}
	n.mu.Unlock()
	if s.New {
		n.opts.Deaf()
	}
	if was != s.Token {
		n.log.Info("leader changed", "leads", s.Token != 0)
	}
	return nil
}

// Run lives until ctx ends, then takes leave.
func (n *Node) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.every(gctx, beatEvery, n.live) })
	g.Go(func() error { return n.every(gctx, shareEvery, n.share) })
	g.Go(func() error { return n.listen(gctx) })
	return g.Wait()
}

// Leave tells the others that this node has ended, so that they need not wait.
func (n *Node) Leave(ctx context.Context) error {
	n.mu.Lock()
	n.token = 0
	n.mu.Unlock()
	return n.opts.Store.Leave(ctx)
}

func (n *Node) every(ctx context.Context, span time.Duration, do func(context.Context) error) error {
	tick := time.NewTicker(span)
	defer tick.Stop()
	for away := false; ; {
		err := do(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !away:
			n.log.Warn("other controllers not reached; it is tried again", "err", err)
		case err == nil && away:
			n.log.Info("other controllers reached again")
		}
		away = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (n *Node) live(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, n.life)
	defer cancel()
	if err := n.Beat(short); err != nil {
		n.steady, n.failed = time.Now(), true
		return err
	}
	if n.failed { // one that failed may have been the one that came back from the dead
		n.failed = false
		n.opts.Deaf()
	}
	// When the database comes back, the others need a moment to beat again.
	if !n.Leads() || time.Since(n.steady) < n.life {
		return nil
	}
	gone, err := n.opts.Store.EndDeadNodes(short)
	if len(gone) > 0 {
		n.log.Info("boxes were connected to a controller that is dead", "boxes", len(gone))
		n.opts.Gone(gone)
	}
	return err
}

// Leads reports whether this node may do what one alone does.
func (n *Node) Leads() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.token != 0 && time.Now().Before(n.good)
}

// Fence returns a context for writes of the leader, or false when another node
// leads.
func (n *Node) Fence(ctx context.Context) (context.Context, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.token == 0 || !time.Now().Before(n.good) {
		return ctx, false
	}
	return store.Fenced(ctx, n.token), true
}

// Watching reports whether somebody looks at the pages of any node.
func (n *Node) Watching() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.watching || n.opts.Watching()
}

// notice is what travels between nodes.
type notice struct {
	From    string                 `json:"from"`
	Box     identity.ID            `json:"box,omitempty"`
	Topic   wire.Topic             `json:"topic,omitempty"`
	Payload []byte                 `json:"payload,omitempty"`
	Changes []fleetapi.Change      `json:"changes,omitempty"`
	Lives   []*fleetapi.LiveSample `json:"lives,omitempty"`
	Wake    bool                   `json:"wake,omitempty"`
}

// ErrNowhere says that no node talks with a box.
var ErrNowhere = errors.New("no controller talks with the box")

// Tell sends a message to a box through the node that talks with it. A WANT
// travels without its payload: the node reads the newest from the database.
func (n *Node) Tell(id identity.ID, topic wire.Topic, payload []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), tellWithin)
	defer cancel()
	node, err := n.opts.Store.NodeOf(ctx, id)
	if err != nil {
		return err
	}
	if node == "" || node == n.opts.ID {
		return ErrNowhere
	}
	if topic == wire.TopicWant {
		payload = nil
	}
	return n.send(ctx, channelOf(node), notice{Box: id, Topic: topic, Payload: payload})
}

// TellAll has whichever other nodes talk with a box tell it a message, or the
// newest of a topic when payload is nil: for boxes whose sessions the database
// does not know by node, and for those that have several. It does not wait, and
// what it cannot tell is told by WELCOME.
func (n *Node) TellAll(id identity.ID, topic wire.Topic, payload []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.tells) < maxPending {
		n.tells = append(n.tells, notice{Box: id, Topic: topic, Payload: payload})
	}
}

func (n *Node) send(ctx context.Context, channel string, m notice) error {
	m.From = n.opts.ID
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode notice: %w", err)
	}
	return n.opts.Store.Notify(ctx, channel, string(text))
}

// Share tells the other nodes what their pages shall show anew. Changes of a
// fifth of a second travel together.
func (n *Node) Share(c fleetapi.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.watching: // Beat makes up for it
	case c.Live != nil:
		if len(n.lives) < maxPending {
			n.lives[c.ID] = c.Live
		}
	case len(n.pending) < maxPending:
		n.pending[c] = true
	default:
		// Everything of the topic, then: pages read it all again.
		n.pending[fleetapi.Change{Topic: c.Topic}] = true
	}
}

// WakeLeader asks the leader to look at rollouts at once.
func (n *Node) WakeLeader() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wake = true
}

// maxPending bounds what is shared at once; the rest is told as a whole.
const maxPending = 500

// share sends what has gathered.
func (n *Node) share(ctx context.Context) error {
	n.mu.Lock()
	pending, lives, wake, tells := n.pending, n.lives, n.wake, n.tells
	n.pending, n.lives, n.wake, n.tells = map[fleetapi.Change]bool{}, map[string]*fleetapi.LiveSample{}, false, nil
	n.mu.Unlock()
	for _, m := range append(tells, parcel(pending, lives, wake)...) {
		if err := n.send(ctx, channelAll, m); err != nil {
			n.repeat(pending, wake)
			return err
		}
	}
	return nil
}

// repeat has pages of the others read again all of what they may not have
// heard of. Live samples are followed by younger ones.
func (n *Node) repeat(pending map[fleetapi.Change]bool, wake bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range pending {
		n.pending[fleetapi.Change{Topic: c.Topic}] = true
	}
	n.wake = n.wake || wake
}

// parcelBytes is how much of a notice its changes and samples may take.
const parcelBytes = store.MaxNotice - 200

// parcel makes notices that fit. A sample of more metrics than fit is left
// out: the pages of other nodes show the stored values instead.
func parcel(pending map[fleetapi.Change]bool, lives map[string]*fleetapi.LiveSample, wake bool) (out []notice) {
	m, size := notice{Wake: wake}, 0
	room := func(v any) bool {
		text, err := json.Marshal(v)
		need := len(text) + 1 // its comma
		if err != nil || need > parcelBytes {
			return false
		}
		if size+need > parcelBytes {
			out = append(out, m)
			m, size = notice{}, 0
		}
		size += need
		return true
	}
	for c := range pending {
		if room(c) {
			m.Changes = append(m.Changes, c)
		}
	}
	for _, l := range lives {
		if room(l) {
			m.Lives = append(m.Lives, l)
		}
	}
	if len(m.Changes)+len(m.Lives) > 0 || m.Wake {
		out = append(out, m)
	}
	return out
}

// listen hears what other nodes say, again and again.
func (n *Node) listen(ctx context.Context) error {
	for away := false; ; {
		heard := func() { away = false; n.opts.Deaf() }
		err := n.opts.Store.Listen(ctx, []string{channelAll, channelOf(n.opts.ID)}, heard, n.hear)
		if ctx.Err() != nil {
			return nil
		}
		if !away {
			n.log.Warn("other controllers not heard; it is tried again", "err", err)
		}
		away = true
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenWait):
		}
	}
}

func (n *Node) hear(_, text string) {
	var m notice
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		n.log.Warn("notice of another controller not understood; update it or this one", "err", err)
		return
	}
	if m.From == n.opts.ID {
		return
	}
	if m.Box != "" {
		n.opts.Tell(m.Box, m.Topic, m.Payload)
	}
	for _, c := range m.Changes {
		n.opts.Change(c)
	}
	for _, l := range m.Lives {
		n.opts.Change(fleetapi.Change{Topic: "live", ID: string(l.Box), Live: l})
	}
	if m.Wake && n.Leads() {
		n.opts.Wake()
	}
}
