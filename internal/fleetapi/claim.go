package fleetapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// MaxPhotoBytes bounds a picture of a box; phones make them smaller.
const MaxPhotoBytes = 200 << 10

// NewClaim agrees to a machine by somebody who stands in front of it. Sent again
// with the same id it changes nothing.
type NewClaim struct {
	ID    string      `json:"id" pattern:"^[0-9a-f]{32}$" doc:"Drawn by whoever claims; names this act"`
	Token string      `json:"token" pattern:"^[A-Z2-7]{8}$" doc:"The id of the token that the machine asked with" example:"7K2M5QXA"`
	Code  string      `json:"code" pattern:"^[0-9]{3}-?[0-9]{3}$" doc:"The code that the machine shows" example:"481-902"`
	Name  string      `json:"name,omitempty" maxLength:"48" doc:"What a new box will be called; of a machine that is in already, ignored"`
	Box   identity.ID `json:"box,omitempty" doc:"The box in whose place the machine comes; empty: a new one"`
	Place string      `json:"place,omitempty" maxLength:"200" doc:"Where it is, in words" example:"stock room, north wall"`
	Photo []byte      `json:"photo,omitempty" doc:"JPEG of at most 200 KiB, base64"`
}

// Claim is a machine that was claimed, and what became of it.
type Claim struct {
	ID    string      `json:"id"`
	State string      `json:"state" enum:"approved,denied,issued,alive" doc:"approved: it hears so when it asks next; issued: it is a box; alive: the box is connected"`
	Token string      `json:"token"`
	Code  string      `json:"code"`
	Site  string      `json:"site"`
	By    string      `json:"by"`
	Made  time.Time   `json:"made"`
	Place string      `json:"place,omitempty"`
	Photo bool        `json:"photo" doc:"There is a picture"`
	Box   identity.ID `json:"box,omitempty" doc:"Once it is issued"`
	Name  string      `json:"name,omitempty" doc:"Once it is issued"`
}

// EnrolToken tells of a token.
func (c *Client) EnrolToken(ctx context.Context, id string) (EnrolToken, error) {
	return call[EnrolToken](ctx, c, http.MethodGet, "/enrolment/tokens/"+url.PathEscape(id), nil)
}

// ClaimMachine agrees to a machine.
func (c *Client) ClaimMachine(ctx context.Context, n NewClaim) (Claim, error) {
	return call[Claim](ctx, c, http.MethodPost, "/claims", n)
}

// Claim tells what became of a claim.
func (c *Client) Claim(ctx context.Context, id string) (Claim, error) {
	return call[Claim](ctx, c, http.MethodGet, "/claims/"+url.PathEscape(id), nil)
}
