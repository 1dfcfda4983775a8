package fleetapi

import (
	"context"
	"net/http"
	"net/url"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// VerifyModel names a version to hash again, or to retire.
type VerifyModel struct {
	Version string `json:"version" maxLength:"63" example:"6.0.0"`
	// Drop removes files that are damaged, so that a push brings them again.
	Drop bool `json:"drop,omitempty"`
}

// FileState says how a stored file stands.
type FileState string

// The states of a stored file.
const (
	FileOK      FileState = "ok"
	FileDamaged FileState = "damaged"
	FileMissing FileState = "missing"
)

// VerifiedModel tells of each file of a version whether it is what was signed.
type VerifiedModel struct {
	models.Ref
	OK    bool           `json:"ok"`
	Files []VerifiedFile `json:"files"`
}

// VerifiedFile is one of them.
type VerifiedFile struct {
	Path      string      `json:"path"`
	Digest    blob.Digest `json:"digest"`
	SizeBytes int64       `json:"size_bytes"`
	State     FileState   `json:"state" enum:"ok,damaged,missing"`
	Why       string      `json:"why,omitempty"`
}

// RetiredModel is a version that is gone.
type RetiredModel struct {
	models.Ref
	FreedBytes int64 `json:"freed_bytes"`
}

// PinModel pins a version of a model, or no more.
type PinModel struct {
	Version string `json:"version" maxLength:"63"`
	Pinned  bool   `json:"pinned"`
}

// PinModel has a version kept, by the controller and by boxes that have it.
func (c *Client) PinModel(ctx context.Context, name string, p PinModel) (ModelVersion, error) {
	return call[ModelVersion](ctx, c, http.MethodPost, "/models/"+url.PathEscape(name)+"/pin", p)
}

// VerifyModel has the controller hash a version again; it may take long.
func (c *Client) VerifyModel(ctx context.Context, name string, v VerifyModel) (VerifiedModel, error) {
	return patiently[VerifiedModel](ctx, c, http.MethodPost, "/models/"+url.PathEscape(name)+"/verify", v)
}

// RetireModel forgets a version that no box runs.
func (c *Client) RetireModel(ctx context.Context, name, version string) (RetiredModel, error) {
	return call[RetiredModel](ctx, c, http.MethodPost, "/models/"+url.PathEscape(name)+"/retire", VerifyModel{Version: version})
}
