package acceptance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// format is signed with the payload, so that no signature of the box's key over
// something else can be taken for one over a report.
const format = "edgeherd acceptance report 1"

// Where a controller listens for boxes, on connections that proved to be a box's.
const (
	PathReport = "/device/v1/acceptance"
	// PathProbe takes and gives bytes that mean nothing, for a measurement.
	PathProbe = "/device/v1/acceptance-probe"
	// MaxProbeBytes bounds one such request.
	MaxProbeBytes = 16 << 20
)

// file is a sealed report as it travels and lies on disks.
type file struct {
	Format    string   `json:"format"`
	Payload   []byte   `json:"payload"`   // Report as JSON
	Signature []byte   `json:"signature"` // ECDSA P-256 over format, a zero byte and the payload, ASN.1
	Chain     [][]byte `json:"chain"`     // certificate of the key, DER, leaf first
}

func (f file) sum() []byte {
	sum := sha256.Sum256(append([]byte(f.Format+"\x00"), f.Payload...))
	return sum[:]
}

// Seal signs a report with the box's key. chain is its certificate, DER, leaf
// first.
func Seal(r Report, key crypto.Signer, chain [][]byte) ([]byte, error) {
	r.V = Version
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("seal acceptance report: %w", err)
	}
	f := file{Format: format, Chain: chain}
	var err error
	if f.Payload, err = json.Marshal(r); err != nil {
		return nil, fmt.Errorf("encode acceptance report: %w", err)
	}
	if f.Signature, err = key.Sign(rand.Reader, f.sum(), crypto.SHA256); err != nil {
		return nil, fmt.Errorf("sign acceptance report: %w", err)
	}
	return encode(f)
}

func encode(f file) ([]byte, error) {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode sealed report: %w", err)
	}
	if data = append(data, '\n'); len(data) > MaxBytes {
		return nil, fmt.Errorf("sealed report has %d bytes, at most %d", len(data), MaxBytes)
	}
	return data, nil
}

// Sealed is a report whose signature fits its certificate.
type Sealed struct {
	Report Report
	Chain  []*x509.Certificate // leaf first; nobody has judged it yet
	Digest [32]byte            // SHA-256 of what was signed
}

// Fingerprint is the SHA-256 of the public key that signed, as it is written.
func (s Sealed) Fingerprint() string {
	sum := sha256.Sum256(s.Chain[0].RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Open reads a sealed report and checks its signature and bounds.
func Open(data []byte) (Sealed, error) {
	s, err := open(data)
	if err != nil {
		return Sealed{}, fmt.Errorf("open acceptance report: %w", err)
	}
	return s, nil
}

func open(data []byte) (s Sealed, err error) {
	if len(data) > MaxBytes {
		return s, fmt.Errorf("%d bytes, at most %d", len(data), MaxBytes)
	}
	var f file
	if err := strict(data, &f); err != nil {
		return s, err
	}
	if f.Format != format {
		return s, fmt.Errorf("the file is %q, want %q", f.Format, format)
	}
	if len(f.Chain) == 0 || len(f.Chain) > 4 {
		return s, fmt.Errorf("%d certificates, want 1 to 4", len(f.Chain))
	}
	for _, der := range f.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return s, err
		}
		s.Chain = append(s.Chain, c)
	}
	key, ok := s.Chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return s, fmt.Errorf("signed with a key of type %T", s.Chain[0].PublicKey)
	}
	if !ecdsa.VerifyASN1(key, f.sum(), f.Signature) {
		return s, errors.New("the signature does not fit: the report was changed")
	}
	if err := strict(f.Payload, &s.Report); err != nil {
		return s, err
	}
	s.Digest = [32]byte(f.sum())
	if string(s.Report.Box) != s.Chain[0].Subject.CommonName {
		return s, fmt.Errorf("the report is of %s, the key of %s", s.Report.Box, s.Chain[0].Subject.CommonName)
	}
	return s, s.Report.check()
}

func strict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("parse: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("parse: bytes after its end")
	}
	return nil
}

// check refuses a report that breaks a bound: pages and databases rely on it.
func (r Report) check() error {
	id, err := hex.DecodeString(r.ID)
	switch {
	case r.V != Version:
		return fmt.Errorf("version %d, this program reads %d", r.V, Version)
	case err != nil || len(id) != 8 || hex.EncodeToString(id) != r.ID:
		return fmt.Errorf("report id %q, want 16 hexadecimal digits", r.ID)
	case len(r.Checks) > MaxChecks || len(r.Curve) > MaxSeries || len(r.CurveSeconds) > MaxPoints || len(r.Levels) > len(Levels()):
		return errors.New("too many checks, series, points or levels")
	}
	if _, err := identity.ParseID(string(r.Box)); err != nil {
		return err
	}
	for _, t := range []time.Time{r.Started, r.Ended} {
		if y := t.UTC().Year(); y < 1970 || y > 2200 {
			return fmt.Errorf("it is of the year %d", y)
		}
	}
	for _, l := range r.Levels {
		if _, err := ParseLevel(string(l)); err != nil {
			return err
		}
	}
	for _, s := range []string{r.Name, r.Site, r.Vendor, r.Product, r.Serial, r.By, r.Agent, r.BootID, r.Delivery} {
		if err := checkText(s); err != nil {
			return err
		}
	}
	for _, c := range r.Checks {
		if err := c.check(); err != nil {
			return fmt.Errorf("check %.40q: %w", c.ID, err)
		}
	}
	return r.checkCurve()
}

func (r Report) checkCurve() error {
	for i, s := range r.CurveSeconds {
		if !finite(s) || s < 0 || i > 0 && s < r.CurveSeconds[i-1] {
			return errors.New("the times of the curve do not grow")
		}
	}
	for _, s := range r.Curve {
		if err := errors.Join(checkText(s.Name), checkText(s.Unit)); err != nil {
			return err
		}
		if len(s.Values) != len(r.CurveSeconds) {
			return fmt.Errorf("series %s has %d values at %d times", s.Name, len(s.Values), len(r.CurveSeconds))
		}
		for _, v := range s.Values {
			if v != nil && !finite(*v) {
				return fmt.Errorf("series %s has a value that is no number", s.Name)
			}
		}
	}
	return nil
}

func finite(x float64) bool { return !math.IsNaN(x) && math.Abs(x) < 1e15 }

func (c Check) check() error {
	if !slices.Contains([]Result{Pass, Warn, Fail, Skipped}, c.Result) {
		return fmt.Errorf("result %.40q", c.Result)
	}
	if c.Value.Number != nil && !finite(*c.Value.Number) {
		return errors.New("its value is no number")
	}
	_, err := ParseLevel(string(c.Level))
	err = errors.Join(err, checkText(c.ID), checkText(c.Part), checkText(c.Value.Unit), checkText(c.Value.Text))
	for _, p := range []phrase.Phrase{c.Expect, c.Say} {
		err = errors.Join(err, checkText(p.Code), checkText(p.Text))
		if len(p.Args) > 8 {
			err = errors.Join(err, errors.New("too many arguments of a sentence"))
		}
		for _, a := range p.Args {
			err = errors.Join(err, checkText(a))
		}
	}
	return err
}

func checkText(s string) error {
	if len(s) > maxText || !utf8.ValidString(s) {
		return fmt.Errorf("a text of %d bytes is too long or no UTF-8", len(s))
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return fmt.Errorf("text %.40q has characters that cannot be shown", s)
		}
	}
	return nil
}

// Clean makes a text fit into a report: what a program or a file said is cut
// and loses what cannot be shown.
func Clean(s string) string {
	s = string(bytes.ToValidUTF8([]byte(s), []byte("�")))
	out := make([]rune, 0, len(s))
	for _, r := range s {
		switch {
		case unicode.IsControl(r):
			r = ' '
		case unicode.Is(unicode.Cf, r):
			continue
		}
		out = append(out, r)
	}
	s = string(bytes.TrimSpace([]byte(string(out))))
	for len(s) > maxText {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

// NewID draws the id of a report.
func NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// Noise returns so many bytes that do not compress: something on the way of a
// measurement may.
func Noise(n int64) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
