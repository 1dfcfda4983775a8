package fleetapi_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func serve(t *testing.T, h http.HandlerFunc) *fleetapi.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return fleetapi.New(s.URL+"/", "secret", nil)
}

func TestProblemsKeepTheirHint(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path != "/api/v1/summary" {
			t.Errorf("asked %s with %q", r.URL.Path, r.Header.Get("Authorization"))
		}
		w.WriteHeader(http.StatusConflict)
		w.Write([]byte(`{"status":409,"title":"Conflict","detail":"taken","hint":"wait","errors":[{"location":"body.x","message":"bad"}]}`))
	})
	_, err := c.Summary(t.Context())
	var p *fleetapi.Error
	if !errors.As(err, &p) || p.Status != 409 || p.Hint != "wait" || err.Error() != "taken; bad (body.x)\nwait" {
		t.Errorf("got %v", err)
	}
}

func TestAnotherServerIsRecognised(t *testing.T) {
	for _, body := range []string{"<html>", `{"message":"no"}`, ""} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			w.Write([]byte(body))
		})
		_, err := c.Models(t.Context())
		var p *fleetapi.Error
		if !errors.As(err, &p) || p.Status != http.StatusBadGateway || !strings.Contains(err.Error(), "edgeherd controller?") {
			t.Errorf("%q: %v", body, err)
		}
	}
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) })
	if _, err := c.Models(t.Context()); err == nil {
		t.Error("a page was taken for an answer")
	}
}

func TestTokenDoesNotFollowARedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other server got %q", r.Header.Get("Authorization"))
	}))
	defer other.Close()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	if _, err := c.Summary(t.Context()); err == nil {
		t.Error("a redirect was taken for an answer")
	}
}
