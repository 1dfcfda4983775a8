// Package peopletest is a provider of OpenID Connect for tests: a real one as
// far as its callers can tell, on HTTPS, with discovery, PKCE, one-use codes and
// ID tokens that it signs with ES256.
//
// Vocabulary: a test says who would sign in (Person), and may have the provider
// misbehave (Bend), as one that was taken over or that others pretend to be.
//
// The one rule a caller can break: Close it.
package peopletest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"time"
)

// Person is who signs in.
type Person struct {
	Subject, Name string
	Groups        []string
}

// Token is an ID token before it is signed.
type Token struct {
	Header, Claims map[string]any
	// Key signs; nil leaves the signature empty.
	Key *ecdsa.PrivateKey
}

// Provider is a provider of OpenID Connect.
type Provider struct {
	*httptest.Server
	ClientID string
	Clock    func() time.Time
	key      *ecdsa.PrivateKey

	mu    sync.Mutex // guards what follows
	who   Person
	bend  func(*Token)
	codes map[string]url.Values // what was asked, by code
}

// New starts a provider for one client.
func New(clientID string, clock func() time.Time) (*Provider, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &Provider{ClientID: clientID, Clock: clock, key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewTLSServer(mux)
	return p, nil
}

// Roots is the authority of its certificate.
func (p *Provider) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate())
	return pool
}

// SetPerson says who signs in from now on.
func (p *Provider) SetPerson(who Person) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.who = who
}

// Bend changes every token before it is signed; nil ends that.
func (p *Provider) Bend(f func(*Token)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bend = f
}

func say(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	say(w, map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"id_token_signing_alg_values_supported": []string{"ES256", "none", "HS256"},
	})
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	raw, err := p.key.PublicKey.Bytes()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	say(w, map[string]any{"keys": []any{map[string]string{
		"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "alg": "ES256", "x": b64(raw[1:33]), "y": b64(raw[33:]),
	}}})
}

// authorize signs the person in without a question.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != p.ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("state") == "" {
		http.Error(w, "this is no request with PKCE, state and nonce", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.codes[code] = q
	p.mu.Unlock()
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	code := r.PostFormValue("code")
	asked, ok := p.codes[code]
	delete(p.codes, code)
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || asked.Get("code_challenge") != b64(sum[:]) || r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") {
		w.WriteHeader(http.StatusBadRequest)
		say(w, map[string]string{"error": "invalid_grant"})
		return
	}
	now := p.Clock()
	t := &Token{Key: p.key, Header: map[string]any{"alg": "ES256", "kid": "1", "typ": "JWT"}, Claims: map[string]any{
		"iss": p.URL, "aud": p.ClientID, "sub": p.who.Subject, "preferred_username": p.who.Name, "groups": p.who.Groups,
		"nonce": asked.Get("nonce"), "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}}
	if p.bend != nil {
		p.bend(t)
	}
	signed, err := t.sign()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	say(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": signed})
}

func b64(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func (t *Token) sign() (string, error) {
	header, err := json.Marshal(t.Header)
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(t.Claims)
	if err != nil {
		return "", err
	}
	text := b64(header) + "." + b64(claims)
	if t.Key == nil {
		return text + ".", nil
	}
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, t.Key, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	var raw [64]byte
	r.FillBytes(raw[:32])
	s.FillBytes(raw[32:])
	return text + "." + b64(raw[:]), nil
}
