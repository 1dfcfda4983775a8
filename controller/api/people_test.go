package api

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func TestEveryRouteHasAnEntry(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.api.routes.patterns {
		if _, ok := access[p]; !ok {
			t.Errorf("route %q has no entry in the access table", p)
		}
	}
	for p, e := range access {
		if !slices.Contains(w.api.routes.patterns, p) {
			t.Errorf("the access table names %q, which is no route", p)
		}
		method, _, _ := strings.Cut(p, " ")
		if reads := slices.Contains([]string{"POST /api/v1/passwords:check", "POST /api/v1/blobs:missing", "POST /api/v1/bundles:check", "POST /api/v1/rollouts/{id}/replay", "POST /api/v1/configs:diff"}, p); method != "GET" && strings.Contains(p, " ") && (e.does == "") != reads {
			t.Errorf("%s changes something and says nothing to the audit log, or the other way round", p)
		}
	}
}

func TestRouteWithoutAnEntryIsRefused(t *testing.T) {
	w := newWorld(t)
	w.api.routes.HandleFunc("GET /api/v1/forgotten", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusOK) })
	if got := w.ask("admin", "GET", "/api/v1/forgotten", ""); got.status != http.StatusForbidden {
		t.Errorf("admin got %d", got.status)
	}
}

// filled is a route's path with what a world has at a site.
func (c *corner) filled(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	what := "none"
	switch {
	case strings.Contains(path, "/boxes/"):
		what = string(c.box)
	case strings.Contains(path, "/tickets/"):
		what = c.ticket
	case strings.Contains(path, "/visits/"):
		what = c.visit
	case strings.Contains(path, "/rmas/"):
		what = c.rma
	case strings.Contains(path, "/rollouts/"):
		what = "r-none"
	case strings.Contains(path, "/rollout-locks/"):
		what = "l-none"
	}
	return method, strings.NewReplacer("{id}", what, "{hex}", strings.Repeat("0", 64), "{name}", "m", "{site}", c.site).Replace(path)
}

// corner is what a world has at one site.
type corner struct {
	site               string
	box                identity.ID
	ticket, visit, rma string
}

func (w *world) corner(site string) *corner {
	w.t.Helper()
	c := &corner{site: site, box: w.box("box-"+site, site, "amd64")}
	ops := w.client("ops")
	ticket, err := ops.OpenTicket(w.t.Context(), fleetapi.NewTicket{Box: string(c.box), Cause: "airflow"})
	must(w.t, err)
	visit, err := ops.AddVisit(w.t.Context(), fleetapi.NewVisit{Site: site})
	must(w.t, err)
	rma, err := ops.OpenRMA(w.t.Context(), fleetapi.NewRMA{Box: string(c.box), Part: "fan"})
	must(w.t, err)
	c.ticket, c.visit, c.rma = ticket.ID, visit.ID, rma.ID
	return c
}

// T32: somebody asks for what belongs to another site. Every route, every role,
// at the own and at a foreign site.
func TestT32EveryRouteForEveryRoleAtOwnAndForeignSites(t *testing.T) {
	w := newWorld(t)
	corners := map[bool]*corner{true: w.corner("a"), false: w.corner("b")}
	for _, role := range authz.Roles() {
		w.grant(string(role)+" of a", role, "a")
		w.grant(string(role)+" of *", role, authz.AllSites)
	}
	for _, p := range w.api.routes.patterns {
		e := access[p]
		if e.public {
			continue
		}
		for own, c := range corners {
			method, path := c.filled(p)
			if got := w.ask("", method, path, ""); got.status != http.StatusUnauthorized || got.problem(t).Hint == "" {
				t.Errorf("%s for nobody: %d %s", p, got.status, got.body)
			}
			for _, role := range authz.Roles() {
				for _, sites := range [][]string{{"a"}, {authz.AllSites}} {
					subject := authz.Subject{Name: "x", Role: role, Sites: sites}
					where, foreign := authz.Somewhere(), http.StatusForbidden
					if e.fleet {
						where = authz.Fleet()
					} else if e.site != nil {
						where = authz.At(c.site)
						if sites[0] == "a" && !own {
							foreign = http.StatusNotFound
						}
					}
					allowed := authz.Allow(subject, e.verb, where) == nil
					got := w.ask(string(role)+" of "+sites[0], method, path, "")
					if refused := got.status == foreign; refused == allowed || got.status == http.StatusUnauthorized {
						t.Errorf("%s for %s of %v at %s: %d %s, allowed %v", p, role, sites, c.site, got.status, got.body, allowed)
					}
					if foreign == http.StatusNotFound && (strings.Contains(got.body, "box-b") || strings.Contains(got.body, string(c.box))) {
						t.Errorf("%s tells of a foreign site: %s", p, got.body)
					}
				}
			}
		}
	}
}

// T32: lists, counts, bodies and the stream of events hold nothing of a foreign
// site.
func TestT32ListsHoldNothingOfAForeignSite(t *testing.T) {
	w := newWorld(t)
	a, b := w.corner("a"), w.corner("b")
	w.event(b.box, 1, testStart, "started", "x")
	w.grant("tech-a", authz.Tech, "a")
	for _, name := range []string{"box-a", "box-b"} {
		body := "kind: BoxConfig\nname: of-" + name + "\nselector: name = \"" + name + "\"\nagent: {trial: 5s}\n"
		must(t, w.store.AddDocument(t.Context(), store.Document{Name: "of-" + name, Version: "1", Digest: blob.Sum([]byte(body)), Body: body}))
	}
	if own, foreign := w.ask("tech-a", "GET", "/api/v1/configs/of-box-a", ""), w.ask("tech-a", "GET", "/api/v1/configs/of-box-b", ""); own.status != http.StatusOK || foreign.status != http.StatusNotFound {
		t.Errorf("documents of settings: own %s, foreign %s", own.body, foreign.body)
	}
	strange := []string{string(b.box), "box-b", `"b"`, `"` + b.ticket + `"`, `"` + b.visit + `"`, `"` + b.rma + `"`}
	for _, p := range w.api.routes.patterns {
		e := access[p]
		method, path := a.filled(p)
		if e.public || e.fleet || e.verb == authz.Self || method != "GET" || strings.HasSuffix(path, "/events") && e.site == nil {
			continue
		}
		for _, accept := range []string{"application/json", "text/csv"} {
			got := w.ask("tech-a", method, path, "", "Accept", accept)
			for _, word := range strange {
				if strings.Contains(got.body, word) {
					t.Errorf("%s as %s tells %s: %.300s", path, accept, word, got.body)
				}
			}
		}
	}
	var s fleetapi.Summary
	must(t, json.Unmarshal([]byte(w.ask("tech-a", "GET", "/api/v1/summary", "").body), &s))
	counts, err := w.client("tech-a").CountTickets(t.Context(), "")
	must(t, err)
	if s.Total != 1 || counts.Total != 1 {
		t.Errorf("counts %+v %+v", s, counts)
	}
	for _, q := range []struct{ path, body string }{
		{"/api/v1/tickets", `{"box":"box-b","cause":"airflow"}`},
		{"/api/v1/tickets", `{"box":"` + string(b.box) + `","site":"a","cause":"airflow"}`},
		{"/api/v1/tickets", `{"site":"b","cause":"airflow"}`},
		{"/api/v1/tickets", `{"box":"box-none","cause":"airflow"}`},
		{"/api/v1/visits", `{"site":"b"}`},
		{"/api/v1/visits", `{"site":"a","tickets":["` + b.ticket + `"]}`},
		{"/api/v1/visits:plan", `{"sites":["b"]}`},
		{"/api/v1/visits:plan", `{"sites":[""]}`},
		{"/api/v1/rmas", `{"box":"box-b","part":"fan"}`},
		{"/api/v1/rmas", `{"ticket":"` + b.ticket + `","part":"fan"}`},
		{"/api/v1/tickets/" + a.ticket + "/actions", `{"action":"done","work":[{"box":"box-b","kind":"cleaned"}]}`},
		{"/api/v1/visits/" + a.visit + "/actions", `{"action":"done","work":[{"box":"box-b","kind":"cleaned"}]}`},
	} {
		if got := w.ask("tech-a", "POST", q.path, q.body); got.status != http.StatusNotFound {
			t.Errorf("%s %s: %d %s", q.path, q.body, got.status, got.body)
		}
	}
	drift := "/api/v1/models/m/drift?box="
	if foreign, unknown := w.ask("tech-a", "GET", drift+string(b.box), ""), w.ask("tech-a", "GET", drift+"d-aaaaaaaaaaaaa", ""); foreign.status != http.StatusNotFound || foreign.body != unknown.body {
		t.Errorf("a box of a foreign site is told from one that is not: %s and %s", foreign.body, unknown.body)
	}
	if got := w.ask("tech-a", "GET", "/api/v1/boxes?filter=site+%3D+%22b%22", ""); got.status != http.StatusOK || !strings.Contains(got.body, `"total_size":0`) {
		t.Errorf("a filter finds a foreign site: %s", got.body)
	}
}

func TestT32RolloutsShowOwnBoxesOnly(t *testing.T) {
	w := newWorld(t)
	w.corner("a")
	w.corner("b")
	w.push("m", "1.0.0", "x", "y", 2)
	r, err := w.client("ops").Plan(t.Context(), fleetapi.PlanRequest{Model: "m:1.0.0"})
	must(t, err)
	w.grant("tech-a", authz.Tech, "a")
	w.grant("tech-c", authz.Tech, "c")
	got, err := w.client("tech-a").Rollout(t.Context(), r.ID)
	must(t, err)
	n := 0
	for _, wave := range got.Waves {
		for _, target := range wave.Targets {
			n++
			if target.Site != "a" {
				t.Errorf("a tech of a sees %+v", target)
			}
		}
	}
	if n != 1 || got.Sheet != nil || got.Sentence != "" || got.SentenceSaid != nil || got.WarningsSaid != nil {
		t.Errorf("%d targets, %+v", n, got)
	}
	if answer := w.ask("tech-c", "GET", "/api/v1/rollouts/"+r.ID, ""); answer.status != http.StatusNotFound {
		t.Errorf("a rollout without an own box: %d", answer.status)
	}
}

func TestT32EventsAreOfOwnSites(t *testing.T) {
	w := newWorld(t)
	a, b := w.corner("a"), w.corner("b")
	w.grant("tech-a", authz.Tech, "a")
	ctx := context.WithValue(t.Context(), whoKey{}, people.Caller{Subject: authz.Subject{Role: authz.Tech, Sites: []string{"a"}}})
	for _, c := range []struct {
		change fleetapi.Change
		told   bool
		id     string
	}{
		{fleetapi.Change{Topic: "boxes", ID: string(a.box)}, true, string(a.box)},
		{fleetapi.Change{Topic: "boxes", ID: string(b.box)}, false, ""},
		{fleetapi.Change{Topic: "live", ID: string(b.box)}, false, ""},
		{fleetapi.Change{Topic: "live", ID: "d-gone"}, false, ""},
		{fleetapi.Change{Topic: "boxes", ID: "d-gone"}, true, ""},
		{fleetapi.Change{Topic: "boxes"}, true, ""},
		{fleetapi.Change{Topic: "sites", ID: "b"}, false, ""},
		{fleetapi.Change{Topic: "tickets", ID: a.ticket}, true, a.ticket},
		{fleetapi.Change{Topic: "tickets", ID: b.ticket}, false, ""},
		{fleetapi.Change{Topic: "visits", ID: b.visit}, false, ""},
		{fleetapi.Change{Topic: "rollouts", ID: "r-1"}, true, ""},
		{fleetapi.Change{Topic: "models", ID: "m"}, true, "m"},
	} {
		if got, ok := w.api.ownChange(ctx, c.change); ok != c.told || ok && got.ID != c.id {
			t.Errorf("%+v: %+v, %v", c.change, got, ok)
		}
	}
}

func TestTokensOfOtherKindsOpenNothing(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []store.TokenKind{store.TokenLogin, store.TokenSession, store.TokenPassword} {
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
	w.ask("", "HEAD", path, "") // programs that only look
	w.ask("", "GET", path, "", "Sec-Purpose", "prefetch;prerender")
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
	w.clock.add(people.SessionLife)
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
	tok, err := w.client("admin").NewToken(t.Context(), fleetapi.NewToken{Name: "ci", Role: "viewer", Sites: []string{"a"}, TTLSeconds: 60})
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
		"t/index.html":        {Data: []byte("<title>tech</title>")},
		"t/sw.js":             {Data: []byte("keep()")},
	}
	for _, c := range []struct{ path, body, cache string }{
		{"/", "<title>edgeherd</title>", "no-cache"},
		{"/rollouts/r-abc", "<title>edgeherd</title>", "no-cache"},
		{"/assets", "<title>edgeherd</title>", "no-cache"},
		{"/assets/index-1a2.js", "run()", "public, max-age=31536000, immutable"},
		{"/t/", "<title>tech</title>", "no-cache"},
		{"/t/b/d-abc", "<title>tech</title>", "no-cache"},
		{"/T/C/7K2M5QXA", "<title>tech</title>", "no-cache"},
		{"/tickets", "<title>edgeherd</title>", "no-cache"},
		{"/t/sw.js", "keep()", "no-cache"},
	} {
		rec := httptest.NewRecorder()
		servePage(rec, &http.Request{Method: "GET", URL: &url.URL{Path: c.path}, Header: http.Header{}}, built)
		if rec.Code != 200 || rec.Body.String() != c.body || rec.Header().Get("Cache-Control") != c.cache {
			t.Errorf("%s: %d %q %q", c.path, rec.Code, rec.Body, rec.Header().Get("Cache-Control"))
		}
		if got, want := rec.Header().Get("Service-Worker-Allowed") == "/", c.path == "/t/sw.js"; got != want {
			t.Errorf("%s may serve all paths: %v", c.path, got)
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
