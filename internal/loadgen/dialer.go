package loadgen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// dialTimeout bounds connecting and shaking hands together, as in agent/link.
const dialTimeout = 30 * time.Second

// portsPerSource is how many connections share a source address: the kernel
// has 28,232 ports for each by default.
const portsPerSource = 20_000

// job is a connection that a device wants.
type job struct {
	shard   *shard
	dev     *device
	opening []byte
}

// dialer connects: what blocks is done here, by a few goroutines.
type dialer struct {
	to     netip.AddrPort
	config *tls.Config // nil: plain

	mu     sync.Mutex // guards the fields below
	ready  *sync.Cond // jobs or closed changed
	jobs   []job
	closed bool
}

// boxKey is the key of the number of the box in the context of a handshake: so
// one tls.Config serves all devices.
type boxKey struct{}

func newDialer(to netip.AddrPort, config *tls.Config, certs []tls.Certificate) *dialer {
	d := &dialer{to: to}
	d.ready = sync.NewCond(&d.mu)
	if config != nil {
		d.config = config.Clone()
		d.config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			box, ok := r.Context().Value(boxKey{}).(int32)
			if !ok || int(box) >= len(certs) {
				return nil, errors.New("handshake of nobody")
			}
			return &certs[box], nil
		}
	}
	return d
}

func (d *dialer) want(j job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.jobs = append(d.jobs, j)
	d.ready.Signal()
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.ready.Broadcast()
}

// next waits for a job.
func (d *dialer) next() (job, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.jobs) == 0 && !d.closed {
		d.ready.Wait()
	}
	if d.closed {
		return job{}, false
	}
	j := d.jobs[0]
	if d.jobs = d.jobs[1:]; len(d.jobs) == 0 {
		d.jobs = nil // what it grew to is not kept
	}
	return j, true
}

// run connects until close is called.
func (d *dialer) run(ctx context.Context) {
	for {
		j, ok := d.next()
		if !ok {
			return
		}
		l, err := d.connect(ctx, j)
		j.shard.post(func(now int64) { j.shard.joined(j.dev, l, err, now) })
	}
}

func (d *dialer) connect(ctx context.Context, j job) (*link, error) {
	var source netip.Addr
	if d.to.Addr().IsLoopback() && d.to.Addr().Is4() {
		n := int(j.dev.box) / portsPerSource
		source = netip.AddrFrom4([4]byte{127, 0, byte(1 + n/250), byte(1 + n%250)})
	}
	sock, err := dial(d.to, source, time.Now().Add(dialTimeout))
	if err != nil {
		return nil, err
	}
	l := &link{sock: sock}
	if d.config != nil {
		l.tls = tls.Client(sock, d.config)
		// Without a Done channel crypto/tls starts no goroutine to watch it; the
		// socket has a deadline of its own.
		bare := context.WithValue(context.WithoutCancel(ctx), boxKey{}, j.dev.box)
		if err := l.tls.HandshakeContext(bare); err != nil {
			sock.Close()
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
	}
	if _, err := l.Write(j.opening); err != nil {
		sock.Close()
		return nil, err
	}
	return l, nil
}
