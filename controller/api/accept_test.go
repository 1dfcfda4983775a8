package api

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// tested is a box of this fleet with a key of its own.
func (w *world) tested(ca *identity.CA) *identity.Identity {
	w.t.Helper()
	dir, id := w.t.TempDir(), w.box("till-3", "a", "amd64")
	must(w.t, identity.Enrol(dir, ca, identity.Box{ID: id, Name: "till-3", Site: "a"}))
	box, err := identity.Load(dir)
	must(w.t, err)
	return box
}

// sealed is a report that a box signed, with a remark.
func (w *world) sealed(box *identity.Identity, id, by string) []byte {
	w.t.Helper()
	data, err := acceptance.Seal(acceptance.Report{
		ID: id, Box: box.ID, By: by, Started: testStart, Ended: testStart, Levels: acceptance.Levels(),
		Checks: []acceptance.Check{{ID: "fan", Level: acceptance.Hardware, Result: acceptance.Warn, Say: acceptance.Say("say.no-fan")}},
	}, box.Certificate.PrivateKey.(crypto.Signer), box.Certificate.Certificate)
	must(w.t, err)
	return data
}

// device asks as a box; "" is a connection that proved nothing.
func (w *world) device(box identity.ID, method, path string, body []byte) *httptest.ResponseRecorder {
	w.t.Helper()
	ctx := w.t.Context()
	if box != "" {
		ctx = WithBox(ctx, box)
	}
	rec := httptest.NewRecorder()
	w.api.Device().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body)))
	return rec
}

// tampered is a sealed report in which somebody else ran the test.
func tampered(t *testing.T, sealed []byte) []byte {
	t.Helper()
	var file map[string]any
	must(t, json.Unmarshal(sealed, &file))
	payload, err := base64.StdEncoding.DecodeString(file["payload"].(string))
	must(t, err)
	file["payload"] = bytes.Replace(payload, []byte("kim"), []byte("tom"), 1)
	out, err := json.Marshal(file)
	must(t, err)
	return out
}

// statusOf is the status of the problem that a client met, 0 for none.
func statusOf(err error) int {
	var problem *fleetapi.Error
	if errors.As(err, &problem) {
		return problem.Status
	}
	return 0
}

func TestAReportIsTakenOnceAndOnlyFromTheBoxThatSignedIt(t *testing.T) {
	const id = "0f1e2d3c4b5a6978"
	w := newWorld(t)
	ca, err := identity.OpenCA(t.TempDir(), nil)
	must(t, err)
	box := w.tested(ca)
	good := w.sealed(box, id, "kim")
	if got := w.device(box.ID, http.MethodPost, acceptance.PathReport, good); got.Code != http.StatusServiceUnavailable {
		t.Errorf("a controller that judges none: %d, want one that lets the box try later", got.Code)
	}
	w.api.opts.Acceptances.Judge = ca.Renewing
	for _, c := range []struct {
		name string
		from identity.ID
		data []byte
		want int
	}{
		{"of another box", w.box("till-4", "a", "amd64"), good, http.StatusBadRequest},
		{"of nobody", "", good, http.StatusUnauthorized},
		{"tampered", box.ID, tampered(t, good), http.StatusBadRequest},
		{"too long", box.ID, bytes.Repeat([]byte(" "), acceptance.MaxBytes+1), http.StatusBadRequest},
		{"good", box.ID, good, http.StatusNoContent},
		{"good, sent again", box.ID, good, http.StatusNoContent},
		{"another of the same id", box.ID, w.sealed(box, id, "somebody else"), http.StatusConflict},
	} {
		if got := w.device(c.from, http.MethodPost, acceptance.PathReport, c.data); got.Code != c.want {
			t.Errorf("%s: %d %s, want %d", c.name, got.Code, got.Body, c.want)
		}
	}
	view := w.client(string(authz.Viewer))
	list, err := view.Acceptances(t.Context(), box.ID)
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].Verdict != acceptance.Remarks || list.Items[0].By != "kim" || !list.Items[0].Received.Equal(testStart) {
		t.Errorf("listed %+v", list.Items)
	}
	whole, err := view.Acceptance(t.Context(), box.ID, id)
	must(t, err)
	if !bytes.Equal(whole.Sealed, good) {
		t.Error("the file that the box signed did not stay as it was")
	}
	page, err := view.AcceptancePage(t.Context(), box.ID, id, "html", "de")
	must(t, err)
	if !strings.Contains(string(page), "Abnahmeprotokoll") {
		t.Errorf("the page in German: %.300s", page)
	}
	if _, err := view.AcceptancePage(t.Context(), box.ID, id, "html", "fr"); statusOf(err) != http.StatusBadRequest {
		t.Errorf("in French: %v", err)
	}
}

func TestABoxIsAskedForATestWithinBounds(t *testing.T) {
	w := newWorld(t)
	w.grant("-tom\u202e", authz.Ops, authz.AllSites)
	var got []wire.DesiredAccept
	w.api.opts.Acceptances.NewID = acceptance.NewID
	w.api.opts.Acceptances.Order = func(_ context.Context, _ identity.ID, order wire.DesiredAccept) error {
		got = append(got, order)
		return nil
	}
	id := w.box("till-3", "a", "amd64")
	start, err := w.client("ops").StartAcceptance(t.Context(), id, fleetapi.StartAcceptance{Levels: []acceptance.Level{acceptance.Load}})
	must(t, err)
	if len(got) != 1 || got[0].ID != start.ID || got[0].LoadSeconds != 600 || got[0].Until != testStart.Add(orderLife).Unix() || got[0].By != "ops" || len(got[0].Levels) != 1 {
		t.Errorf("ordered %+v", got)
	}
	for name, c := range map[string]struct {
		box  identity.ID
		ask  fleetapi.StartAcceptance
		want int
	}{
		"a box that never came": {w.box("till-4", "a", ""), fleetapi.StartAcceptance{}, http.StatusConflict},
		"a model too long":      {id, fleetapi.StartAcceptance{Model: strings.Repeat("盒", 100)}, http.StatusBadRequest},
		"a load too long":       {id, fleetapi.StartAcceptance{LoadSeconds: 86401}, http.StatusUnprocessableEntity},
	} {
		if _, err := w.client("ops").StartAcceptance(t.Context(), c.box, c.ask); statusOf(err) != c.want {
			t.Errorf("%s: %v, want %d", name, err, c.want)
		}
	}
	if len(got) != 1 {
		t.Errorf("%d orders, want one", len(got))
	}
}

func TestAProbeGivesAndTakesWhatItIsAskedFor(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		from   identity.ID
		method string
		query  string
		body   int
		want   int
		bytes  int
	}{
		{"d-aaaaaaaaaaaaa", http.MethodGet, "?bytes=0", 0, 200, 0},
		{"d-aaaaaaaaaaaaa", http.MethodGet, "?bytes=200001", 0, 200, 200001},
		{"d-aaaaaaaaaaaaa", http.MethodGet, "?bytes=16777217", 0, 400, -1},
		{"d-aaaaaaaaaaaaa", http.MethodGet, "?bytes=-1", 0, 400, -1},
		{"d-aaaaaaaaaaaaa", http.MethodGet, "", 0, 400, -1},
		{"", http.MethodGet, "?bytes=9", 0, 401, -1},
		{"d-aaaaaaaaaaaaa", http.MethodPost, "", 200001, 204, 0},
		{"d-aaaaaaaaaaaaa", http.MethodPost, "", acceptance.MaxProbeBytes + 1, 400, -1},
		{"", http.MethodPost, "", 1, 401, -1},
	} {
		got := w.device(c.from, c.method, acceptance.PathProbe+c.query, make([]byte, c.body))
		if got.Code != c.want || c.bytes >= 0 && got.Body.Len() != c.bytes {
			t.Errorf("%q %s%s with %d bytes: %d with %d bytes", c.from, c.method, c.query, c.body, got.Code, got.Body.Len())
		}
	}
}
