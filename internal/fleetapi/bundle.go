package fleetapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// CheckBundle asks whether a version that came in a bundle would be taken.
type CheckBundle struct {
	// Envelope is the signed manifest, or release.
	Envelope []byte `json:"envelope"`
	Release  bool   `json:"release,omitempty"`
}

// CheckedBundle is the version that would be taken.
type CheckedBundle struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Missing are its files that are not here yet.
	Missing []blob.Digest `json:"missing"`
}

// CheckBundle asks whether a version would be taken; an error says why not.
func (c *Client) CheckBundle(ctx context.Context, b CheckBundle) (CheckedBundle, error) {
	return call[CheckedBundle](ctx, c, http.MethodPost, "/bundles:check", b)
}

// ExportBundle writes a bundle, a tar, to w. q has model, release, base and site.
func (c *Client) ExportBundle(ctx context.Context, q url.Values, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/api/v1/bundles:export?"+q.Encode(), nil)
	if err != nil {
		return fmt.Errorf("export bundle: %w", err)
	}
	body, err := c.stream(req, "application/x-tar")
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("the bundle broke off; the log of the controller may say why: %w", err)
	}
	return nil
}

// Unpack sends a pack of size bytes, from which the controller makes the file d.
// base is the file that it builds on; zero: none.
func (c *Client) Unpack(ctx context.Context, d, base blob.Digest, r io.Reader, size int64) error {
	q := url.Values{"packed": {"1"}}
	if !base.IsZero() {
		q.Set("base", base.Hex())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+"/api/v1/blobs/"+d.Hex()+"?"+q.Encode(), io.NopCloser(r))
	if err != nil {
		return fmt.Errorf("upload %s: %w", d.Short(), err)
	}
	req.ContentLength = size
	askFirst(req)
	_, err = c.do(req)
	return err
}
