package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	contract "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// This file is about who is a member of the fleet, and about those who no longer
// are: every way in asks here.

// lookTimeout bounds a question about a box outside of any request.
const lookTimeout = 5 * time.Second

// sweepEvery is how soon a controller acts on what another one decided about a
// box.
const sweepEvery = time.Second

// downloads are the requests of boxes that are being answered.
type downloads struct {
	mu   sync.Mutex // guards open
	open map[identity.ID]map[*context.CancelCauseFunc]bool
}

var errCutOff = errors.New("the box may not have this any more")

// begin remembers a request until end is called.
func (d *downloads) begin(ctx context.Context, id identity.ID) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[identity.ID]map[*context.CancelCauseFunc]bool{}
	}
	if d.open[id] == nil {
		d.open[id] = map[*context.CancelCauseFunc]bool{}
	}
	d.open[id][&cancel] = true
	return ctx, func() {
		cancel(nil)
		d.mu.Lock()
		defer d.mu.Unlock()
		if delete(d.open[id], &cancel); len(d.open[id]) == 0 {
			delete(d.open, id)
		}
	}
}

func (d *downloads) cut(id identity.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for cancel := range d.open[id] {
		(*cancel)(errCutOff)
	}
}

func (c *Controller) openMembers() (err error) {
	c.swept = c.opts.WallClock()
	c.members, err = enrol.New(enrol.Options{
		Store: c.store, Issuer: c.ca, Box: c.boxFile, Changed: c.memberChanged, WallClock: c.opts.WallClock,
	}, c.log)
	return err
}

// admit decides about each TLS handshake of a box.
func (c *Controller) admit(id identity.ID) error {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	m, err := c.store.Membership(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("box %s is not enrolled here", id)
	case err != nil:
		return fmt.Errorf("box %s: %w: %w", id, broker.ErrUnsure, err)
	case !m.State.MayConnect():
		return fmt.Errorf("box %s is %s", id, m.State)
	}
	return nil
}

// greet notes that a box has connected to the broker, which it may have no right
// to: its certificate may have been replaced.
func (c *Controller) greet(ctx context.Context, peer broker.Peer, from netip.Addr) error {
	_, err := c.contact(ctx, peer.ID, peer.Serial, from.String())
	return err
}

func (c *Controller) contact(ctx context.Context, id identity.ID, serial, address string) (store.Membership, error) {
	m, changed, err := c.store.Contact(ctx, id, serial, address)
	if err != nil && !errors.Is(err, store.ErrRefused) {
		return m, fmt.Errorf("%w: %w", broker.ErrUnsure, err)
	}
	if changed {
		c.memberChanged(id)
	}
	return m, err
}

// mayTalk is asked for each message that comes through a broker of others.
func (c *Controller) mayTalk(ctx context.Context, id identity.ID) (bool, error) {
	m, err := c.store.Membership(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && m.State.MayConnect(), err
}

// withheld reports whether a box is told nothing: a person must decide which
// machine it is.
func (c *Controller) withheld(id identity.ID) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	m, err := c.store.Membership(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	return m.State == store.StateQuarantined, err
}

// memberChanged acts on a box that stands otherwise than before.
func (c *Controller) memberChanged(id identity.ID) {
	c.boxChanged(id)
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	if err := c.secrets.Settle(ctx, id); err != nil && !errors.Is(err, store.ErrAwaits) && !errors.Is(err, store.ErrAhead) {
		c.log.Error("secrets of a box are not sealed yet; it is tried again within the hour", "device", id, "err", err)
	}
	m, err := c.store.Membership(ctx, id)
	if err != nil {
		c.log.Error("how a box stands cannot be looked up; its sessions are ended", "device", id, "err", err)
		m.State = store.StateRevoked // it comes back if it may
	}
	switch m.State {
	case store.StateActive:
		c.askHello(id) // it may have missed what it is to run
	case store.StateQuarantined:
		c.downloads.cut(id)
	default:
		// Also when another machine took its place: that one has no session yet.
		c.downloads.cut(id)
		c.broker.Disconnect(id)
		select {
		case c.outed <- struct{}{}:
		default:
		}
	}
}

// sweep acts on what other controllers of this database decided.
func (c *Controller) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// A little twice: clocks of controllers differ.
		since := c.swept.Add(-10 * sweepEvery)
		now := c.opts.WallClock()
		ids, err := c.store.ChangedMembers(ctx, since)
		if err != nil {
			c.log.Debug("changes of boxes cannot be looked up", "err", err)
			continue
		}
		c.swept = now
		for _, id := range ids {
			if len(c.broker.Sessions(id)) > 0 && c.admit(id) != nil {
				c.memberChanged(id)
			}
		}
	}
}

// deviceEntrance serves what boxes ask for: their membership on any connection
// that shows a certificate, files only on one with a certificate that is good.
func (c *Controller) deviceEntrance(files http.Handler) http.Handler {
	members := c.members.Device()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/device/"):
			members.ServeHTTP(w, r)
		case r.TLS == nil || len(r.TLS.VerifiedChains) == 0:
			refuse(w, "only a certificate that has not ended opens this", "Renew it first: edgeherd-agent does so by itself.")
		default:
			c.serveFile(w, r, files)
		}
	})
}

func (c *Controller) serveFile(w http.ResponseWriter, r *http.Request, files http.Handler) {
	peer, err := broker.PeerOf(*r.TLS)
	if err != nil {
		refuse(w, err.Error(), "")
		return
	}
	ctx, end := c.downloads.begin(r.Context(), peer.ID)
	defer end()
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	m, err := c.contact(ctx, peer.ID, peer.Serial, host)
	switch {
	case errors.Is(err, store.ErrRefused):
		refuse(w, err.Error(), "")
	case err != nil:
		http.Error(w, "the controller cannot look this box up now", http.StatusServiceUnavailable)
	case m.State == store.StateQuarantined:
		refuse(w, "this box is in quarantine: "+m.Why, "A person must decide: edgeherd box release, or edgeherd box replace.")
	default:
		files.ServeHTTP(w, r.WithContext(ctx))
	}
}

// TokenBase is what every token of this controller has in common: the pins of
// its roots, and the address of the pages, where machines enrol.
func (c *Controller) TokenBase() (contract.Token, error) {
	at := c.opts.Advertise.Pages
	if at == "" {
		at = c.reachable(c.http)
		if !c.opts.HTTPPlain && c.pagesAreHereOnly() {
			return contract.Token{}, fmt.Errorf("machines enrol at the pages, and %s leads each of them to itself: let http in server.yaml listen where they reach it, such as 0.0.0.0:8443, or name advertise.pages", at)
		}
	}
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return contract.Token{}, fmt.Errorf("where machines enrol: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return contract.Token{}, fmt.Errorf("where machines enrol: %q is not a port", port)
	}
	if c.opts.HTTPPlain {
		return contract.Token{}, errors.New("the pages have no TLS (http_plain), and machines enrol there: serve them with TLS")
	}
	if err := contract.CheckHost(host); err != nil {
		return contract.Token{}, fmt.Errorf("where machines enrol: %w; name it with hosts or advertise.pages", err)
	}
	base := contract.Token{Host: strings.ToLower(host), Port: uint16(n)}
	for _, root := range c.ca.Roots() {
		base.Pins = append(base.Pins, contract.PinOf(root))
	}
	return base, nil
}

// signer makes the certificate by which a machine without a network believes an
// answer: as it would believe the address of its token.
func (c *Controller) signer() (tls.Certificate, error) {
	base, err := c.TokenBase()
	if err != nil {
		return tls.Certificate{}, err
	}
	return c.ca.IssueServer([]string{base.Host})
}

// EnrolBox writes the identity files of a box into dir and registers it. A
// directory that holds an identity of a registered box keeps it, with a new
// certificate when half of its life is over; the controller's addresses are
// written anew. It may be repeated after a failure.
func (c *Controller) EnrolBox(ctx context.Context, dir, name, site string) (identity.ID, error) {
	have, err := identity.Load(dir)
	if err == nil {
		return have.ID, c.keepBox(ctx, dir, have)
	}
	id, err := c.register(ctx, name, site)
	if err != nil {
		return "", err
	}
	return id, c.writeBox(ctx, dir, c.boxFile(id, name, site))
}

// writeBox makes the files of a box, and records its certificate. One that is
// not recorded, after a crash in between, is by keepBox.
func (c *Controller) writeBox(ctx context.Context, dir string, box identity.Box) error {
	if err := identity.Enrol(dir, c.ca, box); err != nil {
		return err
	}
	made, err := identity.Load(dir)
	if err != nil {
		return err
	}
	return c.record(ctx, made.ID, made.Certificate.Leaf)
}

func (c *Controller) record(ctx context.Context, id identity.ID, leaf *x509.Certificate) error {
	row, err := enrol.Row(id, "", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
	if err != nil {
		return err
	}
	return c.store.AddCert(ctx, row)
}

func (c *Controller) keepBox(ctx context.Context, dir string, have *identity.Identity) error {
	known, err := c.store.Known(ctx, have.ID)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("%s holds the identity of %s, which this controller does not know; move it away to enrol anew", filepath.Clean(dir), have.ID)
	}
	box := c.boxFile(have.ID, have.Name, have.Site)
	leaf := have.Certificate.Leaf
	if c.opts.WallClock().After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)) {
		return c.writeBox(ctx, dir, box)
	}
	recorded, err := c.store.HasCert(ctx, enrol.SerialOf(leaf))
	if err == nil && !recorded {
		err = c.record(ctx, have.ID, leaf)
	}
	if err != nil {
		return err
	}
	return box.Write(dir)
}

// register finds an ID for a box. A name whose box was never heard of keeps
// its ID: writing its files failed the last time, or they got lost.
func (c *Controller) register(ctx context.Context, name, site string) (identity.ID, error) {
	id := identity.NewID()
	err := c.store.AddBox(ctx, id, name, site)
	if !errors.Is(err, store.ErrConflict) {
		return id, err
	}
	boxes, listErr := c.store.Boxes(ctx, c.opts.WallClock().UnixMilli())
	if listErr != nil {
		return "", listErr
	}
	for _, b := range boxes {
		if b.Name == name && b.Site == site && b.LastSeenMs == 0 {
			return b.ID, nil
		}
	}
	return "", err
}
