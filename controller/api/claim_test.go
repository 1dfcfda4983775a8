package api

import (
	"bytes"
	"encoding/json"
	"image"
	"image/jpeg"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// waiting is a machine that asked with a token and waits.
func (w *world) waiting(token, key, code string) {
	w.t.Helper()
	must(w.t, w.store.Enrol(w.t.Context(), key, token, nil, func(f store.EnrolFacts) (store.EnrolDecision, error) {
		return store.EnrolDecision{Take: true, Request: &store.EnrolRequest{Key: key, Token: token, State: store.EnrolPending,
			EnrolAsked: store.EnrolAsked{NameHint: "asked-" + key, ShortCode: code}}}, nil
	}))
}

// issue makes the box of a machine that was agreed to, as it asks again.
func (w *world) issue(token, key string, id identity.ID) {
	w.t.Helper()
	must(w.t, w.store.Enrol(w.t.Context(), key, token, nil, func(f store.EnrolFacts) (store.EnrolDecision, error) {
		r := *f.Request
		i := store.EnrolIssue{Name: r.NameHint, Site: f.Token.Site, Cert: store.Cert{Serial: key, Box: id, Key: key, Ends: testStart.AddDate(1, 0, 0), PEM: "pem"},
			Member: store.Membership{Box: id, State: store.StateEnrolled, Since: testStart, Generation: 1}}
		if f.WantedPlace() != "" {
			i.Name, i.Cert.Box = "", f.WantedPlace()
			i.Member.Box = i.Cert.Box
		}
		r.State, r.Box, r.Serial = store.EnrolIssued, i.Cert.Box, key
		return store.EnrolDecision{Request: &r, Issue: &i}, nil
	}))
}

func (w *world) enrolToken(id, site string) {
	w.t.Helper()
	must(w.t, w.store.AddEnrolToken(w.t.Context(), store.EnrolToken{ID: id, Expires: testStart.Add(time.Hour), UsesLeft: 5,
		TokenTerms: store.TokenTerms{Site: site, Uses: 5, Approve: "manual"}}))
}

func picture(t *testing.T, side int) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, side, 2)), nil))
	return b.Bytes()
}

func claimOf(id string) fleetapi.NewClaim {
	return fleetapi.NewClaim{ID: strings.Repeat(id, 32), Token: "AAAAAAAA", Code: "111-111", Name: "till-3", Place: "north wall"}
}

func TestAMachineIsClaimedByTheCodeItShows(t *testing.T) {
	w := newWorld(t)
	w.enrolToken("AAAAAAAA", "a")
	w.waiting("AAAAAAAA", "k1", "111-111")
	w.waiting("AAAAAAAA", "k2", "222-222")
	w.grant("tom", authz.Tech, "a")
	tom, ctx := w.client("tom"), t.Context()
	if k, err := tom.EnrolToken(ctx, "AAAAAAAA"); err != nil || k.Site != "a" || k.UsesLeft != 3 {
		t.Fatalf("%+v, %v", k, err)
	}
	n := claimOf("1")
	n.Photo = picture(t, 64)
	for range 2 { // a phone that got no answer sends it again
		c, err := tom.ClaimMachine(ctx, n)
		if err != nil || c.State != "approved" || c.By != "tom" || !c.Photo || c.Site != "a" || c.Box != "" {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	if r, err := w.store.FindEnrol(ctx, "k2"); err != nil || r.State != store.EnrolPending {
		t.Errorf("the other machine: %+v, %v", r, err)
	}
	if got := w.ask("ops", "GET", "/api/v1/audit?limit=10", ""); strings.Count(got.body, "enrol.claim") != 2 || !strings.Contains(got.body, "111-111") {
		t.Errorf("log %s", got.body)
	}
	id := identity.NewID()
	w.issue("AAAAAAAA", "k1", id)
	c, err := tom.Claim(ctx, n.ID)
	if err != nil || c.State != "issued" || c.Box != id || c.Name != "till-3" {
		t.Fatalf("%+v, %v", c, err)
	}
	must(t, w.store.Hello(ctx, id, wire.Hello{}))
	if c, err = tom.Claim(ctx, n.ID); err != nil || c.State != "alive" {
		t.Errorf("%+v, %v", c, err)
	}
	care, err := tom.BoxCare(ctx, id)
	if err != nil || care.Upkeep.Place != "north wall" || care.Photo == nil || !care.Photo.Equal(testStart) {
		t.Errorf("%+v, %v", care.Upkeep, err)
	}
	got := w.ask("tom", "GET", "/api/v1/boxes/"+string(id)+"/photo", "")
	if got.body != string(n.Photo) || got.header.Get("Content-Type") != "image/jpeg" || got.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("photo: %d, %v", got.status, got.header)
	}
}

// TestAClaimIsRefusedInWords: what a tech reads who stands on a ladder.
func TestAClaimIsRefusedInWords(t *testing.T) {
	w := newWorld(t)
	w.enrolToken("AAAAAAAA", "a")
	w.enrolToken("BBBBBBBB", "b")
	w.waiting("AAAAAAAA", "k1", "111-111")
	w.waiting("AAAAAAAA", "k3", "333-333")
	w.waiting("AAAAAAAA", "k4", "333-333")
	w.waiting("BBBBBBBB", "k5", "555-555")
	here, there := w.box("shelf", "a", ""), w.box("far", "b", "")
	w.grant("tom", authz.Tech, "a")
	w.grant("both", authz.Tech, "a", "b")
	for what, c := range map[string]struct {
		who    string
		change func(*fleetapi.NewClaim)
		status int
		word   string
	}{
		"a code that no machine shows":  {"tom", func(n *fleetapi.NewClaim) { n.Code = "999-999" }, 409, "compare the code"},
		"a code that two machines show": {"tom", func(n *fleetapi.NewClaim) { n.Code = "333333" }, 409, "by its key"},
		"a token of another site":       {"tom", func(n *fleetapi.NewClaim) { n.Token, n.Code = "BBBBBBBB", "555-555" }, 404, "not found"},
		"a token that is none":          {"tom", func(n *fleetapi.NewClaim) { n.Token = "CCCCCCCC" }, 404, "not found"},
		"a place of another site":       {"tom", func(n *fleetapi.NewClaim) { n.Box = there }, 404, "not found"},
		"a place of the wrong site":     {"both", func(n *fleetapi.NewClaim) { n.Box = there }, 409, "site a"},
		"a picture that is none":        {"tom", func(n *fleetapi.NewClaim) { n.Photo = []byte("<svg onload=alert(1)>") }, 400, "JPEG"},
		"a picture that is too large":   {"tom", func(n *fleetapi.NewClaim) { n.Photo = make([]byte, fleetapi.MaxPhotoBytes+1) }, 400, "smaller"},
		"a picture that is too wide":    {"tom", func(n *fleetapi.NewClaim) { n.Photo = picture(t, maxPhotoSide+1) }, 400, "pixels"},
		"who only looks":                {"viewer", func(*fleetapi.NewClaim) {}, 403, "role"},
	} {
		n := claimOf("2")
		c.change(&n)
		body, err := json.Marshal(n)
		must(t, err)
		got := w.ask(c.who, "POST", "/api/v1/claims", string(body))
		if got.status != c.status || !strings.Contains(got.body, c.word) {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	if r, err := w.store.FindEnrol(t.Context(), "k1"); err != nil || r.State != store.EnrolPending {
		t.Errorf("a refused claim changed something: %+v, %v", r, err)
	}
	tom := w.client("tom")
	n := claimOf("3")
	n.Box, n.Name = here, ""
	_, err := tom.ClaimMachine(t.Context(), n)
	must(t, err)
	again := claimOf("4")
	if _, err := tom.ClaimMachine(t.Context(), again); err == nil || !strings.Contains(err.Error(), "tom has claimed") {
		t.Errorf("a second claim of a machine: %v", err)
	}
	w.issue("AAAAAAAA", "k1", identity.NewID())
	if c, err := tom.Claim(t.Context(), n.ID); err != nil || c.Box != here || c.Name != "shelf" {
		t.Errorf("in the place of a box: %+v, %v", c, err)
	}
	w.grant("ann", authz.Tech, "b")
	if got := w.ask("ann", "GET", "/api/v1/claims/"+n.ID, ""); got.status != http.StatusNotFound {
		t.Errorf("a claim of another site: %d %s", got.status, got.body)
	}
}

// T32 for what a token of a foreign site says of itself.
func TestT32TokensAndClaimsOfOtherSitesDoNotExist(t *testing.T) {
	w := newWorld(t)
	w.enrolToken("AAAAAAAA", "a")
	w.grant("ann", authz.Tech, "b")
	for _, path := range []string{"/api/v1/enrolment/tokens/AAAAAAAA", "/api/v1/enrolment/tokens/CCCCCCCC"} {
		if got := w.ask("ann", "GET", path, ""); got.status != http.StatusNotFound || strings.Contains(got.body, "AAAAAAAA") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}
