package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

// oidcConfig is the key oidc of server.yaml: who vouches for people.
type oidcConfig struct {
	Name             string        `yaml:"name"`               // on the button; default the issuer's host
	Issuer           string        `yaml:"issuer"`             // exactly as the provider writes it
	ClientID         string        `yaml:"client_id"`          // of this controller there
	ClientSecretFile string        `yaml:"client_secret_file"` // default none: a public client
	Redirect         string        `yaml:"redirect"`           // default: https, the first of hosts, /login/oidc/callback
	UserClaim        string        `yaml:"user_claim"`         // default preferred_username
	GroupsClaim      string        `yaml:"groups_claim"`       // default groups
	Scopes           []string      `yaml:"scopes"`             // default profile, email
	CAFile           string        `yaml:"ca_file"`            // authority of a provider of one's own
	Grants           []grantConfig `yaml:"grants"`             // the first that matches counts
}

// grantConfig gives a group a role.
type grantConfig struct {
	Group string   `yaml:"group"`
	Role  string   `yaml:"role"`
	Sites []string `yaml:"sites"` // default all for ops and admin; others need them
}

// callback is where the provider sends people back to.
const callback = "/login/oidc/callback"

// guard reads outbound_allow.
func (c serverConfig) guard() (g outbound.Guard, err error) {
	for _, text := range c.OutboundAllow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return g, fmt.Errorf("outbound_allow: %q is no network such as 10.1.0.0/16", text)
		}
		g.Allow = append(g.Allow, p.Masked())
	}
	return g, nil
}

// provider makes the provider of the configuration; nil when it has none.
func (c serverConfig) provider() (*people.Provider, error) {
	o := c.OIDC
	if o.Issuer == "" {
		if o.ClientID != "" || len(o.Grants) > 0 {
			return nil, errors.New("oidc: issuer is missing")
		}
		return nil, nil
	}
	guard, err := c.guard()
	if err != nil {
		return nil, err
	}
	opts := people.ProviderOptions{
		Name: o.Name, Issuer: o.Issuer, ClientID: o.ClientID, Redirect: o.Redirect, UserClaim: o.UserClaim, GroupsClaim: o.GroupsClaim, Scopes: o.Scopes, Guard: guard,
	}
	if opts.Redirect == "" {
		opts.Redirect = "https://" + reachable(c.pages(), c.Hosts) + callback
	}
	if !strings.HasSuffix(opts.Redirect, callback) {
		return nil, fmt.Errorf("oidc: redirect %s does not end with %s", opts.Redirect, callback)
	}
	if o.ClientSecretFile != "" {
		text, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("oidc: read client_secret_file: %w", err)
		}
		opts.Secret = strings.TrimSpace(string(text))
	}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("oidc: read ca_file: %w", err)
		}
		if opts.Guard.Roots, err = people.Roots(pem); err != nil {
			return nil, fmt.Errorf("oidc: ca_file %s: %w", o.CAFile, err)
		}
	}
	for _, g := range o.Grants {
		opts.Grants = append(opts.Grants, people.Grant{Group: g.Group, Role: authz.Role(g.Role), Sites: g.Sites})
	}
	p, err := people.NewProvider(opts)
	if err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	return p, nil
}

// pages is the address of the pages as people dial it.
func (c serverConfig) pages() string {
	switch {
	case c.Advertise.Pages != "":
		return c.Advertise.Pages
	case c.HTTP != "":
		return c.HTTP
	}
	return "127.0.0.1:8443"
}
