package serve

import (
	"errors"
	"io"
	"math/bits"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// gate admits requests while there are places and bytes left. Bytes are
// reserved before a body is read: ten thousand clients that send at once cost
// what the bound says, not what they send.
type gate struct {
	maxRequests, maxBytes int64
	requests, bytes       atomic.Int64
	shed                  atomic.Int64 // refused since the start
}

// ticket is the place of one admitted request.
type ticket struct {
	gate  *gate
	bytes int64
}

var errOverload = errors.New("overloaded: too many requests under way, come back later")

func overload() error { return &fault{http.StatusServiceUnavailable, errOverload} }

// full says that enter would refuse.
func (g *gate) full() bool { return g.requests.Load() >= g.maxRequests }

// enter reserves a place and n bytes.
func (g *gate) enter(n int64) (*ticket, error) {
	if g.requests.Add(1) > g.maxRequests {
		g.requests.Add(-1)
		g.shed.Add(1)
		return nil, overload()
	}
	t := &ticket{gate: g}
	if err := t.grow(n); err != nil {
		t.leave()
		return nil, err
	}
	return t, nil
}

// grow reserves n bytes more, 0 or more.
func (t *ticket) grow(n int64) error {
	if n > t.gate.maxBytes { // before the sum, which such a number may overflow
		t.gate.shed.Add(1)
		return overload()
	}
	if t.gate.bytes.Add(n) > t.gate.maxBytes {
		t.gate.bytes.Add(-n)
		t.gate.shed.Add(1)
		return overload()
	}
	t.bytes += n
	return nil
}

// drop gives back the bytes of a ticket that has no place.
func (t *ticket) drop() { t.gate.bytes.Add(-t.bytes) }

func (t *ticket) leave() {
	t.gate.bytes.Add(-t.bytes)
	t.gate.requests.Add(-1)
}

const arenaStep = 64 << 10

// charge reserves memory for what arena has grown to.
func (d *decoder) charge() error {
	if len(d.arena) <= d.reserved {
		return nil
	}
	// A text may be many steps long.
	n := (len(d.arena) - d.reserved + arenaStep - 1) / arenaStep * arenaStep
	d.reserved += n
	return d.reserve(int64(n))
}

// maxPooled keeps one large image from holding its memory for ever.
const maxPooled = 8 << 20

// buffers hold bodies, decoded tensors and outputs between requests, by size:
// memory that is fresh for each request costs more than what is done with it.
type buffers struct {
	small [smallClasses]shelf
	pools [24]sync.Pool // of 2^n bytes
}

// The least buffer has 4 KiB. Those of up to 16 KiB are on shelves, since the
// collector, which empties a sync.Pool, comes a dozen times a second with small
// requests, and the more often the more of them are made anew.
const (
	leastClass   = 12
	smallClasses = 3
	shelfBytes   = 1 << 20 // of each size
)

// shelf keeps buffers of one size.
type shelf struct {
	mu   sync.Mutex // guards free
	free []*[]byte
}

func (s *shelf) take() *[]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return nil
	}
	p := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return p
}

func (s *shelf) keep(p *[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < shelfBytes/cap(*p) {
		s.free = append(s.free, p)
	}
}

// get returns an empty buffer with room for n bytes.
func (b *buffers) get(n int64) *[]byte {
	class := max(bits.Len64(uint64(max(n, 1)-1)), leastClass)
	if class >= len(b.pools) {
		buf := make([]byte, 0, n)
		return &buf
	}
	if at := class - leastClass; at < smallClasses {
		if p := b.small[at].take(); p != nil {
			return p
		}
	} else if p, ok := b.pools[class].Get().(*[]byte); ok {
		return p
	}
	buf := make([]byte, 0, 1<<class)
	return &buf
}

// put gives a buffer back; nobody may use it any more.
func (b *buffers) put(p *[]byte) {
	if cap(*p) < 1<<leastClass || cap(*p) > maxPooled {
		return
	}
	*p = (*p)[:0]
	class := bits.Len64(uint64(cap(*p))) - 1
	if at := class - leastClass; at < smallClasses {
		b.small[at].keep(p)
		return
	}
	b.pools[class].Put(p)
}

// body reads a request body into buf, at most max bytes of it after
// decompression. The ticket already holds the declared length.
type body struct {
	r      *http.Request
	ticket *ticket
	max    int64
}

func (b body) read(buf *[]byte) error {
	if b.r.ContentLength > b.max {
		return tooLarge(b.max)
	}
	src, known, err := b.source()
	if err != nil {
		return err
	}
	data := (*buf)[:0]
	if known > int64(cap(data)) {
		data = make([]byte, 0, known)
	}
	// Memory of a pooled buffer was paid for by the request that made it.
	held := int64(cap(data))
	for {
		if len(data) == cap(data) {
			// One more byte tells the end from a body that goes on.
			if int64(len(data)) > b.max {
				return tooLarge(b.max)
			}
			data = append(data, 0)[:len(data)]
			if err := b.ticket.grow(int64(cap(data)) - held); err != nil {
				return err
			}
			held = int64(cap(data))
		}
		n, err := src.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		*buf = data
		if int64(len(data)) > b.max {
			return tooLarge(b.max)
		}
		if errors.Is(err, io.EOF) || err == nil && int64(len(data)) == known && known > 0 {
			return nil
		}
		if err != nil {
			return faultf(http.StatusBadRequest, "read request body: %w", err)
		}
	}
}

// source undoes Content-Encoding. known is the length to expect, 0 if unknown.
func (b body) source() (src io.Reader, known int64, err error) {
	switch enc := b.r.Header.Get("Content-Encoding"); strings.ToLower(enc) {
	case "", "identity":
		return b.r.Body, max(b.r.ContentLength, 0), nil
	case codeGzip, "x-gzip":
		src, err = gzip.NewReader(b.r.Body)
	case codeDeflate:
		src, err = zlib.NewReader(b.r.Body)
	default:
		return nil, 0, faultf(http.StatusUnsupportedMediaType, "content encoding %q is not known, use gzip or deflate", enc)
	}
	if err != nil {
		return nil, 0, faultf(http.StatusBadRequest, "decompress request body: %w", err)
	}
	return src, 0, nil
}

func tooLarge(max int64) error {
	return faultf(http.StatusRequestEntityTooLarge, "request body is longer than %d bytes", max)
}
