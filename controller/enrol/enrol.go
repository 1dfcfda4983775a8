// Package enrol makes machines members of a fleet and keeps their certificates:
// the controller's side of internal/enrol.
//
// Vocabulary: a token is minted for a place (site, labels, perhaps one box whose
// machine it replaces) and redeemed by a machine, whose request is known by its
// key. A request is decided at once, by rules, or by a person. A box is a place
// with a name and a history; machines come and go in it.
//
//	decide.go   pure: may this machine have a certificate
//	serve.go    the routes for machines: requests, challenges, renewals
//	renew.go    the next certificate; signs of copied disks
//	tpm.go      proof that a key lives in a TPM
//	offline.go  the same by files
//
// The one rule a caller can break: serve Public to everyone, and Device only
// behind TLS that shows a certificate of identity.CA, ended or not.
package enrol

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// A CertIssuer certifies the keys of boxes. identity.CA is one; a site may put
// another authority behind it.
type CertIssuer interface {
	// IssueDevice returns the certificate and what stands between it and the
	// root, PEM.
	IssueDevice(id identity.ID, site string, keys identity.Keys) ([]byte, error)
	// PEM returns the roots that boxes trust.
	PEM() []byte
	// Renewing returns the certificate that a box shows, which may have ended.
	Renewing(cs tls.ConnectionState) (*x509.Certificate, error)
}

// Options of a Desk. Store, Issuer and Box are required.
type Options struct {
	Store  *store.Store
	Issuer CertIssuer
	// Box is what a box is told of its controller (box.json).
	Box func(id identity.ID, name, site string) identity.Box
	// Changed tells that a box stands otherwise than before: who may not talk any
	// more is to be cut off. nil means nobody is told.
	Changed func(identity.ID)
	// MinAgent is the least version of an agent that may enrol; "" means any.
	MinAgent string
	// Grace is how long after its end a certificate may still be renewed. Default
	// 365 days.
	Grace time.Duration
	// Rate is how many requests a second all machines together may make, and a
	// fifth of it one address; each may come in bursts of ten seconds' worth.
	// Default 50.
	Rate float64
	// WallClock stamps rows and ends tokens; nil means time.Now.
	WallClock func() time.Time
}

// Desk enrols machines. Safe for concurrent use.
type Desk struct {
	opts   Options
	log    *slog.Logger
	limits *limits
}

// New prepares a Desk.
func New(opts Options, log *slog.Logger) (*Desk, error) {
	if opts.Store == nil || opts.Issuer == nil || opts.Box == nil {
		return nil, errors.New("enrol: Store, Issuer and Box are required")
	}
	if opts.Changed == nil {
		opts.Changed = func(identity.ID) {}
	}
	if opts.Grace == 0 {
		opts.Grace = 365 * 24 * time.Hour
	}
	if opts.Rate == 0 {
		opts.Rate = 50
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	return &Desk{opts: opts, log: log, limits: newLimits(opts.Rate)}, nil
}

// Terms of a token that is asked for.
type Terms struct {
	store.TokenTerms
	TTL time.Duration
}

// Bounds of what a token may be made for.
const (
	maxUses     = 10_000
	maxTokenTTL = 90 * 24 * time.Hour
	defaultTTL  = 24 * time.Hour
)

// ErrTerms says that a token cannot be made so.
var ErrTerms = errors.New("token")

// Mint makes a token that leads to an address. Its secret is kept nowhere.
func (d *Desk) Mint(ctx context.Context, at enrol.Token, terms Terms) (enrol.Token, store.EnrolToken, error) {
	if terms.Uses == 0 {
		terms.Uses = 1
	}
	if terms.TTL == 0 {
		terms.TTL = defaultTTL
	}
	if terms.Approve == "" {
		// Minting one for one machine was the approval.
		switch {
		case terms.ruled():
			terms.Approve = ApproveRules
		case terms.Uses == 1:
			terms.Approve = ApproveAuto
		default:
			terms.Approve = ApproveManual
		}
	}
	if err := terms.check(); err != nil {
		return enrol.Token{}, store.EnrolToken{}, fmt.Errorf("%w: %w", ErrTerms, err)
	}
	if terms.Box != "" {
		_, site, err := d.opts.Store.Place(ctx, terms.Box)
		if err != nil {
			return enrol.Token{}, store.EnrolToken{}, err
		}
		terms.Site = site
	}
	token := enrol.NewToken(at.Host, at.Port, at.Pins...)
	row := store.EnrolToken{ID: token.ID, Hash: token.SecretHash(), Made: d.opts.WallClock(), Expires: d.opts.WallClock().Add(terms.TTL), UsesLeft: terms.Uses, TokenTerms: terms.TokenTerms}
	audit.Of(ctx).Object = "token " + row.ID // it is recorded with the row
	if err := d.opts.Store.AddEnrolToken(ctx, row); err != nil {
		return enrol.Token{}, store.EnrolToken{}, err
	}
	d.log.Info("enrolment token made", "token", token.ID, "site", terms.Site, "uses", terms.Uses, "by", terms.By)
	return token, row, nil
}

// ruled says whether rules were given.
func (t Terms) ruled() bool {
	return len(t.Rules.Serials)+len(t.Rules.TPMs)+len(t.Rules.Networks) > 0
}

func (t Terms) check() error {
	for _, n := range append(append([]string(nil), t.Networks...), t.Rules.Networks...) {
		if _, err := netip.ParsePrefix(n); err != nil {
			return fmt.Errorf("network %q is not a CIDR such as 192.0.2.0/24", n)
		}
	}
	switch {
	case t.Site == "" && t.Box == "":
		return errors.New("the site is missing: say where the box will stand")
	case t.Uses < 1 || t.Uses > maxUses:
		return fmt.Errorf("%d uses; 1 to %d are possible", t.Uses, maxUses)
	case t.TTL < time.Minute || t.TTL > maxTokenTTL:
		return fmt.Errorf("good for %s; 1m to %s are possible, since a token in a drawer is a key to the fleet", t.TTL, maxTokenTTL)
	case t.Box != "" && t.Uses != 1:
		return errors.New("a token for the place of one box has one use")
	case t.Approve != ApproveAuto && t.Approve != ApproveManual && t.Approve != ApproveRules:
		return fmt.Errorf("approval %q; want auto, manual or rules", t.Approve)
	case t.Approve == ApproveRules && !t.ruled():
		return errors.New("approval by rules needs a rule: serial numbers, TPMs or networks")
	case t.Approve != ApproveRules && t.ruled():
		return fmt.Errorf("approval %s looks at no rules: leave out the rules, or say rules", t.Approve)
	case t.Approve == ApproveAuto && t.Uses > 1:
		return errors.New("a token for several machines needs approval by hand or by rules: whoever finds it would be let in")
	}
	return nil
}

// errKey and errCSR say what is wrong with a signing request.
var (
	errCSR = errors.New("the signing request cannot be read")
	errKey = errors.New("the key is not ECDSA P-256")
)

// publicOf reads a signing request: only its keys count.
func publicOf(der []byte) (_ *x509.CertificateRequest, keys identity.Keys, err error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, keys, fmt.Errorf("%w: %w", errCSR, err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, keys, errKey
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, keys, fmt.Errorf("%w: %w", errCSR, err)
	}
	keys.Sign = key
	if keys.Seal, err = identity.SealingKey(csr.Extensions); err != nil {
		return nil, keys, fmt.Errorf("%w: %w", errCSR, err)
	}
	return csr, keys, nil
}

// certify makes a certificate and the row for it.
func (d *Desk) certify(id identity.ID, site string, keys identity.Keys, key string) (store.Cert, error) {
	text, err := d.opts.Issuer.IssueDevice(id, site, keys)
	if err != nil {
		return store.Cert{}, err
	}
	return Row(id, key, text)
}

// Row is what is recorded of a certificate, given as PEM, leaf first.
func Row(id identity.ID, key string, text []byte) (store.Cert, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return store.Cert{}, errors.New("read certificate: not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return store.Cert{}, fmt.Errorf("read certificate: %w", err)
	}
	if key == "" {
		key = enrol.KeyID(leaf.RawSubjectPublicKeyInfo)
	}
	return store.Cert{Serial: SerialOf(leaf), Box: id, Key: key, Ends: leaf.NotAfter, PEM: string(bytes.TrimSpace(text)) + "\n"}, nil
}

// SerialOf is the number of a certificate as rows have it.
func SerialOf(leaf *x509.Certificate) string { return leaf.SerialNumber.Text(16) }

// member is what an issued certificate comes with.
func (d *Desk) member(ctx context.Context, id identity.ID, text string) (*enrol.Member, error) {
	name, site, err := d.opts.Store.Place(ctx, id)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("the stored certificate of %s is not PEM", id)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the stored certificate of %s: %w", id, err)
	}
	return &enrol.Member{
		Box: d.opts.Box(id, name, site), Certificate: text, Authorities: string(d.opts.Issuer.PEM()),
		RenewAfter: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2).UTC(),
	}, nil
}

// said is an answer, and whether it was given before.
type said struct {
	enrol.Answer
	again bool
}

func (d *Desk) answer(code enrol.Code, detail string) said {
	return said{Answer: enrol.Answer{V: enrol.Version, Code: code, Detail: detail, ServerTime: d.opts.WallClock().UTC()}}
}
