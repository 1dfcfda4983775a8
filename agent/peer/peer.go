// Package peer gives frames of files to the other boxes of the site, and gets
// them there, so that a file comes over the site's line once.
//
// Vocabulary: a peer is a box of the same site, as the certificates of both say;
// a frame is 1 MiB of a file (blob.Frames). HTTPS on a port of its own, TLS 1.3,
// both sides prove who they are:
//
//	GET /peer/v1/blobs/HEX/frames/N[?wait=1]   the frame, or 404
//
// The server gives out what the box has checked itself and bounds how many it
// serves at once and how fast, and how many may be connected (limit.go). The client believes nothing: package fetch checks
// each frame against the signed list before it is written.
//
// The one rule a caller can break: a box that listens needs Run; its address is
// told to the controller as soon as Address gives one.
package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Options of a Peer. Identity, Listen and Advertise are required.
type Options struct {
	// Identity is the box.
	Identity *identity.Identity
	// Listen opens the port.
	Listen func(ctx context.Context) (net.Listener, error)
	// Advertise is the address that peers dial; it may change.
	Advertise func() string
	// Dial opens TCP connections; nil: the system's network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// BytesPerSec bounds what is given out; default 20 MB/s.
	BytesPerSec int64
	// Uploads bounds frames that are given out at once; default 4.
	Uploads int
	// WallClock judges certificates; nil: time.Now.
	WallClock func() time.Time
}

// Peer is one box among those of its site.
type Peer struct {
	opts    Options
	log     *slog.Logger
	id      atomic.Pointer[identity.Identity]
	held    func(context.Context, fetch.Frame) ([]byte, error) // set before Run
	client  *http.Client
	limiter *rate.Limiter
	uploads chan struct{}
	up      atomic.Bool // the port is open
}

// relisten is how soon a port that is taken is tried again.
const relisten = time.Minute

// frameWait bounds the answer of a peer: a frame over a slow wireless LAN.
const frameWait = 20 * time.Second

// New prepares a Peer. It listens in Run.
func New(opts Options, log *slog.Logger) *Peer {
	opts.BytesPerSec = cmp.Or(opts.BytesPerSec, 20_000_000)
	opts.Uploads = cmp.Or(opts.Uploads, 4)
	if opts.Dial == nil {
		opts.Dial = new(net.Dialer).DialContext
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	p := &Peer{opts: opts, log: log, limiter: rate.NewLimiter(rate.Limit(opts.BytesPerSec), blob.FrameBytes), uploads: make(chan struct{}, opts.Uploads)}
	p.id.Store(opts.Identity)
	p.client = &http.Client{Timeout: frameWait, Transport: &http.Transport{DialTLSContext: p.dial, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 1}}
	return p
}

// Serve says where the frames of this box are. Call it before Run.
func (p *Peer) Serve(held func(context.Context, fetch.Frame) ([]byte, error)) { p.held = held }

// Renewed has the box prove itself with another certificate from now on.
func (p *Peer) Renewed(id *identity.Identity) { p.id.Store(id) }

// Address is where peers reach this box; empty while nothing listens.
func (p *Peer) Address() string {
	if !p.up.Load() {
		return ""
	}
	return p.opts.Advertise()
}

// Run serves until ctx is done. Without its port the box fetches for itself.
func (p *Peer) Run(ctx context.Context) error {
	defer p.client.CloseIdleConnections()
	told := ""
	for {
		err := p.serve(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if told != err.Error() {
			told = err.Error()
			p.log.Warn("frames are not shared with the site", "err", err)
		}
		pause := time.NewTimer(relisten)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

func (p *Peer) serve(ctx context.Context) error {
	l, err := p.opts.Listen(ctx)
	if err != nil {
		return fmt.Errorf("listen for peers: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /peer/v1/blobs/{hex}/frames/{n}", p.give)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, WriteTimeout: 2 * frameWait, MaxHeaderBytes: 8 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(tls.NewListener(limit(l), p.serverTLS())) }()
	p.up.Store(true)
	defer p.up.Store(false)
	select {
	case err := <-ended:
		return errors.Join(err, srv.Close())
	case <-ctx.Done():
		err := srv.Close()
		<-ended
		return err
	}
}

// give answers one peer.
func (p *Peer) give(w http.ResponseWriter, r *http.Request) {
	d, err := blob.ParseDigest("sha256:" + r.PathValue("hex"))
	n, nerr := strconv.Atoi(r.PathValue("n"))
	if err != nil || nerr != nil {
		http.Error(w, "no such frame", http.StatusBadRequest)
		return
	}
	select {
	case p.uploads <- struct{}{}:
		defer func() { <-p.uploads }()
	case <-r.Context().Done():
		return
	}
	data, err := p.held(r.Context(), fetch.Frame{Digest: d, Index: n, Wait: r.FormValue("wait") != ""})
	if err != nil {
		http.Error(w, "the frame is not here", http.StatusNotFound)
		return
	}
	if p.limiter.WaitN(r.Context(), len(data)) != nil {
		return // the peer went away
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) // a peer that went away asks again
}

// Frame gets a frame from a peer; see fetch.Peers.
func (p *Peer) Frame(ctx context.Context, from deviceapi.Peer, want fetch.Frame) ([]byte, error) {
	ctx = context.WithValue(ctx, wanted{}, from.ID)
	// The host of the URL keeps connections of peers apart; dial goes to the port.
	url := fmt.Sprintf("https://%s/peer/v1/blobs/%s/frames/%d", from.Address, want.Digest.Hex(), want.Index)
	if want.Wait {
		url += "?wait=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", from.ID, err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", from.ID, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, fetch.ErrNotFound
	default:
		return nil, fmt.Errorf("peer %s answers %s", from.ID, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, blob.FrameBytes+1))
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", from.ID, err)
	}
	return data, nil
}

// wanted is the key of the box that a request is for, in its context.
type wanted struct{}

func (p *Peer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := p.opts.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	want, _ := ctx.Value(wanted{}).(identity.ID)
	conf := p.config()
	// Certificates of boxes are not those of servers: verify looks at them.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := p.verify(cs)
		if err == nil && id != want {
			err = fmt.Errorf("it is %s, not %s", id, want)
		}
		return err
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

func (p *Peer) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{p.id.Load().Certificate}, Time: p.opts.WallClock,
	}
}

func (p *Peer) serverTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		conf := p.config()
		conf.ClientAuth = tls.RequireAnyClientCert // verify looks at it
		conf.VerifyConnection = func(cs tls.ConnectionState) error {
			_, err := p.verify(cs)
			return err
		}
		return conf, nil
	}}
}

// verify checks that the other side is a box of this fleet and of this site.
func (p *Peer) verify(cs tls.ConnectionState) (identity.ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("peer showed no certificate")
	}
	own := p.id.Load()
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	chains, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: own.Roots, Intermediates: between, CurrentTime: own.TLSTime(p.opts.WallClock)(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	id, site, err := identity.PeerID(tls.ConnectionState{VerifiedChains: chains})
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	if _, ours, err := identity.PeerID(tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{own.Certificate.Leaf}}}); err != nil || site != ours || strings.TrimSpace(site) == "" {
		return "", fmt.Errorf("peer %s is of the site %q, this box of %q (%v)", id, site, ours, err)
	}
	return id, nil
}
