package fleetapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// SecretFor says for whom a secret is: one of the three.
type SecretFor struct {
	Box   identity.ID `json:"box,omitempty" maxLength:"15"`
	Site  string      `json:"site,omitempty" maxLength:"200"`
	Label string      `json:"label,omitempty" maxLength:"200" example:"line=a" doc:"of boxes, as k=v"`
}

// SecretAt names a secret.
type SecretAt struct {
	Name string `json:"name" minLength:"1" maxLength:"63" pattern:"^[a-z0-9][a-z0-9._-]*$" example:"camera-3"`
	SecretFor
}

// NewSecret is a secret with its value, which no answer ever holds.
type NewSecret struct {
	SecretAt
	Value []byte `json:"value" minLength:"1" maxLength:"1400" doc:"base64 of at most 1024 bytes"`
}

// Secret is what may be told of one.
type Secret struct {
	SecretAt
	BoxName string `json:"box_name,omitempty"`
	// Boxes counts those that are to have it, Held those of them that follow a
	// desired state with it.
	Boxes   int       `json:"boxes"`
	Held    int       `json:"held"`
	Changed time.Time `json:"changed"`
	By      string    `json:"by"`
	// Lost says that the controller cannot decrypt it any more: it must be set anew
	// before another box, or a box with another key, can have it.
	Lost bool `json:"lost"`
}

// SecretList is sorted by name.
type SecretList struct {
	Items []Secret `json:"items"`
}

// BoxSecret is a secret that a box is to have.
type BoxSecret struct {
	SecretAt
	State string `json:"state" enum:"held,waiting,sealing" doc:"held: the box follows a desired state with it; waiting: the box was not reached; sealing: not sealed to the box's present key yet"`
}

// BoxSecretList is sorted by name.
type BoxSecretList struct {
	Items []BoxSecret `json:"items"`
}

// SecretBox is a box that is to have a secret.
type SecretBox struct {
	Box   identity.ID `json:"box"`
	Name  string      `json:"name"`
	Site  string      `json:"site"`
	State string      `json:"state" enum:"held,waiting,sealing" doc:"as of BoxSecret"`
}

// SecretBoxList is sorted by name.
type SecretBoxList struct {
	Items []SecretBox `json:"items"`
}

// Secrets lists the secrets of the sites that the caller sees.
func (c *Client) Secrets(ctx context.Context) (SecretList, error) {
	return call[SecretList](ctx, c, http.MethodGet, "/secrets", nil)
}

// BoxSecrets lists what one box is to have.
func (c *Client) BoxSecrets(ctx context.Context, id identity.ID) (BoxSecretList, error) {
	return call[BoxSecretList](ctx, c, http.MethodGet, "/boxes/"+url.PathEscape(string(id))+"/secrets", nil)
}

// SecretBoxes lists the boxes that are to have a secret.
func (c *Client) SecretBoxes(ctx context.Context, at SecretAt) (SecretBoxList, error) {
	q := url.Values{"name": {at.Name}}
	for key, target := range map[string]string{"box": string(at.Box), "site": at.Site, "label": at.Label} {
		if target != "" {
			q.Set(key, target)
		}
	}
	return call[SecretBoxList](ctx, c, http.MethodGet, "/secrets:boxes?"+q.Encode(), nil)
}

// SetSecret stores a secret in the place of the one that was there.
func (c *Client) SetSecret(ctx context.Context, s NewSecret) (SecretList, error) {
	return call[SecretList](ctx, c, http.MethodPost, "/secrets", s)
}

// RemoveSecret removes a secret, from the boxes that have it as well.
func (c *Client) RemoveSecret(ctx context.Context, at SecretAt) (SecretList, error) {
	return call[SecretList](ctx, c, http.MethodPost, "/secrets:remove", at)
}
