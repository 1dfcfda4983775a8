package broker

import (
	"context"
	"crypto/tls"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// strangers: who shows no certificate is not let in.
func (p Probe) strangers(ctx context.Context, _ *prober) error {
	if p.Remote.TLS == nil {
		return nil // loopback without TLS: whoever is on this machine
	}
	bare := p.Remote
	bare.TLS = p.Remote.TLS.Clone()
	bare.TLS.Certificates, bare.TLS.GetClientCertificate = nil, nil
	bare.Username, bare.Password = "", ""
	c, err := bare.connect(ctx, ControllerName+"-stranger-"+nonce(), (*inbox)(nil).take)
	if err != nil {
		return ctx.Err()
	}
	c.close()
	return unfit("it lets in who shows no certificate: set require_certificate true and allow_anonymous false (Mosquitto), tls { verify_and_map: true } (NATS) or their like")
}

// boxes: the certificate of a box opens the topics of that box and no others.
func (p Probe) boxes(ctx context.Context, pub *prober) error {
	if p.BoxTLS == nil || p.Remote.TLS == nil {
		return nil
	}
	self, other := identity.NewID(), identity.NewID()
	cfg, err := p.BoxTLS(self)
	if err != nil {
		return err
	}
	in := newInbox(true)
	sub, err := p.connect(ctx, in)
	if err != nil {
		return err
	}
	defer sub.close()
	forged, marker := topicProbe.For(other), pub.base+"boxes"
	if err := sub.subscribe(ctx, map[string]byte{forged: 1, topicProbe.For(self): 1, marker: 1}); err != nil {
		return err
	}
	if err := p.asBox(ctx, cfg, self, other); err != nil {
		return err
	}
	if err := pub.wait(ctx, pub.Publish(marker, 1, false, []byte("probe")), "publish"); err != nil {
		return err
	}
	in.await(ctx, p.Within, sub.lost, func() bool { return in.count(marker) > 0 })
	if in.count(forged) > 0 {
		return unfit("a box can publish in the name of another one: give every user eh/%d/%s/<its common name>/up/# alone (Mosquitto: use_identity_as_username true and pattern write eh/%d/%s/%%u/up/#)",
			wire.Version, wire.Tenant, wire.Version, wire.Tenant)
	}
	return ctx.Err()
}

// asBox connects as box self and tries to speak for other, and to listen.
func (p Probe) asBox(ctx context.Context, cfg *tls.Config, self, other identity.ID) error {
	r := p.Remote
	r.TLS, r.Username, r.Password = cfg, "", ""
	in := newInbox(true)
	c, err := r.connect(ctx, wire.ClientID(self, wire.SID{1}), in.take)
	if err != nil {
		return ctx.Err() // a broker that lists its boxes does not know this one
	}
	defer c.close()
	short, cancel := context.WithTimeout(ctx, p.Within/3)
	defer cancel()
	down, own := wire.TopicWant.For(other), wire.TopicWant.For(self)
	if err := c.subscribe(short, map[string]byte{own: 1}); err != nil {
		return unfit("a box may not listen to its own topics (%w): give it read access to eh/%d/%s/<its common name>/dn/#", err, wire.Version, wire.Tenant)
	}
	heard := c.subscribe(short, map[string]byte{down: 1}) == nil
	// Brokers answer a forbidden publish with PUBACK, with silence or by closing.
	_ = c.wait(short, c.Publish(topicProbe.For(other), 1, false, []byte("forged")), "publish")
	if !heard || ctx.Err() != nil {
		return ctx.Err()
	}
	// Some brokers grant every subscription and deliver nothing: see for ourselves.
	pub, err := p.connect(ctx, nil)
	if err != nil {
		return err
	}
	defer pub.close()
	for _, topic := range []string{down, own} {
		if err := pub.wait(ctx, pub.Publish(topic, 1, false, []byte("probe")), "publish"); err != nil {
			return err
		}
	}
	in.await(ctx, p.Within, c.lost, func() bool { return in.count(own) > 0 })
	if in.count(down) > 0 {
		return unfit("a box can listen to another one: give every user eh/%d/%s/<its common name>/dn/# alone (Mosquitto: pattern read eh/%d/%s/%%u/dn/#)",
			wire.Version, wire.Tenant, wire.Version, wire.Tenant)
	}
	return ctx.Err()
}
