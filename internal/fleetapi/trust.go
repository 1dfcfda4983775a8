package fleetapi

import (
	"context"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/internal/trust"
)

// Trust tells what says which versions boxes may run.
type Trust struct {
	// Development: one throw-away key signs everything.
	Development bool `json:"development"`
	// Controller is the key that snapshot, timestamp and desired states are
	// signed with; root and the policy in targets must name it.
	Controller trust.PublicKey `json:"controller" doc:"public key, ed25519: and base64"`
	// Documents are the newest of each role, and those that wait for signatures.
	Documents []TrustDocument `json:"documents"`
}

// TrustDocument is one signed document of the fleet's metadata.
type TrustDocument struct {
	Role    string `json:"role" example:"models-stable"`
	Version int64  `json:"version"`
	// Staged: it waits for signatures and is not in force.
	Staged bool `json:"staged"`
	// Expires is when it ends.
	Expires time.Time `json:"expires"`
	// Document is the document itself.
	Document []byte `json:"document"`
}

// SubmitTrust publishes a signed document.
type SubmitTrust struct {
	Role     string `json:"role" maxLength:"40" example:"models-stable"`
	Document []byte `json:"document,omitempty"`
	// Drop removes the document of the role that waits for signatures.
	Drop bool `json:"drop,omitempty"`
}

// SubmittedTrust tells what became of it.
type SubmittedTrust struct {
	Role    string `json:"role"`
	Version int64  `json:"version"`
	// Missing is how many more people must sign; 0: it is in force.
	Missing int `json:"missing"`
}

// Trust asks what is in force.
func (c *Client) Trust(ctx context.Context) (Trust, error) {
	return call[Trust](ctx, c, http.MethodGet, "/trust", nil)
}

// SubmitTrust publishes a document, or stages it until more people have signed.
func (c *Client) SubmitTrust(ctx context.Context, s SubmitTrust) (SubmittedTrust, error) {
	return call[SubmittedTrust](ctx, c, http.MethodPost, "/trust/documents", s)
}
