// Package enrol is what box and controller agree on to make a machine a member:
// the token, the pin of the authority, requests and answers, and their form as
// files for sites without a network.
//
// Vocabulary: a token is one line of letters that QR codes hold cheaply; it
// names its row in the controller (id), proves that somebody was given it
// (secret), says whom to trust (pin, the SHA-256 of the public key of the root
// authority; two while one root replaces another) and whom to call (host and
// port), and ends in one check character for each of these. A short code is six
// digits of a box's key that two people can compare over a phone. An answer is
// all that the controller ever says: issued, wait, or a refusal with its code.
//
//	box                                             controller
//	POST /api/enroll/v1/requests    Request       → Answer
//	POST …/requests/{id}/challenge  ChallengeReply → Answer   (keys in a TPM)
//	POST /api/device/v1/renew       Renewal       → Answer   (mTLS, RenewTLS)
//	GET  /api/device/v1/state                     → Answer   (mTLS, RenewTLS)
//	POST /api/device/v1/receipt     Signed        → Answer   (mTLS, RenewTLS)
//
// A request may be sent again at any time: the same key gets the same answer.
//
// The one rule a caller can break: send a secret only over a connection of
// Token.ClientTLS, which checks the pin before anything is written.
package enrol

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// tokenPrefix is the version of the form.
const tokenPrefix = "EH1"

// Lengths of the parts of a token.
const (
	idLength     = 8
	secretLength = 32 // 160 bits
	pinLength    = 52 // 256 bits
	checkLength  = 4
)

// MaxTokenLength bounds what ParseToken looks at.
const MaxTokenLength = 512

var base32s = base32.StdEncoding.WithPadding(base32.NoPadding)

// A Token is what a box is given to enrol with.
type Token struct {
	ID     string // 8 of A-Z2-7
	Secret string // 32 of A-Z2-7
	Pins   []Pin  // one, or two while one root replaces another
	Host   string // DNS name or address, lower case
	Port   uint16
}

// A TokenError says which part of a token is wrong. Nothing was sent.
type TokenError struct {
	Part string // "beginning", "id", "secret", "pin", "second pin", "address", "check characters", "token"
	What string
}

func (e *TokenError) Error() string {
	if e.Part == "token" {
		return fmt.Sprintf("this token is not right: %s; copy it again", e.What)
	}
	return fmt.Sprintf("the %s of this token is not right: %s; copy it again", e.Part, e.What)
}

// NewToken draws id and secret.
func NewToken(host string, port uint16, pins ...Pin) Token {
	var raw [25]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	return Token{ID: base32s.EncodeToString(raw[:5]), Secret: base32s.EncodeToString(raw[5:]), Pins: pins, Host: strings.ToLower(host), Port: port}
}

// Address is host:port to dial.
func (t Token) Address() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// SecretHash is all that a controller keeps of the secret, and the key of the
// code in request files. 160 random bits need no slow hash.
func (t Token) SecretHash() [32]byte { return SecretHash(t.Secret) }

// SecretHash is Token.SecretHash of a secret alone.
func SecretHash(secret string) [32]byte { return sha256.Sum256([]byte("edgeherd enrolment " + secret)) }

// Redacted is a token for logs: what is not secret.
func (t Token) Redacted() string { return fmt.Sprintf("token %s for %s", t.ID, t.Address()) }

// String is the token in full; it is secret. All of its characters are in the
// alphanumeric set of QR codes.
func (t Token) String() string {
	// Brackets are not in that set; the last colon stands before the port.
	address := strings.ToUpper(t.Host) + ":" + strconv.Itoa(int(t.Port))
	parts := []string{tokenPrefix, t.ID, t.Secret}
	pins, second := "", ""
	for i, p := range t.Pins {
		pins += p.String()
		if i > 0 {
			second += "." + p.String()
		}
	}
	if len(t.Pins) > 0 {
		parts = append(parts, t.Pins[0].String())
	}
	return strings.Join(append(parts, address), ".") + second + "." + checks(t.ID, t.Secret, pins, address)
}

func checks(parts ...string) string {
	out := ""
	for _, p := range parts {
		out += string(checkOf(p))
	}
	return out
}

// checkOf is the check character of ISO/IEC 7064, MOD 37,36, over the letters
// and digits of s: no single wrong character passes, and of two neighbours that
// changed places one pair in 630.
func checkOf(s string) byte {
	const set = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	p := 36
	for _, r := range s {
		v := strings.IndexRune(set, r)
		if v < 0 {
			continue
		}
		p = (p + v) % 36
		if p == 0 {
			p = 36
		}
		p = p * 2 % 37
	}
	return set[(37-p)%36]
}

// ParseToken reads a token as people type, paste or scan it: case and white
// space do not matter. Its errors are TokenErrors.
func ParseToken(text string) (Token, error) {
	if len(text) > 2*MaxTokenLength {
		return Token{}, &TokenError{"token", "it is far too long"}
	}
	text = strings.ToUpper(strings.Join(strings.Fields(text), ""))
	parts := strings.Split(text, ".")
	if parts[0] != tokenPrefix {
		return Token{}, &TokenError{"beginning", fmt.Sprintf("a token begins with %s.", tokenPrefix)}
	}
	if len(parts) < 6 {
		return Token{}, &TokenError{"token", fmt.Sprintf("its end is missing: it has %d parts between dots, at least 6 are needed", len(parts))}
	}
	t := Token{ID: parts[1], Secret: parts[2]}
	check := parts[len(parts)-1]
	pins, address := parts[3], parts[4:len(parts)-1]
	for _, p := range []struct {
		name, text string
		length     int
	}{{"id", t.ID, idLength}, {"secret", t.Secret, secretLength}, {"pin", parts[3], pinLength}} {
		if err := checkBase32(p.name, p.text, p.length); err != nil {
			return Token{}, err
		}
	}
	// A second pin has no colon; an address ends in one and a number.
	if last := address[len(address)-1]; len(address) > 1 && len(last) > 5 && !strings.Contains(last, ":") {
		if err := checkBase32("second pin", last, pinLength); err != nil {
			return Token{}, err
		}
		pins, address = pins+last, address[:len(address)-1]
	}
	if len(check) != checkLength {
		return Token{}, &TokenError{"check characters", fmt.Sprintf("they are the last %d characters, and there are %d", checkLength, len(check))}
	}
	where := strings.Join(address, ".")
	for i, p := range []struct{ name, text string }{{"id", t.ID}, {"secret", t.Secret}, {"pin", pins}, {"address", where}} {
		if check[i] != checkOf(p.text) {
			return Token{}, &TokenError{p.name, "it does not fit its check character"}
		}
	}
	for ; pins != ""; pins = pins[pinLength:] {
		pin, err := parsePin(pins[:pinLength])
		if err != nil {
			return Token{}, &TokenError{"pin", err.Error()}
		}
		t.Pins = append(t.Pins, pin)
	}
	return t, t.setAddress(where)
}

func checkBase32(name, text string, length int) error {
	if len(text) != length {
		return &TokenError{name, fmt.Sprintf("it has %d characters, %d are needed", len(text), length)}
	}
	for i, r := range text {
		if r >= 'A' && r <= 'Z' || r >= '2' && r <= '7' {
			continue
		}
		what := fmt.Sprintf("character %d is %q", i+1, r)
		if like, ok := map[rune]string{'0': "O", '1': "I or L", '8': "B"}[r]; ok {
			what += "; is it " + like + "?"
		}
		return &TokenError{name, what}
	}
	return nil
}

// setAddress reads HOST:PORT.
func (t *Token) setAddress(where string) error {
	at := strings.LastIndexByte(where, ':')
	if at < 1 {
		return &TokenError{"address", "it is not a host, a colon and a port"}
	}
	port, err := strconv.ParseUint(where[at+1:], 10, 16)
	if err != nil || port == 0 || where[at+1] == '0' {
		return &TokenError{"address", fmt.Sprintf("%q is not a port", where[at+1:])}
	}
	t.Host, t.Port = strings.ToLower(where[:at]), uint16(port)
	if err := CheckHost(t.Host); err != nil {
		return &TokenError{"address", err.Error()}
	}
	return nil
}

// CheckHost says why a host cannot stand in a token: it must be an IP address
// without zone, or a DNS name of ASCII letters, digits and hyphens.
func CheckHost(host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	if len(host) > 253 || host == "" {
		return fmt.Errorf("a host of %d characters", len(host))
	}
	for label := range strings.SplitSeq(host, ".") {
		ok := label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, r := range strings.ToLower(label) {
			ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
		}
		if !ok {
			return fmt.Errorf("%q is not a host name", host)
		}
	}
	return nil
}

// ClaimURL is the page on which somebody in front of the machine agrees to it. It
// names the token and tells no secret; in upper case a QR code of it is small.
func (t Token) ClaimURL() string {
	return "HTTPS://" + strings.ToUpper(t.Address()) + "/T/C/" + t.ID
}
