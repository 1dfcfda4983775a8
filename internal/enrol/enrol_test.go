package enrol_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/enrol"
)

func pin(b byte) (p enrol.Pin) {
	for i := range p {
		p[i] = b + byte(i)
	}
	return p
}

func TestTokenIsReadAsItWasWritten(t *testing.T) {
	for _, tc := range []struct {
		host string
		port uint16
		pins []enrol.Pin
	}{
		{"fleet.example.com", 8443, []enrol.Pin{pin(1)}},
		{"Controller-1", 443, []enrol.Pin{pin(2), pin(3)}},
		{"192.0.2.7", 65535, []enrol.Pin{pin(4)}},
		{"2001:db8::17", 8443, []enrol.Pin{pin(5), pin(6)}},
	} {
		want := enrol.NewToken(tc.host, tc.port, tc.pins...)
		text := want.String()
		if strings.Trim(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:") != "" {
			t.Errorf("%s: %q leaves the alphanumeric set of QR codes", tc.host, text)
		}
		for _, typed := range []string{text, strings.ToLower(text), "  " + text[:40] + "\r\n " + text[40:] + "\n"} {
			if got, err := enrol.ParseToken(typed); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q: got %+v, %v, want %+v", typed, got, err, want)
			}
		}
	}
}

// The form is printed on stickers: it must not drift.
func TestTokenFormStays(t *testing.T) {
	tok := enrol.Token{ID: "AAAAAAAB", Secret: strings.Repeat("AB", 16), Pins: []enrol.Pin{pin(0)}, Host: "fleet.example.com", Port: 8443}
	const want = "EH1.AAAAAAAB.ABABABABABABABABABABABABABABABAB.AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ.FLEET.EXAMPLE.COM:8443.1DK7"
	if got := tok.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The example of the Global Release Identifier standard (IFPI GRid), which uses
// MOD 37,36: A1-2425G-ABC1234002-M.
func TestCheckCharacterIsTheStandards(t *testing.T) {
	if got := enrol.CheckOf("A12425GABC1234002"); got != 'M' {
		t.Errorf("got %c, want M", got)
	}
}

// A check character tells of all that came before it, so two characters reach
// each of its states, after which every pair of neighbours is tried.
func TestCheckCharacterSeesWhatChangedPlaces(t *testing.T) {
	const set = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	before := map[byte]string{}
	for _, a := range set {
		for _, b := range set {
			before[enrol.CheckOf(string(a)+string(b))] = string(a) + string(b)
		}
	}
	pairs, missed := 0, 0
	for _, start := range before {
		for i, a := range set {
			for _, b := range set[:i] {
				pairs++
				if enrol.CheckOf(start+string(a)+string(b)) == enrol.CheckOf(start+string(b)+string(a)) {
					missed++
				}
			}
		}
	}
	if len(before) != len(set) || pairs != 630*missed {
		t.Errorf("of %d pairs after %d states %d pass in the wrong order, want one in 630", pairs, len(before), missed)
	}
}

func TestATypingErrorNamesItsPart(t *testing.T) {
	tok := enrol.NewToken("fleet.example.com", 8443, pin(9), pin(70))
	text := tok.String()
	dots := []int{}
	for i, r := range text {
		if r == '.' {
			dots = append(dots, i)
		}
	}
	parts := []struct {
		name     string
		from, to int
	}{
		{"beginning", 0, 3}, {"id", 4, dots[1]}, {"secret", dots[1] + 1, dots[2]}, {"pin", dots[2] + 1, dots[3]},
		{"address", dots[3] + 1, dots[6]}, {"second pin", dots[6] + 1, dots[7]},
	}
	for _, p := range parts {
		for at := p.from; at < p.to; at++ {
			for _, c := range []byte("A3Z0") {
				if text[at] == c || text[at] == '.' || text[at] == ':' {
					continue
				}
				wrong := text[:at] + string(c) + text[at+1:]
				_, err := enrol.ParseToken(wrong)
				var te *enrol.TokenError
				if !errors.As(err, &te) {
					t.Fatalf("%q: character %d changed to %c is accepted", wrong, at, c)
				}
				if te.Part != p.name && !(p.name == "second pin" && te.Part == "pin") {
					t.Errorf("character %d of the %s: blamed %q (%s)", at-p.from, p.name, te.Part, te.What)
				}
			}
		}
	}
	for _, tc := range []struct{ text, part, says string }{
		{"", "beginning", "begins with EH1"},
		{"https://fleet.example.com/", "beginning", ""},
		{text[:60], "token", "end is missing"},
		{strings.Replace(text, tok.Secret, tok.Secret[:30], 1), "secret", "30 characters, 32 are needed"},
		{strings.Replace(text, tok.ID, "0"+tok.ID[1:], 1), "id", "is it O?"},
		{strings.Replace(text, ":8443", ":99999", 1), "address", ""},
		{text[:len(text)-1], "check characters", "there are 3"},
		{strings.Repeat("A", 5000), "token", "far too long"},
	} {
		_, err := enrol.ParseToken(tc.text)
		var te *enrol.TokenError
		if !errors.As(err, &te) || te.Part != tc.part || !strings.Contains(te.What, tc.says) {
			t.Errorf("%.30q…: got %v, want the %s and %q", tc.text, err, tc.part, tc.says)
		}
	}
}

func TestSecretStaysOutOfTheRedactedForm(t *testing.T) {
	tok := enrol.NewToken("fleet.example.com", 8443, pin(9))
	if strings.Contains(tok.Redacted(), tok.Secret) || !strings.Contains(tok.Redacted(), tok.ID) {
		t.Errorf("got %q", tok.Redacted())
	}
}

// authority is a root, a server's certificate below an issuing one, and a key.
type authority struct {
	root, issuing, leaf *x509.Certificate
	key                 *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, host string, begin time.Time) (a authority) {
	t.Helper()
	rootKey, issuingKey := newKey(t), newKey(t)
	a.key = newKey(t)
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: begin, NotAfter: begin.AddDate(10, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: begin, NotAfter: begin.AddDate(1, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		leaf.IPAddresses = []net.IP{ip}
	} else {
		leaf.DNSNames = []string{host}
	}
	rootTemplate := ca("root")
	a.root = issue(t, rootTemplate, rootTemplate, rootKey, rootKey)
	a.issuing = issue(t, ca("issuing"), a.root, issuingKey, rootKey)
	a.leaf = issue(t, leaf, a.issuing, a.key, issuingKey)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issue(t *testing.T, tmpl, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOnlyAChainToThePinIsBelieved(t *testing.T) {
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	a, evil := newAuthority(t, "fleet.example.com", begin), newAuthority(t, "fleet.example.com", begin)
	tok := enrol.NewToken("fleet.example.com", 8443, enrol.PinOf(a.root))
	chain := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	for _, tc := range []struct {
		name  string
		token enrol.Token
		chain []*x509.Certificate
		now   time.Time
		want  error // nil: believed; errAny: refused for another reason
	}{
		{"the controller's", tok, chain(a.leaf, a.issuing, a.root), begin.AddDate(0, 1, 0), nil},
		{"a box without a clock", tok, chain(a.leaf, a.issuing, a.root), time.Unix(0, 0), nil},
		{"an interceptor's", tok, chain(evil.leaf, evil.issuing, evil.root), begin, enrol.ErrPin},
		{"an interceptor that shows our root too", tok, chain(evil.leaf, evil.issuing, a.root), begin, enrol.ErrPin},
		{"no root", tok, chain(a.leaf, a.issuing), begin, enrol.ErrPin},
		{"the root as leaf", tok, chain(a.root), begin, enrol.ErrPin},
		{"nothing", tok, nil, begin, enrol.ErrPin},
		{"one root replaces another", enrol.NewToken("fleet.example.com", 1, enrol.PinOf(evil.root), enrol.PinOf(a.root)), chain(a.leaf, a.issuing, a.root), begin, nil},
		{"another name", enrol.NewToken("other.example.com", 1, enrol.PinOf(a.root)), chain(a.leaf, a.issuing, a.root), begin, enrol.ErrHost},
		{"a clock after the end", tok, chain(a.leaf, a.issuing, a.root), begin.AddDate(2, 0, 0), errAny},
	} {
		err := tc.token.Verify(tc.chain, tc.now)
		if (tc.want == nil) != (err == nil) || tc.want != nil && tc.want != errAny && !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

var errAny = errors.New("any")

func TestShortCodeIsSixDigitsOfTheKey(t *testing.T) {
	if got, want := enrol.ShortCode([]byte("key")), "998-238"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if enrol.ShortCode([]byte("key")) == enrol.ShortCode([]byte("key2")) {
		t.Error("two keys, one code")
	}
}

func newRequest(t *testing.T, key *ecdsa.PrivateKey) enrol.Request {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return enrol.Request{V: enrol.Version, CSR: csr, Hardware: enrol.Hardware{BoardSerial: "SN-1", MACs: []string{"02:00:00:00:00:01"}}, Agent: enrol.Agent{Version: "1.0.0", BootID: "b"}, NameHint: "till-3"}
}

func TestFilesOfARequestAndItsAnswerCannotBeChangedOnTheWay(t *testing.T) {
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	a, evil, key := newAuthority(t, "fleet.example.com", begin), newAuthority(t, "fleet.example.com", begin), newKey(t)
	tok := enrol.NewToken("fleet.example.com", 8443, enrol.PinOf(a.root))
	file, err := enrol.RequestFile(newRequest(t, key), tok, key)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(file, []byte(tok.Secret)) {
		t.Error("the secret travels")
	}
	q, s, err := enrol.OpenRequest(file)
	if err != nil || q.TokenID != tok.ID || q.Hardware.BoardSerial != "SN-1" || !s.Authentic(tok.SecretHash()) {
		t.Fatalf("got %+v, %v, authentic %t", q, err, s.Authentic(tok.SecretHash()))
	}
	// Somebody with the stick and a key of his own, but without the token.
	other := newKey(t)
	swapped, err := enrol.RequestFile(newRequest(t, other), enrol.NewToken("fleet.example.com", 8443, enrol.PinOf(a.root)), other)
	if err != nil {
		t.Fatal(err)
	}
	if _, s, err := enrol.OpenRequest(swapped); err != nil || s.Authentic(tok.SecretHash()) {
		t.Errorf("the request of a stranger: %v, authentic %t", err, s.Authentic(tok.SecretHash()))
	}
	var changed enrol.Signed
	if err := json.Unmarshal(file, &changed); err != nil {
		t.Fatal(err)
	}
	changed.Payload = bytes.Replace(changed.Payload, []byte("SN-1"), []byte("SN-2"), 1)
	text, _ := json.Marshal(changed)
	if _, _, err := enrol.OpenRequest(text); err == nil {
		t.Error("a changed request is read")
	}

	answer := enrol.Answer{V: enrol.Version, Code: enrol.Denied, Detail: "no", ServerTime: begin}
	chain := func(a authority) [][]byte { return [][]byte{a.leaf.Raw, a.issuing.Raw, a.root.Raw} }
	for _, tc := range []struct {
		name  string
		chain [][]byte
		key   *ecdsa.PrivateKey
		ok    bool
	}{
		{"the controller's", chain(a), a.key, true},
		{"a stranger's", chain(evil), evil.key, false},
		{"a stranger's under our chain", chain(a), evil.key, false},
	} {
		file, err := enrol.AnswerFile(answer, tc.chain, tc.key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tok.OpenAnswer(file, time.Unix(0, 0))
		if (err == nil) != tc.ok || tc.ok && got.Detail != "no" {
			t.Errorf("%s: got %+v, %v", tc.name, got, err)
		}
	}
	// A request is no answer, whatever signed it.
	if _, err := tok.OpenAnswer(file, begin); err == nil {
		t.Error("a request is read as an answer")
	}
}

func TestReceiptIsTheBoxsOwn(t *testing.T) {
	key := newKey(t)
	body, err := enrol.SignReceipt(enrol.Receipt{DeviceID: "d-aaaaaaaaaaaaa", Wiped: []string{"spool"}, Lost: 3}, key)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := enrol.OpenReceipt(body, key.Public()); err != nil || r.Lost != 3 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := enrol.OpenReceipt(body, newKey(t).Public()); err == nil {
		t.Error("another key's receipt is taken")
	}
}

func TestStickCarriesAToken(t *testing.T) {
	if got := enrol.KitTokenText([]byte("# for hamburg-3\r\n\r\n  EH1.X \r\nEH1.Y\n")); got != "EH1.X" {
		t.Errorf("got %q", got)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(enrol.NewToken("fleet.example.com", 8443, pin(1)).String())
	f.Add(enrol.NewToken("2001:db8::17", 443, pin(1), pin(2)).String())
	f.Add("EH1.......")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := enrol.ParseToken(text)
		if err != nil {
			var te *enrol.TokenError
			if !errors.As(err, &te) {
				t.Fatalf("an error without its part: %v", err)
			}
			return
		}
		if again, err := enrol.ParseToken(tok.String()); err != nil || !reflect.DeepEqual(again, tok) {
			t.Fatalf("%q reads as %+v, which reads as %+v, %v", text, tok, again, err)
		}
	})
}

// All that a controller reads of strangers.
func FuzzRequest(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	q := enrol.Request{V: enrol.Version, TokenID: "AAAAAAAA", CSR: csr, Agent: enrol.Agent{Version: "1.0.0"}}
	plain, _ := json.Marshal(q)
	file, err := enrol.RequestFile(q, enrol.NewToken("a", 1, pin(1)), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(file)
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := enrol.ReadRequest(bytes.NewReader(data)); err == nil {
			text, err := json.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) <= enrol.MaxBytes {
				if again, err := enrol.ReadRequest(bytes.NewReader(text)); err != nil || again.TokenID != q.TokenID || !bytes.Equal(again.CSR, q.CSR) {
					t.Fatalf("%s reads as %s, %v", data, text, err)
				}
			}
		}
		_, _ = enrol.ReadRenewal(bytes.NewReader(data))
		_, _ = enrol.ReadAnswer(bytes.NewReader(data))
		if q, s, err := enrol.OpenRequest(data); err == nil && (len(q.CSR) == 0 || len(s.Signature) == 0) {
			t.Fatalf("opened without CSR or signature: %s", data)
		}
		_, _ = enrol.OpenReceipt(data, key.Public())
	})
}
