package inputs

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
)

// digestAuth is HTTP digest authentication (RFC 7616) with qop auth, which most
// cameras insist on. The zero value was not asked for it yet.
type digestAuth struct {
	realm, nonce, opaque, algorithm string
	qop                             bool
	count                           uint32
}

// read takes a challenge over and reports whether it can be answered.
func (d *digestAuth) read(h http.Header) bool {
	for _, line := range h.Values("WWW-Authenticate") {
		scheme, rest, _ := strings.Cut(line, " ")
		if !strings.EqualFold(scheme, "Digest") {
			continue
		}
		p := authParams(rest)
		algorithm := strings.ToUpper(p["algorithm"])
		if algorithm != "" && algorithm != "MD5" && algorithm != "SHA-256" || p["nonce"] == "" || p["realm"] == "" {
			continue
		}
		qop := false
		for _, q := range strings.Split(p["qop"], ",") {
			qop = qop || strings.TrimSpace(q) == "auth"
		}
		if p["qop"] != "" && !qop {
			continue
		}
		*d = digestAuth{realm: p["realm"], nonce: p["nonce"], opaque: p["opaque"], algorithm: p["algorithm"], qop: qop}
		return true
	}
	return false
}

// authParams reads name=value pairs, quoted or not, separated by commas.
func authParams(s string) map[string]string {
	out := map[string]string{}
	for s != "" {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var value string
		if rest = strings.TrimSpace(rest); strings.HasPrefix(rest, `"`) {
			value, rest, _ = strings.Cut(rest[1:], `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		out[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		s = rest
	}
	return out
}

// answer is the Authorization header for a request.
func (d *digestAuth) answer(method, uri, user, password string) string {
	sum := func(parts ...string) string {
		var h hash.Hash = md5.New()
		if strings.EqualFold(d.algorithm, "SHA-256") {
			h = sha256.New()
		}
		h.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(h.Sum(nil))
	}
	d.count++
	var random [8]byte
	rand.Read(random[:]) // never fails
	nc, cnonce := fmt.Sprintf("%08x", d.count), hex.EncodeToString(random[:])
	ha1, ha2 := sum(user, d.realm, password), sum(method, uri)
	out := fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s"`, user, d.realm, d.nonce, uri)
	if d.qop {
		out += fmt.Sprintf(`, qop=auth, nc=%s, cnonce="%s", response="%s"`, nc, cnonce, sum(ha1, d.nonce, nc, cnonce, "auth", ha2))
	} else {
		out += fmt.Sprintf(`, response="%s"`, sum(ha1, d.nonce, ha2))
	}
	if d.algorithm != "" {
		out += ", algorithm=" + d.algorithm
	}
	if d.opaque != "" {
		out += fmt.Sprintf(`, opaque="%s"`, d.opaque)
	}
	return out
}
