package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// loginLife is how long a login URL may be used, once.
const loginLife = time.Hour

// owner is whoever holds the files of this controller.
func owner(name string) people.Caller {
	c := people.Caller{}
	c.Name, c.Role, c.Sites = name, authz.Owner, []string{authz.AllSites}
	return c
}

// byController is the draft of what the controller itself does.
func byController(ctx context.Context, verb string) context.Context {
	return audit.With(ctx, audit.Itself(verb))
}

// LoginURL makes an address that logs its first visitor in as owner.
func (c *Controller) LoginURL(ctx context.Context) (string, error) {
	secret, _, err := c.people.LoginSecret(byController(ctx, "login.url"), owner("owner"), loginLife)
	return c.URL() + "/login?token=" + url.QueryEscape(secret), err
}

// NewAPIToken makes a secret for the command line of this machine. It is shown
// once, sees all sites, and may last for any time.
func (c *Controller) NewAPIToken(ctx context.Context, name, role string, life time.Duration) (string, error) {
	secret, _, err := c.people.GiveToken(byController(ctx, "token.create"), people.NewToken{
		Name: name, Role: authz.Role(role), Sites: []string{authz.AllSites}, Life: life, By: "controller",
	})
	return secret, err
}

// SetupURL is where the first admin sets name and password; empty when somebody
// can sign in already. The secret stands behind a #, which no browser sends.
func (c *Controller) SetupURL(ctx context.Context) (string, error) {
	settled, err := c.people.Settled(ctx)
	if err != nil || settled {
		return "", err
	}
	secret, err := c.people.SetupSecret(byController(ctx, "setup.url"))
	return c.URL() + "/set-password#" + secret, err
}

// mustBeSettled refuses pages for other machines while nobody could sign in on
// them: whoever comes first would find a controller without an owner.
func (c *Controller) mustBeSettled(ctx context.Context, a net.Addr) error {
	if _, ok := a.(*net.TCPAddr); !ok || isLoopback(a) {
		return nil // what is not TCP is the in-memory network of a test
	}
	settled, err := c.people.Settled(ctx)
	if err != nil || settled {
		return err
	}
	return fmt.Errorf("pages on %s are refused while there is no user: start with http on 127.0.0.1, open the setup address that is printed, and bind %s then", a, a)
}

// sealEvery is how often the head of the audit log is signed when it has moved.
const sealEvery = time.Hour

// seal signs the head of the audit log and writes it to the log of the process
// as well, which usually goes to another machine.
func (c *Controller) seal(ctx context.Context) error {
	t := time.NewTicker(sealEvery)
	defer t.Stop()
	for {
		if err := c.sealNow(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the audit log was not sealed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (c *Controller) sealNow(ctx context.Context) error {
	head, err := c.store.AuditHead(ctx)
	if err != nil || head.Seq == 0 {
		return err
	}
	seals, err := c.store.Seals(ctx)
	if err != nil || len(seals) > 0 && seals[len(seals)-1].Seq == head.Seq {
		return err
	}
	now := c.opts.WallClock()
	payload, err := head.Seal(now)
	if err != nil {
		return err
	}
	envelope, err := trust.Sign(trust.TypeAudit, payload, c.key)
	if err != nil {
		return err
	}
	c.log.LogAttrs(ctx, slog.LevelInfo, "audit log sealed", slog.Int64("seq", head.Seq), slog.String("digest", head.Hash))
	return c.store.PutSeal(ctx, store.Seal{Seq: head.Seq, Time: now, Envelope: envelope})
}
