package agent

import (
	"context"
	"net"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/agent/peer"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// openPeer prepares the sharing of frames with the boxes of the site, if the box
// shall share.
func (a *Agent) openPeer() fetch.Peers {
	if a.opts.PeerListen == "" {
		return nil
	}
	listen := a.opts.Listen
	if listen == nil {
		listen = func(ctx context.Context, address string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", address)
		}
	}
	a.peer = peer.New(peer.Options{
		Identity: a.id, Dial: a.opts.Dial, WallClock: a.clock.wall, Advertise: a.peerAddress,
		Listen: func(ctx context.Context) (net.Listener, error) { return listen(ctx, a.opts.PeerListen) },
	}, a.log)
	return a.peer
}

// peerAddress is where others of the site find this box: on the network by which
// it reaches the controller, whatever bridges and tunnels it has beside.
func (a *Agent) peerAddress() string {
	if a.opts.PeerAddress != "" {
		return a.opts.PeerAddress
	}
	_, port, err := net.SplitHostPort(a.opts.PeerListen)
	if err != nil {
		return ""
	}
	c, err := net.Dial("udp", a.id.HTTPS) // sends nothing
	if err != nil {
		return ""
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// renewed has all parts prove themselves with another certificate.
func (a *Agent) renewed(id *identity.Identity) {
	a.dialer.Renewed(id)
	if a.peer != nil {
		a.peer.Renewed(id)
	}
}

// paceDownloads keeps the quiet times of the site.
func (a *Agent) paceDownloads(w wire.Welcome) {
	var quiet []fetch.Quiet
	now := time.Now()
	for _, q := range w.Quiet {
		from := now.Add(time.Duration(q.InMs) * time.Millisecond)
		quiet = append(quiet, fetch.Quiet{From: from, To: from.Add(time.Duration(q.ForMs) * time.Millisecond)})
	}
	a.fetcher.SetPace(a.opts.DownloadRate, quiet)
}
