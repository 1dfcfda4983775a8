package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Peers are the other boxes of the site.
type Peers interface {
	// Address is where they reach this box; empty: it does not share now.
	Address() string
	// Frame gets a frame of a file from one of them; wait lets it wait a moment
	// for a frame that is on its way. ErrNotFound: it does not have it.
	Frame(ctx context.Context, from deviceapi.Peer, want Frame) ([]byte, error)
}

// Frame names a frame of a file.
type Frame struct {
	Digest blob.Digest
	Index  int
	Wait   bool
}

const (
	renewEvery = 20 * time.Second // a lease lasts a minute
	askSoon    = 5 * time.Second  // when nobody has what is missing
	heldWait   = time.Second      // for a frame that is on its way
	shunAfter  = 2                // wrong frames of one peer
	shunFor    = 24 * time.Hour
)

var errLost = errors.New("another box fetches for the site now")

// share is a download in company. The controller's lease says who fetches over
// the line; frames are asked of peers first even then, so that a box that takes
// over fetches nothing twice.
type share struct {
	*load
	lease  deviceapi.Lease
	asked  time.Time
	alone  bool // the controller knows no leases
	wrong  map[identity.ID]int
	failed map[identity.ID]bool // until the next lease
}

func newShare(l *load) *share {
	return &share{load: l, wrong: map[identity.ID]int{}, failed: map[identity.ID]bool{}}
}

func (s *share) attempt(ctx context.Context) (finished bool, err error) {
	if first, end := s.part.gap(1); first == end {
		return true, nil
	}
	if s.alone || s.f.opts.Peers.Address() == "" {
		return s.line(ctx, packFrames)
	}
	asking := s.renew(ctx)
	if s.alone {
		return s.line(ctx, packFrames)
	}
	got, lacking, err := s.fromPeers(ctx)
	switch {
	case err != nil:
		return false, err
	case s.lease.Seed && lacking > 0:
		// Slow peers may have taken longer than the lease lasts.
		if s.renew(ctx) != nil || !s.lease.Seed {
			return false, nil
		}
		return false, s.seed(ctx, lacking)
	case got || s.lease.Seed:
		return false, nil
	case asking != nil:
		return false, fmt.Errorf("%w: no peer has what is missing, and the controller is away: %w", errAgain, asking)
	}
	return false, sleep(ctx, time.Second)
}

// renew asks for the lease when it is time.
func (s *share) renew(ctx context.Context) error {
	every := renewEvery
	if !s.lease.Seed {
		every = askSoon
	}
	if !s.asked.IsZero() && time.Since(s.asked) < every {
		return nil
	}
	s.asked = time.Now()
	lease, err := s.ask(ctx, s.f.gate.shut())
	if errors.Is(err, ErrNotFound) {
		s.alone = true
		return nil
	}
	if err != nil {
		s.lease.Seed = false // the peers may still help
		return err
	}
	s.lease, s.failed = lease, map[identity.ID]bool{}
	return nil
}

func (s *share) ask(ctx context.Context, yield bool) (deviceapi.Lease, error) {
	return s.f.lease(ctx, s.file.Digest, deviceapi.Ask{DoneBytes: s.part.reached(), SizeBytes: s.file.SizeBytes, Yield: yield, Bad: s.f.shuns()})
}

// Announce tells the controller that this box has a file whole which it did not get
// by a lease, so that others of its site ask here. It holds for a day there. What the
// controller does not know yet is ErrNotFound: the version may reach it later than a
// stick reached the box.
func (f *Fetcher) Announce(ctx context.Context, d blob.Digest, size int64) error {
	if f.opts.Peers == nil || f.opts.Peers.Address() == "" {
		return nil
	}
	_, err := f.lease(ctx, d, deviceapi.Ask{DoneBytes: size, SizeBytes: size, Yield: true})
	return err
}

func (f *Fetcher) lease(ctx context.Context, d blob.Digest, a deviceapi.Ask) (lease deviceapi.Lease, err error) {
	a.Address = f.opts.Peers.Address()
	body, err := json.Marshal(a)
	if err != nil {
		return lease, err
	}
	data, err := f.ask(ctx, http.MethodPost, f.url(d)+"/lease", body, deviceapi.MaxAskBytes)
	if err != nil {
		return lease, err
	}
	if err := json.Unmarshal(data, &lease); err != nil {
		return lease, fmt.Errorf("lease: %w", err)
	}
	return lease, nil
}

// leave gives the lease back and tells what is here.
func (s *share) leave(ctx context.Context) {
	if s.alone || s.asked.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := s.ask(ctx, true); err != nil {
		s.f.log.Debug("lease not given back, it ends by itself", "digest", s.file.Digest, "err", err)
	}
}

// seed fetches a run of most frames over the line, and keeps the lease meanwhile. A
// lease that is lost ends the run.
func (s *share) seed(ctx context.Context, most int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	kept := make(chan deviceapi.Lease, 1)
	go func() {
		lease := s.lease
		defer func() { kept <- lease }()
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if next, err := s.ask(ctx, s.f.gate.shut()); err == nil {
				if lease = next; !lease.Seed {
					cancel(errLost)
				}
			}
		}
	}()
	_, err := s.line(ctx, most)
	lost := errors.Is(context.Cause(ctx), errLost)
	cancel(nil)
	s.lease, s.asked = <-kept, time.Now()
	if lost {
		return fmt.Errorf("%w: %w", errAgain, errLost)
	}
	return err
}

// fromPeers gets the missing frames that peers have. got says that some came;
// lacking is how many, from the first that is missing still, no peer has. The one
// who fetches asks for all that its next request would bring: one frame that nobody
// has must not make those after it cross the line again. The others stop there and
// follow.
func (s *share) fromPeers(ctx context.Context) (got bool, lacking int, err error) {
	most := packFrames
	if s.load.asked && len(s.packs) == 0 {
		most = runFrames
	}
	first, end := s.part.gap(most)
	turn, open := 0, true
	if n := len(s.lease.Peers); n > 0 {
		turn = rand.IntN(n) // so that not all ask the same one
	}
	for i := first; i < end; i++ {
		from, err := s.find(ctx, i, turn)
		switch {
		case err != nil:
			return got, lacking, err
		case from >= 0:
			got, turn = true, from // one that had this frame most likely has the next
			open = lacking == 0
		case !s.lease.Seed:
			return got, 1, nil
		case open:
			lacking++
		}
	}
	return got, lacking, nil
}

// find gets frame i from one of the peers, the one whose turn it is first; from is
// less than 0 if none has it.
func (s *share) find(ctx context.Context, i, turn int) (from int, err error) {
	n := len(s.lease.Peers)
	for k := range n {
		from = (turn + k) % n
		p := s.lease.Peers[from]
		if s.failed[p.ID] || s.f.shuns(p.ID) != nil {
			continue
		}
		ok, err := s.take(ctx, p, Frame{s.file.Digest, i, !s.lease.Seed && k == n-1})
		if ok || err != nil {
			return from, err
		}
	}
	return -1, nil
}

// take gets one frame from one peer. Only what this box itself cannot do is an
// error.
func (s *share) take(ctx context.Context, p deviceapi.Peer, want Frame) (ok bool, err error) {
	data, err := s.f.opts.Peers.Frame(ctx, p, want)
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, ErrNotFound):
		return false, nil
	case err != nil:
		s.f.log.Debug("peer does not answer", "device", p.ID, "err", err)
		s.failed[p.ID] = true
		return false, nil
	}
	err = s.part.put(want.Index, data)
	if errors.Is(err, errFrame) {
		s.wrong[p.ID]++
		s.f.log.Warn("peer gave a wrong frame", "device", p.ID, "digest", s.file.Digest, "err", err)
		if s.wrong[p.ID] >= shunAfter {
			s.f.shun(p.ID, s.file.Digest)
			s.asked = time.Time{} // the controller shall know
		}
		return false, nil
	}
	return err == nil, err
}

func (f *Fetcher) shun(id identity.ID, d blob.Digest) {
	until := time.Now().Add(shunFor)
	f.mu.Lock()
	f.shunned[id] = until
	f.mu.Unlock()
	if f.opts.Shunned != nil {
		f.opts.Shunned(id, d, until)
	}
}

// shuns lists those of ids that gave wrong frames a short while ago; of all
// without ids.
func (f *Fetcher) shuns(ids ...identity.ID) (out []identity.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, until := range f.shunned {
		if time.Now().After(until) {
			delete(f.shunned, id)
			continue
		}
		if len(ids) == 0 || ids[0] == id {
			out = append(out, id)
		}
	}
	return out
}

// show lets peers have what is there of a part that is being filled.
func (f *Fetcher) show(d blob.Digest, p *part) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p == nil {
		delete(f.parts, d)
		return
	}
	f.parts[d] = p
}

// Held returns a frame that this box has, for a peer; ErrNotFound: it has not.
func (f *Fetcher) Held(ctx context.Context, want Frame) ([]byte, error) {
	limit := time.NewTimer(heldWait)
	defer limit.Stop()
	for {
		if data, err := f.stored(want); !errors.Is(err, ErrNotFound) {
			return data, err
		}
		f.mu.Lock()
		p := f.parts[want.Digest]
		f.mu.Unlock()
		if p == nil {
			return nil, ErrNotFound
		}
		data, moved, err := p.read(want.Index)
		if moved == nil || !want.Wait {
			return data, err
		}
		select {
		case <-moved:
		case <-limit.C:
			return nil, ErrNotFound
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// stored reads a frame of a file that is whole.
func (f *Fetcher) stored(want Frame) ([]byte, error) {
	size, err := f.opts.Blobs.Size(want.Digest)
	if off := int64(want.Index) * blob.FrameBytes; err != nil || want.Index < 0 || off >= size {
		return nil, ErrNotFound
	}
	file, err := f.opts.Blobs.Get(want.Digest)
	if err != nil {
		return nil, ErrNotFound
	}
	defer file.Close()
	off, n := blob.Frames{Size: size}.Span(want.Index)
	data := make([]byte, n)
	if _, err := file.ReadAt(data, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read frame %d: %w", want.Index, err)
	}
	f.mu.Lock()
	list, ok := f.lists[want.Digest]
	f.mu.Unlock()
	if ok && blob.Sum(data) != list.Sums[want.Index] {
		f.log.Warn("a frame on this disk is damaged and is not given to peers", "digest", want.Digest, "frame", want.Index)
		return nil, ErrNotFound
	}
	return data, nil
}

// keep remembers the list of a file that is whole, so that what a disk spoils later
// is not given to peers: they would leave this box with all that is sound here.
func (f *Fetcher) keep(d blob.Digest, frames blob.Frames) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for other := range f.lists {
		if !f.opts.Blobs.Has(other) {
			delete(f.lists, other)
		}
	}
	f.lists[d] = frames
}
