package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
)

// serverSoon is for certificates that last a year and are made anew by a
// restart or a command.
const serverSoon = 30 * 24 * time.Hour

// dialWait bounds a look at what a listener shows.
const dialWait = 5 * time.Second

// authority looks at STATE/ca: roots, the authorities below them, and whether
// each private key is that of its certificate.
func authority(dir string, now time.Time, keys *keyfile.Lock) []store.Finding {
	const check = "certificate authority"
	roots, err := identity.ReadCertificates(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return []store.Finding{{Check: check, Level: store.Fail, Found: err.Error(), Way: "restore ca/ from the last backup: boxes trust no other"}}
	}
	var out []store.Finding
	for _, r := range roots {
		out = append(out, lasts(check, r, now, soon, "plan a new authority before"))
	}
	out = append(out, rootKey(filepath.Join(dir, "ca-key.pem"), roots, keys))
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	for _, k := range []struct {
		file, check string
		use         x509.ExtKeyUsage
	}{
		{"issuing-device.pem", "authority of boxes", x509.ExtKeyUsageClientAuth},
		{"issuing-server.pem", "authority of servers", x509.ExtKeyUsageServerAuth},
	} {
		path := filepath.Join(dir, k.file)
		var pair tls.Certificate
		text, err := keys.Read(path)
		if err == nil {
			pair, err = tls.X509KeyPair(text, text)
		}
		if err == nil {
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: inside(pair.Leaf, now), KeyUsages: []x509.ExtKeyUsage{k.use}})
		}
		if err != nil {
			out = append(out, store.Finding{Check: k.check, Level: store.Fail, Found: fmt.Sprintf("%s: %v", path, err),
				Way: "restore ca/ from the last backup; or, with ca-key.pem there, move the file away and restart the controller"})
			continue
		}
		out = append(out, lasts(k.check, pair.Leaf, now, soon, "restart the controller with ca-key.pem in its folder: it makes a new one"))
	}
	return out
}

// rootKey compares the key of the root, which may lie elsewhere, with the roots.
func rootKey(path string, roots []*x509.Certificate, keys *keyfile.Lock) store.Finding {
	f := store.Finding{Check: "key of the authority", Level: store.OK, Found: "it is that of " + roots[0].Subject.CommonName}
	var key *ecdsa.PrivateKey
	text, err := keys.Read(path)
	if err == nil {
		key, err = identity.ParseKey(path, text)
	}
	if errors.Is(err, fs.ErrNotExist) {
		f.Found = "kept elsewhere"
		return f
	}
	if err == nil && !ofOne(key, roots) {
		err = fmt.Errorf("%s is the key of none of the certificates in ca.pem", path)
	}
	if err != nil {
		f.Level, f.Found, f.Way = store.Fail, err.Error(), "restore ca.pem and ca-key.pem from one backup"
	}
	return f
}

func ofOne(key *ecdsa.PrivateKey, certs []*x509.Certificate) bool {
	return slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return key.PublicKey.Equal(c.PublicKey) })
}

// inside is now, or when the certificate was good: its end is told by itself.
func inside(c *x509.Certificate, now time.Time) time.Time {
	if now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return c.NotAfter.Add(-time.Second)
	}
	return now
}

// lasts says how long a certificate is good.
func lasts(check string, c *x509.Certificate, now time.Time, early time.Duration, way string) store.Finding {
	f := store.Finding{Check: check, Level: store.OK, Found: "good until " + c.NotAfter.Format(time.DateOnly)}
	switch {
	case now.After(c.NotAfter):
		f.Level, f.Found, f.Way = store.Fail, "ended on "+c.NotAfter.Format(time.DateOnly), "set the clock if it is wrong; else "+way
	case now.Before(c.NotBefore):
		f.Level, f.Found, f.Way = store.Fail, "begins on "+c.NotBefore.Format(time.DateOnly), "set the clock: it is behind"
	case c.NotAfter.Sub(now) < early:
		f.Level, f.Way = store.Warn, way
	}
	return f
}

// shown looks at the certificates that listeners show: our own pages, and a
// broker of others.
func (o Options) shown(ctx context.Context) (out []store.Finding) {
	own := filepath.Join(o.State, "ca", "ca.pem")
	if o.HTTP != "" {
		name := ""
		if len(o.Hosts) > 0 {
			name = o.Hosts[0]
		}
		out = append(out, o.show(ctx, look{
			check: "certificate of the pages", address: o.HTTP, name: name, ca: own, way: "restart the controller: it makes a new one at each start",
			absent: store.OK, // the controller does not run
		}))
	}
	b := o.Broker
	for address := range strings.SplitSeq(b.URL, ",") {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" {
			continue // none, or what the controller refuses to start with
		}
		ca := own
		if b.CA != "" {
			ca = b.CA
		}
		out = append(out, o.show(ctx, look{
			check: "certificate of the broker", address: u.Host, name: u.Hostname(), ca: ca, way: "make a new one: edgeherd server cert --host " + u.Hostname(),
			absent: store.Warn, start: "start the broker, or correct broker.url",
		}))
	}
	if b.Cert != "" {
		out = append(out, o.brokerPair())
	}
	return out
}

// brokerPair is what the controller shows a broker of others.
func (o Options) brokerPair() store.Finding {
	const check, way = "certificate for the broker", "ask whoever runs the broker for a new one"
	pair, err := tls.LoadX509KeyPair(o.Broker.Cert, o.Broker.Key)
	if err != nil {
		return store.Finding{Check: check, Level: store.Fail, Found: err.Error(), Way: "let broker.cert and broker.key be of one pair"}
	}
	return lasts(check, pair.Leaf, o.WallClock(), serverSoon, way)
}

// look is at one listener.
type look struct {
	check, address, name, ca, way string
	absent                        store.Level // when nobody listens
	start                         string      // the way out then
}

func (o Options) show(ctx context.Context, l look) store.Finding {
	f := store.Finding{Check: l.check, Level: store.Fail}
	roots, err := identity.ReadCertificates(l.ca)
	if err != nil {
		f.Found, f.Way = err.Error(), "see certificate authority"
		return f
	}
	chain, err := chainOf(ctx, l.address)
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "dial" {
		f.Level, f.Found, f.Way = l.absent, "nobody listens on "+l.address, l.start
		return f
	}
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && loopback(l.address) {
		f.Level, f.Found = store.OK, l.address+" serves this machine without TLS"
		return f
	}
	if err != nil {
		f.Found, f.Way = fmt.Sprintf("TLS with %s: %v", l.address, err), "look who listens there"
		return f
	}
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	now := o.WallClock()
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: inside(chain[0], now)}); err != nil {
		f.Found, f.Way = fmt.Sprintf("%s shows a certificate that boxes do not trust: %v", l.address, err), l.way
		return f
	}
	if err := chain[0].VerifyHostname(l.name); l.name != "" && err != nil {
		f.Found, f.Way = strings.TrimPrefix(err.Error(), "x509: "), l.way
		return f
	}
	return lasts(l.check, chain[0], now, serverSoon, l.way)
}

// loopback says whether only this machine reaches an address: pages may be
// plain there, as those of edgeherd up are.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// chainOf is what a listener shows. Nothing is sent to it, so whom it is needs
// no proof here.
func chainOf(ctx context.Context, address string) (chain []*x509.Certificate, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error { chain = cs.PeerCertificates; return nil },
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		conn.Close()
	}
	if len(chain) > 0 {
		return chain, nil // it may want one of ours; that is not asked here
	}
	if err == nil {
		err = errors.New("it shows no certificate")
	}
	return nil, err
}
