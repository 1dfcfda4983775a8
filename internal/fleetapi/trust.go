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

// TrustRoles tells how the roles of the fleet's metadata do that boxes look at.
type TrustRoles struct {
	// Development: one throw-away key signs everything, and there are no roles.
	Development bool        `json:"development"`
	Items       []TrustRole `json:"items"`
}

// TrustRole is how one role does, and who can renew it.
type TrustRole struct {
	Role    string    `json:"role" example:"models-stable"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
	Stage   string    `json:"stage" enum:"good,soon,last_week,ended" doc:"how near its end is; soon begins 180 days before it for root, 90 for targets, 30 for other roles"`
	// Need of Keys must sign; Signed did.
	Need   int      `json:"need"`
	Keys   []string `json:"keys" doc:"the first characters of each, as edgeherd trust status writes them"`
	Signed []string `json:"signed"`
	// Waits is how many signatures a next version lacks that was submitted.
	Waits int `json:"waits,omitempty"`
	// Do is the command that renews it, to be given files of keys; none when the
	// controller renews it.
	Do string `json:"do,omitempty"`
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
