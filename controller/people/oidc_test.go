package people

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people/peopletest"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

// abroad is a house whose people a provider vouches for.
func abroad(t *testing.T) (*house, *peopletest.Provider) {
	t.Helper()
	h := newHouse(t)
	idp, err := peopletest.New("edgeherd", h.clock)
	must(t, err)
	t.Cleanup(idp.Close)
	p, err := NewProvider(ProviderOptions{
		Issuer: idp.URL, ClientID: "edgeherd", Redirect: "https://ctl.example/login/oidc/callback", WallClock: h.clock,
		Guard: outbound.Guard{Roots: idp.Roots()},
		Grants: []Grant{
			{Group: "edge-ops", Role: authz.Ops}, {Group: "site-a", Role: authz.Tech, Sites: []string{"a"}}, {Group: "site-b", Role: authz.Tech, Sites: []string{"b"}},
		},
	})
	must(t, err)
	h.People = New(Options{Store: h.store, OIDC: p, WallClock: h.clock}, slog.New(slog.DiscardHandler))
	h.cheap()
	return h, idp
}

// visit has the person sign in at the provider and returns what the browser
// brings back.
func (h *house) visit(idp *peopletest.Provider) Return {
	h.t.Helper()
	address, trip, err := h.Provider().Start(h.t.Context())
	must(h.t, err)
	c := idp.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := c.Get(address)
	must(h.t, err)
	res.Body.Close()
	back, err := url.Parse(res.Header.Get("Location"))
	must(h.t, err)
	if !strings.HasPrefix(back.String(), "https://ctl.example/login/oidc/callback?") {
		h.t.Fatalf("sent back to %s: %s", back, res.Status)
	}
	again, err := ParseTrip(trip.String())
	must(h.t, err)
	return Return{Trip: again, State: back.Query().Get("state"), Code: back.Query().Get("code")}
}

func TestAProviderVouchesAndGroupsGiveTheRole(t *testing.T) {
	h, idp := abroad(t)
	ctx := t.Context()
	idp.SetPerson(peopletest.Person{Subject: "7", Name: "tom", Groups: []string{"all", "site-a", "site-b"}})
	s, err := h.Finish(ctx, h.visit(idp))
	if err != nil || s.Caller.Name != "tom" || s.Caller.Role != authz.Tech || strings.Join(s.Caller.Sites, " ") != "a b" {
		t.Fatalf("%+v, %v", s, err)
	}
	// Another name and other groups of the same subject: the same person.
	idp.SetPerson(peopletest.Person{Subject: "7", Name: "thomas", Groups: []string{"site-b", "edge-ops"}})
	s, err = h.Finish(ctx, h.visit(idp))
	if err != nil || s.Caller.Name != "tom" || s.Caller.Role != authz.Ops || !s.Caller.Everywhere() {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, c := range []struct {
		name string
		who  peopletest.Person
	}{
		{"a person whose groups have no role", peopletest.Person{Subject: "8", Name: "eve", Groups: []string{"all"}}},
		{"another person of the same name", peopletest.Person{Subject: "9", Name: "tom", Groups: []string{"edge-ops"}}},
		{"a name that is none", peopletest.Person{Subject: "10", Name: "<img src=x>", Groups: []string{"edge-ops"}}},
	} {
		idp.SetPerson(c.who)
		var f *Faulty
		if _, err := h.Finish(ctx, h.visit(idp)); !errors.As(err, &f) || f.Hint == "" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, _, err := h.Invite(ctx, "tom"); err == nil {
		t.Error("a password for somebody whom the provider vouches for")
	}
	must(t, h.Disable(ctx, "tom", true))
	idp.SetPerson(peopletest.Person{Subject: "7", Name: "tom", Groups: []string{"edge-ops"}})
	if _, err := h.Finish(audit.With(ctx, &audit.Draft{Verb: "login"}), h.visit(idp)); err == nil {
		t.Error("who is disabled here comes in by the provider")
	}
	idp.SetPerson(peopletest.Person{Subject: "8", Name: "eve", Groups: []string{"all"}})
	if _, err := h.Finish(audit.With(ctx, &audit.Draft{Verb: "login"}), h.visit(idp)); err == nil {
		t.Error("who has no group with a role comes in")
	}
	lines, err := h.store.AuditNewest(ctx, store.AuditQuery{Limit: 2})
	must(t, err)
	for i, want := range []string{`"actor":"eve","source":"","verb":"login.failed","note":"no group has a role"`, `"actor":"tom","source":"","verb":"login.failed","note":"disabled"`} {
		if len(lines) != 2 || !strings.Contains(string(lines[i]), want) {
			t.Errorf("recorded %s, want %s", lines, want)
			break
		}
	}
}

// T31: tokens that are not what the provider said to this sign-in.
func TestT31ForgedTokensAreRefused(t *testing.T) {
	h, idp := abroad(t)
	idp.SetPerson(peopletest.Person{Subject: "7", Name: "tom", Groups: []string{"edge-ops"}})
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	for name, bend := range map[string]func(*peopletest.Token){
		"signed by another":     func(k *peopletest.Token) { k.Key = stranger },
		"of another key":        func(k *peopletest.Token) { k.Header["kid"] = "2" },
		"not signed":            func(k *peopletest.Token) { k.Header["alg"], k.Key = "none", nil },
		"claims HMAC":           func(k *peopletest.Token) { k.Header["alg"] = "HS256" },
		"expired":               func(k *peopletest.Token) { k.Claims["exp"] = start.Add(-time.Second).Unix() },
		"without an end":        func(k *peopletest.Token) { delete(k.Claims, "exp") },
		"for another audience":  func(k *peopletest.Token) { k.Claims["aud"] = "other" },
		"of another issuer":     func(k *peopletest.Token) { k.Claims["iss"] = idp.URL + "/" },
		"with another nonce":    func(k *peopletest.Token) { k.Claims["nonce"] = "x" },
		"without a nonce":       func(k *peopletest.Token) { delete(k.Claims, "nonce") },
		"without a user":        func(k *peopletest.Token) { delete(k.Claims, "preferred_username") },
		"with groups of a kind": func(k *peopletest.Token) { k.Claims["groups"] = map[string]any{"edge-ops": true} },
		"from the future":       func(k *peopletest.Token) { k.Claims["nbf"] = start.Add(time.Hour).Unix() },
	} {
		idp.Bend(bend)
		if s, err := h.Finish(t.Context(), h.visit(idp)); err == nil {
			t.Errorf("a token %s makes %+v", name, s.Caller)
		}
	}
	idp.Bend(nil)
	r := h.visit(idp)
	if _, err := h.Finish(t.Context(), r); err != nil {
		t.Errorf("a good token: %v", err)
	}
	for name, bad := range map[string]Return{
		"the same code again": r,
		"another state":       func() Return { r := h.visit(idp); r.State = "x"; return r }(),
		"no state":            func() Return { r := h.visit(idp); r.State = ""; return r }(),
		"another browser":     func() Return { r := h.visit(idp); r.Trip = h.visit(idp).Trip; r.State = r.Trip.State; return r }(),
	} {
		if _, err := h.Finish(t.Context(), bad); err == nil {
			t.Errorf("%s makes a session", name)
		}
	}
	if all, err := h.store.Accounts(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("accounts %+v, %v", all, err)
	}
	for _, text := range []string{"", "a", "a.b", "a..c", "a.b.c.d"} {
		if _, err := ParseTrip(text); err == nil {
			t.Errorf("%q is taken for a trip", text)
		}
	}
	if _, err := h.store.Account(t.Context(), "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}

func TestProvidersAreCheckedBeforeTheyAreAsked(t *testing.T) {
	grants := []Grant{{Group: "g", Role: authz.Ops}}
	for name, o := range map[string]ProviderOptions{
		"plain http":    {Issuer: "http://idp.example", ClientID: "x", Redirect: "y", Grants: grants},
		"no client":     {Issuer: "https://idp.example", Redirect: "y", Grants: grants},
		"no grant":      {Issuer: "https://idp.example", ClientID: "x", Redirect: "y"},
		"grant of all":  {Issuer: "https://idp.example", ClientID: "x", Redirect: "y", Grants: []Grant{{Role: authz.Ops}}},
		"tech nowhere":  {Issuer: "https://idp.example", ClientID: "x", Redirect: "y", Grants: []Grant{{Group: "g", Role: authz.Tech}}},
		"owner by OIDC": {Issuer: "https://idp.example", ClientID: "x", Redirect: "y", Grants: []Grant{{Group: "g", Role: authz.Owner}}},
	} {
		if _, err := NewProvider(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// T33: an issuer that leads to where clouds hand out credentials.
	p, err := NewProvider(ProviderOptions{Issuer: "https://169.254.169.254", ClientID: "x", Redirect: "y", Grants: grants})
	must(t, err)
	if _, _, err := p.Start(t.Context()); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("T33: %v", err)
	}
}
