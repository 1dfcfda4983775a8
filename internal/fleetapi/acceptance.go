package fleetapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Acceptance is one acceptance test of a box, as lists have it.
type Acceptance struct {
	ID        string             `json:"id" example:"0f1e2d3c4b5a6978"`
	Verdict   acceptance.Verdict `json:"verdict" enum:"passed,passed-with-remarks,failed,aborted"`
	Started   time.Time          `json:"started" doc:"by the clock of the box"`
	Ended     time.Time          `json:"ended"`
	Received  time.Time          `json:"received"`
	By        string             `json:"by" doc:"who ran it, as the box says"`
	Delivery  string             `json:"delivery,omitempty" doc:"name of the delivery list"`
	Simulated bool               `json:"simulated" doc:"the board is not real, and so no value is"`
	Levels    []acceptance.Level `json:"levels"`
	Passed    int                `json:"passed"`
	Warned    int                `json:"warned"`
	Failed    int                `json:"failed"`
	Skipped   int                `json:"skipped"`
	// Key is the SHA-256 of the public key that signed, in hexadecimal digits.
	Key string `json:"key"`
}

// AcceptanceList has the newest first.
type AcceptanceList struct {
	Items []Acceptance `json:"items"`
}

// AcceptanceReport is a whole report.
type AcceptanceReport struct {
	Acceptance
	Report acceptance.Report `json:"report"`
	// Sealed is the report as the box signed it.
	Sealed []byte `json:"sealed"`
}

// StartAcceptance asks a box for a test.
type StartAcceptance struct {
	Levels      []acceptance.Level `json:"levels,omitempty" maxItems:"4" enum:"hardware,system,load,operations" doc:"default all"`
	Model       string             `json:"model,omitempty" maxLength:"128" doc:"to load the box with, as name or name:version; default the first that has known samples"`
	LoadSeconds int                `json:"load_seconds,omitempty" minimum:"0" maximum:"86400" doc:"default 600"`
}

// AcceptanceStarted says which report will come.
type AcceptanceStarted struct {
	ID string `json:"id"`
}

func acceptancePath(id identity.ID) string {
	return "/boxes/" + url.PathEscape(string(id)) + "/acceptance"
}

// Acceptances lists the tests of a box.
func (c *Client) Acceptances(ctx context.Context, id identity.ID) (AcceptanceList, error) {
	return call[AcceptanceList](ctx, c, http.MethodGet, acceptancePath(id), nil)
}

// Acceptance returns one report.
func (c *Client) Acceptance(ctx context.Context, id identity.ID, report string) (AcceptanceReport, error) {
	return call[AcceptanceReport](ctx, c, http.MethodGet, acceptancePath(id)+"/"+url.PathEscape(report), nil)
}

// StartAcceptance asks a connected box for a test.
func (c *Client) StartAcceptance(ctx context.Context, id identity.ID, s StartAcceptance) (AcceptanceStarted, error) {
	return call[AcceptanceStarted](ctx, c, http.MethodPost, acceptancePath(id), s)
}

// AcceptancePage returns a report as a file to hand over: form is html or pdf,
// lang one of en, de, pl, zh.
func (c *Client) AcceptancePage(ctx context.Context, id identity.ID, report, form, lang string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/api/v1"+acceptancePath(id)+"/"+url.PathEscape(report)+"/"+form+"?lang="+url.QueryEscape(lang), nil)
	if err != nil {
		return nil, err
	}
	return c.doAs(req, "*/*")
}
