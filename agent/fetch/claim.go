package fetch

import (
	"context"
	"errors"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// errYields ends a download over the line because the same blob comes from a
// stick.
var errYields = errors.New("the same comes from a bundle on this box")

// busy is a download under way.
type busy struct {
	done  chan struct{} // closed when it ends
	yield context.CancelCauseFunc
	local bool
}

type localKey struct{}

// Local returns a context for downloads that use no line, such as from a stick:
// no rate, quiet time or month bounds them, one of the same blob over the line
// makes way, and what is wrong with them is not remembered against the server.
func Local(ctx context.Context) context.Context { return context.WithValue(ctx, localKey{}, true) }

func local(ctx context.Context) bool { return ctx.Value(localKey{}) != nil }

// claim waits until no other call downloads d, and returns the context of the
// download.
func (f *Fetcher) claim(ctx context.Context, d blob.Digest) (context.Context, error) {
	for {
		f.mu.Lock()
		other, taken := f.busy[d]
		if !taken {
			ctx, yield := context.WithCancelCause(ctx)
			f.busy[d] = &busy{done: make(chan struct{}), yield: yield, local: local(ctx)}
			f.mu.Unlock()
			return ctx, nil
		}
		f.mu.Unlock()
		if local(ctx) && !other.local {
			other.yield(errYields)
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *Fetcher) release(d blob.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy[d].yield(nil)
	close(f.busy[d].done)
	delete(f.busy, d)
}
