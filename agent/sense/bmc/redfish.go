package bmc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
)

// This file is a small reader of its own. The known library decodes readings
// into plain numbers, in which null, Redfish's word for a sensor that is off,
// becomes 0 °C; and it walks far more of the tree than its few numbers need.

// Redfish says how to reach a controller. URL is required.
type Redfish struct {
	// URL is where the service root is, such as https://10.0.0.7. Plain http is
	// refused except on this machine: the password would be readable.
	URL string `yaml:"url"`
	// User and PasswordFile are the login; default none. The account needs no
	// more than the right to look. The file is read at each poll.
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
	// Fingerprint is the SHA-256 of the controller's certificate, in hex, for
	// certificates that nobody signed; default: the system's authorities judge.
	Fingerprint string `yaml:"fingerprint"`
}

const (
	maxBody     = 4 << 20
	maxRequests = 200 // of one poll
)

// Client reads one controller. Its connections are kept between polls.
type Client struct {
	opts Redfish
	base *url.URL
	http *http.Client
}

// NewRedfish checks the options. Nothing is asked before the first Read.
func NewRedfish(opts Redfish) (*Client, error) {
	base, err := url.Parse(opts.URL)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, fmt.Errorf("redfish address %q: want https://host", opts.URL)
	}
	if base.Scheme == "http" && !local(base.Hostname()) {
		return nil, fmt.Errorf("redfish address %s: the password would travel in the clear, use https", opts.URL)
	}
	transport := &http.Transport{TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 20 * time.Second,
		MaxIdleConns: 1, IdleConnTimeout: 90 * time.Second}
	if opts.Fingerprint != "" {
		want, err := hex.DecodeString(strings.ReplaceAll(opts.Fingerprint, ":", ""))
		if err != nil || len(want) != sha256.Size {
			return nil, fmt.Errorf("fingerprint of %s: want the 64 hex digits of a SHA-256", opts.URL)
		}
		transport.TLSClientConfig = &tls.Config{
			InsecureSkipVerify: true, // the fingerprint takes the place of the chain
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) > 0 && sha256.Sum256(s.PeerCertificates[0].Raw) == [32]byte(want) {
					return nil
				}
				return errors.New("certificate has another fingerprint than the one configured")
			},
		}
	}
	return &Client{opts: opts, base: base, http: &http.Client{Transport: transport,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Host != base.Host || len(via) > 3 {
				return errors.New("redfish service redirects elsewhere")
			}
			return nil
		}}}, nil
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// poll is one walk through the tree.
type poll struct {
	c        *Client
	password string
	requests int
	list     []Sensor
	errs     []error
}

// Read walks the chassis of a service. What could be read is returned even
// when err is not nil.
func (c *Client) Read(ctx context.Context) ([]Sensor, error) {
	p := &poll{c: c}
	if c.opts.PasswordFile != "" {
		b, err := os.ReadFile(c.opts.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("read password of %s: %w", c.opts.URL, err)
		}
		p.password = strings.TrimSpace(string(b))
	}
	var all collection
	if err := p.get(ctx, "/redfish/v1/Chassis", &all); err != nil {
		return nil, err
	}
	for _, member := range all.Members {
		p.chassis(ctx, member.ID)
	}
	if len(p.list) == 0 && len(p.errs) == 0 {
		p.errs = append(p.errs, fmt.Errorf("%s names no sensor with a value", c.opts.URL))
	}
	return sorted(p.list), errors.Join(p.errs...)
}

// get decodes one resource. Links lead nowhere but to this service.
func (p *poll) get(ctx context.Context, link string, into any) error {
	if p.requests++; p.requests > maxRequests {
		return fmt.Errorf("redfish service of %s: more than %d resources", p.c.opts.URL, maxRequests)
	}
	ref, err := url.Parse(link)
	if err != nil || ref.Host != "" || ref.Scheme != "" || !strings.HasPrefix(path.Clean(ref.Path), "/redfish/") {
		return fmt.Errorf("redfish link %q leads out of the service", clean(link))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.c.base.ResolveReference(&url.URL{Path: ref.Path}).String(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("OData-Version", "4.0")
	if p.c.opts.User != "" {
		r.SetBasicAuth(p.c.opts.User, p.password) // DSP0266 13.3.4: every service takes it
	}
	resp, err := p.c.http.Do(r)
	if err != nil {
		return fmt.Errorf("get %s: %w", link, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("get %s: %w", link, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("get %s: %s", link, resp.Status)
	case len(body) > maxBody:
		return fmt.Errorf("get %s: more than %d bytes", link, maxBody)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("decode %s: %w", link, err)
	}
	return nil
}

// fetch is get for a link that may be missing; errors are collected.
func (p *poll) fetch(ctx context.Context, l *link, into any) bool {
	if l == nil || l.ID == "" {
		return false
	}
	if err := p.get(ctx, l.ID, into); err != nil {
		p.errs = append(p.errs, err)
		return false
	}
	return true
}

// chassis reads one chassis by the new model, and by the old one what the new
// did not give.
func (p *poll) chassis(ctx context.Context, id string) {
	var c chassis
	if !p.fetch(ctx, &link{id}, &c) {
		return
	}
	prefix := ""
	if name := path.Base(id); p.requests > 2 { // a second chassis repeats names
		prefix = clean(name) + " "
	}
	var mine []Sensor
	var sub thermalSubsystem
	if p.fetch(ctx, c.ThermalSubsystem, &sub) {
		mine = append(mine, p.thermalNew(ctx, sub)...)
	}
	if !has(mine, Celsius) && c.Thermal == nil {
		mine = append(mine, p.sensors(ctx, c.Sensors)...)
	}
	warm, turns := has(mine, Celsius), has(mine, RPM) || has(mine, DutyRatio)
	if old := (thermal{}); !(warm && turns) && p.fetch(ctx, c.Thermal, &old) {
		for _, s := range old.sensors() {
			if s.Kind == Celsius && !warm || s.Kind != Celsius && !turns {
				mine = append(mine, s)
			}
		}
	}
	parts, capacity := p.supplies(ctx, c.PowerSubsystem)
	mine = append(mine, parts...)
	var env environment
	if p.fetch(ctx, c.Environment, &env) {
		mine = append(mine, env.sensors(capacity)...)
	}
	watts, supplies := has(mine, Watts), has(mine, SupplyOK)
	if old := (power{}); !(watts && supplies) && p.fetch(ctx, c.Power, &old) {
		for _, s := range old.sensors() {
			if s.Kind == Watts && !watts || s.Kind != Watts && !supplies {
				mine = append(mine, s)
			}
		}
	}
	if c.Security != nil && c.Security.Intrusion != "" {
		open := 0.0
		if c.Security.Intrusion != "Normal" {
			open = 1
		}
		mine = append(mine, Sensor{Name: "Chassis", Kind: Intrusion, Value: open})
	}
	for _, s := range mine {
		s.Name = clean(prefix + s.Name)
		p.list = append(p.list, s)
	}
}

func (p *poll) thermalNew(ctx context.Context, sub thermalSubsystem) []Sensor {
	var list []Sensor
	var m thermalMetrics
	if p.fetch(ctx, sub.Metrics, &m) {
		list = append(list, m.sensors()...)
	}
	var fans collection
	if !p.fetch(ctx, sub.Fans, &fans) {
		return list
	}
	for _, member := range fans.Members {
		var f fan
		if p.fetch(ctx, &member, &f) {
			list = append(list, f.sensors()...)
		}
	}
	return list
}

// supplies reads the power supplies of the new model, and what they can give.
func (p *poll) supplies(ctx context.Context, l *link) (list []Sensor, capacity figure) {
	var sub powerSubsystem
	var all collection
	if !p.fetch(ctx, l, &sub) || !p.fetch(ctx, sub.Supplies, &all) {
		return nil, sub.Capacity
	}
	for _, member := range all.Members {
		var one supply
		if !p.fetch(ctx, &member, &one) {
			continue
		}
		list = append(list, one.Status.works(one.Name)...)
		var m supplyMetrics
		if p.fetch(ctx, one.Metrics, &m) {
			list = add(list, one.Name, SupplyIn, m.In.Reading.below(one.Rated), "")
			list = add(list, one.Name, SupplyOut, m.Out.Reading.below(one.Rated), "")
		}
	}
	return list, sub.Capacity
}

// sensors reads the Sensors collection one by one: services that have neither
// ThermalMetrics nor Thermal, as openBMC's.
func (p *poll) sensors(ctx context.Context, l *link) []Sensor {
	var all collection
	if !p.fetch(ctx, l, &all) {
		return nil
	}
	var list []Sensor
	for _, member := range all.Members {
		var s sensor
		if p.fetch(ctx, &member, &s) {
			list = append(list, s.sensors()...)
		}
	}
	return list
}

func has(list []Sensor, kind Kind) bool {
	for _, s := range list {
		if s.Kind == kind {
			return true
		}
	}
	return false
}
