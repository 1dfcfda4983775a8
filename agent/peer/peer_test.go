package peer

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
)

// box is a Peer of a fleet's site, on an in-memory network.
func box(t *testing.T, n *memnet.Network, ca *identity.CA, site string) *Peer {
	t.Helper()
	dir := t.TempDir()
	id := identity.NewID()
	if err := identity.Enrol(dir, ca, identity.Box{ID: id, Site: site, Server: "ctl"}); err != nil {
		t.Fatal(err)
	}
	own, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := string(id) + ":7443"
	return New(Options{
		Identity: own, Advertise: func() string { return at },
		Listen: func(context.Context) (net.Listener, error) { return n.Listen(at) },
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			return n.Dial(ctx, string(id), address)
		},
	}, slog.New(slog.DiscardHandler))
}

// TestOnlyBoxesOfTheSiteGetFrames asks one box from boxes of several kinds.
func TestOnlyBoxesOfTheSiteGetFrames(t *testing.T) {
	n := memnet.New()
	ca, err := identity.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("weights"), 1000)
	want := fetch.Frame{Digest: blob.Sum(content), Index: 3, Wait: true}
	giver := box(t, n, ca, "berlin")
	giver.Serve(func(_ context.Context, f fetch.Frame) ([]byte, error) {
		if f != want {
			return nil, fetch.ErrNotFound
		}
		return content, nil
	})
	if giver.Address() != "" {
		t.Error("it has an address before it listens")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- giver.Run(ctx) }()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for giver.Address() == "" {
		<-look.C
	}
	at := deviceapi.Peer{ID: giver.opts.Identity.ID, Address: giver.Address()}

	friend := box(t, n, ca, "berlin")
	if got, err := friend.Frame(t.Context(), at, want); err != nil || !bytes.Equal(got, content) {
		t.Errorf("a box of the site gets %d bytes, %v", len(got), err)
	}
	if _, err := friend.Frame(t.Context(), at, fetch.Frame{Digest: want.Digest, Index: 4}); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("a frame that is not there: %v", err)
	}
	for name, from := range map[string]*Peer{
		"of another site": box(t, n, ca, "bonn"), "of no site": box(t, n, ca, ""), "of another fleet": box(t, n, stranger, "berlin"),
	} {
		if got, err := from.Frame(t.Context(), at, want); err == nil {
			t.Errorf("a box %s gets %d bytes", name, len(got))
		}
	}
	other := deviceapi.Peer{ID: friend.opts.Identity.ID, Address: at.Address}
	if _, err := box(t, n, ca, "berlin").Frame(t.Context(), other, want); err == nil {
		t.Error("a box is taken for another one at its address")
	}
	cancel()
	if err := <-ended; err != nil || giver.Address() != "" {
		t.Errorf("ended with %v, address %q", err, giver.Address())
	}
}
