package api

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/people/peopletest"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

const goodPassword = "four small green boats"

// invited is the secret of an invitation's path.
func secretOf(t *testing.T, u fleetapi.UserChanged) string {
	t.Helper()
	_, secret, ok := strings.Cut(u.Invitation.Path, "/set-password#")
	if !ok {
		t.Fatalf("invitation %q", u.Invitation.Path)
	}
	return secret
}

func cookieOf(a answer) string {
	session, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return session
}

func TestAPersonIsInvitedSignsInAndIsOutWhenDisabled(t *testing.T) {
	w := newWorld(t)
	admin := w.client("admin")
	made, err := admin.AddUser(t.Context(), fleetapi.NewUser{Name: "tom", Role: "tech", Sites: []string{"a"}})
	must(t, err)
	if !made.User.Waiting || made.User.Role != "tech" {
		t.Errorf("%+v", made.User)
	}
	secret := secretOf(t, made)
	if got := w.ask("", "POST", "/api/v1/passwords:check", `{"secret":"`+secret+`"}`); !strings.Contains(got.body, `"user":"tom"`) {
		t.Errorf("check: %d %s", got.status, got.body)
	}
	first := w.ask("", "POST", "/api/v1/passwords", `{"secret":"`+secret+`","password":"`+goodPassword+`"}`)
	if first.status != http.StatusOK || !strings.Contains(first.body, `"sites":["a"]`) {
		t.Fatalf("%d %s", first.status, first.body)
	}
	second := w.ask("", "POST", "/api/v1/sessions", `{"name":"tom","password":"`+goodPassword+`"}`, "Cookie", cookieOf(first))
	if second.status != http.StatusOK || cookieOf(second) == cookieOf(first) {
		t.Fatalf("%d %s", second.status, second.body)
	}
	for cookie, want := range map[string]int{cookieOf(first): http.StatusUnauthorized, cookieOf(second): http.StatusOK} {
		if got := w.ask("", "GET", "/api/v1/session", "", "Cookie", cookie); got.status != want {
			t.Errorf("a login ends the session before it: %d, want %d", got.status, want)
		}
	}
	for _, h := range []string{"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"} {
		if !strings.Contains(second.header.Get("Set-Cookie"), h) {
			t.Errorf("cookie %q lacks %s", second.header.Get("Set-Cookie"), h)
		}
	}
	_, own, err := w.api.opts.People.AddToken(t.Context(), people.NewToken{Name: "ci", Role: authz.Viewer, Sites: []string{"a"}, By: "tom"})
	must(t, err)
	out, err := admin.ActOnUser(t.Context(), "tom", fleetapi.UserAction{Action: "disable"})
	must(t, err)
	if len(out.Tokens) != 1 || out.Tokens[0].ID != own.ID {
		t.Errorf("tokens that go on: %+v", out.Tokens)
	}
	if got := w.ask("", "GET", "/api/v1/session", "", "Cookie", cookieOf(second)); got.status != http.StatusUnauthorized || !strings.Contains(got.problem(t).Hint, "/sign-in") {
		t.Errorf("disabled and still in: %d %s", got.status, got.body)
	}
	if got := w.ask("", "POST", "/api/v1/sessions", `{"name":"tom","password":"`+goodPassword+`"}`); got.status != http.StatusUnauthorized || got.header.Get("Set-Cookie") != "" {
		t.Errorf("disabled and in again: %d %s", got.status, got.body)
	}
}

func TestT31WhoIsLockedOutIsToldForHowLong(t *testing.T) {
	w := newWorld(t)
	for range 10 {
		_, err := w.store.FailLogin(t.Context(), "anna", 10, 15*time.Minute)
		must(t, err)
	}
	got := w.ask("", "POST", "/api/v1/sessions", `{"name":"anna","password":"x"}`)
	if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != "900" || got.problem(t).Hint == "" {
		t.Errorf("%d, Retry-After %q, %s", got.status, got.header.Get("Retry-After"), got.body)
	}
}

func TestTheLogTellsWhatWasDoneToABoxAndWhoCameByALoginAddress(t *testing.T) {
	w := newWorld(t)
	id := w.box("one", "a", "amd64")
	if got := w.ask("tech", "POST", "/api/v1/boxes/"+string(id)+"/identity/actions", `{"action":"quarantine","why":"smells"}`); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	u, err := w.client("admin").LoginURL(t.Context())
	must(t, err)
	w.ask("", "GET", strings.TrimPrefix(u, w.server.URL), "")
	list, err := w.client("admin").Audit(t.Context(), 0, 100)
	must(t, err)
	var got []string
	for _, r := range list.Items {
		got = append(got, strings.Join([]string{r.Actor, r.Role, r.Verb, r.Object, r.Note}, "|"))
	}
	want := []string{"admin|admin|login|admin|by a login address", "admin|admin|login.url|/api/v1/sessions/login-url|", "tech|tech|box.quarantine|" + string(id) + "|smells"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// T31: requests that a page of another site makes a browser send.
func TestT31OtherSitesCannotActInABrowsersName(t *testing.T) {
	w := newWorld(t)
	u, err := w.client("admin").LoginURL(t.Context())
	must(t, err)
	session := cookieOf(w.ask("", "GET", strings.TrimPrefix(u, w.server.URL), ""))
	for _, p := range w.api.routes.patterns {
		method, path, _ := strings.Cut(p, " ")
		if method == "GET" || path == "" {
			continue
		}
		path = strings.NewReplacer("{id}", "x", "{hex}", strings.Repeat("0", 64), "{name}", "m", "{site}", "a").Replace(path)
		for name, header := range map[string][]string{
			"a form of another site":      {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example", "Content-Type", "application/x-www-form-urlencoded"},
			"a script of another site":    {"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"},
			"a page of a sibling":         {"Sec-Fetch-Site", "same-site", "Origin", "https://evil.ctl.example"},
			"an old browser":              {"Origin", "https://evil.example"},
			"a form that hides its JSON":  {"Content-Type", "text/plain"},
			"a form of an ancient sender": {"Content-Type", "multipart/form-data; boundary=x"},
		} {
			if method == "PUT" && strings.HasPrefix(name, "a form that") || method == "PUT" && strings.HasPrefix(name, "a form of an ancient") {
				continue // no form sends PUT
			}
			got := w.ask("", method, path, `{}`, append([]string{"Cookie", session}, header...)...)
			if got.status != http.StatusForbidden && got.status != http.StatusUnsupportedMediaType {
				t.Errorf("%s from %s: %d %s", p, name, got.status, got.body)
			}
		}
	}
	if got := w.ask("", "GET", "/api/v1/session", "", "Cookie", session); got.status != http.StatusOK {
		t.Errorf("one of them ended the session: %d", got.status)
	}
}

func TestASignInAtTheProviderEndsAtTheDashboard(t *testing.T) {
	w := newWorld(t)
	idp, err := peopletest.New("edgeherd", w.clock.Now)
	must(t, err)
	t.Cleanup(idp.Close)
	idp.SetPerson(peopletest.Person{Subject: "7", Name: "tom", Groups: []string{"edge"}})
	provider, err := people.NewProvider(people.ProviderOptions{
		Name: "Example Login", Issuer: idp.URL, ClientID: "edgeherd", Redirect: w.server.URL + "/login/oidc/callback", WallClock: w.clock.Now,
		Guard: outbound.Guard{Roots: idp.Roots()}, Grants: []people.Grant{{Group: "edge", Role: authz.Viewer, Sites: []string{"a"}}},
	})
	must(t, err)
	w.api.opts.People = people.New(people.Options{Store: w.store, OIDC: provider, WallClock: w.clock.Now}, slog.New(slog.DiscardHandler))
	if got := w.ask("", "GET", "/api/v1/sign-in", ""); !strings.Contains(got.body, `"provider":"Example Login"`) {
		t.Errorf("ways: %s", got.body)
	}
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := idp.Client()
	browser.Jar = jar
	res, err := browser.Get(w.server.URL + "/login/oidc")
	must(t, err)
	body, err := io.ReadAll(res.Body)
	must(t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Request.URL.Path != "/" {
		t.Fatalf("the way ends at %s: %s %.300s", res.Request.URL, res.Status, body)
	}
	if res, err = browser.Get(w.server.URL + "/api/v1/session"); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	res.Body.Close()
	server, err := url.Parse(w.server.URL)
	must(t, err)
	if kept := jar.Cookies(server); len(kept) != 1 || kept[0].Name != "edgeherd" {
		t.Errorf("cookies %v", kept)
	}
	for _, path := range []string{"/login/oidc/callback?code=x&state=y", "/login/oidc/callback?error=access_denied"} {
		if got := w.ask("", "GET", path, ""); got.status != http.StatusUnauthorized || !strings.Contains(got.body, "/sign-in") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	idp.SetPerson(peopletest.Person{Subject: "8", Name: "eve", Groups: []string{"other"}})
	if res, err = browser.Get(w.server.URL + "/login/oidc"); err != nil {
		t.Fatal(err)
	}
	body, err = io.ReadAll(res.Body)
	must(t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized || !strings.Contains(string(body), "none of your groups") || !strings.Contains(string(body), `<a href="/sign-in">`) {
		t.Errorf("somebody without a group: %s %s", res.Status, body)
	}
}

// TestEverythingThatIsDoneIsRecordedOnce: also what no handler thought of.
func TestEverythingThatIsDoneIsRecordedOnce(t *testing.T) {
	w := newWorld(t)
	w.box("one", "a", "amd64")
	w.push("m", "1.0.0", "x", "y", 2)
	ops := w.client("ops")
	r, err := ops.Plan(t.Context(), fleetapi.PlanRequest{Model: "m:1.0.0"})
	must(t, err)
	_, err = ops.DryPlan(t.Context(), fleetapi.PlanRequest{Model: "m:1.0.0"})
	must(t, err)
	_, err = ops.Act(t.Context(), r.ID, "start")
	must(t, err)
	zone := "Europe/Berlin"
	_, err = ops.ChangeSite(t.Context(), "a", fleetapi.SiteChange{Set: fleetapi.SiteSettings{TimeZone: &zone}})
	must(t, err)
	for range 2 { // the second is a repetition
		w.ask("ops", "POST", "/api/v1/tickets", `{"site":"a","cause":"airflow"}`, "Idempotency-Key", "k")
	}
	w.ask("tech", "POST", "/api/v1/rollouts", `{"model":"m:1.0.0"}`)            // not allowed
	w.ask("ops", "POST", "/api/v1/rollouts", `{"model":"none:1.0.0"}`)          // not possible
	w.ask("ops", "POST", "/api/v1/visits:plan", `{"sites":["a"]}`)              // only a look
	w.ask("ops", "POST", "/api/v1/rollouts/"+r.ID+"/replay", `{"policy":""}`)   // only a look
	w.ask("", "POST", "/api/v1/sessions", `{"name":"ghost","password":"none"}`) // refused, and told
	list, err := w.client("admin").Audit(t.Context(), 0, 100)
	must(t, err)
	var got []string
	for _, rec := range list.Items {
		got = append([]string{rec.Actor + " " + rec.Verb}, got...)
	}
	want := "ops blob.put, ops model.push, ops rollout.plan, ops rollout.start, ops site.set, ops ticket.open, ghost login.failed"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("recorded %s\nwant     %s", text, want)
	}
	for _, rec := range list.Items {
		if rec.Source != "127.0.0.1" || rec.Verb == "site.set" && (rec.Before == rec.After || rec.Object != "site a" || !strings.Contains(rec.Note, zone)) {
			t.Errorf("%+v", rec)
		}
	}
	w.grant("tom", authz.Tech, authz.AllSites)
	if own, err := w.client("tom").Audit(t.Context(), 0, 100); err != nil || len(own.Items) != 0 {
		t.Errorf("a tech reads what others did: %+v, %v", own, err)
	}
	var v audit.Verifier
	must(t, w.client("admin").ExportAudit(t.Context(), v.Add))
	state, err := w.client("ops").AuditState(t.Context())
	if err != nil || state.Broken != "" || state.Records != v.Passed().Seq+1 { // the export is a record, too
		t.Errorf("%+v, exported to %d, %v", state, v.Passed().Seq, err)
	}
	if page, err := w.client("admin").Audit(t.Context(), 3, 1); err != nil || len(page.Items) != 1 || page.Items[0].Seq != 2 || page.Next != 2 {
		t.Errorf("page %+v, %v", page, err)
	}
}

// TestAStreamEndsWithItsSession: what is shown to nobody else must end for them.
func TestAStreamKnowsWhetherItsReaderMayStillRead(t *testing.T) {
	w := newWorld(t)
	must(t, w.api.opts.People.Add(t.Context(), "tom", authz.Tech, []string{"a"}))
	secret, _, err := w.api.opts.People.Invite(t.Context(), "tom")
	must(t, err)
	s, err := w.api.opts.People.SetPassword(t.Context(), people.Redeeming{Secret: secret, Password: goodPassword})
	must(t, err)
	req, err := http.NewRequestWithContext(contextOf(t, s.Caller), "GET", "/api/v1/events", nil)
	must(t, err)
	req.AddCookie(&http.Cookie{Name: "edgeherd", Value: s.Secret})
	if !w.api.stillIn(req) {
		t.Fatal("a session that holds is taken for ended")
	}
	w.clock.add(people.SessionIdle + time.Second)
	if w.api.stillIn(req) {
		t.Error("looking keeps a session alive")
	}
	w.clock.add(-people.SessionIdle)
	must(t, w.api.opts.People.SetRole(t.Context(), "tom", authz.Tech, []string{"b"}))
	if w.api.stillIn(req) {
		t.Error("a stream goes on with sites that are not the reader's any more")
	}
}

func TestWhatCannotBeReadOfTheLogIsNamed(t *testing.T) {
	w := newWorld(t)
	var state fleetapi.AuditState
	if got := w.ask("ops", "GET", "/api/v1/audit:verify", ""); json.Unmarshal([]byte(got.body), &state) != nil || state.Records != 0 || state.Broken != "" {
		t.Errorf("an empty log: %s", got.body)
	}
	for _, q := range []string{"after=x", "limit=-1", "after=99999999999999999999"} {
		if got := w.ask("admin", "GET", "/api/v1/audit:export?"+q, ""); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", q, got.status)
		}
	}
}
