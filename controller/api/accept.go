package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/accept"
	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Acceptances is what the API needs for acceptance tests of boxes.
type Acceptances struct {
	// Judge says whose certificate signed a report; nil: no report is taken.
	Judge func(tls.ConnectionState) (*x509.Certificate, error)
	// Order puts an acceptance test into the desired state of a box; nil: none can
	// be asked for.
	Order func(context.Context, identity.ID, wire.DesiredAccept) error
	// NewID draws the id of a report.
	NewID func() string
}

func (a *API) registerAccept() {
	route(a, get("/boxes/{id}/acceptance", "acceptances", "Acceptance tests of a box, newest first", "acceptance"), a.acceptances)
	route(a, get("/boxes/{id}/acceptance/{report}", "acceptance", "The report of an acceptance test", "acceptance"), a.acceptance)
	start := post("/boxes/{id}/acceptance", "startAcceptance", "Ask a connected box for an acceptance test", "acceptance")
	start.DefaultStatus = http.StatusAccepted
	route(a, start, a.startAcceptance)
	for _, form := range []struct{ name, kind, what string }{
		{"html", "text/html", "The report of an acceptance test as a page"},
		{"pdf", "application/pdf", "The report of an acceptance test to print and hand over"},
	} {
		op := get("/boxes/{id}/acceptance/{report}/"+form.name, "acceptance-"+form.name, form.what, "acceptance")
		op.Parameters = []*huma.Param{
			{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
			{Name: "report", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
			{Name: "lang", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"en", "de", "pl", "zh"}}},
		}
		a.describe(op, http.StatusOK, map[string]*huma.MediaType{form.kind: {Schema: &huma.Schema{Type: huma.TypeString}}})
		a.routes.HandleFunc("GET /api/v1/boxes/{id}/acceptance/{report}/"+form.name, func(w http.ResponseWriter, r *http.Request) {
			if err := a.acceptancePage(w, r, form.name, form.kind); err != nil {
				a.fail(w, r, err)
			}
		})
	}
}

func (a *API) acceptances(ctx context.Context, in *boxInput) (fleetapi.AcceptanceList, error) {
	if _, err := a.opts.Store.SiteOf(ctx, identity.ID(in.ID)); err != nil {
		return fleetapi.AcceptanceList{}, err
	}
	list, err := a.opts.Store.Acceptances(ctx, identity.ID(in.ID))
	return fleetapi.AcceptanceList{Items: append([]fleetapi.Acceptance{}, list...)}, err
}

type acceptanceInput struct {
	ID     string `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
	Report string `path:"report" pattern:"^[0-9a-f]{16}$" example:"0f1e2d3c4b5a6978"`
}

func (a *API) acceptance(ctx context.Context, in *acceptanceInput) (fleetapi.AcceptanceReport, error) {
	kept, err := a.opts.Store.Acceptance(ctx, identity.ID(in.ID), in.Report)
	if err != nil {
		return fleetapi.AcceptanceReport{}, err
	}
	s, err := acceptance.Open(kept.Sealed) // a database is a foreign hand as well
	if err != nil {
		return fleetapi.AcceptanceReport{}, err
	}
	return fleetapi.AcceptanceReport{Acceptance: kept.Summary, Report: s.Report, Sealed: kept.Sealed}, nil
}

func (a *API) acceptancePage(w http.ResponseWriter, r *http.Request, form, kind string) error {
	lang := r.URL.Query().Get("lang")
	if lang == "" {
		lang = accept.English
	}
	if !slices.Contains(accept.Languages(), lang) {
		return badRequest("Use one of en, de, pl, zh.", "there is no language %q", lang)
	}
	report, err := a.acceptance(r.Context(), &acceptanceInput{ID: r.PathValue("id"), Report: r.PathValue("report")})
	if err != nil {
		return err
	}
	render := accept.HTML
	if form == "pdf" {
		render = accept.PDF
	}
	data, err := render(report, lang)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", kind+"; charset=utf-8")
	if form == "pdf" {
		h.Set("Content-Type", kind)
	}
	h.Set("Content-Disposition", fmt.Sprintf("inline; filename=%q", "acceptance-"+report.ID+"-"+lang+"."+form))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(data) // the client went away
	return nil
}

// Until an order is followed, and what it may ask for.
const (
	orderLife   = time.Hour
	defaultLoad = 10 * time.Minute
)

type startAcceptanceInput struct {
	ID   string `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
	Body fleetapi.StartAcceptance
}

func (a *API) startAcceptance(ctx context.Context, in *startAcceptanceInput) (fleetapi.AcceptanceStarted, error) {
	var none fleetapi.AcceptanceStarted
	if a.opts.Acceptances.Order == nil {
		return none, refuse("", "this controller asks no box for an acceptance test")
	}
	box, err := a.getBox(ctx, &boxInput{in.ID})
	if err != nil {
		return none, err
	}
	if box.Link != fleetapi.LinkLive {
		return none, conflict("Run edgeherd-agent accept on the box; its report comes when there is a way.", "%s is not connected", box.Name)
	}
	if len(in.Body.Model) > 128 { // bytes: the box takes no more
		return none, badRequest("", "model: want at most 128 bytes")
	}
	load := time.Duration(in.Body.LoadSeconds) * time.Second
	if load == 0 {
		load = defaultLoad
	}
	order := wire.DesiredAccept{
		ID: a.opts.Acceptances.NewID(), Model: in.Body.Model, LoadSeconds: int(load.Seconds()), By: acceptance.Clean(who(ctx).Name),
		Until: a.opts.WallClock().Add(orderLife).Unix(),
	}
	for _, l := range in.Body.Levels {
		order.Levels = append(order.Levels, string(l))
	}
	audit.Of(ctx).Note = fmt.Sprintf("report %s of %s, load for %s", order.ID, box.Name, load)
	if err := a.opts.Acceptances.Order(ctx, box.ID, order); err != nil {
		return none, err
	}
	return fleetapi.AcceptanceStarted{ID: order.ID}, nil
}

// deviceID is the box that proved itself on the connection of a request.
func deviceID(r *http.Request) (identity.ID, error) {
	if id, known := r.Context().Value(boxKey{}).(identity.ID); known {
		return id, nil
	}
	if r.TLS == nil {
		return "", unauthorized("this door is for boxes", "")
	}
	id, _, err := identity.PeerID(*r.TLS)
	if err != nil {
		return "", unauthorized(err.Error(), "")
	}
	return id, nil
}

// takeAcceptance takes the report that a box sends; sending it again does no harm.
func (a *API) takeAcceptance(w http.ResponseWriter, r *http.Request) {
	if err := a.keepAcceptance(r, http.MaxBytesReader(w, r.Body, acceptance.MaxBytes)); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) keepAcceptance(r *http.Request, body io.Reader) error {
	id, err := deviceID(r)
	if err != nil {
		return err
	}
	if a.opts.Acceptances.Judge == nil {
		return fleetapi.Problem(http.StatusServiceUnavailable, "this controller takes no acceptance reports", "")
	}
	data, err := io.ReadAll(body)
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return badRequest("", "the report is longer than %d bytes", acceptance.MaxBytes)
	case err != nil:
		return fleetapi.Problem(http.StatusRequestTimeout, "the report did not arrive whole", "")
	}
	s, err := accept.Judge(data, id, a.opts.Acceptances.Judge)
	if err != nil {
		return badRequest("", "%s", err)
	}
	added, err := a.opts.Store.KeepAcceptance(r.Context(), id, store.Acceptance{
		Summary: accept.Summary(s, a.opts.WallClock()), Digest: s.Digest[:], Sealed: data,
	})
	if errors.Is(err, store.ErrConflict) {
		return conflict("", "another report %s of this box is stored", s.Report.ID)
	}
	if err == nil && added {
		a.log.Info("acceptance report received", "device", id, "report", s.Report.ID, "verdict", s.Report.Verdict())
		a.opts.Hub.Publish(fleetapi.Change{Topic: "boxes", ID: string(id)})
	}
	return err
}

// probeGet and probePost give and take bytes that mean nothing, so that a box can
// measure its way here.
func (a *API) probeGet(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if _, idErr := deviceID(r); idErr != nil {
		a.fail(w, r, idErr)
		return
	}
	if err != nil || n < 0 || n > acceptance.MaxProbeBytes {
		a.fail(w, r, badRequest("", "bytes: want 0 to %d", acceptance.MaxProbeBytes))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	part := acceptance.Noise(min(n, 64<<10))
	for left := n; left > 0; left -= int64(len(part)) {
		part = part[:min(left, int64(len(part)))]
		if _, err := w.Write(part); err != nil {
			return // the box went away
		}
	}
}

func (a *API) probePost(w http.ResponseWriter, r *http.Request) {
	if _, err := deviceID(r); err != nil {
		a.fail(w, r, err)
		return
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, acceptance.MaxProbeBytes)); err != nil {
		a.fail(w, r, badRequest("", "send at most %d bytes", acceptance.MaxProbeBytes))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
