package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func TestEveryRouteHasARole(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.api.routes.patterns {
		if _, ok := access[p]; !ok {
			t.Errorf("route %q has no entry in the access table", p)
		}
	}
	for p := range access {
		if !slices.Contains(w.api.routes.patterns, p) {
			t.Errorf("the access table names %q, which is no route", p)
		}
	}
}

func TestRouteWithoutARoleIsRefused(t *testing.T) {
	w := newWorld(t)
	w.api.routes.HandleFunc("GET /api/v1/forgotten", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusOK) })
	if got := w.ask("admin", "GET", "/api/v1/forgotten", ""); got.status != http.StatusForbidden {
		t.Errorf("admin got %d", got.status)
	}
}

func TestRolesAreEnforcedOnEveryRoute(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.api.routes.patterns {
		need := access[p]
		if need == public {
			continue
		}
		method, path, _ := strings.Cut(p, " ")
		path = strings.NewReplacer("{id}", "d-aaaaaaaaaaaaa", "{hex}", strings.Repeat("0", 64), "{name}", "m").Replace(path)
		if got := w.ask("", method, path, ""); got.status != http.StatusUnauthorized || got.problem(t).Hint == "" {
			t.Errorf("%s for nobody: %d %s", p, got.status, got.body)
		}
		for name, r := range roleNames {
			got := w.ask(name, method, path, "")
			if refused := got.status == http.StatusForbidden || got.status == http.StatusUnauthorized; refused != (r < need) {
				t.Errorf("%s for %s: %d, needs %s", p, name, got.status, need)
			}
		}
	}
}

func TestTokensOfOtherKindsOpenNothing(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []store.TokenKind{store.TokenLogin, store.TokenSession} {
		w.tokens["odd"] = "odd-" + string(kind)
		must(t, w.store.AddToken(t.Context(), w.tokens["odd"], store.Token{Name: "x", Role: "admin", Kind: kind, Expires: testStart.AddDate(1, 0, 0)}))
		if got := w.ask("odd", "GET", "/api/v1/session", ""); got.status != http.StatusUnauthorized {
			t.Errorf("a %s token as bearer: %d", kind, got.status)
		}
	}
	got := w.ask("", "GET", "/api/v1/session", "", "Cookie", "edgeherd="+w.tokens["admin"])
	if got.status != http.StatusUnauthorized {
		t.Errorf("an API token as cookie: %d", got.status)
	}
}

func TestLoginURLWorksOnceAndBecomesASession(t *testing.T) {
	w := newWorld(t)
	u, err := w.client("admin").LoginURL(t.Context())
	must(t, err)
	path := strings.TrimPrefix(u, w.server.URL)
	first := w.ask("", "GET", path, "")
	if first.status != http.StatusSeeOther || first.header.Get("Location") != "/" {
		t.Fatalf("login: %d to %q", first.status, first.header.Get("Location"))
	}
	cookie := first.header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Lax", "Max-Age=43200", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("cookie %q lacks %s", cookie, want)
		}
	}
	again := w.ask("", "GET", path, "")
	if again.status != http.StatusUnauthorized || !strings.Contains(again.body, "edgeherd login --url") {
		t.Errorf("second use: %d %s", again.status, again.body)
	}
	session, _, _ := strings.Cut(cookie, ";")
	if got := w.ask("", "GET", "/api/v1/session", "", "Cookie", session); got.status != http.StatusOK || !strings.Contains(got.body, `"role":"admin"`) {
		t.Errorf("session: %d %s", got.status, got.body)
	}
	if got := w.ask("", "POST", "/api/v1/logout", "", "Cookie", session); got.status != http.StatusNoContent {
		t.Errorf("logout: %d", got.status)
	}
	if got := w.ask("", "GET", "/api/v1/session", "", "Cookie", session); got.status != http.StatusUnauthorized {
		t.Errorf("after logout: %d", got.status)
	}
}

func TestSessionsAndLoginURLsExpire(t *testing.T) {
	w := newWorld(t)
	u, err := w.client("admin").LoginURL(t.Context())
	must(t, err)
	first := w.ask("", "GET", strings.TrimPrefix(u, w.server.URL), "")
	session, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
	late, err := w.client("admin").LoginURL(t.Context())
	must(t, err)
	w.clock.add(loginLife + time.Second)
	if got := w.ask("", "GET", strings.TrimPrefix(late, w.server.URL), ""); got.status != http.StatusUnauthorized {
		t.Errorf("old login URL: %d", got.status)
	}
	w.clock.add(sessionLife)
	got := w.ask("", "GET", "/api/v1/summary", "", "Cookie", session)
	if got.status != http.StatusUnauthorized || !strings.Contains(got.problem(t).Hint, "edgeherd login --url") {
		t.Errorf("old session: %d %s", got.status, got.body)
	}
}

func TestSecureCookiesAreBoundToTheHost(t *testing.T) {
	a := &API{opts: Options{SecureCookies: true}}
	c := a.cookie("x", 1)
	if c.Name != "__Host-edgeherd" || !c.Secure || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %+v does not meet the __Host- prefix", c)
	}
}

func TestPagesOfOtherSitesCannotAct(t *testing.T) {
	w := newWorld(t)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		got := w.ask("admin", "POST", "/api/v1/rollouts", `{"model":"a:1"}`, header...)
		if got.status != http.StatusForbidden || !strings.Contains(got.problem(t).Detail, "another site") {
			t.Errorf("%v: %d %s", header, got.status, got.body)
		}
	}
}

func TestNewTokenHasItsRoleAndEnd(t *testing.T) {
	w := newWorld(t)
	tok, err := w.client("admin").NewToken(t.Context(), fleetapi.NewToken{Name: "ci", Role: "viewer", TTLSeconds: 60})
	must(t, err)
	c := fleetapi.New(w.server.URL, tok.Secret, nil)
	if s, err := c.Session(t.Context()); err != nil || s.User != "ci" || s.Role != "viewer" {
		t.Errorf("session %+v, %v", s, err)
	}
	w.clock.add(time.Minute)
	if _, err := c.Session(t.Context()); err == nil {
		t.Error("the token outlived its end")
	}
	for _, body := range []string{`{"name":"x","role":"king"}`, `{"name":"","role":"viewer"}`, `{"name":"a\nb","role":"viewer"}`} {
		if got := w.ask("admin", "POST", "/api/v1/tokens", body); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", body, got.status)
		}
	}
}

func TestPagesAreServedAndBound(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/", "/boxes/d-aaaaaaaaaaaaa"} {
		got := w.ask("", "GET", path, "")
		if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d %s", path, got.status, got.header.Get("Content-Type"))
		}
		csp := got.header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'self'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "script-src") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	if got := w.ask("", "GET", "/assets/none.js", ""); got.status != http.StatusNotFound {
		t.Errorf("missing asset: %d; a page in place of a script breaks browsers", got.status)
	}
	if got := w.ask("", "POST", "/", "x"); got.status != http.StatusMethodNotAllowed {
		t.Errorf("POST to a page: %d", got.status)
	}
	if got := w.ask("", "GET", "/api/v1/nothing", ""); got.status != http.StatusNotFound {
		t.Errorf("unknown route: %d", got.status)
	} else if p := got.problem(t); !strings.Contains(p.Detail, "/api/v1/nothing") {
		t.Errorf("unknown route: %+v", p)
	}
}

func TestBuiltPagesAreCachedByTheirNames(t *testing.T) {
	built := fstest.MapFS{
		"index.html":          {Data: []byte("<title>edgeherd</title>")},
		"assets/index-1a2.js": {Data: []byte("run()")},
	}
	for _, c := range []struct{ path, body, cache string }{
		{"/", "<title>edgeherd</title>", "no-cache"},
		{"/rollouts/r-abc", "<title>edgeherd</title>", "no-cache"},
		{"/assets", "<title>edgeherd</title>", "no-cache"},
		{"/assets/index-1a2.js", "run()", "public, max-age=31536000, immutable"},
	} {
		rec := httptest.NewRecorder()
		servePage(rec, &http.Request{Method: "GET", URL: &url.URL{Path: c.path}, Header: http.Header{}}, built)
		if rec.Code != 200 || rec.Body.String() != c.body || rec.Header().Get("Cache-Control") != c.cache {
			t.Errorf("%s: %d %q %q", c.path, rec.Code, rec.Body, rec.Header().Get("Cache-Control"))
		}
	}
}

// TestSpecificationFileIsCurrent: the dashboard's client is generated from it.
func TestSpecificationFileIsCurrent(t *testing.T) {
	got, err := OpenAPI()
	must(t, err)
	if again, err := OpenAPI(); err != nil || !bytes.Equal(got, again) {
		t.Fatal("two calls gave different bytes")
	}
	want, err := os.ReadFile(filepath.Join("..", "..", "web", "openapi.json"))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("web/openapi.json is not what the routes say; run: go run ./cmd/edgeherd server openapi > web/openapi.json && cd web && npm run generate")
	}
}
