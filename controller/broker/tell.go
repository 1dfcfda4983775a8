package broker

import (
	"context"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The end of a session is told by one goroutine, later: to note it may take a
// commit, and when thousands of connections break off at once, thousands that
// come back would wait for their old sessions. One that is back before its end
// was told is neither told to have gone nor to have come.

// departure is the end of the last session of a process.
type departure struct {
	id  identity.ID
	sid wire.SID
}

// departs has the end of s told. Called with mu held.
func (b *Broker) departs(s *session) {
	b.untold[s.client.ID] = departure{s.peer.ID, s.sid}
	b.toTell = append(b.toTell, s.client.ID)
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// tell calls OnDisconnect until all sessions have ended and nothing is left to
// tell.
func (b *Broker) tell(ctx context.Context, allEnded <-chan struct{}) {
	for {
		b.tellAll(ctx)
		select {
		case <-b.news:
		case <-allEnded:
			b.tellAll(ctx)
			return
		}
	}
}

func (b *Broker) tellAll(ctx context.Context) {
	for {
		b.mu.Lock()
		if len(b.toTell) == 0 {
			b.toTell = nil
			b.mu.Unlock()
			return
		}
		client := b.toTell[0]
		b.toTell = b.toTell[1:]
		gone, yes := b.untold[client]
		delete(b.untold, client)
		if !yes { // it is back
			b.mu.Unlock()
			continue
		}
		// A new session of the same process waits until this was told: what it
		// says must not be noted before.
		told := make(chan struct{})
		b.telling[client] = told
		b.mu.Unlock()
		b.opts.OnDisconnect(ctx, gone.id, gone.sid)
		b.mu.Lock()
		delete(b.telling, client)
		b.mu.Unlock()
		close(told)
	}
}
