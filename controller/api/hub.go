package api

import (
	"math"
	"sync"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// Bounds of a Hub: a browser that reads slowly loses nothing but detail.
const (
	maxQueue   = 1024 // changes waiting for one stream
	maxStreams = 256
	ownStreams = 32 // of one caller: nobody keeps all others out
)

// topics are all that a change may be about, except live samples.
var topics = fleetapi.ChangeTopics()

// Hub carries changes to the streams that are open. Publishing never waits: a
// stream that falls too far behind is told that everything changed.
type Hub struct {
	forward func(fleetapi.Change)

	mu      sync.Mutex // guards streams and their fields
	streams map[*stream]bool
}

// stream is one open stream of events.
type stream struct {
	who   string
	queue []fleetapi.Change
	all   bool          // the queue overflowed: everything changed
	ready chan struct{} // buffer 1: there is something to take
}

// NewHub returns a Hub without streams.
func NewHub() *Hub { return &Hub{streams: map[*stream]bool{}} }

// Forward lets f have every change that is published here, for other
// controllers. Call it before anything else.
func (h *Hub) Forward(f func(fleetapi.Change)) { h.forward = f }

// Watching reports whether somebody has a stream open.
func (h *Hub) Watching() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams) > 0
}

// Publish tells all streams of a change.
func (h *Hub) Publish(c fleetapi.Change) {
	c.Live = finite(c.Live)
	if h.forward != nil {
		h.forward(c)
	}
	h.Receive(c)
}

// Receive tells the streams here of a change that another controller published.
func (h *Hub) Receive(c fleetapi.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		s.add(c)
		select {
		case s.ready <- struct{}{}:
		default:
		}
	}
}

// finite leaves out what JSON cannot say; a box may send any number.
func finite(l *fleetapi.LiveSample) *fleetapi.LiveSample {
	if l == nil {
		return nil
	}
	out := *l
	out.Values = make(map[string]float64, len(l.Values))
	for name, v := range l.Values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out.Values[name] = v
		}
	}
	return &out
}

// add queues c. What waits already under the same topic and id is replaced: it
// says the same, or is an older sample. The caller holds the Hub's lock.
func (s *stream) add(c fleetapi.Change) {
	if s.all && c.Topic != "live" {
		return
	}
	for i, waiting := range s.queue {
		if waiting.Topic == c.Topic && waiting.ID == c.ID {
			s.queue[i] = c
			return
		}
	}
	if len(s.queue) < maxQueue {
		s.queue = append(s.queue, c)
		return
	}
	s.queue, s.all = nil, true
}

// open begins a stream of a caller, or returns nil when there are too many.
func (h *Hub) open(who string) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	own := 0
	for s := range h.streams {
		if s.who == who {
			own++
		}
	}
	if len(h.streams) >= maxStreams || own >= ownStreams {
		return nil
	}
	s := &stream{who: who, ready: make(chan struct{}, 1)}
	h.streams[s] = true
	return s
}

func (h *Hub) close(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

// take empties the queue of s.
func (h *Hub) take(s *stream) []fleetapi.Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := s.queue
	if s.all {
		for _, t := range topics {
			out = append(out, fleetapi.Change{Topic: t})
		}
	}
	s.queue, s.all = nil, false
	return out
}

func (h *Hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// Streams is how many streams of events are open.
func (h *Hub) Streams() int { return h.count() }
