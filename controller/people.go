package controller

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// loginLife is how long a login URL may be used, once.
const loginLife = time.Hour

// LoginURL makes an address that logs its first visitor in as admin.
func (c *Controller) LoginURL(ctx context.Context) (string, error) {
	secret := newSecret()
	t := store.Token{Name: "owner", Role: "admin", Kind: store.TokenLogin, Expires: c.opts.WallClock().Add(loginLife)}
	if err := c.store.AddToken(ctx, secret, t); err != nil {
		return "", err
	}
	return c.URL() + "/login?token=" + url.QueryEscape(secret), nil
}

// NewAPIToken makes a secret for the command line. It is shown once.
func (c *Controller) NewAPIToken(ctx context.Context, name, role string, life time.Duration) (string, error) {
	secret := "eht_" + newSecret()
	t := store.Token{Name: name, Role: role, Kind: store.TokenAPI, Expires: c.opts.WallClock().Add(life)}
	return secret, c.store.AddToken(ctx, secret, t)
}

func newSecret() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// EnrolBox writes the identity files of a box into dir and registers it. A
// directory that holds an identity of a registered box already
// keeps it; only the controller's addresses are written anew.
func (c *Controller) EnrolBox(ctx context.Context, dir, name, site string) (identity.ID, error) {
	if have, err := identity.Load(dir); err == nil {
		known, err := c.store.Known(ctx, have.ID)
		if err != nil {
			return "", err
		}
		if !known {
			return "", fmt.Errorf("%s holds the identity of %s, which this controller does not know; move it away to enrol anew", filepath.Clean(dir), have.ID)
		}
		box := c.boxFile(have.ID, have.Name, have.Site)
		return have.ID, box.Write(dir) // the addresses may have changed
	}
	box := c.boxFile(identity.NewID(), name, site)
	if err := c.store.AddBox(ctx, box.ID, name, site); err != nil {
		return "", err
	}
	return box.ID, identity.Enrol(dir, c.ca, box)
}

func (c *Controller) boxFile(id identity.ID, name, site string) identity.Box {
	return identity.Box{
		ID: id, Name: name, Site: site, Tenant: wire.Tenant, Server: c.opts.Hosts[0],
		MQTT: c.mqtt.Addr().String(), HTTPS: c.device.Addr().String(), Keyring: c.Keyring(),
	}
}
