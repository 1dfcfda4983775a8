package api

import (
	"mime"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// T19: a name, a label or a text that wants to be a program. What a browser takes
// for a page or a script never holds one: texts leave in JSON and its kin alone, no
// answer may be taken for another type, and no inline script runs in any page. That
// the pages show such texts as texts is tested in web/test/browserpeople.mjs.
func TestT19NoAnswerMakesAProgramOfAText(t *testing.T) {
	const payload = `"><script>alert(1)</script><img src=x onerror=alert(2)>`
	w := newWorld(t)
	c := w.corner("site" + payload)
	c.box = w.box("box"+payload, c.site, "amd64")
	w.event(c.box, 1, w.clock.Now(), "alarm", payload)
	data := map[string]bool{"application/json": true, "application/problem+json": true, "application/openapi+json": true,
		"application/x-ndjson": true, "text/csv": true, "text/event-stream": true, "text/plain": true, "image/jpeg": true}
	shown := 0
	judge := func(what string, got answer) {
		t.Helper()
		if got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: a browser may guess its type", what)
		}
		csp := got.header.Get("Content-Security-Policy")
		for _, part := range strings.Split(csp, ";") {
			if name, rest, _ := strings.Cut(strings.TrimSpace(part), " "); strings.HasPrefix(name, "script-src") || name == "default-src" && rest != "'self'" {
				t.Errorf("%s: policy %q", what, csp)
			}
		}
		kind, _, err := mime.ParseMediaType(got.header.Get("Content-Type"))
		holds := strings.Contains(got.body, "alert(")
		switch {
		case !strings.Contains(csp, "default-src 'self'"):
			t.Errorf("%s: policy %q", what, csp)
		case holds && (err != nil || !data[kind]):
			t.Errorf("%s: %s with the text %s", what, kind, payload)
		case holds:
			shown++
		}
	}
	for _, p := range w.api.routes.patterns {
		if method, path := c.filled(p); method == http.MethodGet && !strings.HasSuffix(path, "/events") {
			path = strings.ReplaceAll(path, c.site, url.PathEscape(c.site))
			judge(p, w.ask("owner", method, path, ""))
		}
	}
	text := url.QueryEscape(payload)
	for _, path := range []string{"/", "/boxes/" + text, "/login?token=" + text, "/login/oidc/callback?state=" + text + "&error=" + text, "/api/v1/boxes/" + text, "/api/" + text, "/assets/" + text} {
		judge(path, w.ask("owner", http.MethodGet, path, ""))
	}
	judge("filter", w.ask("owner", http.MethodGet, "/api/v1/boxes?filter="+text, ""))
	judge("body", w.ask("owner", http.MethodPost, "/api/v1/site-defaults", `{"set":{"time_zone":"`+url.QueryEscape(payload)+`"}}`))
	if shown < 5 {
		t.Errorf("only %d answers held the text: the test looks past it", shown)
	}
}
