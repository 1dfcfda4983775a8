package fleetapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// EnrolTerms are what a token is made for.
type EnrolTerms struct {
	Site     string            `json:"site,omitempty" maxLength:"64" doc:"Where the boxes will stand; of a token for a box, its site"`
	Labels   map[string]string `json:"labels,omitempty" doc:"Labels of the boxes"`
	Uses     int               `json:"uses,omitempty" minimum:"0" maximum:"10000" doc:"How many machines may use it; default 1"`
	Approve  string            `json:"approve,omitempty" enum:"auto,manual,rules" doc:"Who agrees to a machine; default rules if there are any, auto for one use, else manual"`
	Serials  []string          `json:"serials,omitempty" maxItems:"10000" doc:"Serial numbers of boards that need nobody's approval"`
	TPMs     []string          `json:"tpms,omitempty" maxItems:"10000" doc:"SHA-256 of endorsement keys that need nobody's approval"`
	From     []string          `json:"from,omitempty" maxItems:"100" doc:"Networks (CIDR) whose machines need nobody's approval"`
	Networks []string          `json:"networks,omitempty" maxItems:"100" doc:"Networks (CIDR) from which alone it may be used"`
	Serial   string            `json:"serial,omitempty" maxLength:"128" doc:"Serial number of the only machine that may use it"`
	Box      identity.ID       `json:"box,omitempty" doc:"The machine takes the place of this box: name, models and history stay"`
}

// NewEnrolToken asks for a token.
type NewEnrolToken struct {
	EnrolTerms
	TTLSeconds float64 `json:"ttl_seconds,omitempty" minimum:"0" doc:"How long it is good; default a day"`
}

// EnrolToken is a token without its secret.
type EnrolToken struct {
	EnrolTerms
	ID       string    `json:"id"`
	Made     time.Time `json:"made"`
	By       string    `json:"by"`
	Expires  time.Time `json:"expires"`
	UsesLeft int       `json:"uses_left"`
	Refused  int       `json:"refused" doc:"Uses that were refused"`
	Off      string    `json:"off,omitempty" doc:"Why it is no longer good"`
}

// EnrolTokenMade is a token with its text, which is told once.
type EnrolTokenMade struct {
	EnrolToken
	Token string `json:"token"`
}

// EnrolTokenList lists tokens.
type EnrolTokenList struct {
	Items []EnrolToken `json:"items"`
}

// EnrolRequest is a machine that asked to be a box.
type EnrolRequest struct {
	ID        string         `json:"id" doc:"Names the key of the machine"`
	State     string         `json:"state" enum:"challenge,pending,approved,denied,issued"`
	ShortCode string         `json:"short_code" doc:"Shown on the machine as well"`
	Site      string         `json:"site"`
	Token     string         `json:"token"`
	Name      string         `json:"name,omitempty" doc:"What it would like to be called"`
	Address   string         `json:"address"`
	Asked     time.Time      `json:"asked"`
	Hardware  enrol.Hardware `json:"hardware"`
	Agent     string         `json:"agent"`
	TPM       string         `json:"tpm,omitempty" doc:"SHA-256 of the endorsement key of its TPM"`
	Proved    bool           `json:"tpm_proved,omitempty" doc:"Its key lives in that TPM"`
	Box       identity.ID    `json:"box,omitempty"`
	By        string         `json:"by,omitempty" doc:"Who decided"`
}

// EnrolRequestList lists machines that asked.
type EnrolRequestList struct {
	Items []EnrolRequest `json:"items"`
}

// EnrolDecision decides about a machine.
type EnrolDecision struct {
	Action string `json:"action" enum:"approve,deny"`
	Name   string `json:"name,omitempty" maxLength:"64" doc:"What the box will be called"`
}

// EnrolFile is a request or an answer that travels as a file.
type EnrolFile struct {
	Data []byte      `json:"data" doc:"The file, base64"`
	Box  identity.ID `json:"box,omitempty"`
	Name string      `json:"name,omitempty"`
}

// IdentityAction changes how a box stands.
type IdentityAction struct {
	Action string `json:"action" enum:"quarantine,release,revoke,retire"`
	Why    string `json:"why,omitempty" maxLength:"500" doc:"Goes into the history of the box"`
	Keep   string `json:"keep,omitempty" maxLength:"64" doc:"release: the serial number of the certificate that alone stays good; default the one that was used last"`
}

// BoxIdentity is how a box stands in the fleet.
type BoxIdentity struct {
	Box          identity.ID       `json:"box"`
	Name         string            `json:"name"`
	Site         string            `json:"site"`
	State        string            `json:"state" enum:"enrolled,active,quarantined,revoked,retired"`
	Since        *time.Time        `json:"since,omitempty"`
	Why          string            `json:"why,omitempty"`
	By           string            `json:"by,omitempty"`
	Generation   int               `json:"generation" doc:"Counts the machines that stood in this place"`
	Labels       map[string]string `json:"labels,omitempty"`
	Hardware     enrol.Hardware    `json:"hardware"`
	Certificates []BoxCertificate  `json:"certificates"`
	History      []IdentityEvent   `json:"history"`
}

// BoxCertificate is a certificate of a box.
type BoxCertificate struct {
	Serial  string    `json:"serial"`
	State   string    `json:"state" enum:"pending,current,superseded,dead"`
	Changed time.Time `json:"changed"`
	Ends    time.Time `json:"ends"`
	Address string    `json:"address,omitempty" doc:"From where it was first used"`
}

// IdentityEvent is something that happened to the identity of a box.
type IdentityEvent struct {
	Time  time.Time `json:"time"`
	State string    `json:"state"`
	By    string    `json:"by"`
	Text  string    `json:"text"`
}

// NewEnrolToken makes a token.
func (c *Client) NewEnrolToken(ctx context.Context, t NewEnrolToken) (EnrolTokenMade, error) {
	return call[EnrolTokenMade](ctx, c, http.MethodPost, "/enrolment/tokens", t)
}

// EnrolTokens lists tokens.
func (c *Client) EnrolTokens(ctx context.Context) (EnrolTokenList, error) {
	return call[EnrolTokenList](ctx, c, http.MethodGet, "/enrolment/tokens", nil)
}

// RevokeEnrolToken makes a token good for nothing more.
func (c *Client) RevokeEnrolToken(ctx context.Context, id string) (EnrolToken, error) {
	return call[EnrolToken](ctx, c, http.MethodDelete, "/enrolment/tokens/"+url.PathEscape(id), nil)
}

// EnrolRequests lists machines that asked, in a state or all.
func (c *Client) EnrolRequests(ctx context.Context, state string) (EnrolRequestList, error) {
	return call[EnrolRequestList](ctx, c, http.MethodGet, "/enrolment/requests?state="+url.QueryEscape(state), nil)
}

// DecideEnrol decides about a machine, by its id or its short code.
func (c *Client) DecideEnrol(ctx context.Context, word string, d EnrolDecision) (EnrolRequest, error) {
	return call[EnrolRequest](ctx, c, http.MethodPost, "/enrolment/requests/"+url.PathEscape(word)+"/actions", d)
}

// SignEnrol answers the file of a request.
func (c *Client) SignEnrol(ctx context.Context, file []byte) (EnrolFile, error) {
	return call[EnrolFile](ctx, c, http.MethodPost, "/enrolment/files", EnrolFile{Data: file})
}

// Identity tells how a box stands.
func (c *Client) Identity(ctx context.Context, id identity.ID) (BoxIdentity, error) {
	return call[BoxIdentity](ctx, c, http.MethodGet, "/boxes/"+url.PathEscape(string(id))+"/identity", nil)
}

// ChangeIdentity changes how a box stands.
func (c *Client) ChangeIdentity(ctx context.Context, id identity.ID, a IdentityAction) (BoxIdentity, error) {
	return call[BoxIdentity](ctx, c, http.MethodPost, "/boxes/"+url.PathEscape(string(id))+"/identity/actions", a)
}
